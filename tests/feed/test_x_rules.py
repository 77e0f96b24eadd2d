"""Rules: what is wanted against what is there."""

from __future__ import annotations

import asyncio

import pytest
from fake_x import TOKEN
from hypothesis import given
from hypothesis import strategies as st
from virtual_time import START, run_virtually
from x_reader import Reader, reading

from gigafactory.errors import UserError
from gigafactory.feed.x_rules import Rule, changes, check

VALUES = st.lists(st.sampled_from("abcdef"), max_size=6)


@given(VALUES, st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(["ours", "other", ""])), max_size=8))
def test_after_the_changes_the_wanted_rules_are_there_and_others_untouched(
    wanted: list[str], there: list[tuple[str, str]]
) -> None:
    present = [Rule(str(index), value, tag) for index, (value, tag) in enumerate(there)]
    change = changes(wanted, present, "ours")
    after = [rule for rule in present if rule.id not in change.delete]
    after += [Rule(f"new{index}", value, "ours") for index, value in enumerate(change.add)]
    assert {rule.value for rule in after} >= set(wanted)
    assert [rule for rule in after if rule.tag != "ours"] == [rule for rule in present if rule.tag != "ours"]
    assert {rule.value for rule in after if rule.tag == "ours"} <= set(wanted)
    assert len(set(change.add)) == len(change.add)
    assert change.others == sum(rule.tag != "ours" and rule.value not in wanted for rule in present)
    again = changes(wanted, after, "ours")
    assert (again.add, again.delete) == ((), ())
    assert set(again.ours) == {rule.id for rule in after if rule.value in wanted}


def test_rules_that_cannot_be_are_refused_before_x_is_asked() -> None:
    check(["ok"])
    for rules in (["ok", " "], ["ok", "x" * 2049]):
        with pytest.raises(UserError, match=r"^rules\[1\]: "):
            check(rules)


def test_rules_are_brought_in_step_and_those_of_others_stay() -> None:
    async def main() -> None:
        async with reading(rules=("news", "from:nasa")) as (world, fake, reader):
            await reader.crash()
            fake.rules = {
                "1": {"value": "news", "tag": "by hand"},
                "2": {"value": "old", "tag": "gigafactory:x"},
                "3": {"value": "foreign", "tag": "somebody"},
                **{str(id): {"value": f"kept {id}", "tag": "gigafactory:another"} for id in range(100, 180)},
            }
            reader.start()
            await asyncio.sleep(1)
            values = {rule["value"]: rule["tag"] for rule in fake.rules.values()}
            assert "old" not in values
            assert values["news"] == "by hand"
            assert values["from:nasa"] == "gigafactory:x"
            assert len(values) == 83
            assert "81 of this app are not of this source" in reader.connector.health.last_error
            world.post("a", "foreign words")
            mine = world.post("a", "news")
            await asyncio.sleep(1)
            assert list(reader.posts()) == [mine]
            assert reader.connector.health.spent_usd == pytest.approx(0.02)  # both were sent, one author

    run_virtually(main())


def test_a_refused_rule_is_told_by_name_and_nothing_is_changed() -> None:
    async def main() -> None:
        async with reading(rules=("news", "bad rule (")) as (_, fake, reader):
            await reader.crash()
            fake.rules = {"2": {"value": "old", "tag": "gigafactory:x"}}
            fake.bad_rules = {"bad rule (": "missing EOF at '(' (at position 10)"}
            reader.start()
            with pytest.raises(UserError, match=r"^rules\[1\]: X refuses 'bad rule \(': missing EOF"):
                await ended(reader)
            assert list(fake.rules) == ["2"]

    run_virtually(main())


def test_rules_deleted_by_somebody_come_back() -> None:
    async def main() -> None:
        async with reading() as (world, fake, reader):
            await asyncio.sleep(1)
            fake.rules.clear()
            fake.streams()[0].close("clean")
            await asyncio.sleep(10)
            assert [rule["value"] for rule in fake.rules.values()] == ["news"]
            id = world.post("a", "news")
            await asyncio.sleep(1)
            assert id in reader.posts()

    run_virtually(main())


def test_many_rules_are_added_in_parts_and_trouble_is_waited_out() -> None:
    async def main() -> None:
        wanted = tuple(f"rule {index}" for index in range(60))
        async with reading(rules=wanted) as (_, fake, reader):
            await reader.crash()
            fake.rules.clear()
            full = {"x-rate-limit-remaining": "0", "x-rate-limit-reset": str(int(START) + 400)}
            fake.failing["/2/tweets/search/stream/rules"] = [
                (503, {}, b"busy"),
                (429, full, {"title": "Too Many Requests"}),
                (200, {}, b"not json"),
            ]
            begun = fake.world.clock.now()
            reader.start()
            await asyncio.sleep(600)
            assert {rule["value"] for rule in fake.rules.values()} == set(wanted)
            asked = [request.at - begun for request in fake.requests("/2/tweets/search/stream/rules")[-12:]]
            assert max(asked) >= 400
            assert reader.connector.health.connected

    run_virtually(main())


async def ended(reader: Reader) -> None:
    assert reader.task is not None
    await asyncio.wait_for(asyncio.shield(reader.task), 60)


def test_a_token_that_is_refused_ends_it_with_one_line_without_the_token() -> None:
    async def main() -> None:
        async with reading() as (_, fake, reader):
            await reader.crash()
            problem = {"title": "Unauthorized", "detail": f"no such token: {TOKEN}\nand more"}
            fake.failing["/2/tweets/search/stream/rules"] = [(401, {}, problem)]
            reader.start()
            with pytest.raises(UserError) as told:
                await ended(reader)
            assert TOKEN not in str(told.value)
            assert "\n" not in str(told.value)
            assert str(told.value).startswith(
                "token_env: the token in X_TOKEN is refused: X answered 401: Unauthorized"
            )

    run_virtually(main())
