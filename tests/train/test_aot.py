"""Ahead-of-time compilation: what it says of a small step, cells against the whole, and users' mistakes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from gigafactory.errors import UserError
from gigafactory.factory.file import Factory
from gigafactory.factory.training import TrainSection
from gigafactory.layout import Layout
from gigafactory.model.config import grok_config
from gigafactory.train import aot
from gigafactory.train.aot import AheadOfTime, cell_layout, compile_ahead, compile_here, on_cluster, widened_layout

MODEL = grok_config(
    layers=2,
    width=64,
    heads=4,
    kv_heads=2,
    head_dim=16,
    ffn_width=128,
    vocab=264,
    context=32,
    attention_multiplier=None,
)


def factory(layout: dict[str, int] | None = None, **train: Any) -> Factory:
    return Factory.model_validate(
        {
            "model": MODEL,
            "layout": layout or {"data": 2, "expert": 2, "model": 2},
            "train": {"batch_rows": 16, "sequence": 32, "scan_layers": "always"} | train,
        }
    )


@pytest.fixture(scope="module")
def result() -> AheadOfTime:
    return compile_ahead(factory())


def test_what_is_said_of_a_small_step(result: AheadOfTime) -> None:
    assert result.devices == 8
    assert result.tokens_per_step == 16 * 32
    assert result.argument_bytes >= result.parameter_bytes + result.optimizer_bytes > 0
    assert result.alias_bytes >= result.parameter_bytes + result.optimizer_bytes, "the state must be donated"
    assert result.peak_bytes == result.argument_bytes + result.output_bytes - result.alias_bytes + result.temp_bytes
    assert {c.axes for c in result.collectives} >= {("data",), ("expert",), ("model",), ("data", "expert", "model")}
    assert {c.dtype for c in result.collectives if c.kind == "all-to-all"} == {"f32"}
    assert set(result.flops_by_phase()) == {"forward", "backward"}
    assert sum(result.flops_by_phase().values()) == pytest.approx(result.matmul_flops)
    assert 1.0 < result.matmul_flops / result.model_flops < 2.0
    assert 1.0 < result.xla_flops / result.matmul_flops < 1.5
    assert result.compile_s > 0
    assert result.peak_rss_bytes < 2e9


def test_json_holds_everything(result: AheadOfTime) -> None:
    text = result.to_json()
    assert AheadOfTime.from_json(text) == result
    assert json.loads(text)["peak_bytes"] == result.peak_bytes


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_widened_cell_says_what_the_whole_cluster_says(optimizer: str) -> None:
    """Compiled for data 4 and widened to 8, against compiled for 8: only temporaries may be larger."""
    train = TrainSection.model_validate(
        {"batch_rows": 16, "sequence": 32, "scan_layers": "always", "optimizer": {"name": optimizer}}
    )
    layout, cell = (Layout.model_validate({"data": data}) for data in (8, 4))
    whole = compile_here(MODEL, train, layout, layout, document_mask=False)
    widened = compile_here(MODEL, train, layout, cell, document_mask=False)
    key = lambda c: (c.phase, c.kind, c.axes, c.payload_bytes, c.count, c.where)  # noqa: E731
    plain = [[replace(c, shape=()) for c in sorted(r.collectives, key=key)] for r in (whole, widened)]
    if optimizer == "adamw":
        assert plain[0] == plain[1]
    else:
        inside = [[c for c in r if c.phase != "update"] for r in plain]
        assert inside[0] == inside[1]
        sent = [sum(c.wire_bytes * c.count for c in r if c.phase == "update") for r in plain]
        assert sent[1] == pytest.approx(sent[0], rel=0.1)
    for name in (
        "devices",
        "layout",
        "parameter_bytes",
        "optimizer_bytes",
        "argument_bytes",
        "output_bytes",
        "alias_bytes",
    ):
        assert getattr(widened, name) == getattr(whole, name), name
    assert widened.model_flops == whole.model_flops
    assert [m for m in widened.matmuls if m.phase != "update"] == [m for m in whole.matmuls if m.phase != "update"]
    assert widened.temp_bytes >= whole.temp_bytes
    assert widened.compiled_layout["data"] == 4
    assert any("data 4 -> 8" in note for note in widened.notes)
    assert whole.notes == ()


def test_devices_widen_the_data_axis() -> None:
    layout = Layout.model_validate({"data": 2, "expert": 8, "model": 8})
    assert widened_layout(layout, 2048).data == 32
    assert widened_layout(layout, None) == layout
    with pytest.raises(UserError, match=r"--devices: must be a multiple of .* = 64, got 100"):
        widened_layout(layout, 100)


def test_cells_fit_one_process_and_divide_the_cluster() -> None:
    layout = Layout.model_validate({"stage": 8, "data": 384, "expert": 8, "model": 8})
    assert cell_layout(layout).sizes == layout.sizes | {"data": 4}
    small = Layout.model_validate({"data": 32, "expert": 8, "model": 8})
    assert cell_layout(small) == small
    with pytest.raises(UserError, match=r"layout: .* leaves no divisor of data=7"):
        cell_layout(Layout.model_validate({"stage": 8, "data": 7, "expert": 8, "model": 8}))


def test_auto_means_what_it_means_on_the_cluster() -> None:
    here = Factory()
    there = Factory.model_validate({"cluster": {"chips": [{"name": "h100-sxm", "count": 8}]}})
    train = TrainSection.model_validate({"attention": "flash"})
    resolved = on_cluster(train, there.cluster)
    assert (resolved.compute_dtype, resolved.scan_layers, resolved.attention) == ("bfloat16", "always", "chunked")
    assert on_cluster(here.train, here.cluster) == here.train
    fixed = TrainSection.model_validate({"compute_dtype": "float32", "scan_layers": "never"})
    assert on_cluster(fixed, there.cluster) == fixed


def test_bf16_collectives_are_not_read_as_f32() -> None:
    train = factory(compute_dtype="bfloat16").train
    layout = Layout.model_validate({"expert": 2})
    found = compile_here(MODEL, train, layout, layout, document_mask=True).collectives
    assert {c.dtype for c in found if c.kind == "all-to-all"} == {"bf16"}


@pytest.mark.parametrize(
    ("sizes", "train", "message"),
    [
        ({"model": 4}, {}, r"layout.model: must divide model.kv_heads=2, got 4"),
        ({"data": 3}, {}, r"train.batch_rows: a micro-batch of 16 rows"),
    ],
)
def test_a_layout_that_does_not_divide_is_said_before_compiling(
    sizes: dict[str, int], train: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aot.subprocess, "run", None)
    with pytest.raises(UserError, match=message):
        compile_ahead(factory(sizes, **train))


def test_a_mistake_found_while_building_the_step_keeps_its_one_line() -> None:
    with pytest.raises(UserError, match=r"^train.lora.rank: must be at most 64"):
        compile_ahead(factory({"data": 2}, lora={"rank": 4096}))


@pytest.mark.slow
def test_grok_1_on_2048_devices_needs_little_memory() -> None:
    chips = [{"name": "h100-sxm", "count": 2048}]
    grok = {
        "cluster": {"chips": chips},
        "model": grok_config(),
        "layout": {"data": 32, "expert": 8, "model": 8},
        "train": {"batch_rows": 256, "sequence": 8192, "remat": "full"},
    }
    result = compile_ahead(Factory.model_validate(grok), 2048)
    assert result.peak_rss_bytes < 2e9
    assert result.parameter_bytes * 2048 >= 4 * grok_config().parameters()
    assert not result.unknown_loops
    assert not result.opaque
