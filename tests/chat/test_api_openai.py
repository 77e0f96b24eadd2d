"""The API as the official openai package sees it: both forms, streamed and whole, blocking and async, and errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path

import openai
import pytest
from chat_store import make_service, post
from serving import served

from gigafactory.chat.sampling import BusyError, Piece, Sampling
from gigafactory.chat.service import Service
from gigafactory.errors import UserError
from gigafactory.factory.chat import ChatSection, ServerSection

BRIDGE = "@alice: The harbour bridge is closed until Friday"


class Parrot:
    """A model that says the last message again, word by word."""

    name = "parrot"
    closed = 0

    async def astream(self, messages: Sequence[Mapping[str, str]], sampling: Sampling) -> AsyncIterator[Piece]:
        words = messages[-1]["content"].split()
        if words[0] == "full":
            raise BusyError("full")
        if words[0] == "long":
            raise UserError("prompt: must fit the model's context of 8 tokens, got 9")
        try:
            for word in words[: sampling.max_tokens]:
                if word == "closed!":
                    raise UserError("parrot: the model was closed")
                yield Piece(word + " ")
                await asyncio.sleep(0)
            yield Piece("", "length" if len(words) > sampling.max_tokens else "stop", len(messages), len(words))
        finally:
            Parrot.closed += 1


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    section = ChatSection(server=ServerSection(requests_per_minute=100_000))
    with pytest.MonkeyPatch.context() as patch:
        parrot = Parrot()
        yield make_service(tmp_path_factory.mktemp("api"), patch, section=section, models={parrot.name: parrot})


@pytest.fixture(scope="module")
def base(service: Service) -> Iterator[str]:
    with served(service) as address:
        yield f"{address}/v1"


@pytest.fixture(scope="module")
def client(base: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=base, api_key="none", max_retries=0, timeout=20) as made:
        yield made


def test_models_are_listed_and_found(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["grok", "parrot"]
    assert client.models.retrieve("grok-4").id == "grok"
    with pytest.raises(openai.NotFoundError, match="there are: grok, parrot"):
        client.models.retrieve("gpt-9")


def test_chat_completion_carries_claims_and_citations(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model="grok", messages=[{"role": "user", "content": "harbour closed?"}])
    content = reply.choices[0].message.content
    assert content is not None
    assert content.startswith(f"{BRIDGE} [[1]](https://posts.example/p1)\n\nSources:\n[1] @alice, 2026-03-02 10:59:00")
    note = reply.choices[0].message.annotations[0].url_citation
    assert content[note.start_index : note.end_index] == "[[1]](https://posts.example/p1)"
    assert reply.choices[0].finish_reason == "stop"
    assert reply.grounded is True
    assert reply.freshness_ms == 60_000
    assert reply.as_of == "2026-03-02T11:00:00.000Z"
    assert reply.cost["posts_read"] == 1
    claim = reply.claims[0]
    assert (claim["text"], claim["verdict"]) == (BRIDGE, "supported")
    assert claim["citations"][0]["quote"] == "The harbour bridge is closed until Friday"
    assert reply.citations == ["https://posts.example/p1"]


def test_streamed_chat_says_the_same(client: openai.OpenAI) -> None:
    asked = {"model": "grok", "messages": [{"role": "user", "content": "closed bridge won"}]}
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    last = chunks[-2]
    assert last.choices[0].finish_reason == "stop"
    assert last.claims == whole.claims


def test_response_carries_claims_and_citations(client: openai.OpenAI) -> None:
    reply = client.responses.create(model="grok", input="harbour closed?", metadata={"who": "test"})
    assert reply.output_text.startswith(BRIDGE)
    part = reply.output[0].content[0]
    note = part.annotations[0]
    assert part.text[note.start_index : note.end_index] == "[[1]](https://posts.example/p1)"
    assert (reply.status, reply.grounded, reply.claims[0]["verdict"]) == ("completed", True, "supported")
    again = client.responses.retrieve(reply.id)
    assert (again.output_text, again.metadata) == (reply.output_text, {"who": "test"})
    client.responses.delete(reply.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(reply.id)


def test_streamed_response_is_what_the_package_expects(client: openai.OpenAI) -> None:
    asked = {"model": "grok", "input": "closed bridge won"}
    whole = client.responses.create(**asked)
    events = list(client.responses.create(**asked, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == whole.output_text == events[-1].response.output_text
    # the package's own accumulator checks that the events fit each other
    with client.responses.stream(**asked) as stream:
        assert stream.get_final_response().output_text == whole.output_text


def test_async_client_in_parallel(base: str) -> None:
    async def main() -> None:
        async with openai.AsyncOpenAI(base_url=base, api_key="none", max_retries=0, timeout=20) as client:

            async def streamed() -> str:
                stream = await client.responses.create(model="grok", input="harbour closed?", stream=True)
                return "".join([e.delta async for e in stream if e.type == "response.output_text.delta"])

            async def chat() -> str:
                messages = [{"role": "user", "content": "harbour closed?"}]
                reply = await client.chat.completions.create(model="grok", messages=messages)
                return reply.choices[0].message.content or ""

            texts = await asyncio.gather(*[one() for one in [streamed, chat] * 5])
            assert len(set(texts)) == 1
            assert texts[0].startswith(BRIDGE)

    asyncio.run(main())


def test_nothing_found_says_so_and_shows_the_nearest(client: openai.OpenAI) -> None:
    reply = client.responses.create(model="grok", input="volcano")
    assert reply.grounded is False
    assert reply.abstained
    assert reply.claims == []
    assert reply.output_text.startswith("No post supports an answer.\n\nNearest posts:\n- @alice")


def test_x_search_limits_the_posts(client: openai.OpenAI, service: Service) -> None:
    def cited(**search: object) -> list[str]:
        tools = [{"type": "x_search", **search}]
        reply = client.responses.create(model="grok", input="bridge won", tools=tools)
        return [citation["author"] for claim in reply.claims for citation in claim["citations"]]

    assert sorted(cited()) == ["alice", "bob", "carol"]
    assert cited(allowed_x_handles=["@bob"]) == ["bob"]
    assert sorted(cited(excluded_x_handles=["bob"])) == ["alice", "carol"]
    reply = client.responses.create(
        model="grok", input="bridge", tools=[{"type": "x_search", "from_date": "2026-03-01", "to_date": "2026-03-02"}]
    )
    assert (reply.window["since"], reply.window["until"]) == ("2026-03-01T00:00:00.000Z", "2026-03-03T00:00:00.000Z")


def test_as_of_and_sources_by_extra_body(client: openai.OpenAI) -> None:
    then = client.responses.create(model="grok", input="won", extra_body={"as_of": "2026-03-02T09:30:00Z"})
    assert then.as_of == "2026-03-02T09:30:00.000Z"
    none = client.responses.create(model="grok", input="won", extra_body={"sources": ["other"]})
    assert none.claims == []
    with pytest.raises(openai.BadRequestError, match="must not be after now"):
        client.responses.create(model="grok", input="won", extra_body={"as_of": "2027-01-01"})


def test_conversations_go_on_and_end(client: openai.OpenAI, base: str) -> None:
    first = client.responses.create(model="grok", input="harbour closed?")
    second = client.responses.create(model="grok", input="who won", previous_response_id=first.id)
    third = client.responses.create(model="grok", input="bridge", conversation=first.conversation.id)
    assert first.conversation == second.conversation == third.conversation
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="grok", input="x", previous_response_id="resp_unknown")
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="grok", input="x", conversation="unknown")
    kept = client.get(f"/conversations/{first.conversation.id}", cast_to=object)
    assert [answer["question"] for answer in kept["answers"]] == ["harbour closed?", "who won", "bridge"]
    client.delete(f"/conversations/{first.conversation.id}", cast_to=object)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(second.id)


def test_unkept_answers_are_not_kept(client: openai.OpenAI) -> None:
    reply = client.responses.create(model="grok", input="harbour closed?", store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(reply.id)


def test_free_text_of_a_model_is_marked_as_such(client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "one two three"}]
    reply = client.chat.completions.create(model="parrot", messages=messages, max_tokens=2)
    assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == ("one two ", "length")
    assert (reply.grounded, reply.claims, reply.written_by) == (False, [], "parrot")
    chunks = list(client.chat.completions.create(model="parrot", messages=messages, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "one two three "
    before = Parrot.closed
    events = list(client.responses.create(model="parrot", input="one two three", max_output_tokens=2, stream=True))
    assert events[-1].type == "response.incomplete"
    assert events[-1].response.usage.output_tokens == 3
    assert Parrot.closed == before + 1


def test_free_text_goes_on_from_the_conversation(client: openai.OpenAI) -> None:
    first = client.responses.create(model="parrot", input="one")
    second = client.responses.create(model="parrot", input="two", previous_response_id=first.id)
    assert second.usage.input_tokens == 3  # the parrot counts messages: question, answer, question


@pytest.mark.parametrize(
    ("fields", "says", "param"),
    [
        ({"input": ""}, "the question is empty", "input"),
        ({"input": "x" * 4001}, "at most 4000 characters", "input"),
        ({"input": []}, "at least 1 item", "input"),
        ({"input": [{"role": "assistant", "content": "x"}]}, "must be the user's", "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "must be text", "input"),
        ({"temperature": 3}, "less than or equal to 2", "temperature"),
        ({"tools": [{"type": "function", "name": "f"}]}, "must be x_search", "tools"),
        ({"tools": [{"type": "x_search", "from_date": "soon"}]}, "must be a date", "from_date"),
        ({"tools": [{"type": "x_search", "from_date": "2026-02-02", "to_date": "2026-01-01"}]}, "not be before", None),
        ({"tools": [{"type": "x_search", "allowed_x_handles": ["a"] * 11}]}, "at most 10 handles", None),
        (
            {"tools": [{"type": "x_search", "allowed_x_handles": ["a"], "excluded_x_handles": ["b"]}]},
            "exclude each other",
            "tools",
        ),
        ({"extra_body": {"timezone": "../../etc/passwd"}}, "must be a name like", "timezone"),
        ({"text": {"format": {"type": "json_object"}}}, "must be text", "text.format"),
        ({"background": True}, "background", "background"),
    ],
)
def test_wrong_fields_are_bad_requests(client: openai.OpenAI, fields: dict, says: str, param: str | None) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**{"model": "grok", "input": "x", **fields})
    assert says in caught.value.message
    assert caught.value.type == "invalid_request_error"
    assert param is None or caught.value.param.startswith(param)


def test_wrong_model_busy_model_long_prompt(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.responses.create(model="gpt-9", input="x")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    for stream in (False, True):
        with pytest.raises(openai.APIStatusError) as full:
            client.responses.create(model="parrot", input="full", stream=stream)
        assert (full.value.status_code, full.value.response.headers["Retry-After"]) == (503, "1")
        with pytest.raises(openai.BadRequestError, match="must fit the model's context"):
            client.responses.create(model="parrot", input="long", stream=stream)


def test_a_model_that_ends_while_it_writes_is_an_error_in_the_stream(client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "one closed! two"}]
    with pytest.raises(openai.APIError, match="the model was closed"):
        list(client.chat.completions.create(model="parrot", messages=messages, stream=True))
    events = list(client.responses.create(model="parrot", input="one closed! two", stream=True))
    assert (events[-1].type, events[-1].message) == ("error", "parrot: the model was closed")


def test_posts_are_shown_as_they_are_now(client: openai.OpenAI, service: Service) -> None:
    assert client.get("/posts/wire/p1", cast_to=object)["text"] == "The harbour bridge is closed until Friday"
    service.store.apply([post("a/b?c", "odd id")])
    assert client.get("/posts/wire/a%2Fb%3Fc", cast_to=object)["text"] == "odd id"
    with pytest.raises(openai.NotFoundError, match="is not here"):
        client.get("/posts/wire/unknown", cast_to=object)


def test_markup_of_posts_is_escaped_in_text(client: openai.OpenAI) -> None:
    reply = client.responses.create(model="grok", input="cars")
    assert "\\<b>42,000\\</b> cars a day \\![x\\](http://evil/x.png)" in reply.output_text
    assert reply.claims[0]["citations"][0]["quote"].endswith("![x](http://evil/x.png)")


def test_the_service_answers_though_nothing_can_be_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = make_service(tmp_path, monkeypatch)

    def full(*arguments: object) -> None:
        raise UserError("answers.db: database or disk is full")

    monkeypatch.setattr(service.saved, "keep", full)
    with served(service) as address, openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        assert client.responses.create(model="grok", input="harbour closed?").output_text.startswith(BRIDGE)
        assert "disk is full" in client.get(f"{address}/status", cast_to=object)["trouble"]
