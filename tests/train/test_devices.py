"""Devices that JAX shall see, set before it is imported, and the measure of this machine's matmuls."""

from __future__ import annotations

import itertools
import os
import sys

import pytest

from gigafactory.errors import UserError
from gigafactory.train import devices
from gigafactory.train.devices import COUNT_FLAG, measure_gemm, set_up


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A process of four cores without a GPU that has not imported JAX yet."""
    monkeypatch.delitem(sys.modules, "jax")
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=x")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    monkeypatch.setattr(devices, "has_gpu", lambda: False)
    return monkeypatch


@pytest.mark.parametrize(("wanted", "flag"), [(1, ""), (2, f" {COUNT_FLAG}=2"), (4, f" {COUNT_FLAG}=4")])
def test_a_device_per_core_when_more_than_one_is_wanted(fresh: pytest.MonkeyPatch, wanted: int, flag: str) -> None:
    set_up(wanted)
    assert os.environ["XLA_FLAGS"] == "--xla_dump_to=x" + flag


def test_more_than_there_are(fresh: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError) as refused:
        set_up(64)
    assert str(refused.value) == (
        "layout: needs 64 devices, but this machine has 4 CPU cores and no GPU;"
        " `gigafactory compile` shows what each would do,"
        f" XLA_FLAGS={COUNT_FLAG}=64 makes as many virtual ones for a small model"
    )
    fresh.setattr(os, "sched_getaffinity", lambda _: {0})
    with pytest.raises(UserError, match="needs 3 devices"):
        set_up(3)
    set_up(2)  # two on one core are slow, but right


def test_what_the_user_has_set_stands(fresh: pytest.MonkeyPatch) -> None:
    fresh.setenv("XLA_FLAGS", f"{COUNT_FLAG}=64")
    set_up(64)
    assert os.environ["XLA_FLAGS"] == f"{COUNT_FLAG}=64"
    fresh.delenv("XLA_FLAGS")
    fresh.setattr(devices, "has_gpu", lambda: True)
    set_up(64)  # JAX then says how many GPUs there are
    assert "XLA_FLAGS" not in os.environ


def test_a_gpu_counts_unless_jax_is_told_to_leave_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert not devices.has_gpu()
    monkeypatch.delenv("JAX_PLATFORMS")
    assert devices.has_gpu()


def test_the_fastest_of_several_matmuls_counts() -> None:
    # a clock whose ticks are a thousand times apart now and then: slow repeats must not count
    ticks = itertools.accumulate(itertools.cycle([1e-3, 1e-3, 1e-3, 1.0]))
    assert measure_gemm(0.1, clock=lambda: next(ticks)) == pytest.approx(2 * 1024**3 / 1e-3)
