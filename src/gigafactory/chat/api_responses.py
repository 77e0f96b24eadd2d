"""POST /v1/responses and its saved answers, as OpenAI's."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from gigafactory.chat.answer import Citation, Cost
from gigafactory.chat.api_asking import Desk, begin, extras, links, sampling
from gigafactory.chat.api_chat import EVENT_STREAM
from gigafactory.chat.api_errors import ApiError, bad
from gigafactory.chat.api_requests import Message as Turn
from gigafactory.chat.api_requests import ResponsesRequest, question_of, read_request
from gigafactory.chat.sampling import Piece
from gigafactory.chat.saved import Kept
from gigafactory.chat.service import GROUNDED, Asking, TextModel
from gigafactory.chat.text import Message, message
from gigafactory.errors import UserError

Json = dict[str, Any]


def router(desk: Desk) -> APIRouter:
    routes = APIRouter()

    @routes.post("/v1/responses")
    async def create(request: Request) -> Response:
        wanted = read_request(ResponsesRequest, await request.body())
        model = desk.model(wanted.model)
        turns = wanted.turns()
        question = question_of(turns, "input")
        if (wanted.text or {}).get("format", {"type": "text"}) != {"type": "text"}:
            raise bad("text.format: must be text", "text.format")
        filters = wanted.filters()
        asking = await desk.asking(request, wanted, wanted.store is not False, wanted.previous_response_id)
        reply = _Reply(wanted, asking, desk.service.real())
        if model is not None:
            if wanted.previous_response_id:
                turns = await _with_history(desk, asking, turns)
            how = sampling(wanted, desk.service.section.answer.max_tokens, wanted.max_output_tokens)
            pieces = await begin(model, turns, how)
            if wanted.stream:
                return StreamingResponse(_free(desk, reply, model, question, pieces, asking), media_type=EVENT_STREAM)
            text, finish, cost = "", "stop", Cost()
            async for piece in pieces:
                text, finish = text + piece.text, piece.finish or finish
                cost = Cost(0, piece.prompt_tokens, piece.output_tokens)
            kept = await desk.look(desk.service.wrote, model.name, question, text, cost, asking)
            return JSONResponse(reply.done(kept, Message((text,), ()), [], finish))
        if wanted.stream:
            asked = desk.ask(desk.service.answer, question, filters, asking)
            return StreamingResponse(_grounded(reply, await asked, links(request)), media_type=EVENT_STREAM)
        kept = await desk.ask(desk.service.answer, question, filters, asking)
        return JSONResponse(shown_response(kept, links(request), reply))

    @routes.get("/v1/responses/{id}")
    async def retrieve(id: str, request: Request) -> Response:
        kept = await desk.look(desk.service.saved.get, id.removeprefix("resp_"), request.state.owner)
        if kept is None:
            raise ApiError(404, f"there is no response {id[:64]!r}", param="response_id")
        return JSONResponse(shown_response(kept, links(request)))

    @routes.delete("/v1/responses/{id}")
    async def delete(id: str, request: Request) -> Response:
        if not await desk.look(desk.service.saved.delete, id.removeprefix("resp_"), request.state.owner):
            raise ApiError(404, f"there is no response {id[:64]!r}", param="response_id")
        return JSONResponse({"id": id, "object": "response.deleted", "deleted": True})

    return routes


def shown_response(kept: Kept, link: Callable[[Citation], str], reply: _Reply | None = None) -> Json:
    """The Response object of a kept answer, as it may be shown now."""
    if reply is None:
        request = ResponsesRequest(model=kept.model, input=[Turn()], metadata=dict(kept.metadata))
        reply = _Reply(request, Asking(kept.owner, kept.conversation, id=kept.id), kept.asked_at)
    if kept.model != GROUNDED:
        return reply.done(kept, Message((kept.answer.text,), ()), [], "stop")
    shown = message(kept.answer, link, kept.touched)
    return reply.done(kept, shown, notes_of(shown, link), "stop")


def notes_of(shown: Message, link: Callable[[Citation], str]) -> list[Json]:
    """The marks of a text in the form of responses; indices count characters of the text."""
    return [
        {
            "type": "url_citation",
            "start_index": mark.start,
            "end_index": mark.end,
            "title": f"@{mark.citation.author}",
            "url": link(mark.citation),
        }
        for mark in shown.marks
    ]


class _Reply:
    """The Response object as it grows."""

    def __init__(self, wanted: ResponsesRequest, asking: Asking, created_at: float) -> None:
        self.item = f"msg_{asking.id}"
        self.base: Json = {
            "id": f"resp_{asking.id}",
            "object": "response",
            "created_at": created_at,
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "instructions": wanted.instructions,
            "max_output_tokens": wanted.max_output_tokens,
            "metadata": wanted.metadata or {},
            "model": wanted.model,
            "output": [],
            "parallel_tool_calls": False,
            "previous_response_id": wanted.previous_response_id,
            "store": asking.keep,
            "temperature": wanted.temperature,
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": wanted.tools or [],
            "top_p": wanted.top_p,
            "truncation": "disabled",
            "usage": None,
            "conversation": {"id": asking.conversation},
        }

    def message(self, status: str, content: list[Json]) -> Json:
        return {"id": self.item, "type": "message", "role": "assistant", "status": status, "content": content}

    def done(self, kept: Kept, shown: Message, notes: list[Json], finish: str) -> Json:
        cut = finish == "length"
        cost = kept.answer.cost
        return {
            **self.base,
            "status": "incomplete" if cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "model": kept.model,
            "output": [self.message("incomplete" if cut else "completed", [part(shown.text, notes)])],
            "usage": {
                "input_tokens": cost.prompt_tokens,
                "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                "output_tokens": cost.output_tokens,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": cost.prompt_tokens + cost.output_tokens,
            },
            **extras(kept),
        }


def part(text: str, notes: list[Json]) -> Json:
    return {"type": "output_text", "text": text, "annotations": notes, "logprobs": []}


class _Events:
    """Server-sent events with their running number."""

    def __init__(self, item: str) -> None:
        self.number = 0
        self.place = {"item_id": item, "output_index": 0, "content_index": 0}

    def __call__(self, kind: str, **fields: Any) -> bytes:
        data = {"type": kind, "sequence_number": self.number, **fields}
        self.number += 1
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        return f"event: {kind}\ndata: {text}\n\n".encode()

    def begin(self, reply: _Reply) -> Iterator[bytes]:
        yield self("response.created", response=reply.base)
        yield self("response.in_progress", response=reply.base)
        yield self("response.output_item.added", output_index=0, item=reply.message("in_progress", []))
        yield self("response.content_part.added", **self.place, part=part("", []))

    def delta(self, text: str) -> bytes:
        return self("response.output_text.delta", **self.place, delta=text, logprobs=[])

    def end(self, reply: _Reply, kept: Kept, shown: Message, notes: list[Json], finish: str) -> Iterator[bytes]:
        for index, note in enumerate(notes):
            yield self("response.output_text.annotation.added", **self.place, annotation_index=index, annotation=note)
        whole = reply.done(kept, shown, notes, finish)
        yield self("response.output_text.done", **self.place, text=shown.text, logprobs=[])
        yield self("response.content_part.done", **self.place, part=part(shown.text, notes))
        yield self("response.output_item.done", output_index=0, item=whole["output"][0])
        yield self("response.incomplete" if finish == "length" else "response.completed", response=whole)


async def _grounded(reply: _Reply, kept: Kept, link: Callable[[Citation], str]) -> AsyncIterator[bytes]:
    """A sentence an event: nothing is sent before all of it is verified."""
    events, shown = _Events(reply.item), message(kept.answer, link)
    for data in events.begin(reply):
        yield data
    for piece in shown.pieces:
        yield events.delta(piece)
    for data in events.end(reply, kept, shown, notes_of(shown, link), "stop"):
        yield data


async def _free(
    desk: Desk, reply: _Reply, model: TextModel, question: str, pieces: AsyncIterator[Piece], asking: Asking
) -> AsyncIterator[bytes]:
    """A model's own text, as it is written."""
    events, text, finish, cost = _Events(reply.item), "", "stop", Cost()
    for data in events.begin(reply):
        yield data
    try:
        async for piece in pieces:
            text, finish = text + piece.text, piece.finish or finish
            cost = Cost(0, piece.prompt_tokens, piece.output_tokens)
            if piece.text:
                yield events.delta(piece.text)
    except UserError as error:  # the model was closed while it wrote
        yield events("error", code="server_error", message=str(error), param=None)
        return
    kept = await desk.look(desk.service.wrote, model.name, question, text, cost, asking)
    for data in events.end(reply, kept, Message((text,), ()), [], finish):
        yield data


async def _with_history(desk: Desk, asking: Asking, turns: list[dict[str, str]]) -> list[dict[str, str]]:
    """The conversation so far before the new turns."""
    before = await desk.look(desk.service.saved.conversation, asking.conversation, asking.owner)
    history: list[dict[str, str]] = []
    for kept in before:
        history.append({"role": "user", "content": kept.answer.question})
        history.append({"role": "assistant", "content": kept.answer.text})
    system = [turn for turn in turns if turn["role"] == "system"]
    return [*system, *history, *(turn for turn in turns if turn["role"] != "system")]
