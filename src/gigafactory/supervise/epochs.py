"""Forming a JAX world, leaving it, and forming the next one in the same process. All private JAX calls are here."""

from __future__ import annotations

from collections.abc import Collection


class Service:
    """A coordination service of one epoch, in a process that computes nothing."""

    address: str

    def stop(self) -> None:
        """Ends it. Members that are still connected are not harmed."""
        raise NotImplementedError


def serve(size: int, host: str = "127.0.0.1") -> Service:
    """A coordination service for `size` members on a new port. Called where no JAX device is ever used."""
    raise NotImplementedError


def join(address: str, rank: int, size: int, *, collective_s: float) -> None:
    """Become member `rank` of the world of `size`; blocks until all have come. jax.devices() are then all of them."""
    raise NotImplementedError


def leave() -> None:
    """Leave the world: all arrays and compiled functions of it are lost. May be called when in none."""
    raise NotImplementedError


def abort_collectives(keep: Collection[int]) -> int:
    """Make collectives that wait for another member fail now, in whatever thread. keep: descriptors of other use.

    Returns how many connections were cut.
    """
    raise NotImplementedError
