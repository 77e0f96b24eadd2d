"""Laws: dump_factory loads back equal; no text and no override makes anything but a Factory or a UserError."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from gigafactory.errors import UserError
from gigafactory.factory.catalog import chips, models
from gigafactory.factory.file import Factory
from gigafactory.factory.load import dump_factory, parse_factory

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
DATES = st.dates(datetime.date(2000, 1, 1), datetime.date(2100, 1, 1))
POSITIVE = st.floats(1e-9, 1e18)
SPREADS = st.one_of(
    POSITIVE,
    st.lists(POSITIVE, min_size=3, max_size=3).map(lambda v: dict(zip(("p10", "p50", "p90"), sorted(v), strict=True))),
)


@st.composite
def tables(draw: Callable[..., Any]) -> dict[str, Any]:
    """Raw tables of a valid factory file, with awkward texts and numbers."""
    chip = st.sampled_from(list(chips()))
    group = st.fixed_dictionaries(
        {"name": chip, "count": st.integers(1, 8)},
        optional={"power_cap_w": POSITIVE, "facts": st.just({"hbm_bytes": 1.5e11})},
    )
    order = st.fixed_dictionaries(
        {"chip": chip, "count": st.integers(1, 10**6), "placed": DATES, "lead_weeks": SPREADS}, optional={"note": TEXT}
    )
    source = st.fixed_dictionaries({"path": TEXT.filter(bool)}, optional={"include": TEXT, "weight": POSITIVE})
    section: dict[str, Any] = {
        "cluster": st.fixed_dictionaries({"chips": st.lists(group, max_size=3)}),
        "site": st.fixed_dictionaries(
            {
                "orders": st.lists(order, max_size=3),
                "place": TEXT,
                "money": st.fixed_dictionaries({"chip_usd": st.dictionaries(chip, SPREADS, max_size=2)}),
            }
        ),
        "model": st.fixed_dictionaries(
            {"base": st.sampled_from(list(models()))}, optional={"layers": st.integers(1, 99), "norm_eps": POSITIVE}
        ),
        "data": st.fixed_dictionaries({"sources": st.lists(source, max_size=3), "tokenizer": TEXT}),
        "train": st.fixed_dictionaries(
            {"sample_prompts": st.lists(TEXT, max_size=3), "steps": st.integers(1, 2**62)},
            optional={"z_loss": st.floats(0, 1e300)},
        ),
        "chat": st.fixed_dictionaries({"model": TEXT}),
    }
    return {name: draw(strategy) for name, strategy in section.items() if draw(st.booleans())}


@given(tables())
@settings(max_examples=150, deadline=None)
def test_a_dumped_factory_loads_back_equal(raw: dict[str, Any]) -> None:
    factory = Factory.model_validate(raw)
    assert parse_factory(dump_factory(factory), "dumped") == factory


@given(
    st.one_of(
        TEXT, st.builds("{}={}".format, st.sampled_from(["train.steps", "model", "cluster.chips[0]", "site.pue"]), TEXT)
    )
)
@example("train.steps=" + "9" * 50)
@example("model.base=\x7f")
@example("name='''a\nb'''")
@settings(max_examples=200, deadline=None)
def test_any_override_gives_a_factory_or_one_error(override: str) -> None:
    with contextlib.suppress(UserError):
        assert isinstance(parse_factory("", "x", (override,)), Factory)


@given(st.text(st.sampled_from('[]={}".\n#abct1- '), max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_text_gives_a_factory_or_one_error(text: str) -> None:
    with contextlib.suppress(UserError):
        assert isinstance(parse_factory(text, "x"), Factory)
