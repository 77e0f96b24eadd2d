"""A factory file as a case: every field from where the file says it, mistakes named by the file's fields."""

from __future__ import annotations

import dataclasses
import numbers
from pathlib import Path

import pytest

from gigafactory.errors import UserError
from gigafactory.factory.file import Factory
from gigafactory.factory.load import load_factory, parse_factory
from gigafactory.twin.build import cases_of, kinds_of, months_of
from gigafactory.twin.case import Cases, take
from gigafactory.twin.machines import measured_machine
from gigafactory.twin.runs import read_runs

RUNS = Path(__file__).parents[2].parent / "shared" / "data" / "published_runs.csv"

MEGATRON = """
[[cluster.chips]]
name = "h100-sxm"
count = 512
[model]
base = "llama-70b"
[layout]
stage = 4
data = 16
model = 8
[train]
batch_rows = 256
sequence = 8192
accumulate = 16
[twin]
trainer = "megatron"
"""


def megatron(*sets: str) -> Cases:
    return cases_of(parse_factory(MEGATRON, "f", sets))


def test_our_own_trainer_is_as_the_layout_says() -> None:
    factory = load_factory("examples/grok-1.toml")
    case = cases_of(factory)
    plan, work, network = case.plan, case.work, case.network
    assert (plan.tensor, plan.pipe, plan.data, plan.expert, plan.expert_tensor) == (8, 1, 256, 8, 8)
    assert (plan.shard, plan.shard_group, plan.recompute_full) == (3, 32, 1)
    assert plan.chips == factory.layout.devices == 2048
    assert (work.micro_rows, work.global_rows, work.sequence, work.number_bytes) == (2, 512, 8192, 2)
    assert (network.layers, network.experts, network.topk, network.kv_heads) == (64, 8, 2, 8)
    assert case.software.own == 1
    assert case.tokens_per_step == 512 * 8192


def test_every_field_is_one_plain_number() -> None:
    for name in ("grok-1", "llama-405b", "colossus"):
        case = cases_of(load_factory(f"examples/{name}.toml"))
        for part in case.parts():
            for field, value in vars(part).items():
                assert isinstance(value, numbers.Real), f"{name}: {field}"


def test_another_trainer_has_its_own_habits() -> None:
    case = megatron()
    assert case.software.own == 0
    assert (case.plan.shard, case.plan.shard_group, case.plan.sequence_parallel) == (1, 16, 1)
    assert case.work.micro_rows == 1
    assert case.micro_batches == 16
    assert megatron("train.remat=full").plan.recompute_full == 1
    assert megatron("train.remat=full", "twin.recompute_layers=0.5").plan.recompute_full == 0.5
    selective = megatron("train.remat=selective").plan
    assert (selective.recompute_full, selective.recompute_attention) == (0, 1)


@pytest.mark.parametrize(
    ("override", "field", "value"),
    [
        ("twin.micro_rows=2", "micro_rows", 2),
        ("twin.shard=2", "shard", 2),
        ("twin.shard_group=8", "shard_group", 8),
        ("twin.interleave=5", "interleave", 5),
        ("twin.sequence_parallel=false", "sequence_parallel", 0),
        ("twin.tensor_overlap=true", "tensor_overlap", 1),
        ("twin.data_overlap=false", "data_overlap", 0),
        ("twin.graphs=true", "graphs", 1),
        ("twin.balanced_stages=true", "balanced", 1),
        ('twin.release="26.04"', "months", 75),
        ('twin.format="fp8"', "low", 1),
        ('twin.recompute=["norm", "up"]', "recompute_up", 1),
        ("twin.offload.optimizer=0.5", "offload_optimizer", 0.5),
        ("twin.network.gated=false", "gated", 0),
        ("twin.network.mtp_layers=1", "mtp_layers", 1),
        ("cluster.chips[0].power_cap_w=500", "power_share", pytest.approx(500 / 700)),
    ],
)
def test_each_word_of_the_section_reaches_the_case(override: str, field: str, value: float) -> None:
    def read(case: Cases) -> float:
        return next(vars(part)[field] for part in case.parts() if field in vars(part))

    assert read(megatron(override)) == value
    assert read(megatron()) != value


