"""What a question can ask for, and the many ways in which a post can write it. Times are Unix seconds UTC."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from random import Random

SMALL = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = [
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
]
# Fixed offsets on purpose: the letters that posts write, whatever the season.
ZONES = {
    "UTC": 0.0,
    "GMT": 0.0,
    "CET": 1.0,
    "CEST": 2.0,
    "EST": -5.0,
    "PST": -8.0,
    "JST": 9.0,
    "IST": 5.5,
    "AEST": 10.0,
}


@dataclass(frozen=True, slots=True)
class Number:
    """A count, a measure, money (unit "$") or a share (unit "%")."""

    value: float
    unit: str = ""

    def show(self, rng: Random, at: float) -> str:
        value, pick = self.value, rng.random()
        if self.unit == "$":
            return _money(value, pick)
        if value != int(value):
            plain = f"{value:.10g}"
        elif 0 <= value <= 12 and self.unit != "%" and pick < 0.4:
            plain = SMALL[int(value)]
        elif value >= 10_000 and value % 100 == 0 and pick < 0.2:
            plain = f"{value / 1000:.10g}k"
        else:
            plain = f"{int(value)}" if pick < 0.35 else f"{int(value):,}"
        return plain if self.unit != "%" else plain + ("%" if pick < 0.6 else " percent")


def _money(value: float, pick: float) -> str:
    for size, short, long in ((1e9, "bn", "billion"), (1e6, "m", "million")):
        if value >= size:
            head = f"${value / size:.10g}"
            return f"{head}{short}" if pick < 0.35 else f"{head} {long}" if pick < 0.8 else f"${int(value):,}"
    return f"${int(value):,}"


@dataclass(frozen=True, slots=True)
class Score:
    """Two numbers in the order of the sides; `joint` is what stands between them in a vote or a match."""

    first: int
    second: int

    def show(self, rng: Random, at: float) -> str:
        return f"{self.first}{rng.choice(('-', '-', '–', ':', ' to '))}{self.second}"


@dataclass(frozen=True, slots=True)
class Name:
    """A person, a place or an organisation. short: another form that is enough."""

    text: str
    short: str = ""

    def show(self, rng: Random, at: float) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Phrase:
    """A cause, a defect: words that are quoted as they are."""

    text: str

    def show(self, rng: Random, at: float) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Moment:
    """An instant. Posts write it as a local time with its zone; the day is that of the post."""

    at: float
    zone: str

    def show(self, rng: Random, at: float) -> str:
        zone = self.zone if rng.random() < 0.6 else rng.choice(("UTC", "GMT", "EST"))
        local = datetime.fromtimestamp(self.at + ZONES[zone] * 3600, UTC)
        if rng.random() < 0.6:
            return f"{local:%H:%M} {zone}"
        half = "am" if local.hour < 12 else "pm"
        return f"{local.hour % 12 or 12}:{local.minute:02d} {half} {zone}"


@dataclass(frozen=True, slots=True)
class Day:
    """A date. Posts write it as a date, or as a weekday or "tomorrow" as seen from their own day (UTC)."""

    day: date

    def show(self, rng: Random, at: float) -> str:
        ahead = (self.day - datetime.fromtimestamp(at, UTC).date()).days
        pick, day = rng.random(), self.day
        if ahead == 1 and pick < 0.3:
            return "tomorrow"
        if 1 <= ahead <= 6 and pick < 0.4:
            return WEEKDAYS[day.weekday()]
        month = MONTHS[day.month - 1]
        if pick < 0.6:
            return f"{day.day} {month}"
        return f"{month} {day.day}" if pick < 0.85 else f"{WEEKDAYS[day.weekday()]}, {month} {day.day}"


Value = Number | Score | Name | Phrase | Moment | Day


def day_of(at: float, ahead: int = 0) -> date:
    """The UTC day of an instant, or some days later."""
    return (datetime.fromtimestamp(at, UTC) + timedelta(days=ahead)).date()
