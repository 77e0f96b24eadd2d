"""What both APIs share: whom to ask, how many at once, and the fields that OpenAI's form does not have."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import quote

from fastapi import Request

from gigafactory.chat.answer import Citation
from gigafactory.chat.api_errors import ApiError, bad, busy
from gigafactory.chat.api_requests import Common
from gigafactory.chat.sampling import BusyError, Piece, Sampling
from gigafactory.chat.saved import Kept
from gigafactory.chat.service import GROUNDED, Asking, Service, TextModel
from gigafactory.chat.text import web_link
from gigafactory.chat.wire import answer_json
from gigafactory.errors import UserError

AT_ONCE = 8  # questions answered at the same time; a writer may take its whole timeout_s for each
WAITING = 64  # more are refused
T = TypeVar("T")


class Desk:
    """The service, with a bounded number of threads before it."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._threads = ThreadPoolExecutor(AT_ONCE, "ask")
        self._side = ThreadPoolExecutor(2, "side")  # status and saved answers do not wait behind questions
        self._asking = 0

    async def ask(self, work: Callable[..., T], *arguments: Any) -> T:
        """In a thread. Raises ApiError 503 where too many wait, 400 for a ValueError."""
        if self._asking >= AT_ONCE + WAITING:
            raise busy()
        self._asking += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)
        except ValueError as error:
            raise bad(str(error), str(error).partition(":")[0]) from None
        finally:
            self._asking -= 1

    async def look(self, work: Callable[..., T], *arguments: Any) -> T:
        """As `ask`, for what is quick."""
        return await asyncio.get_running_loop().run_in_executor(self._side, work, *arguments)

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._side.shutdown(wait=True, cancel_futures=True)

    def model(self, name: str) -> TextModel | None:
        """None: the grounded answers, whose names are "grok" and whatever begins with it."""
        if name in self.service.models:
            return self.service.models[name]
        if name == GROUNDED or name.startswith(GROUNDED + "-"):
            return None
        names = ", ".join((GROUNDED, *self.service.models))
        message = f"model: there is no {name[:64]!r}; there are: {names}"
        raise ApiError(404, message, param="model", code="model_not_found")

    async def asking(self, request: Request, wanted: Common, keep: bool, previous: str | None = None) -> Asking:
        """The papers of a question; 404 for a conversation or an answer that is not the asker's or not there."""
        owner, conversation = request.state.owner, wanted.conversation or ""
        papers = Asking(owner, keep=keep, metadata=wanted.metadata or {})
        if conversation and not await self.look(self.service.saved.conversation, conversation, owner):
            raise ApiError(404, f"conversation: there is no {conversation!r}", param="conversation")
        if previous is not None:
            before = await self.look(self.service.saved.get, previous.removeprefix("resp_"), owner)
            if before is None:
                raise ApiError(404, f"previous_response_id: no {previous!r}", param="previous_response_id")
            conversation = before.conversation
        return replace(papers, conversation=conversation) if conversation else papers


def links(request: Request) -> Callable[[Citation], str]:
    """Where a reader finds a post: at its source, else in our own store."""
    base = str(request.base_url).rstrip("/")

    def link(citation: Citation) -> str:
        own = f"{base}/v1/posts/{quote(citation.source, safe='')}/{quote(citation.id, safe='')}"
        return web_link(citation.url) or own

    return link


def extras(kept: Kept) -> dict[str, Any]:
    """The fields of ours beside OpenAI's: grounded, claims, as_of, freshness_ms, cost, ..."""
    fields = answer_json(kept.answer)
    del fields["text"]
    del fields["question"]
    shown = [*(c for claim in kept.answer.claims for c in claim.citations), *kept.answer.nearest]
    urls = dict.fromkeys(web_link(citation.url) for citation in shown)
    return {**fields, "answer_id": kept.id, "citations": [url for url in urls if url]}


def sampling(
    wanted: Common, longest: int, most: int | None, stop: Sequence[str] = (), seed: int | None = None
) -> Sampling:
    """How a model writes for this request; without a seed it writes something else every time."""
    temperature = 1.0 if wanted.temperature is None else wanted.temperature
    return Sampling(
        max_tokens=min(most or longest, longest),
        temperature=temperature,
        top_p=wanted.top_p or 1.0,
        seed=secrets.randbelow(2**31) if seed is None else seed,
        stop=tuple(stop),
    )


async def begin(model: TextModel, turns: list[dict[str, str]], how: Sampling) -> AsyncGenerator[Piece]:
    """The pieces of a model's text, the first one already there: what is wrong is known before anything is sent."""
    for index, turn in enumerate(turns):
        if turn["role"] not in ("system", "developer", "user", "assistant"):
            raise bad(f"messages[{index}].role: must be system, user or assistant, got {turn['role'][:64]!r}", "role")
    try:
        pieces = model.astream(turns, how)
        first = await anext(pieces, None)
    except BusyError:
        raise busy() from None
    except UserError as error:
        raise bad(str(error), code="context_length_exceeded" if "context" in str(error) else None) from None

    async def all_pieces() -> AsyncGenerator[Piece]:
        async with aclosing(pieces):  # a client that leaves ends the writing
            if first is not None:
                yield first
            async for piece in pieces:
                yield piece

    return all_pieces()
