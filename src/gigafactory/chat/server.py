"""The HTTP server: the OpenAI-compatible API and the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gigafactory.chat.service import Service

if TYPE_CHECKING:
    from fastapi import FastAPI


def build_app(service: Service, keys: tuple[str, ...] = (), port: int | None = None) -> FastAPI:
    """The app: /v1/models, /v1/chat/completions, /v1/responses, /v1/answers, /v1/conversations, /status, /health and
    the page at /. keys: API keys, none asks for none. port: of the Host header on loopback; None allows any."""
    raise NotImplementedError


async def serve(service: Service, keys: tuple[str, ...] = ()) -> None:
    """Listen as the factory file says until cancelled; every answer given is saved when it returns."""
    raise NotImplementedError
