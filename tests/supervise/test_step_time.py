"""Where a simulation takes the time of a step from, and that it says so."""

from __future__ import annotations

import pytest

from gigafactory.factory.file import Factory
from gigafactory.factory.load import load_factory
from gigafactory.supervise.simulated import step_of
from gigafactory.twin.outcome import predict


def found(factory: Factory) -> tuple[float, str]:
    return step_of(factory, factory.supervise.simulate)


def test_the_section_wins() -> None:
    factory = load_factory("examples/grok-1.toml", ["supervise.simulate.step_s=7"])
    assert found(factory) == (7.0, "supervise.simulate.step_s of the factory file")


def test_else_it_is_the_twins() -> None:
    factory = load_factory("examples/grok-1.toml")
    step_s, origin = found(factory)
    assert step_s == predict(factory).step_s.value
    assert origin.startswith("predicted by the twin, 80 % interval ")


def test_what_the_twin_cannot_say_is_an_estimate_with_the_reason() -> None:
    factory = load_factory("examples/grok-1.toml", ["layout.model=16", "layout.data=16"])
    step_s, origin = found(factory)
    flops = 512 * 8192 * factory.model.train_flops_per_token(8192)
    assert step_s == pytest.approx(flops / (2048 * 9.894e14 * 0.41), rel=1e-3)
    assert "41 % of the slowest chips' peak" in origin
    assert "the twin cannot say: layout.model: " in origin


def test_without_chips_it_is_a_second() -> None:
    assert found(Factory())[0] == 1.0
