"""The benchmark of writing counts what it says, on turns that are made up and on a tiny model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

BENCH = Path(__file__).parents[2] / "bench"
sys.path.insert(0, str(BENCH))

import decode  # noqa: E402

from gigafactory.model.batching import Batch  # noqa: E402
from gigafactory.model.config import ModelConfig  # noqa: E402
from gigafactory.model.grok import parameter_spec  # noqa: E402
from gigafactory.model.serve import Generator  # noqa: E402
from gigafactory.model.spec import Param  # noqa: E402

TINY = ModelConfig(layers=1, width=16, heads=2, kv_heads=1, head_dim=8, vocab=40, context=64, ffn_width=24)
PROMPT = list(range(1, 13))


@pytest.fixture(autouse=True, scope="module")
def _quick_to_compile() -> Iterator[None]:
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def generator() -> Generator:
    rng = np.random.default_rng(0)

    def draw(param: Any) -> np.ndarray:
        return np.float32(param.scale) * rng.standard_normal(param.shape).astype(np.float32)

    return Generator(jax.tree.map(draw, parameter_spec(TINY), is_leaf=lambda leaf: isinstance(leaf, Param)), TINY)


def test_a_turn_of_one_text(generator: Generator) -> None:
    answer = decode.turn(generator, None, {"prompt": PROMPT, "tokens": 6, "rows": 0})
    assert answer["ids"] == [list(generator.generate(PROMPT, max_tokens=6, temperature=0))]
    assert answer["read_s"] > 0
    assert answer["write_s"] > 0


def test_a_turn_of_several_texts_counts_what_is_written_after_all_are_read(generator: Generator) -> None:
    answer = decode.turn(generator, Batch(generator, slots=4), {"prompt": PROMPT, "tokens": 8, "rows": 2, "salt": 20})
    wanted = [list(generator.generate([20 + row, *PROMPT[1:]], max_tokens=8, temperature=0)) for row in range(2)]
    assert answer["ids"] == wanted
    # prompts are read one after another, a step each, while those read before write
    assert answer["written"] == 2 * 8 - (2 + 1)


def test_speeds_are_tokens_over_seconds() -> None:
    turns = [
        {"read_s": 2.0, "write_s": 4.0, "ids": [[1] * 9]},
        {"read_s": 1.0, "write_s": 2.0, "ids": [[1] * 9]},
        {"read_s": 4.0, "write_s": 8.0, "ids": [[1] * 9]},
    ]
    one = decode.summary(turns, prompt=20)
    assert one["read_tokens_per_s"] == {"best": 20.0, "median": 10.0}
    assert one["write_tokens_per_s"] == {"best": 4.0, "median": 2.0}
    many = decode.summary([{"read_s": 2.0, "write_s": 4.0, "written": 12, "ids": [[1] * 9, [1] * 9]}], prompt=20)
    assert many["read_tokens_per_s"]["best"] == 20.0
    assert many["write_tokens_per_s"]["best"] == 3.0


def test_memory_allows_bandwidth_over_bytes() -> None:
    rows = {name: {"write_tokens_per_s": {"best": speed}} for name, speed in (("single", 15.0), ("llama.cpp", 40.0))}
    bound = decode.limits(rows, 10e9, 500_000_000, 100_000_000)
    assert bound["single"] == {"bytes_per_token": 500_000_000, "allowed_tokens_per_s": 20.0, "share_reached": 0.75}
    assert bound["llama.cpp"]["share_reached"] == pytest.approx(0.4)
    assert "llama.cpp" not in decode.limits({"single": rows["single"]}, 10e9, 1, 1)


def test_bytes_of_smollm2_as_it_is_stored() -> None:
    """Q4_1 holds 32 numbers in 20 bytes, Q8_0 in 34; the file's metadata and tokenizer are the rest of its 98 MB."""
    stored = decode.gguf_bytes_per_token()
    assert 134_515_008 * 20 / 32 < stored < decode.gguf_path().stat().st_size


def test_bandwidth_is_positive_and_finite() -> None:
    assert 1e8 < decode.bandwidth(np.ones((512, 512), np.float32), np.ones(512, np.float32)) < 1e13
