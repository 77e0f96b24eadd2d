"""POST /v1/chat/completions, as OpenAI's."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from gigafactory.chat.answer import Citation, Cost
from gigafactory.chat.api_asking import Desk, begin, extras, links, sampling
from gigafactory.chat.api_errors import ApiError, bad
from gigafactory.chat.api_requests import ChatRequest, question_of, read_request
from gigafactory.chat.sampling import Piece
from gigafactory.chat.saved import Kept
from gigafactory.chat.service import GROUNDED, Asking, TextModel
from gigafactory.chat.text import Message, message
from gigafactory.errors import UserError

Json = dict[str, Any]
EVENT_STREAM = "text/event-stream; charset=utf-8"


def router(desk: Desk) -> APIRouter:
    routes = APIRouter()

    @routes.post("/v1/chat/completions")
    async def complete(request: Request) -> Response:
        wanted = read_request(ChatRequest, await request.body())
        model = desk.model(wanted.model)
        turns = wanted.turns()
        question = question_of(turns, "messages")
        if (wanted.response_format or {"type": "text"}).get("type") != "text":
            raise bad("response_format: must be text", "response_format")
        asking = await desk.asking(request, wanted, keep=bool(wanted.store))
        if model is not None:
            most = wanted.max_completion_tokens or wanted.max_tokens
            how = sampling(wanted, desk.service.section.answer.max_tokens, most, wanted.stop, wanted.seed)
            pieces = await begin(model, turns, how)
            written = _Written(desk, model, question, asking)
            if wanted.stream:
                return StreamingResponse(_free_stream(written, pieces, wanted), media_type=EVENT_STREAM)
            async for piece in pieces:
                written.add(piece)
            return JSONResponse(_whole(await written.kept(), model.name, written.text, [], written.finish))
        kept = await desk.ask(desk.service.answer, question, wanted.filters(), asking)
        shown = message(kept.answer, links(request))
        if wanted.stream:
            return StreamingResponse(_grounded_stream(kept, shown, links(request), wanted), media_type=EVENT_STREAM)
        return JSONResponse(_whole(kept, GROUNDED, shown.text, notes_of(shown, links(request)), "stop"))

    return routes


class _Written:
    """What a model has written so far, and what is kept of it in the end."""

    def __init__(self, desk: Desk, model: TextModel, question: str, asking: Asking) -> None:
        self.desk, self.model, self.question, self.asking = desk, model, question, asking
        self.text, self.finish, self.cost = "", "stop", Cost()

    def add(self, piece: Piece) -> None:
        self.text += piece.text
        if piece.finish:
            self.finish = piece.finish
            self.cost = Cost(0, piece.prompt_tokens, piece.output_tokens)

    async def kept(self) -> Kept:
        wrote = self.desk.service.wrote
        return await self.desk.look(wrote, self.model.name, self.question, self.text, self.cost, self.asking)


def notes_of(shown: Message, link: Callable[[Citation], str]) -> list[Json]:
    """The marks of a text in the form of chat completions; indices count characters of the text."""
    return [
        {
            "type": "url_citation",
            "url_citation": {
                "start_index": mark.start,
                "end_index": mark.end,
                "title": f"@{mark.citation.author}",
                "url": link(mark.citation),
            },
        }
        for mark in shown.marks
    ]


def usage(kept: Kept) -> Json:
    cost = kept.answer.cost
    return {
        "prompt_tokens": cost.prompt_tokens,
        "completion_tokens": cost.output_tokens,
        "total_tokens": cost.prompt_tokens + cost.output_tokens,
    }


def event(data: Json | str) -> bytes:
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return f"data: {text}\n\n".encode()


def _whole(kept: Kept, model: str, text: str, notes: list[Json], finish: str) -> Json:
    said = {"role": "assistant", "content": text, "refusal": None, "annotations": notes}
    return {
        "id": f"chatcmpl-{kept.id}",
        "object": "chat.completion",
        "created": int(kept.asked_at),
        "model": model,
        "choices": [{"index": 0, "message": said, "finish_reason": finish, "logprobs": None}],
        "usage": usage(kept),
        "conversation": kept.conversation,
        **extras(kept),
    }


def _chunk(id: str, created: float, model: str, delta: Json, finish: str | None = None) -> Json:
    return {
        "id": f"chatcmpl-{id}",
        "object": "chat.completion.chunk",
        "created": int(created),
        "model": model,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}],
    }


def _end(kept: Kept, model: str, finish: str, delta: Json, wanted: ChatRequest) -> list[bytes]:
    last = _chunk(kept.id, kept.asked_at, model, delta, finish)
    events = [event(last | {"conversation": kept.conversation} | extras(kept))]
    if wanted.stream_options and wanted.stream_options.include_usage:
        events.append(event(_chunk(kept.id, kept.asked_at, model, {}) | {"choices": [], "usage": usage(kept)}))
    return [*events, event("[DONE]")]


async def _grounded_stream(
    kept: Kept, shown: Message, link: Callable[[Citation], str], wanted: ChatRequest
) -> AsyncIterator[bytes]:
    """A sentence a chunk; the last one has the annotations and our fields."""
    yield event(_chunk(kept.id, kept.asked_at, GROUNDED, {"role": "assistant", "content": ""}))
    for piece in shown.pieces:
        yield event(_chunk(kept.id, kept.asked_at, GROUNDED, {"content": piece}))
    for part in _end(kept, GROUNDED, "stop", {"annotations": notes_of(shown, link)}, wanted):
        yield part


async def _free_stream(written: _Written, pieces: AsyncIterator[Piece], wanted: ChatRequest) -> AsyncIterator[bytes]:
    name, created = written.model.name, written.desk.service.real()
    id = written.asking.id
    yield event(_chunk(id, created, name, {"role": "assistant", "content": ""}))
    try:
        async for piece in pieces:
            written.add(piece)
            if piece.text:
                yield event(_chunk(id, created, name, {"content": piece.text}))
        kept = await written.kept()
    except UserError as error:  # the model was closed while it wrote
        yield event(ApiError(503, str(error)).body())
        return
    for part in _end(kept, name, written.finish, {}, wanted):
        yield part
