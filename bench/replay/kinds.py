"""Kinds of events: who or what they are about, what can be known of them, and what may turn out otherwise.

The names of fields and attributes are the slots of the wording in `wording/*.toml`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random

from bench.replay.names import Names
from bench.replay.values import Day, Moment, Name, Number, Phrase, Score, Value, day_of

ZONES = ("UTC", "CET", "EST", "PST", "JST", "IST", "AEST", "CEST")
Fields = dict[str, str]
Draw = Callable[[Random, Names, float], Value]


@dataclass(frozen=True)
class Kind:
    """fields: what the event is about. near: the same with one part changed, an event to be taken for it. attributes:
    how each is drawn. main: what is asked first, may be rumoured wrong and corrected. official: the account that knows.
    grows: what rises as more is known. recurs: the same may happen again on another day."""

    fields: Callable[[Names], Fields]
    near: Callable[[Names, Fields], Fields]
    attributes: Mapping[str, Draw]
    main: str
    official: str
    grows: str = ""
    recurs: bool = False


def count(low: float, high: float, unit: str = "", round_to: int = 1) -> Draw:
    def draw(rng: Random, names: Names, at: float) -> Value:
        value = low * (high / low) ** rng.random()
        return Number(float(max(1, round(value / round_to)) * round_to), unit)

    return draw


def decimal(low: float, high: float, unit: str = "", digits: int = 1) -> Draw:
    def draw(rng: Random, names: Names, at: float) -> Value:
        value = round(rng.uniform(low, high), digits)
        return Number(value if value != int(value) else round(value + 10**-digits, digits), unit)

    return draw


def money(low: float, high: float) -> Draw:
    """Two to three digits that count, so that "$4.25 million" is exact."""

    def draw(rng: Random, names: Names, at: float) -> Value:
        value = low * (high / low) ** rng.random()
        size = 10 ** (len(str(int(value))) - 3)
        return Number(float(round(value / size) * size), "$")

    return draw


def phrase(list_name: str) -> Draw:
    return lambda rng, names, at: Phrase(names.pick(list_name))


def person(rng: Random, names: Names, at: float) -> Value:
    name = names.person()
    return Name(name, name.split(" ", 1)[1])


def firm(rng: Random, names: Names, at: float) -> Value:
    name = names.company()
    return Name(name, name.split(" ", 1)[0])


def town(rng: Random, names: Names, at: float) -> Value:
    return Name(names.town())


def moment(low_hours: float, high_hours: float) -> Draw:
    """On the hour or a quarter; the same UTC day wherever the day allows it."""

    def draw(rng: Random, names: Names, at: float) -> Value:
        zone = rng.choice(ZONES)
        day = datetime.fromtimestamp(at, UTC).replace(hour=0, minute=0, second=0, microsecond=0).timestamp()
        quarter = round((at + rng.uniform(low_hours, high_hours) * 3600) / 300) * 300
        return Moment(min(max(quarter, day + 600), day + 86_000 // 300 * 300), zone)

    return draw


def day(low: int, high: int) -> Draw:
    return lambda rng, names, at: Day(day_of(at, rng.randint(low, high)))


def goals(rng: Random, names: Names, at: float) -> Value:
    return Score(rng.randint(0, 6), rng.randint(0, 6))


def tally(rng: Random, names: Names, at: float) -> Value:
    first = rng.randint(12, 60)
    return Score(first, rng.randint(3, first - 1))


def _one(name: str, make: Callable[[Names], str]) -> Callable[[Names], Fields]:
    """An event that is about one thing."""
    return lambda names: {name: make(names)}


def _beside(name: str, other: Callable[[Names, str], str]) -> Callable[[Names, Fields], Fields]:
    return lambda names, old: {name: other(names, old[name])}


def _place(name: str, of_kind: str) -> Callable[[Names], Fields]:
    return _one(name, lambda names: names.place(of_kind))


def _next_place(name: str, of_kind: str) -> Callable[[Names, Fields], Fields]:
    return _beside(name, lambda names, old: names.neighbour(old, of_kind))


def _product(names: Names) -> Fields:
    return {"product": f"{names.once('firm_head', 'firm_tail')} {names.pick('product_kind')}", "firm": names.company()}


def _near_product(names: Names, old: Fields) -> Fields:
    return {
        "product": f"{old['product'].split(' ')[0]} {names.pick('product_kind')} {names.pick('mark')}",
        "firm": old["firm"],
    }


def _statement(names: Names) -> Fields:
    return {"quote": names.once("quote_head", "quote_middle", "quote_tail", joint=" "), "firm": names.company()}


def _near_statement(names: Names, old: Fields) -> Fields:
    """Almost the same words, by somebody else of the same place."""
    head, _, tail = old["quote"].rpartition(" ")
    return {"quote": f"{head} {names.pick('second').lower()} {tail}", "firm": old["firm"]}


KINDS: dict[str, Kind] = {
    "outage": Kind(
        fields=_one("service", lambda n: f"{n.once('firm_head', 'firm_tail')} {n.pick('service_kind')}"),
        near=_beside("service", lambda n, old: f"{old.split(' ')[0]} {n.pick('service_kind')} {n.pick('mark')}"),
        attributes={"users": count(300, 90_000, round_to=100), "cause": phrase("outage_cause"), "back": moment(2, 6)},
        main="users",
        official="{service}Status",
        grows="users",
        recurs=True,
    ),
    "closure": Kind(
        fields=_place("structure", "structure_kind"),
        near=_next_place("structure", "structure_kind"),
        attributes={"cause": phrase("closure_cause"), "until": day(2, 25), "trucks": count(40, 900, round_to=10)},
        main="until",
        official="{structure}Roads",
    ),
    "match": Kind(
        fields=lambda n: {"home": f"{n.town()} {n.pick('team_kind')}", "away": f"{n.town()} {n.pick('team_kind')}"},
        near=lambda n, old: {"home": old["home"], "away": f"{n.town()} {n.pick('team_kind')}"},
        attributes={"score": goals, "crowd": count(900, 70_000), "scorer": person},
        main="score",
        official="{home}",
    ),
    "vote": Kind(
        fields=lambda n: {"body": f"{n.town()} {n.pick('body_kind')}", "motion": n.pick("motion")},
        near=lambda n, old: {"body": f"{n.town()} {n.pick('body_kind')}", "motion": old["motion"]},
        attributes={"tally": tally, "mover": person, "starts": day(5, 60)},
        main="tally",
        official="{body}",
    ),
    "launch": Kind(
        fields=lambda n: {
            "rocket": f"{n.once('firm_head', 'firm_tail')} {n.pick('mark')}",
            "mission": f"{n.once('firm_head', 'firm_tail')}-{n.pick('number')}",
        },
        near=lambda n, old: {"rocket": old["rocket"], "mission": f"{old['mission'].split('-')[0]}-{n.pick('number')}b"},
        attributes={"payload": count(3, 60), "pad": town, "liftoff": moment(1, 9)},
        main="liftoff",
        official="{rocket}Launches",
    ),
    "appointment": Kind(
        fields=lambda n: {"firm": n.company(), "role": n.pick("role")},
        near=lambda n, old: {
            "firm": f"{old['firm'].split(' ')[0]} {n.pick('firm_kind')} {n.pick('mark')}",
            "role": old["role"],
        },
        attributes={"person": person, "starts": day(3, 50), "past": person},
        main="person",
        official="{firm}",
    ),
    "quake": Kind(
        fields=_one("town", lambda n: n.town()),
        near=_beside("town", lambda n, old: f"{n.pick('quarter')} {old.split(' ')[-1]}"),
        attributes={"magnitude": decimal(3.1, 7.4), "depth": count(4, 160), "injured": count(3, 400)},
        main="magnitude",
        official="{town}SeismicDesk",
        grows="injured",
        recurs=True,
    ),
    "fire": Kind(
        fields=_place("building", "building_kind"),
        near=_next_place("building", "building_kind"),
        attributes={"evacuated": count(15, 900), "cause": phrase("fire_cause"), "crews": count(20, 260)},
        main="evacuated",
        official="{building}FireDesk",
        grows="evacuated",
    ),
    "recall": Kind(
        fields=_product,
        near=_near_product,
        attributes={
            "units": count(800, 400_000, round_to=100),
            "defect": phrase("defect"),
            "refund": count(9, 900, "$"),
        },
        main="units",
        official="{firm}Support",
    ),
    "strike": Kind(
        fields=lambda n: {"union": f"{n.town()} {n.pick('union_kind')}"},
        near=lambda n, old: {"union": f"{old['union'].split(' ')[0]} {n.pick('union_kind')} {n.pick('mark')}"},
        attributes={"workers": count(90, 30_000, round_to=10), "demand": decimal(2.1, 14.0, "%"), "starts": day(2, 12)},
        main="workers",
        official="{union}",
    ),
    "takeover": Kind(
        fields=lambda n: {"firm": n.company()},
        near=lambda n, old: {"firm": f"{old['firm'].split(' ')[0]} {n.pick('firm_kind')} {n.pick('mark')}"},
        attributes={"price": money(3e6, 9e9), "buyer": firm, "jobs": count(40, 9000, round_to=10)},
        main="price",
        official="{firm}Investors",
    ),
    "award": Kind(
        fields=lambda n: {"prize": f"{n.once('last_head', 'last_tail')} {n.pick('prize_kind')}"},
        near=lambda n, old: {"prize": f"{old['prize'].split(' ')[0]} {n.pick('prize_kind')} {n.pick('mark')}"},
        attributes={"winner": person, "purse": money(5e3, 2e6), "entries": count(30, 4000)},
        main="winner",
        official="{prize}",
    ),
    "trial": Kind(
        fields=lambda n: {"firm": n.company()},
        near=lambda n, old: {"firm": f"{old['firm'].split(' ')[0]} {n.pick('firm_kind')} {n.pick('mark')}"},
        attributes={"fine": money(2e4, 8e8), "judge": person, "charge": phrase("charge")},
        main="fine",
        official="{firm}CourtDesk",
    ),
    "festival": Kind(
        fields=lambda n: {"festival": f"{n.town()} {n.pick('festival_kind')}"},
        near=lambda n, old: {"festival": f"{old['festival'].split(' ')[0]} {n.pick('festival_kind')} {n.pick('mark')}"},
        attributes={"crowd": count(600, 120_000, round_to=100), "star": person, "price": count(8, 240, "$")},
        main="star",
        official="{festival}",
    ),
    "resignation": Kind(
        fields=lambda n: {"person": n.person(), "role": n.pick("role"), "firm": n.company()},
        near=lambda n, old: {"person": n.namesake(old["person"]), "role": old["role"], "firm": n.company()},
        attributes={"reason": phrase("resign_reason"), "leaves": day(3, 40), "acting": person},
        main="acting",
        official="{firm}",
    ),
    "rescue": Kind(
        fields=_place("peak", "peak_kind"),
        near=_next_place("peak", "peak_kind"),
        attributes={"rescued": count(2, 60), "cause": phrase("rescue_cause"), "hours": count(3, 70)},
        main="rescued",
        official="{peak}Rescue",
        grows="rescued",
    ),
    "find": Kind(
        fields=_place("site", "dig_kind"),
        near=_next_place("site", "dig_kind"),
        attributes={"age": count(300, 90_000, round_to=100), "leader": person, "objects": count(5, 4000)},
        main="objects",
        official="{site}Dig",
    ),
    "statement": Kind(
        fields=_statement,
        near=_near_statement,
        attributes={"speaker": person, "venue": town},
        main="speaker",
        official="{firm}Press",
    ),
}
