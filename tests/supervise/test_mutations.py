"""Bad days in the simulator: the policy survives them, and every planted bug is found. More of it: make nightly."""

from __future__ import annotations

import pytest
from mutations import MUTATIONS, Mutation, bad_day, found

SEEDS = range(100)


@pytest.mark.parametrize("seed", range(20))
def test_the_policy_survives_bad_days(seed: int) -> None:
    violation = bad_day(seed)
    assert violation is None, f"{violation}\n{violation.around()}"


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_planted_bug_is_found(mutation: Mutation) -> None:
    assert found(mutation, SEEDS) is not None


def test_bugs_are_planted_for_a_while_only() -> None:
    assert found(MUTATIONS[0], SEEDS) is not None
    assert bad_day(1) is None
