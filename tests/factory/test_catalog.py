"""The catalogue: every fact has its source, names are found, models are what they are called."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gigafactory.errors import UserError
from gigafactory.factory import catalog
from gigafactory.model.config import ModelConfig, grok_config

CHIPS_CSV = Path(__file__).parents[3] / "shared" / "data" / "chips.csv"
ALL = [entry for kind in catalog.KINDS for entry in catalog.entries(kind).values()]


@pytest.mark.parametrize("entry", ALL, ids=lambda entry: entry.name)
def test_each_entry_and_each_fact_has_a_source(entry: catalog.AnyEntry) -> None:
    assert len(entry.source) > 10
    if not isinstance(entry, catalog.CatalogueModel):
        facts = entry.facts()
        assert facts
        for name, fact in facts.items():
            assert fact.source, name
            assert fact.value > 0, name
            assert fact.low is None or fact.low <= fact.value <= (fact.high or 0), name
    assert catalog.headline(entry)


def test_names_are_unique_over_all_kinds() -> None:
    names = [entry.name for entry in ALL]
    assert len(set(names)) == len(names)


def test_numbers_of_a_chip() -> None:
    h100 = catalog.chip("h100-sxm")
    assert h100.peak_flops("bf16") == 989.4e12
    assert h100.peak_flops("fp8") == 1979e12
    assert h100.scaleup_bytes_per_s.value == 450e9, "one direction: half of the printed 900 GB/s"
    assert h100.nic_bits_per_s is not None
    assert float(h100.nic_bits_per_s) == 400e9
    assert h100.price_usd is not None
    assert (h100.price_usd.low, h100.price_usd.value, h100.price_usd.high) == (22000, 28500, 35000)
    assert catalog.chip_of_device("NVIDIA H100 80GB HBM3") == h100
    assert catalog.chip_of_device("some other") is None


def test_vendor_figures_that_were_not_reread_are_flagged() -> None:
    assert catalog.chip("h20").scaleup_bytes_per_s.unverified
    assert not catalog.chip("h20").hbm_bytes.unverified


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda: catalog.chip("h100"), "did you mean 'h100-sxm'"),
        (lambda: catalog.chip("?"), "known: a100-sxm-40gb"),
        (lambda: catalog.fabric("infiniband"), "did you mean .*'infiniband-ndr'"),
        (lambda: catalog.find("grok"), "did you mean 'grok-1'"),
        (lambda: catalog.chip("h100-sxm").peak_flops("fp4"), "known: bf16, fp8, int8"),
    ],
)
def test_an_unknown_name_is_a_user_error_with_what_is_near(ask: object, words: str) -> None:
    with pytest.raises(UserError, match=words):
        ask()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("grok-1", 315.7),
        ("llama-8b", 8.03),
        ("llama-70b", 70.55),
        ("llama-405b", 405.85),
        ("mixtral-8x7b", 46.70),
        ("smollm2-135m", 0.1345),
    ],
)  # the sizes that the makers publish
def test_models_have_their_published_size(name: str, billions: float) -> None:
    assert catalog.catalogue_model(name).config.parameters() / 1e9 == pytest.approx(billions, rel=1e-3)


@given(st.integers(1, 9000), st.integers(1, 64))
def test_grok_at_another_width_follows_the_rules_of_the_release(width: int, layers: int) -> None:
    section = {"base": "grok-1", "width": width, "layers": layers}
    assert ModelConfig.model_validate(catalog.resolve_model(section)) == grok_config(width=width, layers=layers)


def test_given_fields_win_over_the_rules() -> None:
    resolved = catalog.resolve_model({"base": "grok-1", "width": 256, "ffn_width": 100, "embedding_multiplier": 2.0})
    assert (resolved["ffn_width"], resolved["embedding_multiplier"]) == (100, 2.0)


@pytest.mark.skipif(not CHIPS_CSV.exists(), reason="the table that the catalogue was made from is not on this machine")
def test_chips_equal_the_table_they_come_from() -> None:
    rows = {row["chip"]: row for row in csv.DictReader(CHIPS_CSV.open(encoding="utf-8"))}
    listed = [chip for chip in catalog.chips().values() if chip.variant_of is None]
    assert {chip.title for chip in listed} == set(rows)
    for chip in listed:
        row = rows[chip.title]
        pairs = [
            (chip.peak_bf16_flops, "bf16_dense_tflops", 1e12),
            (chip.peak_fp8_flops, "fp8_dense_tflops", 1e12),
            (chip.peak_fp4_flops, "fp4_dense_tflops", 1e12),
            (chip.peak_int8_flops, "int8_dense_tops", 1e12),
            (chip.h100_equivalents, "h100e_epoch", 1),
            (chip.hbm_bytes, "hbm_gb", 1e9),
            (chip.hbm_bytes_per_s, "hbm_tb_s", 1e12),
            (chip.scaleup_bytes_per_s, "scaleup_gb_s_bidir", 0.5e9),
            (chip.nic_bits_per_s, "scaleout_nic_gbps", 1e9),
            (chip.power_w, "tdp_w", 1),
            (chip.server_power_w, "server_it_w_per_chip", 1),
        ]
        for fact, column, unit in pairs:
            if row[column]:
                assert fact is not None, (chip.name, column)
                assert fact.value == pytest.approx(float(row[column]) * unit), (chip.name, column)
            else:
                assert fact is None, (chip.name, column)
        assert str(chip.launched) == row["launch_date"]
        assert chip.source == row["source"]
        if row["unit_price_usd_low"]:
            assert chip.price_usd is not None
            assert (chip.price_usd.low, chip.price_usd.high) == (
                float(row["unit_price_usd_low"]),
                float(row["unit_price_usd_high"]),
            )
        facts = [fact for fact, _, _ in pairs] + [chip.scaleup_chips, chip.price_usd]
        flagged = any(fact.unverified for fact in facts if fact is not None)
        assert flagged == bool(row["fields_from_vendor_knowledge_not_reread"]), chip.name
