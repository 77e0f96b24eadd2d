"""Dates and times of day in a text, relative ones counted from when it was written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from gigafactory.chat.english import forms, row, table, words
from gigafactory.chat.tokens import Token

MONTHS = {name: place + 1 for name, place in forms("months").items()}
WEEKDAYS = forms("weekdays")
ZONES: dict[str, list[float]] = table("zones")  # hours ahead of UTC, two where summer time is not said
DIGITS = {word: value for value, word in enumerate(row("digits"))}
DAY_WORDS = {"today": 0, "tonight": 0, "yesterday": -1, "tomorrow": 1}
PARTS = words("parts_of_day")
DASHES = frozenset("-–—−/")
UNIT_WORDS = words("counted")
PAST, AHEAD = words("past"), words("ahead")
BEFORE_MAY = frozenset(("in", "last", "next", "since", "until", "by", "of", "early", "late", "mid"))  # the month


BEGIN = frozenset(("last", "next", "this", "noon", "midday", "midnight")).union(MONTHS, WEEKDAYS, DAY_WORDS, DIGITS)


@dataclass(frozen=True, slots=True)
class Moment:
    """A date, a part of one, or a time of day.

    grain: "year", "month", "day", "weekday", "decade" or "time". year, month, day: what is written or follows from when
    the text was written; None where unknown. days: the dates it can mean ("Friday" is the one before or the one to
    come). minutes: of a time of day, in UTC if `zoned` (more than one where the zone's summer time is not said).
    second: of a time of day, where it is said.
    relative: it was counted from the writer's time. first, last: its tokens.
    """

    grain: str
    text: str
    first: int
    last: int
    year: int | None = None
    month: int | None = None
    day: int | None = None
    days: frozenset[date] = frozenset()
    minutes: tuple[int, ...] = ()
    zoned: bool = False
    second: int | None = None
    relative: bool = False


def moments(tokens: Sequence[Token], written_at: float | None) -> tuple[Moment, ...]:
    """The dates and times of a token sequence; written_at: Unix seconds, None if it is unknown."""
    try:
        now = None if written_at is None else datetime.fromtimestamp(written_at, UTC)
    except (ValueError, OverflowError, OSError):  # a time that no calendar has
        now = None
    found: list[Moment] = []
    i = 0
    while i < len(tokens):
        if tokens[i].kind != "number" and tokens[i].word not in BEGIN:
            i += 1
            continue
        moment = _time(tokens, i) or _iso(tokens, i) or _dated(tokens, i, now) or _relative(tokens, i, now)
        moment = moment or _year(tokens, i)
        if moment:
            found.append(moment)
            i = moment.last + 1
        else:
            i += 1
    return tuple(found)


def carried(claimed: Moment, given: Sequence[Moment], written_at: float | None) -> bool:
    """Is a claimed date or time among those a post gives? A coarser one is ("in November" of "22 Nov"), a finer is not;
    the day that a post was written is given where it names no other day."""
    if claimed.grain == "time":
        return any(_same_time(claimed, other) for other in given if other.grain == "time")
    if any(_within(claimed, other) for other in given):
        return True
    own = claimed.grain in ("day", "weekday") and written_at is not None
    if own and not any(other.grain in ("day", "weekday", "month") for other in given):
        day = datetime.fromtimestamp(written_at or 0.0, UTC).date()
        return day in claimed.days
    return False


def _same_time(a: Moment, b: Moment) -> bool:
    if a.second not in (None, b.second):
        return False
    if a.zoned == b.zoned:
        return bool(set(a.minutes) & set(b.minutes))
    unzoned, zoned = (b, a) if a.zoned else (a, b)
    # "14:02" may be the writer's own clock: equal as written, or as UTC
    return _wall(unzoned) == _wall(zoned) or bool(set(unzoned.minutes) & set(zoned.minutes))


def _wall(moment: Moment) -> tuple[int, ...]:
    digits = re.match(r"\D*(\d{1,2})(?:[:.h]?(\d{2}))?", moment.text)
    if not digits:
        return moment.minutes[:1]
    hour = int(digits[1])
    if re.search(r"p\.?m", moment.text, re.IGNORECASE) and hour < 12:
        hour += 12
    return (hour * 60 + int(digits[2] or 0),)


def _within(claimed: Moment, given: Moment) -> bool:
    """Does `given` say `claimed` or something finer?"""
    if claimed.grain == "decade":
        return given.year is not None and given.year // 10 == (claimed.year or 0) // 10
    if claimed.grain == "year":
        return given.year == claimed.year
    if claimed.grain == "month":
        return given.month == claimed.month and _years_agree(claimed, given)
    if given.grain not in ("day", "weekday"):
        return False
    if claimed.grain == "weekday":
        if given.grain == "weekday" and _weekday(claimed) == _weekday(given):
            return not claimed.days or not given.days or bool(claimed.days & given.days)
        return bool(claimed.days & given.days)
    if given.grain == "weekday":
        return bool(claimed.days & given.days) and len(given.days) == 1
    if claimed.days and given.days:
        return bool(claimed.days & given.days)
    return claimed.month == given.month and claimed.day == given.day and _years_agree(claimed, given)


def _years_agree(a: Moment, b: Moment) -> bool:
    return a.year is None or b.year is None or a.year == b.year


def _weekday(moment: Moment) -> str:
    return next((word for word in moment.text.casefold().split() if word in WEEKDAYS), "")[:3]


def _word(tokens: Sequence[Token], i: int) -> str:
    return tokens[i].word if 0 <= i < len(tokens) else ""


def _text(tokens: Sequence[Token], first: int, last: int) -> str:
    parts = [tokens[first].text]
    for before, token in zip(tokens[first:last], tokens[first + 1 : last + 1], strict=True):
        parts.append((" " if token.start > before.end else "") + token.text)
    return "".join(parts)


def _whole(tokens: Sequence[Token], i: int) -> int | None:
    """The plain integer at token i."""
    if 0 <= i < len(tokens) and tokens[i].kind == "number" and tokens[i].text.isdigit() and len(tokens[i].text) < 9:
        return int(tokens[i].text)
    return None


def _is_year(tokens: Sequence[Token], i: int) -> bool:
    value = _whole(tokens, i)
    return value is not None and len(tokens[i].text) == 4 and 1500 <= value <= 2100


def _on(year: int | None, month: int, day: int, now: datetime | None) -> frozenset[date]:
    """The dates that a day of a month can be; without a year, those nearest to when it was written."""
    years = [year] if year is not None else [now.year - 1, now.year, now.year + 1] if now else []
    days = []
    for candidate in years:
        try:
            days.append(date(candidate, month, day))
        except ValueError:
            continue
    if year is None and now is not None and days:
        return frozenset([min(days, key=lambda d: abs((d - now.date()).days))])
    return frozenset(days)


def _day(text: str, first: int, last: int, days: frozenset[date], month: int, day: int, year: int | None) -> Moment:
    if year is None and len(days) == 1:
        year = next(iter(days)).year
    return Moment("day", text, first, last, year, month, day, days)


def _iso(tokens: Sequence[Token], i: int) -> Moment | None:
    """2026-11-22, 11/22/2026, 22.11.2026."""
    if i and tokens[i - 1].text in DASHES and tokens[i - 1].end == tokens[i].start:
        return None
    if tokens[i].kind == "number" and re.fullmatch(r"\d{1,2}\.\d{1,2}\.\d{4}", tokens[i].text):
        day, month, year = (int(part) for part in tokens[i].text.split("."))
        days = _on(year, month, day, None) if 1 <= month <= 12 else frozenset()
        return _day(tokens[i].text, i, i, days, month, day, year) if days else None
    if i + 4 >= len(tokens) or tokens[i + 1].text not in DASHES or tokens[i + 1].text != tokens[i + 3].text:
        return None
    a, b, c = _whole(tokens, i), _whole(tokens, i + 2), _whole(tokens, i + 4)
    if a is None or b is None or c is None:
        c_text = _word(tokens, i + 4)
        if a is None or b is None or not re.match(r"\d\dt\d\d$", c_text):
            return None
        c = int(c_text[:2])
    text = _text(tokens, i, i + 4)
    if _is_year(tokens, i):
        days, month, day, year = _on(a, b, c, None) if 1 <= b <= 12 else frozenset(), b, c, a
    elif _is_year(tokens, i + 4) and tokens[i + 1].text in "/-":
        month, day, year = (a, b, c) if a <= 12 else (b, a, c)
        days = _on(year, month, day, None) if 1 <= month <= 12 else frozenset()
        if a <= 12 and b <= 12:  # 3/4/2026 is either
            days |= _on(year, b, a, None)
    else:
        return None
    return _day(text, i, i + 4, days, month, day, year) if days else None


def _dated(tokens: Sequence[Token], i: int, now: datetime | None) -> Moment | None:
    """22 November 2026, Nov. 22, November 2026; a weekday before it belongs to it."""
    begin = i
    if _word(tokens, i) in WEEKDAYS and len(tokens[i].word) > 2:
        j = i + 1
        while _word(tokens, j) in (",", ".", "the"):
            j += 1
        inner = _dated(tokens, j, now) if j < len(tokens) and _word(tokens, j) not in WEEKDAYS else None
        if inner and inner.grain == "day":
            text = _text(tokens, begin, inner.last)
            return _day(text, begin, inner.last, inner.days, inner.month or 0, inner.day or 0, inner.year)
        return None
    day, j = _day_number(tokens, i)
    if day is not None:
        if _word(tokens, j) == "of":
            j += 1
        month = _month(tokens, j)
        if month is None:
            return None
        return _with_year(tokens, begin, j, month, day, now)
    month = _month(tokens, i)
    if month is None:
        return None
    j = i + 1
    if _word(tokens, j) == ".":
        j += 1
    if _word(tokens, j) == "the":
        j += 1
    if _is_year(tokens, j):
        return Moment("month", _text(tokens, i, j), i, j, _whole(tokens, j), month)
    if _word(tokens, j) in (",", "of") and _is_year(tokens, j + 1):
        return Moment("month", _text(tokens, i, j + 1), i, j + 1, _whole(tokens, j + 1), month)
    day, after = _day_number(tokens, j)
    if day is not None:
        return _with_year(tokens, i, after - 1, month, day, now)
    if tokens[i].word in ("may", "march", "mar", "sun", "sat") and not (tokens[i].text[0].isupper() and i):
        return None
    if tokens[i].word == "may" and _word(tokens, i - 1) not in BEFORE_MAY:
        return None
    relative = {"last": -1, "next": 1, "this": 0}.get(_word(tokens, i - 1))
    year = None
    if now is not None and relative is not None:
        year = now.year + (relative if (month - now.month) * relative <= 0 and relative else 0)
    return Moment("month", tokens[i].text, i, i, year, month)


def _month(tokens: Sequence[Token], i: int) -> int | None:
    if not 0 <= i < len(tokens) or tokens[i].kind != "word":
        return None
    word = tokens[i].word
    if word not in MONTHS or (word in ("may", "march", "mar") and not tokens[i].text[0].isupper()):
        return None
    return MONTHS[word]


def _day_number(tokens: Sequence[Token], i: int) -> tuple[int | None, int]:
    """(day of a month at token i, the token after it)."""
    ordinal = re.fullmatch(r"(\d{1,2})(?:st|nd|rd|th)", tokens[i].text) if i < len(tokens) else None
    value = int(ordinal[1]) if ordinal else _whole(tokens, i)
    if value is None or not 1 <= value <= 31 or (not ordinal and len(tokens[i].text) > 2):
        return None, i
    after = i + 1
    if ordinal:
        return value, after
    written = tokens[i].text
    if _word(tokens, after) in (":", "%", "am", "pm", "million", "people") or written != str(value).zfill(len(written)):
        return None, i
    return value, after


def _with_year(
    tokens: Sequence[Token], first: int, last: int, month: int, day: int, now: datetime | None
) -> Moment | None:
    """A day of a month whose last token is `last`, with the year that may follow."""
    j = last + 1
    if _word(tokens, j) in (",", ".") and _is_year(tokens, j + 1):
        j += 1
    year = _whole(tokens, j) if _is_year(tokens, j) else None
    end = j if year is not None else last
    days = _on(year, month, day, now)
    if year is not None and not days:
        return None
    return _day(_text(tokens, first, end), first, end, days, month, day, year)


def _relative(tokens: Sequence[Token], i: int, now: datetime | None) -> Moment | None:
    word = tokens[i].word
    before = _word(tokens, i - 1)
    today = now.date() if now else None
    if word in DAY_WORDS:
        days = frozenset([today + timedelta(DAY_WORDS[word])]) if today else frozenset()
        return _relative_day(tokens, i, i, days)
    if word == "this" and _word(tokens, i + 1) in PARTS:
        return _relative_day(tokens, i, i + 1, frozenset([today]) if today else frozenset())
    if word in WEEKDAYS and (len(word) > 3 or tokens[i].text[0].isupper()) and word not in ("sun", "sat", "wed", "mon"):
        return Moment(
            "weekday",
            tokens[i].text,
            i,
            i,
            days=_weekdays(WEEKDAYS[word], before, today, _tense(tokens)),
            relative=True,
        )
    if word in ("last", "next", "this") and _word(tokens, i + 1) in ("week", "month", "year"):
        unit, step = _word(tokens, i + 1), {"last": -1, "next": 1, "this": 0}[word]
        text = _text(tokens, i, i + 1)
        if now is None:
            return None
        if unit == "year":
            return Moment("year", text, i, i + 1, now.year + step, relative=True)
        if unit == "month":
            months = now.year * 12 + now.month - 1 + step
            return Moment("month", text, i, i + 1, months // 12, months % 12 + 1, relative=True)
        monday = now.date() - timedelta(now.weekday()) + timedelta(7 * step)
        week = frozenset(monday + timedelta(n) for n in range(7))
        return Moment("weekday", text, i, i + 1, days=week, relative=True)
    count = _whole(tokens, i) if tokens[i].kind == "number" else DIGITS.get(word)
    if count is not None and count < 1000 and _word(tokens, i + 1) in ("day", "days", "week", "weeks"):
        sign = -1 if _word(tokens, i + 2) == "ago" else 1 if before == "in" and _word(tokens, i + 2) != "of" else 0
        if sign and today:
            length = count * (7 if _word(tokens, i + 1).startswith("week") else 1)
            return _relative_day(tokens, i, i + (2 if sign < 0 else 1), frozenset([today + timedelta(sign * length)]))
    return None


def _relative_day(tokens: Sequence[Token], first: int, last: int, days: frozenset[date]) -> Moment:
    text = _text(tokens, first, last)
    if len(days) == 1:
        day = next(iter(days))
        return Moment("day", text, first, last, day.year, day.month, day.day, days, relative=True)
    return Moment("day", text, first, last, days=days, relative=True)


def _tense(tokens: Sequence[Token]) -> int:
    """-1: a sentence of the past, 1: of what is or is to come, 0: it does not tell."""
    said = [token.word for token in tokens if token.kind == "word"]
    past = any(word in PAST or (word.endswith("ed") and len(word) > 4) for word in said)
    ahead = any(word in AHEAD for word in said)
    return ahead - past


def _weekdays(weekday: int, before: str, today: date | None, tense: int) -> frozenset[date]:
    """The dates that a weekday's name can mean."""
    if today is None:
        return frozenset()
    back = (today.weekday() - weekday) % 7
    ahead = (weekday - today.weekday()) % 7
    if before == "last":
        return frozenset([today - timedelta(back or 7)])
    if before == "next":
        return frozenset([today + timedelta(ahead or 7), today + timedelta((ahead or 7) + 7)])
    if before == "this":
        return frozenset([today + timedelta(ahead), today - timedelta(back)])
    tense = {"until": 1, "by": 1, "from": 1, "since": -1}.get(before, tense)
    days = {-1: (back,), 1: (-ahead,), 0: (back, -ahead)}[tense]
    return frozenset(today - timedelta(day) for day in days)


def _year(tokens: Sequence[Token], i: int) -> Moment | None:
    if not _is_year(tokens, i):
        return None
    value = _whole(tokens, i) or 0
    after = tokens[i + 1] if i + 1 < len(tokens) else None
    before = tokens[i - 1] if i else None
    if after is not None and after.word == "s" and after.start == tokens[i].end:
        return Moment("decade", tokens[i].text + "s", i, i + 1, value)
    if before is not None and (before.text in "$€£#" or before.word in ("about", "around", "over", "than", "nearly")):
        return None
    if after is not None and after.word in UNIT_WORDS:
        return None
    return Moment("year", tokens[i].text, i, i, value)


def _time(tokens: Sequence[Token], i: int) -> Moment | None:
    """14:02, 14:02:10 UTC, 2:02 pm ET, 5pm, 5 p.m., noon, midnight, 1400 UTC, the T14:03Z of an ISO time."""
    word = tokens[i].word
    if word in ("noon", "midday", "midnight"):
        minute = 0 if word == "midnight" else 720
        return _zoned(tokens, i, i, minute)
    hour = _whole(tokens, i)
    if hour is None or (i and tokens[i - 1].text == ":" and tokens[i - 1].end == tokens[i].start):
        return None
    last, minute = i, 0
    clock, second = False, None
    if _word(tokens, i + 1) == ":" and (value := _whole(tokens, i + 2)) is not None and len(tokens[i + 2].text) == 2:
        if tokens[i + 1].start != tokens[i].end or tokens[i + 2].start != tokens[i + 1].end or value > 59:
            return None
        minute, last, clock = value, i + 2, True
        if _word(tokens, last + 1) == ":" and _whole(tokens, last + 2) is not None:
            second, last = _whole(tokens, last + 2), last + 2
    elif len(tokens[i].text) == 4 and _word(tokens, i + 1) in ("utc", "gmt", "z", "zulu"):
        hour, minute, clock = hour // 100, hour % 100, True
    suffix = _word(tokens, last + 1)
    if suffix in ("am", "pm", "a.m", "p.m"):
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if suffix.startswith("p") else 0)
        last, clock = last + 1, True
    if not clock or hour > 24 or minute > 59:
        return None
    return _zoned(tokens, i, last, (hour % 24) * 60 + minute, second)


def _zoned(tokens: Sequence[Token], first: int, last: int, minute: int, second: int | None = None) -> Moment:
    zone = ZONES.get(_word(tokens, last + 1))
    if zone is None or (tokens[last + 1].text.islower() and tokens[last + 1].word not in ("utc", "gmt", "z")):
        return Moment("time", _text(tokens, first, last), first, last, minutes=(minute,), second=second)
    text = _text(tokens, first, last + 1)
    minutes = tuple(int(minute - 60 * hours) % 1440 for hours in zone)
    return Moment("time", text, first, last + 1, minutes=minutes, zoned=True, second=second)
