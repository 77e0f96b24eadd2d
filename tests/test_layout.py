"""A layout says what it needs, and what does not divide is refused with the field, the rule and the value."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gigafactory.errors import UserError
from gigafactory.layout import AXES, Layout, check_layout, padded_rows
from gigafactory.model.config import ModelConfig

MODEL = ModelConfig(layers=12, width=48, heads=8, kv_heads=4, head_dim=6, ffn_width=64, vocab=96, context=64, experts=8)
DENSE = MODEL.model_copy(update={"experts": 0})


def check(layout: Layout, model: ModelConfig = MODEL, **given: int | None) -> None:
    needs: dict[str, int | None] = {"batch_rows": 32, "sequence": 32, "accumulate": 4, "available_devices": 64}
    check_layout(layout, model, **(needs | given))  # type: ignore[arg-type]


REFUSED: list[tuple[dict, ModelConfig, dict, str]] = [
    (
        {"stage": 2, "data": 4, "expert": 2, "context": 2, "model": 2},
        MODEL,
        {"available_devices": 8},
        "layout: needs 64 devices (stage 2 x data 4 x expert 2 x context 2 x model 2), but 8 are here",
    ),
    ({"stage": 5}, MODEL, {"accumulate": 32}, "layout.stage: must divide model.layers=12, got 5 groups"),
    (
        {"stage": 4, "circular_repeats": 2},
        MODEL,
        {},
        "layout.stage: must divide model.layers=12, got 8 groups",
    ),
    ({}, MODEL, {"accumulate": 5}, "train.accumulate: must divide train.batch_rows=32, got 5"),
    (
        {"data": 8, "expert": 2},
        MODEL,
        {},
        "train.batch_rows: a micro-batch of 8 rows (32 rows / 4 micro-batches) must be divisible by"
        " layout.data x layout.expert = 16",
    ),
    (
        {"stage": 3},
        MODEL,
        {},
        "train.accumulate: must be a multiple of layout.stage=3 to fill the pipeline, got 4",
    ),
    (
        {"context": 4, "model": 4},
        MODEL,
        {"sequence": 24},
        "train.sequence: must be divisible by layout.context x layout.model = 16, got 24",
    ),
    ({"expert": 3}, MODEL, {"batch_rows": 36}, "layout.expert: must divide model.experts=8, got 3"),
    ({"expert": 2}, DENSE, {}, "layout.expert: must divide model.experts=0, got 2"),
    ({"model": 16}, MODEL, {}, "layout.model: must divide model.heads=8, got 16"),
    ({"model": 8}, MODEL, {}, "layout.model: must divide model.kv_heads=4, got 8"),
    (
        {"model": 4},
        MODEL.model_copy(update={"ffn_width": 62}),
        {},
        "layout.model: must divide model.ffn_width=62, got 4",
    ),
    ({"model": 4}, MODEL.model_copy(update={"vocab": 94}), {}, "layout.model: must divide model.vocab=94, got 4"),
    (
        {"data": 8},
        MODEL.model_copy(update={"width": 44}),
        {},
        "layout.data: with fsdp must divide model.width=44, got 8",
    ),
]


@pytest.mark.parametrize(("sizes", "model", "run", "message"), REFUSED, ids=[case[3][:40] for case in REFUSED])
def test_what_does_not_divide_is_refused(sizes: dict, model: ModelConfig, run: dict, message: str) -> None:
    with pytest.raises(UserError) as error:
        check(Layout(**sizes), model, **run)
    assert str(error.value) == message


@pytest.mark.parametrize(
    "layout",
    [
        Layout(),
        Layout(stage=4, circular_repeats=3, data=2, expert=4, context=2),
        Layout(data=4, expert=2, context=2, model=4),
    ],
)
def test_what_divides_is_accepted(layout: Layout) -> None:
    check(layout)


def test_without_fsdp_the_width_need_not_divide() -> None:
    check(Layout(data=8, fsdp=False), MODEL.model_copy(update={"width": 44}))


def test_a_cluster_that_is_not_there_has_devices_enough() -> None:
    check(Layout(data=16, expert=8, model=4), batch_rows=4 * 128, available_devices=None)


@given(st.fixed_dictionaries({axis: st.integers(1, 64) for axis in AXES}))
def test_devices_are_the_product_of_the_axes_in_mesh_order(sizes: dict[str, int]) -> None:
    layout = Layout(**sizes)
    assert layout.devices == math.prod(sizes.values())
    assert tuple(layout.sizes) == AXES == ("stage", "data", "expert", "context", "model")
    assert layout.sizes == sizes
    assert layout.batch_shards == sizes["data"] * sizes["expert"]
    assert layout.sequence_shards == sizes["context"] * sizes["model"]


@pytest.mark.parametrize(("field", "value"), [("data", 0), ("model", -2), ("circular_repeats", 0), ("tensor", 2)])
def test_sizes_are_at_least_one_and_fields_are_known(field: str, value: int) -> None:
    with pytest.raises(ValidationError, match=field):
        Layout.model_validate({field: value})


@given(rows=st.integers(1, 10**6), data=st.integers(1, 999), expert=st.integers(1, 9))
def test_padded_rows_are_the_next_that_divide(rows: int, data: int, expert: int) -> None:
    layout = Layout(data=data, expert=expert)
    padded = padded_rows(rows, layout)
    assert padded % (data * expert) == 0
    assert rows <= padded < rows + data * expert


def test_padded_rows_make_every_number_of_replicas_fit() -> None:
    check(Layout(data=7, fsdp=False), pad_rows=True)
    with pytest.raises(UserError, match=r"^layout\.data: with fsdp"):
        check(Layout(data=7), pad_rows=True)
