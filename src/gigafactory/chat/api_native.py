"""What is ours: models, saved answers and conversations, the state of a post, status, health."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from gigafactory.chat.api_asking import Desk
from gigafactory.chat.api_errors import ApiError
from gigafactory.chat.service import GROUNDED
from gigafactory.chat.text import iso, web_link
from gigafactory.chat.wire import conversation_json, kept_json


def router(desk: Desk) -> APIRouter:
    routes, service = APIRouter(), desk.service
    began = int(service.real())

    def model(name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": began, "owned_by": "gigafactory"}

    @routes.get("/health")
    async def health() -> Response:
        return JSONResponse({"status": "ok"})

    @routes.get("/status")
    async def status() -> Response:
        return JSONResponse(await desk.look(service.status))

    @routes.get("/v1/models")
    async def models() -> Response:
        return JSONResponse({"object": "list", "data": [model(name) for name in (GROUNDED, *service.models)]})

    @routes.get("/v1/models/{name:path}")
    async def one_model(name: str) -> Response:
        found = desk.model(name)
        return JSONResponse(model(GROUNDED if found is None else found.name))

    @routes.get("/v1/answers/{id}")
    async def answer(id: str, request: Request) -> Response:
        kept = await desk.look(
            service.saved.get, id.removeprefix("resp_").removeprefix("chatcmpl-"), request.state.owner
        )
        if kept is None:
            raise ApiError(404, f"there is no answer {id[:64]!r}")
        return JSONResponse(kept_json(kept))

    @routes.get("/v1/conversations")
    async def conversations(request: Request) -> Response:
        found = await desk.look(service.saved.conversations, request.state.owner)
        return JSONResponse({"object": "list", "data": [conversation_json(one) for one in found]})

    @routes.get("/v1/conversations/{id}")
    async def conversation(id: str, request: Request) -> Response:
        found = await desk.look(service.saved.conversation, id, request.state.owner)
        if not found:
            raise ApiError(404, f"there is no conversation {id[:64]!r}")
        return JSONResponse({"id": id, "object": "conversation", "answers": [kept_json(kept) for kept in found]})

    @routes.delete("/v1/conversations/{id}")
    async def delete(id: str, request: Request) -> Response:
        if not await desk.look(service.saved.delete_conversation, id, request.state.owner):
            raise ApiError(404, f"there is no conversation {id[:64]!r}")
        return JSONResponse({"id": id, "object": "conversation.deleted", "deleted": True})

    @routes.get("/v1/posts/{source}/{id:path}")
    async def post(source: str, id: str) -> Response:
        """A post as it is now: where citations lead whose source has no page of its own."""
        found, gone = await desk.look(lambda: (service.store.get(source, id), service.store.gone(source, id)))
        if found is None:
            why = f"is gone: {gone.reason} at {iso(gone.at)}" if gone else "is not here"
            raise ApiError(404, f"post {id[:64]!r} of {source[:64]!r} {why}")
        fields = {"source": found.source, "id": found.id, "rev": found.rev, "author": found.author, "text": found.text}
        fields |= {"created_at": iso(found.created_at), "url": web_link(found.url)}
        return JSONResponse({"object": "post", **fields})

    return routes
