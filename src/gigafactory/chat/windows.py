"""The time that a question asks about, from its words and the clock: "since Friday", "between 2 and 4 pm UTC"."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from gigafactory.chat.answer import Window
from gigafactory.chat.moments import (
    CLOCK,
    DAY,
    PART,
    UNIT,
    ZONE,
    Moment,
    add_units,
    count_of,
    read_moment,
    unit_start,
    unit_step,
)

BLANK = "\0"
AROUND_S = 1800.0
MINUTE_S = 60.0

_WHEN = (
    rf"(?:{DAY}(?:(?:,?\s+(?:at\s+|around\s+|in\s+the\s+)?|t(?=\d))(?:{CLOCK}|{PART}))?"
    rf"|{CLOCK}(?:\s*{ZONE})?(?:,?\s+(?:on\s+)?{DAY})?|(?:the\s+)?{PART}\s+of\s+{DAY})"
)
_LEAD = (
    r"(?P<lead>since|from|after|before|until|till|by|as\s+of|up\s+to|at\s+around|at\s+about|at|on|around|about|"
    r"during|in|for|of)"
)
_SPAN = re.compile(
    rf"\b(?:(?P<between>between)|from)\s+(?P<a>{_WHEN}|\d{{1,2}}(?::\d\d)?)\s*(?P<za>{ZONE})?\s+"
    rf"(?(between)and|(?:to|until|till|through))\s+(?P<b>{_WHEN})(?:\s*(?P<zb>{ZONE}))?(?:,?\s+(?:on\s+)?(?P<day>{DAY}))?",
    re.IGNORECASE,
)
_AGO = re.compile(
    rf"\b(?:(?P<lead>since|before|until|as\s+of|about|around)\s+)?(?P<n>\d+|an?|one|two|three|four|five|six|seven|"
    rf"eight|nine|ten|twelve|twenty|thirty|a\s+few|a\s+couple\s+of|half\s+an)\s+(?P<unit>{UNIT})\s+(?:ago|earlier)\b",
    re.IGNORECASE,
)
_LAST = re.compile(
    rf"\b(?:(?:in|over|within|during|for|from)\s+)?(?:the\s+)?(?P<which>last|past|previous|recent)\s+"
    rf"(?:(?P<n>\d+|one|two|three|four|five|six|seven|eight|nine|ten|twelve|twenty|thirty|few|couple\s+of)\s+)?"
    rf"(?P<unit>{UNIT})\b",
    re.IGNORECASE,
)
_CALENDAR = re.compile(
    r"\b(?:(?P<lead>since|before|until|so\s+far)\s+)?(?:(?:in|during|over|on|at|earlier|so\s+far)\s+)?"
    r"(?:the\s+)?(?P<which>this|last|past|previous)\s+(?P<unit>week|weekend|month|year)\b",
    re.IGNORECASE,
)
_MOMENT = re.compile(
    rf"\b(?:{_LEAD}\s+)?(?P<when>{_WHEN})(?P<own>['’]s)?(?:\s*(?P<zone>{ZONE}))?(?![\w/])", re.IGNORECASE
)
_AHEAD = re.compile(
    r"\b(?:will|won't|going\s+to|scheduled|planned|plans?|expected|due|supposed\s+to|upcoming|tomorrow|next)\b|'ll\b",
    re.IGNORECASE,
)
_DAY_WORDS = re.compile(DAY, re.IGNORECASE)
_ZONE_WORDS = re.compile(rf"(?<=[\dm\s.]){ZONE}", re.IGNORECASE)
_WEEKDAY = re.compile(r"(?:mon|tues|wednes|thurs|fri|satur|sun)day", re.IGNORECASE)
_QUOTED = re.compile(r'"[^"]*"|“[^”]*”|«[^»]*»|「[^」]*」|„[^“”]*[“”]|(?<!\w)\'[^\']{8,}\'(?!\w)')


@dataclass(frozen=True, slots=True)
class TimeAsked:
    """window: of created_at. rest: the question without the words that set the window. point: one moment was asked
    ("at 14:00"): the window ends with it, and what held then is the answer. ahead: days or moments (since, until) that
    lie in the future; their words stay in `rest`, for posts speak of them."""

    window: Window
    rest: str
    point: bool = False
    ahead: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class _Found:
    start: int
    end: int
    since: float | None
    until: float | None
    point: bool = False


def masked(question: str) -> str:
    """The question with quoted words blanked, same length: what is quoted is no time word and no name."""
    return _QUOTED.sub(lambda match: BLANK * len(match.group()), question)


def time_asked(question: str, now: float, zone: tzinfo = UTC, past: bool = False) -> TimeAsked:
    """What window the question sets, by the clock `now` (Unix seconds); `zone` where it names no time zone.

    "yesterday" and "on 3 May" are days, "this morning" 0 to 12, "last night" 18 to 6, "since Friday" starts with the
    latest Friday, "two days ago" is that day, "at 14:00" ends with that minute. Of several windows in one question the
    intersection counts where there is one, else the first. past: no day lies ahead, whatever the question says.
    """
    text = masked(question)
    here = datetime.fromtimestamp(now, zone)
    ahead_asked = not past and bool(_AHEAD.search(text))
    found: list[_Found] = []
    ahead: list[tuple[float, float]] = []

    def free(match: re.Match[str]) -> bool:
        return all(match.end() <= other.start or match.start() >= other.end for other in found)

    for match in _SPAN.finditer(text):
        span = _span(match, here, ahead_asked)
        if span is not None:
            found.append(_Found(match.start(), match.end(), *span))
    for match in _AGO.finditer(text):
        if free(match):
            found.append(_ago(match, here))
    for match in _CALENDAR.finditer(text):
        if free(match):
            found.append(_calendar(match, here))
    for match in _LAST.finditer(text):
        if free(match) and not (match["n"] is None and match["unit"].lower() in ("second", "seconds", "s")):
            found.append(_last(match, here))
    for match in _MOMENT.finditer(text):
        if not free(match) or _is_name(text, match):
            continue
        moment = read_moment(match["when"], here, match["zone"], ahead_asked)
        if moment is None:
            continue
        today = ahead_asked and moment.since <= now < moment.until and not moment.is_clock
        if (moment.since > now or (today and _WEEKDAY.search(match["when"]))) and not (
            match["lead"] or ""
        ).lower().startswith(("until", "till", "by", "before")):
            ahead.append((moment.since, moment.until))
            continue
        found.append(_placed(match, moment))
    found.sort(key=lambda one: one.start)
    if not found:
        return TimeAsked(Window(), question, ahead=tuple(ahead))
    since, until, point = found[0].since, found[0].until, found[0].point
    for one in found[1:]:
        later = max((x for x in (since, one.since) if x is not None), default=None)
        sooner = min((x for x in (until, one.until) if x is not None), default=None)
        if later is None or sooner is None or later < sooner:
            since, until, point = later, sooner, point or one.point
    words = " ".join(question[one.start : one.end].strip() for one in found)
    rest = list(question)
    for one in found:
        rest[one.start : one.end] = " " * (one.end - one.start)
    return TimeAsked(Window(since, until, words), re.sub(r"\s+", " ", "".join(rest)).strip(), point, tuple(ahead))


def _span(match: re.Match[str], here: datetime, ahead_asked: bool) -> tuple[float, float] | None:
    """Both ends of "between 2 and 4 pm UTC on 3 May": what one end leaves out, the other says."""
    first, last = match["a"], match["b"]
    inner = _ZONE_WORDS.search(last)
    named = match["zb"] or (inner and inner.group()) or match["za"]
    half = re.search(r"(?i)\b\d{1,2}(?::\d\d)?\s*([ap]\.?m\.?)", last)
    if re.fullmatch(r"\d{1,2}(?::\d\d)?", first):
        if half:
            first = f"{first} {half[1]}"
        elif ":" not in first:
            return None
    day_of = _DAY_WORDS.search(last) if match["day"] is None else None
    if day_of and not _DAY_WORDS.search(first):
        first = f"{first} {day_of.group()}"  # "from 10:00 to 12:30 yesterday"
    start = read_moment(f"{match['day']} {first}" if match["day"] else first, here, match["za"] or named, ahead_asked)
    end = read_moment(f"{match['day']} {last}" if match["day"] else last, here, named, ahead_asked)
    if start is None or end is None:
        return None
    since, until = start.since, end.since if end.is_clock else end.until
    if end.is_clock and not match["day"] and not day_of:
        # a clock alone: the first such time after the start
        until += 86400.0 * (1 + (since - until) // 86400.0)
    elif end.is_clock and since >= until:
        until += 86400.0
    elif since >= until:
        since -= 7 * 86400.0  # "between Monday and Wednesday" said on a Monday
    return (since, until) if since < until else None


def _ago(match: re.Match[str], here: datetime) -> _Found:
    lead = (match["lead"] or "").lower()
    count, unit = count_of(match["n"]), match["unit"].lower()
    moment = add_units(here, unit, -count)
    if unit_step(unit) >= 86400.0 and unit_step(unit) < 7 * 86400.0:
        start = unit_start(moment, "day")
        since, until = start.timestamp(), (start + timedelta(days=1)).timestamp()
    else:
        half = unit_step(unit) / 2
        since, until = moment.timestamp() - half, moment.timestamp() + half
    if lead == "since":
        return _Found(match.start(), match.end(), min(since, moment.timestamp()), None)
    if lead == "before":
        return _Found(match.start(), match.end(), None, since)
    if lead in ("until", "as of") or lead.startswith("as"):
        return _Found(match.start(), match.end(), None, moment.timestamp() + MINUTE_S, True)
    return _Found(match.start(), match.end(), since, until)


def _last(match: re.Match[str], here: datetime) -> _Found:
    count = count_of(match["n"] or "one")
    return _Found(match.start(), match.end(), add_units(here, match["unit"].lower(), -count).timestamp(), None)


def _calendar(match: re.Match[str], here: datetime) -> _Found:
    """This week from Monday on; last week from Monday to Monday; the weekend is the latest one that began."""
    which, unit = match["which"].lower(), match["unit"].lower()
    lead = (match["lead"] or "").lower()
    day = unit_start(here, "day")
    if unit == "weekend":
        start = day - timedelta(days=(day.weekday() - 5) % 7)
        if which != "this" and day.weekday() >= 5:
            start -= timedelta(days=7)
        end = start + timedelta(days=2)
    elif which == "past":
        start, end = add_units(here, unit, -1), here + timedelta(days=1)
    else:
        start = unit_start(here, unit)
        end = add_units(start, unit, 1)
        if which != "this":
            start, end = add_units(start, unit, -1), start
    since, until = start.timestamp(), end.timestamp()
    if lead == "since":
        return _Found(match.start(), match.end(), since, None)
    if lead == "before":
        return _Found(match.start(), match.end(), None, since)
    if lead == "until":
        return _Found(match.start(), match.end(), None, until)
    return _Found(match.start(), match.end(), since, until)


def _placed(match: re.Match[str], moment: Moment) -> _Found:
    lead = re.sub(r"\s+", " ", (match["lead"] or "").lower())
    start, end = match.start(), match.end()
    if lead in ("since", "from"):
        return _Found(start, end, moment.since, None)
    if lead == "after":
        return _Found(start, end, moment.since if moment.is_clock else moment.until, None)
    if lead == "before":
        return _Found(start, end, None, moment.since)
    if lead in ("until", "till", "by", "as of", "up to"):
        until = moment.since + MINUTE_S if moment.is_clock else moment.until
        return _Found(start, end, None, until, True)
    if not moment.is_clock:
        return _Found(start, end, moment.since, moment.until)
    if lead.endswith(("around", "about")):
        return _Found(start, end, moment.since - AROUND_S, moment.since + AROUND_S)
    return _Found(start, end, None, moment.since + MINUTE_S, True)


def _is_name(text: str, match: re.Match[str]) -> bool:
    """Black Friday, Sunday Times, Friday Harbor: a weekday or month beside another capitalised word is a name, unless a
    preposition sets it apart."""
    word = match["when"].strip()
    if not re.fullmatch(r"(?:(?:last|this|next)\s+)?[A-Z][a-z]+", word):
        return False
    after = re.match(r"\s+([A-Z]\w*)", text[match.end() :])
    if after and not match["own"] and not re.fullmatch(ZONE, after[1], re.I):
        return True
    before = re.search(r"(\S+)\s+$", text[: match.start("when")])
    return bool(before and match["lead"] is None and before.start() > 0 and before[1][:1].isupper())
