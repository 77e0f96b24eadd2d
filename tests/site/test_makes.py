"""What a site makes: training FLOP, named models, serving on the same site."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from gigafactory.factory.catalog import catalogue_model, chip, trainings
from gigafactory.factory.load import load_factory
from gigafactory.factory.quantity import Spread
from gigafactory.site.draws import Draws
from gigafactory.site.jobs import named_job
from gigafactory.site.makes import Makes, makes, training_flop
from gigafactory.site.money import money
from gigafactory.site.power import power
from gigafactory.site.schedule import schedule
from gigafactory.site.serving import roofline

EXAMPLES = Path(__file__).parents[2] / "examples"
DRAWS = Draws(1000, 1)


def made(name: str, sets: Sequence[str] = (), goodput: Spread | None = None, draws: Draws = DRAWS) -> Makes:
    factory = load_factory(EXAMPLES / f"{name}.toml", sets)
    times = schedule(factory, draws)
    electric = power(factory, draws, times)
    return makes(factory, draws, times, electric, money(factory, draws, times, electric), goodput)


@pytest.fixture(scope="module")
def colossus() -> Makes:
    return made("colossus")


@pytest.fixture(scope="module")
def lab() -> Makes:
    return made("lab-64")


def test_100_000_h100_for_100_days() -> None:
    """P9 and claim 2: FP8 at 35 % of its peak."""
    assert training_flop(100_000, chip("h100-sxm").peak_flops("fp8"), 0.35, 100) == pytest.approx(5.98e26, rel=0.01)


def test_peaks_of_100_000_h100() -> None:
    """Claim 24: 98.9 EF in 16 bits, 197.9 EF in 8."""
    found = made("oracle-rental")
    assert found.peak_flops["bf16"] == pytest.approx(98.9e18, rel=0.001)
    assert found.peak_flops["fp8"] == pytest.approx(197.9e18, rel=0.001)
    assert "fp4" not in found.peak_flops


def test_llama_405b_takes_as_long_as_it_took() -> None:
    """Meta's model card: 30.84 M GPU-hours on up to 16,384 H100, 38 to 43 % MFU (arXiv 2407.21783)."""
    factory = load_factory(EXAMPLES / "llama-405b.toml")
    job = named_job(trainings()["llama-405b-training"], factory, "h100-sxm", 16_384)
    assert job.flop == pytest.approx(3.8e25, rel=0.05)
    assert 0.36 < job.mfu.p50 < 0.46
    days = job.flop / training_flop(16_384, chip("h100-sxm").peak_flops("bf16"), job.mfu.p50, 1.0, 0.9)
    assert days * 24 * 16_384 == pytest.approx(30.84e6, rel=0.15)


def test_a_model_whose_layout_does_not_fit_has_the_usual_mfu() -> None:
    factory = load_factory(EXAMPLES / "lab-64.toml")
    job = named_job(trainings()["llama-405b-training"], factory, "h100-sxm", 64)
    assert "needs 128 chips" in job.source


def test_useful_is_less_than_peak(colossus: Makes) -> None:
    """Claim 3: what stays is the chips that work, times MFU, times goodput."""
    peak = colossus.peak_flops["bf16"]
    assert (colossus.flops <= peak * colossus.mfu).all()
    share = colossus.useful_chips[:, -1] / colossus.chips
    assert colossus.flops == pytest.approx(peak * share * colossus.mfu * colossus.goodput, rel=1e-6)


def test_compute_grows_with_chips_and_with_goodput() -> None:
    """Claim 10: what software loses, chips must make up."""
    poor = made("lab-64", goodput=Spread(p10=0.5, p50=0.5, p90=0.5))
    rich = made("lab-64", goodput=Spread(p10=1.0, p50=1.0, p90=1.0))
    assert poor.goodput_source == "the simulated supervisor"
    assert rich.training_flop == pytest.approx(2 * poor.training_flop)
    assert rich.runs[0].days == pytest.approx(poor.runs[0].days / 2)
    assert (rich.runs[0].finished <= poor.runs[0].finished).all()


def test_the_files_goodput_wins_over_the_catalogue() -> None:
    found = made("lab-64", ["twin.goodput=0.8"])
    assert found.goodput == pytest.approx(0.8)


def test_a_run_is_paid_by_the_useful_hour(lab: Makes) -> None:
    own = lab.runs[0]
    assert own.job.name == "lab-64"
    assert own.chip_hours == pytest.approx(lab.useful_chips[:, -1] * own.days * 24)
    assert lab.flop_per_usd * own.usd == pytest.approx(own.job.flop, rel=1e-6)


def test_a_run_needs_its_time(lab: Makes) -> None:
    own = lab.runs[0]
    first = (lab.useful_chips > 0).argmax(axis=1)
    begun = lab.months.edges[first]
    ended = np.isfinite(own.finished)
    assert (own.finished[ended] > begun[ended]).all()


def test_training_and_serving_share_the_chips(lab: Makes) -> None:
    """Claim 6."""
    none, half, whole = lab.shared(0.0), lab.shared(0.5), lab.shared(1.0)
    assert not none["tokens_per_day"].any()
    assert half["training_flop_per_month"] == pytest.approx(none["training_flop_per_month"] / 2)
    assert half["tokens_per_day"] == pytest.approx(whole["tokens_per_day"] / 2)
    assert not whole["training_flop_per_month"].any()


def test_serving_is_bound_by_memory_or_by_arithmetic() -> None:
    model, h100 = catalogue_model("llama-70b").config, chip("h100-sxm")
    roof = roofline(model, h100, np.array([256.0, 4096.0, 65536.0]))
    each = roof.tokens_per_s_per_chip
    assert roof.chips == 4, "140 GB of weights in half of 320 GB"
    assert (np.diff(each) < 0).all(), "longer contexts leave room for fewer conversations"
    most = h100.peak_flops("bf16") / (2 * model.matmul_parameters())
    assert (each < most).all()
    assert roof.compute_s[0] > roof.memory_s[0], "a large batch is bound by arithmetic"
    assert roof.memory_s[2] > roof.compute_s[2], "long contexts by memory"


def test_a_file_without_a_model_has_the_usual_mfu() -> None:
    found = made("oracle-rental")
    assert "names no model" in found.mfu_source
    assert [run.job.name for run in found.runs] == ["grok-1", "llama-405b"]


def test_colossus_makes_its_models(colossus: Makes) -> None:
    told = colossus.told()
    assert "the twin" in colossus.mfu_source
    names = {each["name"]: each for each in told["named_models"]}
    assert set(names) == {"colossus", "grok-1", "llama-405b"}
    assert 4 < names["llama-405b"]["days"]["p50"] < 9
    assert names["llama-405b"]["usd"]["p50"] > 1e7
    assert "the twin" in names["grok-1"]["mfu"]["source"]
    month = told["useful_flop_per_month"]
    assert month["p10"] <= month["p50"] <= month["p90"]
    for low, middle, high in zip(*(told["training_flop"][rank] for rank in ("p10", "p50", "p90")), strict=True):
        assert low <= middle <= high


def test_useful_compute_per_watt(colossus: Makes) -> None:
    """Peak over facility power per chip bounds it: 989 TFLOP/s over some 1,400 W."""
    assert 2e10 < float(np.median(colossus.flops_per_w)) < 989.4e12 / 1389