def test_formats_bring_their_peak() -> None:
    assert megatron('twin.format="fp8"').machine.low_flops == 1.979e15
    assert megatron().machine.low_flops == megatron().machine.flops
    blackwell = 'cluster.chips=[{name="b200", count=512}]'
    four = megatron(blackwell, 'twin.format="nvfp4"')
    assert (four.work.low, four.work.block_scaled, four.work.four_bit) == (1, 1, 1)
    assert four.machine.low_flops > 2 * four.machine.flops


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ('twin.format="nvfp4"', "twin.format: "),
        ('twin.trainer="megatorn"', "twin.trainer: "),
        ("layout.data=32", "layout: needs 1,024 chips, but the cluster has 512"),
        ("layout.model=7", "layout.model: "),
        ("layout.stage=90", "layout: needs"),
        ("twin.interleave=50", "layout.stage: 4 x interleave 50 = 200 stages are more than the 80 layers"),
        ("layout.expert=2", "layout"),
        ("twin.micro_rows=3", "t"),
        ("train.batch_rows=250", "train.batch_rows: must be a multiple of accumulate "),
        ("train.sequence=8191", "layout.context: 1 x model 8 must divide sequence=8191"),
    ],
)
def test_what_is_impossible_names_the_field_of_the_file(override: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        megatron(override)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_mixed_chips_have_the_least_of_each_rate_and_size() -> None:
    factory = load_factory("examples/colossus.toml")
    kinds = kinds_of(factory)
    assert [(kind.name, kind.count) for kind in kinds] == [("h100-sxm", 150_000), ("h200-sxm", 46_608)]
    assert sum(kind.count for kind in kinds) == factory.layout.devices
    machine = cases_of(factory).machine
    assert machine.hbm_bytes == min(kind.machine.hbm_bytes for kind in kinds) == 80e9
    assert machine.hbm_bytes_per_s == 3.35e12


def test_without_chips_the_machine_must_have_been_measured() -> None:
    with pytest.raises(UserError, match=r"cluster\.chips: is empty"):
        cases_of(Factory())
    here = measured_machine(flops=1e11, memory_bytes=8e9, memory_bytes_per_s=1e10, link_bytes_per_s=1e9)
    case = cases_of(Factory(), here)
    assert case.work.number_bytes == 4
    assert case.machine == here


def test_months_of_a_release() -> None:
    assert (months_of("26.04"), months_of("20.01"), months_of("24.12")) == (75, 0, 59)


def test_replacing_a_field_leaves_the_rest() -> None:
    case = megatron()
    assert dataclasses.asdict(case.replace(tensor=4.0)) != dataclasses.asdict(case)
    assert case.replace(tensor=case.plan.tensor) == case


@pytest.mark.parametrize(("form", "measured_s"), [("bf16", 21.09), ("fp8", 17.04)])
def test_a_published_run_is_the_same_case_from_a_file_and_from_the_table(form: str, measured_s: float) -> None:
    if not RUNS.exists():
        pytest.skip("needs ../shared/data/published_runs.csv")
    runs = read_runs(RUNS)
    row = runs.ids.index(f"dgxc-v24.11.1-grok1-H100-{form}-2048")
    assert runs.step_s[row] == measured_s
    table, file = take(runs.cases, row), cases_of(load_factory("examples/grok-1-nemo.toml", [f"twin.format={form}"]))
    for of_table, of_file in zip(table.parts(), file.parts(), strict=True):
        assert {name: float(value) for name, value in vars(of_file).items()} == pytest.approx(
            {name: float(value) for name, value in vars(of_table).items()}
        )
