"""The WiCE benchmark and the script that fits the classifier, on made-up rows."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from bench import support, wice
from bench.support_text import FACTS, Fact, pair, slots
from gigafactory.chat.classifier import weights
from gigafactory.errors import UserError

ARTICLE = [
    "(meta data) TITLE: The ferry of Norwick",
    "Mara Ellison opened the ferry terminal of Norwick on March 3, 2019.",
    "It cost $12 million and took four years to build.",
    "The ferry carries 480 passengers to Velmouth twice a day.",
]
ROWS = [
    ("supported", "Mara Ellison opened the terminal on March 3, 2019."),
    ("supported", "The ferry terminal of Norwick cost $12 million."),
    ("partially_supported", "Mara Ellison opened the terminal with Tomas Brandt in 2017."),
    ("not_supported", "The airport of Sandoval lost 90 percent of its traffic."),
]


def test_it_measures_a_claim_file(tmp_path: Path) -> None:
    path = tmp_path / "claims.jsonl"
    lines = [json.dumps({"label": label, "claim": claim, "evidence": ARTICLE, "meta": {}}) for label, claim in ROWS]
    path.write_text("\n".join(lines))
    content, scored = wice.measure(wice.read(path))
    assert (content["claims"], content["supported"]) == (4, 2)
    assert (content["auroc"], content["balanced_accuracy"]) == (1.0, 1.0)
    assert content["claims_without_their_number_or_date"] == 2
    assert content["of_these_truly_not_supported_number_or_date"] == 1.0
    assert content["claims_without_their_name"] == 2
    assert all(set(claim.features) == set(support.SIGNS) for claim in scored)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"label": "supported"}', "1: a WiCE claim has label, claim and evidence"),
        ("not json", "no JSON lines"),
        ("[1]", "no JSON lines"),
    ],
)
def test_a_file_of_something_else(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        wice.read(path)
    with pytest.raises(UserError, match="No such file"):
        wice.read(tmp_path / "none.jsonl")


def test_auroc_counts_pairs_in_order_and_ties_as_half() -> None:
    gold = np.array([True, True, False, False])
    assert wice.auroc(gold, np.array([3.0, 2.0, 1.0, 0.0])) == 1.0
    assert wice.auroc(gold, np.array([3.0, 0.0, 1.0, 2.0])) == 0.5
    assert wice.auroc(gold, np.array([1.0, 1.0, 1.0, 1.0])) == 0.5


def test_the_interval_holds_the_measure() -> None:
    rng = np.random.default_rng(0)
    gold = rng.random(200) < 0.4
    scores = gold + rng.normal(0, 1, 200)
    low, high = wice.interval(lambda rows: wice.auroc(gold[rows], scores[rows]), 200, gold)
    assert low < wice.auroc(gold, scores) < high


def test_every_wording_of_a_fact_says_the_same_slots() -> None:
    for wordings in FACTS:
        assert len({tuple(sorted(slots(wording))) for wording in wordings}) == 1, wordings


def test_pairs_are_drawn_by_seed_and_hold_what_their_label_says() -> None:
    filler = ["The sea was calm and the harbour lay in the sun that day."] * 3
    drawn = [pair(random.Random(seed), filler, ["other"]) for seed in range(60)]
    assert drawn == [pair(random.Random(seed), filler, ["other"]) for seed in range(60)]
    assert {example.kind for example in drawn} >= {"supported", "changed", "added", "left out"}
    assert all(example.supported == (example.kind == "supported") for example in drawn)


def test_a_changed_fact_differs_in_one_value() -> None:
    rng = random.Random(1)
    fact = Fact.draw(rng, {})
    other = fact.changed(rng, {})
    assert sum(a != b for a, b in zip(fact.values, other.values, strict=True)) == 1


def test_the_fit_keeps_the_signs() -> None:
    rng = np.random.default_rng(0)
    x = rng.random((400, len(support.SIGNS)))
    y = (x[:, 0] - x[:, 1] + 0.3 * x[:, 2] > 0.2).astype(float)  # the third has the wrong sign in these data
    found, _ = support.fit(x, y)
    assert found[0] > 1
    assert found[1] < -1
    assert found[2] == 0


def test_the_shipped_weights_are_of_these_features() -> None:
    by_name, _ = weights()
    assert set(by_name) == set(support.SIGNS)
    assert all(value * support.SIGNS[name] >= 0 for name, value in by_name.items())
