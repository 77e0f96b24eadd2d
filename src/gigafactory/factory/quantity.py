"""Quantities that are not one number: a spread given by its percentiles, and overrides of catalogue facts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, model_validator

from gigafactory.errors import UserError
from gigafactory.factory.catalog import Entry, Fact, fact_names, suggest
from gigafactory.factory.training import Section

E = TypeVar("E", bound=Entry)


class Spread(Section):
    """An uncertain number by its 10th, 50th and 90th percentile; one plain number is a certain one."""

    p10: float
    p50: float
    p90: float

    @model_validator(mode="before")
    @classmethod
    def _from_number(cls, raw: Any) -> Any:
        if isinstance(raw, int | float) and not isinstance(raw, bool):
            return {"p10": raw, "p50": raw, "p90": raw}
        return raw

    @model_validator(mode="after")
    def _ordered(self) -> Spread:
        if not self.p10 <= self.p50 <= self.p90:
            raise ValueError(f"needs p10 <= p50 <= p90, got {self.p10}, {self.p50}, {self.p90}")
        return self


def _not_negative(spread: Spread) -> Spread:
    if spread.p10 < 0:
        raise ValueError(f"must not be negative, got p10={spread.p10}")
    return spread


PositiveSpread = Annotated[Spread, AfterValidator(_not_negative)]


def known(lookup: Any, name: str) -> str:
    """The name, if the catalogue's ``lookup`` has it; for validators, so the complaint is a ValueError."""
    try:
        lookup(name)
    except UserError as error:
        raise ValueError(str(error).removeprefix("catalogue: ")) from None
    return name


def check_facts(kind: type[Entry], facts: Mapping[str, float]) -> None:
    """ValueError where an override does not name a fact of this kind, or is negative."""
    for name, value in facts.items():
        if name not in fact_names(kind):
            raise ValueError(f"facts.{name}: unknown fact; {suggest(name, fact_names(kind))}")
        if value < 0:
            raise ValueError(f"facts.{name}: must not be negative, got {value}")


def with_facts(entry: E, facts: Mapping[str, float]) -> E:
    """The catalogue entry with the user's own numbers in place of its facts."""
    return entry.model_copy(
        update={name: Fact(value=value, source="the factory file") for name, value in facts.items()}
    )
