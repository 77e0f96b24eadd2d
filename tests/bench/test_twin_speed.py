"""The benchmark of the search searches what it says."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

BENCH = Path(__file__).parents[2] / "bench"
sys.path.insert(0, str(BENCH))

import twin_speed  # noqa: E402

from gigafactory.twin.bounds import legal_cells  # noqa: E402
from gigafactory.twin.legal import divisors  # noqa: E402


def test_every_layout_of_calculons_search_that_megatron_can_run_is_in_the_space() -> None:
    fields, layouts, _ = legal_cells(twin_speed.gpt3_space())
    names = ("tensor", "pipe", "data", "interleave", "micro_rows", "shard", "sequence_parallel")
    ours = set(zip(*(fields[name].tolist() for name in names), strict=True))
    theirs = 0
    for tensor, pipe in itertools.product(divisors(96), divisors(96)):
        if 4096 % (tensor * pipe):
            continue
        data = 4096 // (tensor * pipe)
        for chunks in divisors(96 // pipe) if pipe > 1 else [1]:
            for micro in divisors(4096 // data):
                if chunks > 1 and (4096 // (data * micro)) % pipe:
                    continue  # Megatron sends whole rounds of micro-batches
                for shard, parallel in itertools.product((0, 1) if data > 1 else (0,), (0, 1) if tensor > 1 else (0,)):
                    theirs += 1
                    assert (tensor, pipe, data, chunks, micro, shard, parallel) in ours
    assert theirs > 2000
    assert layouts.sum() > twin_speed.CALCULON_LAYOUTS
