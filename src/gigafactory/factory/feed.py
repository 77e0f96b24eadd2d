"""The feed section: sources of live posts and the store that keeps them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from gigafactory.factory.training import Section

NEEDS = {
    "x": ("token_env", "rules"),
    "jetstream": (),
    "mastodon": ("url", "token_env"),
    "feed": ("url",),
    "replay": ("path",),
}


class FeedSource(Section):
    """One source of posts."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$", description="of the source, in status and citations")
    kind: Literal["x", "jetstream", "mastodon", "feed", "replay"] = Field(
        description="X filtered stream, Bluesky Jetstream, Mastodon, RSS/Atom/JSON feed, recorded posts (JSONL)"
    )
    url: str | None = Field(
        None, pattern=r"^(https?|wss?)://", description="of the server or feed; none is the public one"
    )
    path: str | None = Field(None, description="replay: file of posts, one JSON object a line")
    token_env: str | None = Field(None, description="environment variable that holds the access token")
    rules: tuple[str, ...] = Field((), description="X: filter rules; Mastodon: hashtags; Jetstream: authors (DIDs)")
    poll_s: float = Field(300.0, ge=1, description="feed: seconds between requests")
    callback: str | None = Field(
        None,
        pattern=r"^https?://",
        description="feed: public address that leads to `listen`, for hubs that push (WebSub); none is polling alone",
    )
    listen: str = Field("127.0.0.1:8766", description="feed: HOST:PORT of this machine that the callback leads to")
    speed: float = Field(1.0, ge=0, description="replay: times real time; 0 is as fast as possible")
    budget_usd: float | None = Field(None, ge=0, description="X: stop reading when this is spent in a month")
    trust: float = Field(1.0, ge=0, le=1, description="weight of the source in ranking")
    train_ok: bool = Field(False, description="posts may be used for training; X forbids it")

    @model_validator(mode="after")
    def _complete(self) -> FeedSource:
        for name in NEEDS[self.kind]:
            if not getattr(self, name):
                raise ValueError(f"{name}: needed for kind={self.kind!r}")
        if self.kind == "x" and self.train_ok:
            raise ValueError("train_ok: X's terms forbid training on its posts; must be false for kind='x'")
        return self


class StoreSection(Section):
    """Where posts are kept and for how long."""

    url: str = Field(
        "sqlite:posts.db",
        pattern=r"^(sqlite:|postgresql://)",
        description="sqlite:FILE or postgresql://USER@HOST/DATABASE",
    )
    retention_days: float = Field(30.0, gt=0, description="older posts are deleted")
    partition_hours: float = Field(
        24.0, gt=0, description="posts of this long share a part of the index; purges rewrite parts"
    )
    commit_s: float = Field(0.1, gt=0, le=10, description="longest that a post waits to be searchable")
    purge_s: float = Field(60.0, gt=0, description="longest that the bytes of a deleted post stay on disk")


class FeedSection(Section):
    """Live posts in."""

    sources: tuple[FeedSource, ...] = Field((), description="sources of posts; none is the shipped replay")
    store: StoreSection = Field(StoreSection(), description="where posts are kept")

    @model_validator(mode="after")
    def _names(self) -> FeedSection:
        names = [source.name for source in self.sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"sources: each name once, got twice: {', '.join(twice)}")
        return self
