"""Speed, utilisation, days, energy and money of a run, against what its owners published."""

from __future__ import annotations

import json
import math
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gigafactory.errors import UserError
from gigafactory.factory.catalog import chip
from gigafactory.factory.file import Factory
from gigafactory.factory.load import load_factory, parse_factory
from gigafactory.twin.outcome import KWH_J, Goodput, Outcome, Prediction, chip_power_w, outcome, predict
from gigafactory.twin.prediction import MEMORY, PARTS
from gigafactory.twin.told import told

BLOOM = """
[[cluster.chips]]
name = "a100-sxm"
count = 384
[cluster.node]
nics = 4
[cluster.fabric]
name = "infiniband-hdr"
facts = { link_bits_per_s = 100e9 }
[site]
pue = 1.2
[model]
layers = 70
width = 14336
heads = 112
kv_heads = 112
head_dim = 128
ffn_width = 57344
vocab = 250880
context = 2048
[layout]
stage = 12
data = 8
model = 4
[train]
batch_rows = 2048
sequence = 2048
accumulate = 128
remat = "full"
[twin]
trainer = "megatron-deepspeed"
tokens = 366e9
[twin.network]
gated = false
"""


def of(factory: Factory, goodput: Goodput | None = None) -> tuple[Prediction, Outcome]:
    prediction = predict(factory)
    return prediction, outcome(factory, prediction, goodput)


@pytest.fixture(scope="module", params=["grok-1", "llama-405b", "colossus"])
def factory(request: pytest.FixtureRequest) -> Factory:
    return load_factory(f"examples/{request.param}.toml")


def test_everything_adds_up(factory: Factory) -> None:
    prediction, found = of(factory, Goodput(0.8, "a test"))
    assert set(prediction.step.parts) == set(PARTS)
    assert sum(prediction.step.parts.values()) == pytest.approx(prediction.step.step_s)
    assert set(prediction.memory.classes) == set(MEMORY)
    assert sum(prediction.memory.classes.values()) == pytest.approx(prediction.memory.memory_bytes)
    assert found.tokens_per_s.value * prediction.step_s.value == pytest.approx(found.tokens_per_step)
    assert found.wall_s.value == pytest.approx(found.run_s.value / 0.8)
    assert found.chip_hours.value == pytest.approx(found.wall_s.value * found.chips / 3600.0)
    for number in (prediction.step_s, prediction.memory_bytes, *vars(found).values()):
        if hasattr(number, "low"):
            assert 0 < number.low <= number.value <= number.high


def test_utilisation_is_the_models_own_flops(factory: Factory) -> None:
    prediction, found = of(factory)
    train = factory.train
    flops = factory.model.train_flops_per_token(train.sequence) * train.sequence * train.batch_rows
    assert prediction.step.model_flops == pytest.approx(flops, rel=1e-3)
    peak = found.chips * chip(factory.cluster.chips[0].name).peak_flops("bf16")
    assert found.mfu.value == pytest.approx(flops / prediction.step_s.value / peak, rel=1e-3)
    assert found.mfu.value < found.hfu.value < 1
    assert found.mfu_of_format == found.mfu


@pytest.mark.parametrize(("interleave", "rel"), [(8, 0.12), (4, 0.07)])
def test_hours_of_llama_405b_as_meta_reported_them(interleave: int, rel: float) -> None:
    """How many chunks a stage had is not published; with one layer each they are eight, with two four."""
    factory = load_factory("examples/llama-405b.toml", [f"twin.interleave={interleave}"])
    _, found = of(factory, Goodput(0.9, "arXiv 2407.21783: higher than 90 %"))
    assert found.chip_hours.value == pytest.approx(30.84e6, rel=rel)
    assert found.mfu.value == pytest.approx(0.41, rel=rel)


