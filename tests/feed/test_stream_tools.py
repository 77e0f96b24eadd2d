"""What streams share, by its laws."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtual_time import run_virtually

from gigafactory.feed.stream import Failure, Lines, StalledError, Volume, delay_s, watched


def test_delays_follow_the_rules_of_x() -> None:
    first = range(1, 9)
    for failure in (Failure.CLOSED, Failure.STALLED, Failure.NETWORK):
        assert [delay_s(failure, n) for n in first] == [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75]
        assert delay_s(failure, 65) == delay_s(failure, 10**9) == 16
    assert [delay_s(Failure.SERVER, n) for n in first] == [5, 10, 20, 40, 80, 160, 320, 320]
    assert [delay_s(Failure.RATE, n) for n in first] == [60, 120, 240, 480, 960, 960, 960, 960]
    assert delay_s(Failure.CROWDED, 1) == 60
    assert delay_s(Failure.SERVER, 10**9) == 320


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=20), st.integers(1, 60))
def test_lines_do_not_depend_on_where_chunks_are_cut(data: bytes, cuts: list[int], limit: int) -> None:
    lines = Lines(limit)
    got = []
    for begin, end in pairwise(sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})):
        got += lines.push(data[begin:end])
        assert len(lines._held) <= limit
    *whole, rest = data.split(b"\n")
    assert got == [line.removesuffix(b"\r") for line in whole if len(line) <= limit]
    assert lines.overlong == sum(len(line) > limit for line in whole)
    assert lines.rest == bool(rest)


def test_a_character_cut_between_chunks_is_whole_again() -> None:
    lines = Lines()
    data = '{"text":"東京 🚀"}\r\n'.encode()
    assert [line for byte in data for line in lines.push(bytes([byte]))] == [data[:-2]]


def test_a_line_without_end_takes_no_memory() -> None:
    lines = Lines(1000)
    for _ in range(10_000):
        assert lines.push(b"x" * 1000) == []
    assert len(lines._held) <= 1000
    assert lines.push(b"\nok\n") == [b"ok"]
    assert lines.overlong == 1


async def every(pauses: list[float]) -> AsyncIterator[bytes]:
    for pause in pauses:
        await asyncio.sleep(pause)
        yield b"x"


def test_silence_longer_than_the_timeout_ends_a_stream() -> None:
    async def main() -> None:
        assert [chunk async for chunk in watched(every([20, 20.9, 5]), 21)] == [b"x"] * 3
        silent = watched(every([1, 22, 1]), 21)
        assert await anext(silent) == b"x"
        await asyncio.sleep(100)  # a slow reader is not a silent server
        with pytest.raises(StalledError, match="21 s"):
            await anext(silent)
        assert asyncio.get_running_loop().time() == pytest.approx(45.9 + 1 + 100 + 21)

    run_virtually(main())


def test_silence_is_told_where_posts_were_due_and_rarely() -> None:
    volume = Volume()
    volume.connected(0)
    for second in range(1000):
        volume.seen(second)
        assert volume.low(second) is None
    assert volume.low(1100) is None  # two minutes are needed
    due = volume.low(1130)
    assert due == pytest.approx(130, rel=0.1)
    alarms = [at for at in range(1131, 20_000) if volume.low(at)]
    assert alarms == [1239, 1479, 1959, 2919, 4839, 8679, 16359]  # each silence twice as long
    volume.seen(20_000)
    assert volume.low(20_119) is None


def test_a_stream_that_is_seldom_used_gives_no_alarm() -> None:
    volume = Volume()
    volume.connected(0)
    for hour in range(24):
        volume.seen(hour * 3600)
        assert all(volume.low(hour * 3600 + second) is None for second in range(0, 3600, 20))
