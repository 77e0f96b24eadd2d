"""What a text says, read by the benchmark itself: numbers, clock times, dates and names. Shares no code with the
verifier that it judges."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta

from bench.replay.values import MONTHS, WEEKDAYS, ZONES, Day, Moment, Name, Number, Phrase, Score, Value

WORDS = [
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
]
SCALE = {"k": 1e3, "thousand": 1e3, "m": 1e6, "mn": 1e6, "million": 1e6, "bn": 1e9, "b": 1e9, "billion": 1e9}
NUMBER = re.compile(
    r"(?<![A-Za-z0-9_.])[$€£M]?(\d{1,3}(?:[,\u00a0\u202f]\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)"
    r"(?:\s?(k|m|mn|bn|b|thousand|million|billion)\b)?",
    re.I,
)
ANY_NUMBER = re.compile(r"\d+")
WORD_NUMBER = re.compile(r"\b(" + "|".join(WORDS) + r")\b", re.I)
CLOCK = re.compile(r"\b(\d{1,2})[:.](\d{2})(?::\d{2})?\s*([ap]\.?m\.?)?\s*(" + "|".join(ZONES) + r")?\b", re.I)
PAIR = re.compile(r"(?<!\d)(\d+)\s?(?:-|–|—|:|to)\s?(\d+)(?!\d)")
MONTH = "|".join(f"{name[:3]}(?:{name[3:]})?" for name in MONTHS)
DAY_MONTH = re.compile(rf"\b(\d{{1,2}})(?:st|nd|rd|th)?\s+(?:of\s+)?({MONTH})\b(?:,?\s+(\d{{4}}))?", re.I)
MONTH_DAY = re.compile(rf"\b({MONTH})\.?\s+(\d{{1,2}})(?:st|nd|rd|th)?\b(?:,?\s+(\d{{4}}))?", re.I)
ISO = re.compile(r"\b(\d{4})-(\d{2})-(\d{2})\b")
WEEKDAY = re.compile(r"\b(" + "|".join(WEEKDAYS) + r")\b", re.I)
NEAR = {"today": 0, "tonight": 0, "tomorrow": 1, "yesterday": -1}
HANDLE = re.compile(r"@\w+|https?://\S+")
CAPITAL = re.compile(r"(?<![\w@#/'’])[A-Z][\w'’]*(?:-\w+)*")


def numbers(text: str) -> set[float]:
    """Every number of a text, scaled: "$4.2m" is 4200000; words up to twenty too."""
    found = {float(re.sub(r"[^\d.]", "", n)) * SCALE.get((s or "").lower(), 1) for n, s in NUMBER.findall(text)}
    return found | {float(WORDS.index(word.lower())) for word in WORD_NUMBER.findall(text)}


def minutes(text: str, zone: str = "UTC") -> set[int]:
    """Clock times of a text as minutes of the UTC day; those without a zone are of `zone`."""
    found = set()
    for hour, minute, half, named in CLOCK.findall(text):
        clock = int(hour)
        if half:
            clock = clock % 12 + (12 if half.lower().startswith("p") else 0)
        found.add(round(clock * 60 + int(minute) - ZONES[named.upper() or zone] * 60) % 1440)
    return found


def dates(text: str, at: float) -> set[date]:
    """Days that a text names, those without a year or by weekday as seen from the day of `at` (UTC)."""
    today = datetime.fromtimestamp(at, UTC).date()
    found = {today + timedelta(days=ahead) for word, ahead in NEAR.items() if re.search(rf"\b{word}\b", text, re.I)}
    for year, month, day in ISO.findall(text):
        found |= _day(int(year), int(month), int(day))
    pairs = [(day, name, year) for day, name, year in DAY_MONTH.findall(text)]
    pairs += [(day, name, year) for name, day, year in MONTH_DAY.findall(text)]
    for day, name, year in pairs:
        month = 1 + next(i for i, whole in enumerate(MONTHS) if whole[:3].lower() == name[:3].lower())
        years = (int(year),) if year else (today.year - 1, today.year, today.year + 1)
        near = [one for y in years for one in _day(y, month, int(day))]
        found |= {min(near, key=lambda one: abs((one - today).days))} if near else set()
    for word in WEEKDAY.findall(text):
        ahead = (WEEKDAYS.index(word.capitalize()) - today.weekday()) % 7
        found |= {today + timedelta(days=ahead or 7), today + timedelta(days=ahead - 7), today + timedelta(days=ahead)}
    return found


def _day(year: int, month: int, day: int) -> set[date]:
    try:
        return {date(year, month, day)}
    except ValueError:
        return set()


def says(value: Value, text: str, at: float) -> bool:
    """Whether a text that was posted at a time gives a value, in any of its forms."""
    if isinstance(value, Number):
        return any(abs(number - value.value) <= 1e-9 * max(1.0, value.value) for number in numbers(text))
    if isinstance(value, Score):
        return (value.first, value.second) in {(int(a), int(b)) for a, b in PAIR.findall(text)}
    if isinstance(value, Moment):
        return int(value.at % 86_400) // 60 in minutes(text) | minutes(text, value.zone)
    if isinstance(value, Day):
        return value.day in dates(text, at)
    if isinstance(value, Name) and value.short and re.search(rf"\b{re.escape(value.short)}\b", text, re.I):
        return True
    assert isinstance(value, Name | Phrase)
    return value.text.casefold() in text.casefold()


def foreign(text: str, allowed: str, times: list[float]) -> list[str]:
    """Numbers and capitalised words of a text that neither the allowed texts nor the times (as UTC) hold.

    Digits are compared run by run, so that a number may be written in any form but not invented. The first word of a
    sentence may be capitalised without being a name.
    """
    known = allowed.casefold()
    moments = [datetime.fromtimestamp(time, UTC) for time in times]
    stamps = " ".join(f"{one:%Y-%m-%d %H:%M:%S %-d %B %b %A %a %-H %-I}" for one in moments).casefold()
    digits = {run.lstrip("0") for run in ANY_NUMBER.findall(known + " " + stamps)}
    values = numbers(allowed)
    bad = []
    for match in ANY_NUMBER.finditer(text):
        if match[0].lstrip("0") not in digits and not any(match[0] in _digits(value) for value in values):
            bad.append(match[0])
    for match in CAPITAL.finditer(text):
        before = text[: match.start()].rstrip(' "“‘(*_')
        word = match[0].casefold().removesuffix("'s").removesuffix("’s")
        if before and before[-1] not in ".!?:\n|" and word not in known and word not in stamps:
            bad.append(match[0])
    return bad


def _digits(value: float) -> tuple[str, ...]:
    """How the digits of a number may be written: whole, in groups, in thousands, millions or billions."""
    whole = f"{value:.10g}"
    return (whole, f"{value:,.10g}".split(".")[0], *(f"{value / scale:.10g}" for scale in (1e3, 1e6, 1e9)))