def test_energy_of_bloom_as_its_owners_counted_it() -> None:
    """arXiv 2211.02001: 433 MWh of the chips at their rated power and 257 MWh of the servers and the network beside
    them, before cooling, in 1,082,990 hours of an A100. Ours is made of power that was measured on other machines."""
    hours = 1_082_990
    prediction, found = of(parse_factory(BLOOM, "bloom"))
    assert found.it_power_w is not None
    assert found.site_power_w is not None
    assert found.it_power_w.value * hours / 1e6 == pytest.approx(433.2 + 256.6, rel=0.12)
    assert chip_power_w(400.0, found.busy).value * hours / 1e6 == pytest.approx(433.2, rel=0.15)
    assert found.site_power_w.value == pytest.approx(1.2 * 384 * found.it_power_w.value)
    assert prediction.step_s.value > 0


def test_a_chip_that_waits_draws_less() -> None:
    assert chip_power_w(700.0, 1.0).value == chip_power_w(700.0, 1.0).high == 700.0
    assert 100.0 < chip_power_w(700.0, 0.0).value < chip_power_w(700.0, 0.5).value < 700.0


def test_prices_of_the_file_win_over_those_of_the_catalogue() -> None:
    factory = load_factory("examples/grok-1.toml")
    offer = (
        "site.money.rent=[{chip='h100-sxm', count=2048, start=2024-09-01, months=12, usd_per_chip_hour=2.0},"
        " {chip='b200', count=8, start=2024-09-01, months=12, usd_per_chip_hour=0.1}]"
    )
    own = load_factory("examples/grok-1.toml", [offer, "site.money.energy_usd_per_kwh=0.05", "site.pue=1.1"])
    before, after = of(factory)[1], of(own)[1]
    assert after.rent_usd is not None
    assert before.rent_usd is not None
    assert after.rent_usd.value == pytest.approx(2.0 * after.chip_hours.value)
    assert after.rent_usd.high / after.rent_usd.value == pytest.approx(after.chip_hours.high / after.chip_hours.value)
    assert before.rent_usd.high / before.rent_usd.value > after.rent_usd.high / after.rent_usd.value
    assert after.energy_usd is not None
    assert after.energy_j is not None
    assert after.energy_usd.value == pytest.approx(0.05 * after.energy_j.value / KWH_J)


def test_a_site_that_knows_its_power_is_believed() -> None:
    own = load_factory("examples/grok-1.toml", ["site.it_power_w_per_chip=1500", "site.utilization=0.8"])
    found = of(own)[1]
    assert found.it_power_w is not None
    assert found.it_power_w.value == found.it_power_w.low == 1200.0


def test_a_chip_without_prices_has_no_cost() -> None:
    found = of(load_factory("examples/grok-1.toml", ['cluster.chips=[{name="h20", count=2048}]']))[1]
    assert found.rent_usd is None
    assert found.energy_j is None
    assert found.mfu.value > 0


def test_of_mixed_chips_the_slower_set_the_pace() -> None:
    factory = load_factory("examples/colossus.toml")
    prediction, _ = of(factory)
    mixed = prediction.mixed
    assert mixed is not None
    assert mixed.pace == "h100-sxm"
    assert mixed.step_s["h200-sxm"] < mixed.step_s["h100-sxm"]
    assert mixed.step_s["h100-sxm"] == pytest.approx(prediction.step.step_s, rel=0.02)
    assert 0 <= mixed.balance.gain < 0.2
    dealt = load_factory("examples/colossus.toml", ["twin.balanced_work=true"])
    assert predict(dealt).step.step_s <= prediction.step.step_s
    assert predict(load_factory("examples/grok-1.toml")).mixed is None


def test_a_calibration_file_changes_the_constants(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps({"constants": {"matmul_hopper": 0.4}}))
    own = load_factory("examples/grok-1.toml", [f"twin.constants={path}"])
    assert predict(own).step.parts["matmul"] > 1.3 * predict(load_factory("examples/grok-1.toml")).step.parts["matmul"]


