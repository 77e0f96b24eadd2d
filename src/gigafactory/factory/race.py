"""The race section: other numbers for the forecast of who will own how much compute."""

from __future__ import annotations

from pydantic import Field, field_validator

from gigafactory.factory.catalog import race_inputs, suggest
from gigafactory.factory.quantity import PositiveSpread
from gigafactory.factory.training import Section


class RaceSection(Section):
    """Scenarios of the race. What is not given follows the data."""

    growth: dict[str, PositiveSpread] = Field(
        {}, description="growth per year that an owner aims at, as a factor, by owner; others follow the data"
    )
    spend_usd: dict[str, PositiveSpread] = Field(
        {}, description="what an owner spends on compute in the first year, by owner; others as catalogued"
    )
    assume: dict[str, PositiveSpread] = Field(
        {}, description="other numbers for entries of `gigafactory catalog list race`, by name"
    )

    @field_validator("assume")
    @classmethod
    def _catalogued(cls, inputs: dict[str, PositiveSpread]) -> dict[str, PositiveSpread]:
        for name in inputs:
            if name not in race_inputs():
                raise ValueError(f"{name}: no such input of the race; {suggest(name, list(race_inputs()))}")
        return inputs

    @field_validator("growth", "spend_usd", "assume")
    @classmethod
    def _positive(cls, inputs: dict[str, PositiveSpread]) -> dict[str, PositiveSpread]:
        for name, spread in inputs.items():
            if spread.p10 <= 0:
                raise ValueError(f"{name}: must be above 0, got p10={spread.p10}")
        return inputs
