"""What clients may send: the fields of OpenAI's two APIs that mean something here, and Grok's x_search.

Unknown fields are ignored, as OpenAI's clients send many; those that would change the answer and that we cannot obey
are refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, StringConstraints, ValidationError
from pydantic_core import from_json

from gigafactory.chat.api_errors import bad
from gigafactory.chat.filters import Filters, handles, moment, window, zone_of

LONGEST_QUESTION = 4000  # characters
Name = Annotated[str, StringConstraints(max_length=256)]


class XSearch(BaseModel):
    """tools=[{"type": "x_search", ...}]: dates are YYYY-MM-DD or times, both ends included; handles without "@"."""

    type: Literal["x_search"]
    from_date: Name | None = None
    to_date: Name | None = None
    allowed_x_handles: list[Name] = []
    excluded_x_handles: list[Name] = []


class Part(BaseModel):
    """A piece of a message; only text is read."""

    type: Name = "text"
    text: str | None = None


def _parts(content: Any) -> Any:
    return [{"text": content}] if isinstance(content, str) else [] if content is None else content


class Message(BaseModel):
    type: Name = "message"
    role: Name = "user"
    content: Annotated[list[Part], BeforeValidator(_parts)] = []

    def text(self, param: str) -> str:
        for index, part in enumerate(self.content):
            if part.type not in ("text", "input_text", "output_text"):
                raise bad(f"{param}.content[{index}].type: must be text, got {part.type!r}", param)
        return "".join(part.text or "" for part in self.content)


def _id(conversation: Any) -> Any:
    return conversation.get("id") if isinstance(conversation, dict) else conversation


class Common(BaseModel):
    """Fields of both APIs. sources, timezone, as_of and conversation are ours (extra_body of the openai package)."""

    model: Name = "grok"
    stream: bool | None = False
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    store: bool | None = None
    metadata: dict[Annotated[str, StringConstraints(max_length=64)], Annotated[str, Field(max_length=512)]] | None = (
        Field(None, max_length=16)
    )
    tools: list[dict[str, Any]] | None = Field(None, max_length=16)
    sources: list[Name] | None = Field(None, max_length=100)
    timezone: Name = "UTC"
    as_of: float | Name | None = None
    conversation: Annotated[Name | None, BeforeValidator(_id)] = None

    def filters(self) -> Filters:
        tools = self.tools or []
        for index, tool in enumerate(tools):
            if tool.get("type") != "x_search":
                raise bad(f"tools[{index}].type: must be x_search, got {str(tool.get('type'))[:64]!r}", "tools")
        if len(tools) > 1:
            raise bad(f"tools: must be one x_search, got {len(tools)}", "tools")
        search = checked(XSearch, tools[0], "tools[0]") if tools else XSearch(type="x_search")
        if search.allowed_x_handles and search.excluded_x_handles:
            raise bad("tools[0]: allowed_x_handles and excluded_x_handles exclude each other", "tools")
        try:
            zone_of(self.timezone)
            return Filters(
                window(search.from_date, search.to_date),
                handles(search.allowed_x_handles, "allowed_x_handles"),
                handles(search.excluded_x_handles, "excluded_x_handles"),
                tuple(self.sources or ()),
                self.timezone,
                None if self.as_of is None else moment(self.as_of, "as_of"),
            )
        except ValueError as error:
            raise bad(str(error), str(error).partition(":")[0]) from None


class StreamOptions(BaseModel):
    include_usage: bool | None = False


def _texts(stop: Any) -> Any:
    return [stop] if isinstance(stop, str) else [] if stop is None else stop


class ChatRequest(Common):
    """POST /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1, max_length=1000)
    n: int | None = Field(1, ge=1, le=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    stop: Annotated[list[Name], Field(max_length=4), BeforeValidator(_texts)] = []
    seed: int | None = Field(None, ge=0, lt=2**32)
    stream_options: StreamOptions | None = None
    logprobs: Literal[False] | None = None
    response_format: dict[str, Any] | None = None

    def turns(self) -> list[dict[str, str]]:
        return [{"role": m.role, "content": m.text(f"messages[{i}]")} for i, m in enumerate(self.messages)]


def _messages(input: Any) -> Any:
    return [{"content": input}] if isinstance(input, str) else input


class ResponsesRequest(Common):
    """POST /v1/responses."""

    input: Annotated[list[Message], Field(min_length=1, max_length=1000), BeforeValidator(_messages)]
    instructions: str | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    previous_response_id: Name | None = None
    background: Literal[False] | None = None
    text: dict[str, Any] | None = None

    def turns(self) -> list[dict[str, str]]:
        before = [{"role": "system", "content": self.instructions}] if self.instructions else []
        for index, item in enumerate(self.input):
            if item.type != "message":
                raise bad(f"input[{index}].type: must be message, got {item.type!r}", "input")
        return [*before, *({"role": m.role, "content": m.text(f"input[{i}]")} for i, m in enumerate(self.input))]


Model = TypeVar("Model", bound=BaseModel)


def read_request(model: type[Model], body: bytes) -> Model:
    """The request, or the ApiError 400 that names the field. No input makes this slow, deep or large."""
    try:
        raw = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise bad(f"the body is not valid JSON: {error}", code="invalid_json") from None
    if not isinstance(raw, dict):
        raise bad("the body must be a JSON object", code="invalid_json")
    return checked(model, raw)


def checked(model: type[Model], raw: dict[str, Any], at: str = "") -> Model:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"] if part not in ("float", "constrained-str"))
        field = ".".join(part for part in (at, place) if part)
        raise bad(f"{field}: {first['msg']}", field, first["type"]) from None


def question_of(turns: list[dict[str, str]], param: str) -> str:
    """The last message, which must be the user's."""
    last = turns[-1]
    if last["role"] != "user":
        raise bad(f"{param}: the last message must be the user's, got role {last['role'][:64]!r}", param)
    question = last["content"].strip()
    if not question:
        raise bad(f"{param}: the question is empty", param)
    if len(question) > LONGEST_QUESTION:
        message = f"{param}: a question must be at most {LONGEST_QUESTION} characters, got {len(question)}"
        raise bad(message, param, "context_length_exceeded")
    return question