def test_the_plain_data_is_json_and_its_operators_explain_the_step(factory: Factory) -> None:
    prediction, found = of(factory)
    plain = json.loads(json.dumps(told(factory, prediction, found)))
    assert plain["step_s"]["value"] == prediction.step_s.value
    assert plain["memory_limit_bytes"] - plain["memory_bytes"]["value"] == pytest.approx(plain["memory_left_bytes"])
    products = [row for row in plain["operators"] if row["kind"] == "matmul"]
    spent = sum(row["seconds"] for row in products)
    assert spent == pytest.approx(plain["parts_s"]["matmul"], rel=0.3)
    assert [row["seconds"] for row in plain["operators"]] == sorted(
        (row["seconds"] for row in plain["operators"]), reverse=True
    )
    assert {one["name"] for one in plain["constants"]} >= {"matmul_hopper"}
    assert all(source for _, _, source in plain["assumptions"])


def test_one_prediction_is_quick() -> None:
    """5 ms on a machine that is left alone (bench/twin_speed.py); here four times that."""
    factory = load_factory("examples/llama-405b.toml")
    predict(factory)
    taken = []
    for _ in range(5):
        began = time.process_time()
        predict(factory)
        taken.append(time.process_time() - began)
    assert min(taken) < 0.02


AXIS = st.sampled_from([1, 1, 1, 2, 2, 4, 8, 3])


@given(
    trainer=st.sampled_from(["gigafactory", "megatron", "torchtitan", "nemo", "maxtext", "general"]),
    model=st.sampled_from(["grok-1", "llama-8b", "mixtral-8x7b", "smollm2-135m"]),
    chip_name=st.sampled_from(["a100-sxm", "h100-sxm", "h200-sxm", "b200", "gb300-nvl72", "tpu-v5p", "mi300x"]),
    axes=st.tuples(AXIS, AXIS, AXIS, AXIS, AXIS, AXIS),
    accumulate=st.sampled_from([1, 2, 8, 16]),
    remat=st.sampled_from(["none", "selective", "full"]),
    form=st.sampled_from(["bf16", "fp16", "fp32", "fp8", "mxfp8", "nvfp4"]),
    shard=st.sampled_from([None, 0, 1, 2, 3]),
    offload=st.sampled_from([0.0, 0.5, 1.0]),
)
@settings(max_examples=300, deadline=None)
def test_any_layout_has_a_prediction_or_one_line_that_says_why_not(
    trainer: str,
    model: str,
    chip_name: str,
    axes: tuple[int, ...],
    accumulate: int,
    remat: str,
    form: str,
    shard: int | None,
    offload: float,
) -> None:
    stage, data, expert, context, tensor, repeats = axes
    factory = Factory.model_validate(
        {
            "cluster": {"chips": [{"name": chip_name, "count": 8192}]},
            "model": {"base": model},
            "layout": {
                "stage": stage,
                "data": data,
                "expert": expert,
                "context": context,
                "model": tensor,
                "circular_repeats": repeats,
            },
            "train": {"batch_rows": 1024, "sequence": 4096, "accumulate": accumulate, "remat": remat},
            "twin": {"trainer": trainer, "format": form, "shard": shard, "offload": {"activations": offload}},
        }
    )
    try:
        prediction, found = of(factory)
    except UserError as error:
        complaint = str(error)
    else:
        complaint = ""
        _check(factory, prediction, found)
    assert re.fullmatch(r"((layout|train|twin)[a-z_.]*: \S[^\n]*)?", complaint)


def _check(factory: Factory, prediction: Prediction, found: Outcome) -> None:
    assert math.isfinite(prediction.step.step_s)
    assert prediction.step.step_s > 0
    assert min(prediction.step.parts.values()) >= -1e-9 * prediction.step.step_s
    assert sum(prediction.step.parts.values()) == pytest.approx(prediction.step.step_s)
    assert math.isfinite(prediction.memory.memory_bytes)
    assert min(prediction.memory.classes.values()) >= 0
    assert 0 < found.mfu.value < 1
    json.dumps(told(factory, prediction, found), allow_nan=False)
