"""CPU step times: costs of products from a sweep, laws of the step time, and machines that we measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gigafactory.factory.training import TrainSection
from gigafactory.layout import Layout
from gigafactory.model.config import ModelConfig, grok_config
from gigafactory.twin.case import Cases, stack
from gigafactory.twin.cpu import Product, Rate, Sweep, cpu_machine, cpu_step_time, rate_of
from gigafactory.twin.networks import network_of
from gigafactory.twin.own import own_plan, own_software, own_work
from gigafactory.twin.prediction import PARTS

# two cores of an AMD EPYC, 26 sweeps of it: lower quartile of each time
EPYC = Sweep(
    chip="AMD EPYC",
    cores=2,
    jax="0.10.2",
    products=(
        Product(16, 128, 128, 1, 7.3e-6),
        Product(64, 64, 192, 1, 18.3e-6),
        Product(128, 128, 352, 1, 117.5e-6),
        Product(512, 128, 352, 1, 292e-6),
        Product(1024, 256, 704, 1, 1939.7e-6),
    ),
    batched=(Product(64, 32, 64, 16, 47.1e-6), Product(128, 32, 128, 32, 338.1e-6), Product(256, 64, 256, 8, 651.6e-6)),
    cached_bytes_per_s=22.9e9,
    memory_bytes_per_s=7.69e9,
    call_s=6e-6,
    sum_s=2e-4,
    sum_bytes=4.0 * 2**18,
    sum_devices=2,
)


def dense(layers: int, width: int, heads: int, kv_heads: int, ffn: int, vocab: int, context: int) -> ModelConfig:
    return ModelConfig(
        layers=layers, width=width, heads=heads, kv_heads=kv_heads, head_dim=width // heads, ffn_width=ffn, vocab=vocab,
        context=context,
    )  # fmt: skip


def mixture(width: int, heads: int, kv_heads: int, ffn: int, context: int) -> ModelConfig:
    return grok_config(
        layers=4, width=width, heads=heads, kv_heads=kv_heads, head_dim=32, ffn_width=ffn, vocab=264, context=context,
        attention_multiplier=None,
    )  # fmt: skip


LAPTOP = {
    "batch_rows": 8,
    "sequence": 128,
    "attention": "reference",
    "moe": "dropless",
    "optimizer": {"ema_decay": 0.99},
}
SMALL = dense(6, 256, 8, 4, 704, 264, 256)
SMALL_TRAIN = {"batch_rows": 8, "sequence": 256}
MEASURED: dict[str, tuple[ModelConfig, dict[str, Any], dict[str, int], float]] = {
    "examples/laptop.toml": (mixture(128, 4, 2, 344, 128), LAPTOP, {"data": 2, "fsdp": False}, 0.197),
    "the same on one device": (mixture(128, 4, 2, 344, 128), LAPTOP, {}, 0.173),
    "gigafactory init": (mixture(128, 4, 2, 688, 128), {"batch_rows": 16, "sequence": 128}, {}, 0.428),
    "tiny": (dense(2, 64, 2, 2, 192, 264, 64), {"batch_rows": 8, "sequence": 64}, {}, 0.0073),
    "small": (SMALL, SMALL_TRAIN, {}, 0.626),
    "small, fsdp": (SMALL, SMALL_TRAIN, {"data": 2}, 0.702),
    "small, tensor": (SMALL, SMALL_TRAIN, {"model": 2}, 0.689),
    "small, full remat": (SMALL, SMALL_TRAIN | {"remat": "full"}, {}, 0.738),
    "small, Muon": (SMALL, SMALL_TRAIN | {"optimizer": {"name": "muon"}}, {}, 0.831),
    "long rows": (dense(4, 192, 6, 6, 512, 264, 1024), {"batch_rows": 4, "sequence": 1024}, {}, 0.926),
    "mixture with capacity, fsdp": (
        mixture(192, 6, 2, 512, 256),
        {"batch_rows": 8, "sequence": 256},
        {"data": 2},
        0.640,
    ),
    "many words": (dense(4, 256, 8, 4, 704, 16384, 128), {"batch_rows": 8, "sequence": 128}, {}, 0.468),
    "looped layers": (dense(16, 128, 4, 2, 344, 264, 128), {"batch_rows": 8, "sequence": 128}, {}, 0.428),
}


def case_of(model: ModelConfig, given_train: dict[str, Any], sizes: dict[str, Any], sweep: Sweep = EPYC) -> Cases:
    train, layout = TrainSection.model_validate(given_train), Layout.model_validate(sizes)
    machine = cpu_machine(sweep, layout.devices, 8e9)
    plan, work = own_plan(layout, train, model), own_work(layout, train, 4)
    return Cases(network_of(model), plan, work, machine, own_software(train))


def step_s(name: str, sweep: Sweep = EPYC) -> float:
    model, train, sizes, _ = MEASURED[name]
    return float(cpu_step_time(case_of(model, train, sizes, sweep), sweep).step_s)


@pytest.mark.parametrize("name", MEASURED)
def test_steps_that_we_measured(name: str) -> None:
    assert step_s(name) == pytest.approx(MEASURED[name][3], rel=0.2)


def test_their_mean_error() -> None:
    errors = [abs(step_s(name) / measured - 1.0) for name, (*_, measured) in MEASURED.items()]
    assert np.mean(errors) < 0.09


@pytest.mark.parametrize("name", MEASURED)
def test_the_parts_add_up(name: str) -> None:
    model, train, sizes, _ = MEASURED[name]
    step = cpu_step_time(case_of(model, train, sizes), EPYC)
    assert set(step.parts) == set(PARTS)
    assert all(float(value) >= 0 for value in step.parts.values())
    assert sum(float(value) for value in step.parts.values()) == pytest.approx(float(step.step_s))
    assert float(step.hardware_flops) > 0.9 * float(step.model_flops)


def test_many_cases_at_once_are_the_single_ones() -> None:
    cases = stack([case_of(model, train, sizes) for model, train, sizes, _ in MEASURED.values()])
    assert cpu_step_time(cases, EPYC).step_s == pytest.approx([step_s(name) for name in MEASURED])


def test_a_faster_machine_is_never_slower() -> None:
    faster_products = tuple(replace(p, seconds=p.seconds / 2) for p in EPYC.products)
    faster_batched = tuple(replace(p, seconds=p.seconds / 2) for p in EPYC.batched)
    better = [
        replace(EPYC, products=faster_products),
        replace(EPYC, batched=faster_batched),
        replace(EPYC, cached_bytes_per_s=4e10),
        replace(EPYC, memory_bytes_per_s=2e10),
        replace(EPYC, sum_s=EPYC.sum_s / 2),
    ]
    for sweep in better:
        assert all(step_s(name, sweep) <= step_s(name) for name in MEASURED)
        assert any(step_s(name, sweep) < step_s(name) for name in MEASURED)


def test_two_devices_on_the_same_cores_are_no_faster_than_one() -> None:
    assert step_s("small, fsdp") >= step_s("small")
    assert step_s("small, tensor") >= step_s("small")


@given(
    start=st.floats(1e-7, 1e-4), speed=st.floats(1e9, 1e12), number=st.floats(1e-11, 1e-9), noise=st.floats(0.97, 1.03)
)
def test_costs_of_products_are_found_again(start: float, speed: float, number: float, noise: float) -> None:
    truth = Rate(start, speed, number)
    shapes = [(8, 64, 64), (64, 64, 192), (128, 128, 352), (512, 128, 352), (512, 1024, 1024), (4096, 16, 16)]

    def seconds(m: int, k: int, n: int, rate: Rate) -> float:
        return rate.start_s + 2.0 * m * k * n / rate.flops + (m * k + k * n + m * n) * rate.number_s

    measured = [
        Product(m, k, n, 1, seconds(m, k, n, truth) * (noise if index % 2 else 1.0))
        for index, (m, k, n) in enumerate(shapes)
    ]
    found = rate_of(measured)
    assert found.start_s >= 0
    assert found.flops > 0
    assert found.number_s >= 0
    for product in measured:
        assert seconds(product.m, product.k, product.n, found) == pytest.approx(product.seconds, rel=0.1)


def test_a_machine_with_more_devices_has_less_of_everything_on_each() -> None:
    one, two = cpu_machine(EPYC, 1, 8e9), cpu_machine(EPYC, 2, 8e9)
    assert two.flops == one.flops / 2
    assert two.hbm_bytes == one.hbm_bytes / 2
    assert two.hbm_bytes_per_s == one.hbm_bytes_per_s / 2
    assert one.generation == 0
