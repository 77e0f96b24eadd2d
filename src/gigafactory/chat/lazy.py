"""A model of ours that is opened when it is first asked: until then no JAX, no memory, no seconds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import TYPE_CHECKING

from gigafactory.chat.sampling import Piece, Sampling

if TYPE_CHECKING:
    from gigafactory.chat.engine import Engine


class LazyModel:
    """name: what it is called in the API. where: as for `engine.open_engine`."""

    def __init__(self, name: str, where: str) -> None:
        self.name, self.where = name, where
        self._opening: asyncio.Future[Engine] | None = None

    async def astream(self, messages: Sequence[Mapping[str, str]], sampling: Sampling) -> AsyncGenerator[Piece]:
        """As `Engine.astream`; the first call takes as long as opening the model. UserError where it cannot be."""
        from gigafactory.chat.engine import open_engine

        if self._opening is None:
            self._opening = asyncio.ensure_future(asyncio.to_thread(open_engine, self.where))
        opening = self._opening
        try:
            engine = await asyncio.shield(opening)  # who leaves does not end the opening for the others
        except Exception:
            self._opening = None if self._opening is opening else self._opening
            raise
        pieces = engine.astream(messages, sampling)
        try:
            async for piece in pieces:
                yield piece
        finally:
            await pieces.aclose()

    def close(self) -> None:
        if self._opening is not None and self._opening.done() and not self._opening.exception():
            self._opening.result().close()
