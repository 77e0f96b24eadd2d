"""The whole plan: all parts of one set of draws, the same for the same seed, as plain data."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from gigafactory.errors import UserError
from gigafactory.factory.file import Factory
from gigafactory.factory.load import load_factory
from gigafactory.site.draws import Draws
from gigafactory.site.plan import PARTS, plan

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("name", ["colossus", "oracle-rental", "colossus-2", "lab-64"])
def test_every_example_has_a_plan_with_all_parts_as_plain_data(name: str) -> None:
    told = plan(load_factory(EXAMPLES / f"{name}.toml"), Draws(200, 1)).told()
    text = json.dumps(told, allow_nan=False)
    assert json.loads(text)["name"] == told["name"]
    for part in PARTS:
        assert told[part] is not None, part
        assert told[part]["sentences"], part


def test_same_seed_same_plan() -> None:
    factory = load_factory(EXAMPLES / "lab-64.toml")
    texts = {json.dumps(plan(factory, Draws(100, seed)).told()) for seed in (1, 1, 2)}
    assert len(texts) == 2


def test_ten_thousand_draws_of_colossus_take_seconds() -> None:
    factory = load_factory(EXAMPLES / "colossus.toml")
    before = time.process_time()
    plan(factory, Draws(10_000, 1)).told()
    assert time.process_time() - before < 10


def test_a_file_without_a_site_has_no_plan() -> None:
    with pytest.raises(UserError, match=r"^site\.start: is missing"):
        plan(Factory(), Draws(10, 1))
