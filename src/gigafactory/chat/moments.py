"""Days, times of day and time zones as people write them, as intervals of Unix seconds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
MONTHS = (
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
)  # fmt: skip
OFFSETS_H: dict[str, float] = {
    "utc": 0, "gmt": 0, "z": 0, "wet": 0, "bst": 1, "cet": 1, "west": 1, "cest": 2, "eet": 2, "sast": 2, "eest": 3,
    "msk": 3, "gst": 4, "pkt": 5, "ist": 5.5, "ict": 7, "wib": 7, "hkt": 8, "sgt": 8, "awst": 8, "jst": 9, "kst": 9,
    "aest": 10, "aedt": 11, "nzst": 12, "nzdt": 13, "hst": -10, "akst": -9, "akdt": -8, "pst": -8, "pdt": -7,
    "mst": -7, "mdt": -6, "cst": -6, "cdt": -5, "est": -5, "edt": -4, "ast": -4, "brt": -3, "art": -3,
}  # fmt: skip
PLACES = {
    "et": "America/New_York", "eastern": "America/New_York", "new york": "America/New_York",
    "ct": "America/Chicago", "central": "America/Chicago", "chicago": "America/Chicago",
    "mt": "America/Denver", "mountain": "America/Denver", "denver": "America/Denver",
    "pt": "America/Los_Angeles", "pacific": "America/Los_Angeles", "los angeles": "America/Los_Angeles",
    "london": "Europe/London", "uk": "Europe/London", "paris": "Europe/Paris", "berlin": "Europe/Berlin",
    "madrid": "Europe/Madrid", "rome": "Europe/Rome", "zurich": "Europe/Zurich", "vienna": "Europe/Vienna",
    "moscow": "Europe/Moscow", "istanbul": "Europe/Istanbul", "kyiv": "Europe/Kyiv", "cairo": "Africa/Cairo",
    "nairobi": "Africa/Nairobi", "lagos": "Africa/Lagos", "johannesburg": "Africa/Johannesburg",
    "dubai": "Asia/Dubai", "india": "Asia/Kolkata", "delhi": "Asia/Kolkata", "mumbai": "Asia/Kolkata",
    "singapore": "Asia/Singapore", "hong kong": "Asia/Hong_Kong", "beijing": "Asia/Shanghai",
    "shanghai": "Asia/Shanghai", "tokyo": "Asia/Tokyo", "japan": "Asia/Tokyo", "seoul": "Asia/Seoul",
    "sydney": "Australia/Sydney", "melbourne": "Australia/Melbourne", "auckland": "Pacific/Auckland",
    "toronto": "America/Toronto", "mexico city": "America/Mexico_City", "sao paulo": "America/Sao_Paulo",
    "buenos aires": "America/Argentina/Buenos_Aires",
}  # fmt: skip
PARTS_H = {
    "early morning": (4, 8), "morning": (0, 12), "noon": (12, 13), "lunchtime": (11, 14), "afternoon": (12, 18),
    "evening": (17, 24), "night": (18, 30),
}  # fmt: skip
COUNTS = {
    "a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8,
    "nine": 9, "ten": 10, "twelve": 12, "twenty": 20, "thirty": 30, "few": 3, "couple": 2, "half": 0.5,
}  # fmt: skip
STEPS_S = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0, "week": 604800.0, "month": 2629800.0}

UNIT = r"seconds?|secs?|minutes?|mins?|hours?|hrs?|days?|weeks?|months?|years?"
_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|"
    r"sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"
)
_WEEKDAY = r"(?:mon|tues?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?:day)?"
_FULL_WEEKDAY = r"(?:monday|tuesday|wednesday|thursday|friday|saturday|sunday)"
_PART = r"(?:early\s+morning|morning|noon|lunchtime|afternoon|evening|night)"
DATE = (
    rf"(?:\d{{4}}[-/]\d{{1,2}}[-/]\d{{1,2}}|\d{{1,2}}\.\d{{1,2}}\.(?:\d{{4}})?"
    rf"|(?:the\s+)?\d{{1,2}}(?:st|nd|rd|th)?\s+(?:of\s+)?{_MONTH}(?:,?\s+\d{{4}})?(?!\w)"
    rf"|{_MONTH}\s+(?:the\s+)?\d{{1,2}}(?:st|nd|rd|th)?(?!\d|:\d)(?:,?\s+\d{{4}})?)"
)
DAY = (
    rf"(?:(?:{_WEEKDAY},?\s+(?:the\s+)?)?{DATE}|the\s+day\s+before\s+yesterday|the\s+day\s+after\s+tomorrow|yesterday|"
    rf"today|tomorrow|tonight|last\s+night|this\s+{_PART}|(?:(?:this\s+past|this|last|past|next)\s+)?{_FULL_WEEKDAY})"
)
CLOCK = (
    r"(?:\d{1,2}(?::\d\d){1,2}(?:\s*[ap]\.?m\b\.?)?|\d{1,2}\s*[ap]\.?m\b\.?|\d{1,2}\s*o['’]?clock|\d{1,2}h\d\d|"
    r"(?:[01]\d|2[0-3])[0-5]\d(?=\s*(?:utc|gmt|z)\b)|noon|midnight)"
)
PART = _PART
ZONE = (
    r"(?:\(?(?:utc|gmt)\s*[+\-−]\s*\d{1,2}(?::?\d\d)?\)?|\+\d\d:?\d\d\b|\(?(?:"
    + "|".join(sorted((name for name in OFFSETS_H if name != "z"), key=len, reverse=True))
    + r"|et|ct|mt|pt)\b\)?|(?<=\d)z\b|(?:"
    + "|".join(sorted((name for name in PLACES if len(name) > 2), key=len, reverse=True))
    + r")\s+time\b|(?:uk|local)\s+time\b)"
)

_CLOCK = re.compile(CLOCK, re.IGNORECASE)
_DAY = re.compile(DAY, re.IGNORECASE)
_ZONE = re.compile(rf"(?<=[\d\s]){ZONE}|(?<=m\.){ZONE}|(?<=[ap]m){ZONE}", re.IGNORECASE)
_PART_OF_DAY = re.compile(_PART, re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Moment:
    """[since, until) in Unix seconds; is_clock: a time of day was given (a minute), else a day or a part of one."""

    since: float
    until: float
    is_clock: bool


def zone_of(words: str | None, zone: tzinfo) -> tzinfo:
    """The time zone that `words` name; `zone` where they name none that is known."""
    name = re.sub(r"[()\s]+", " ", (words or "").lower()).strip().removesuffix(" time").strip()
    if not name or name == "local":
        return zone
    shift = re.fullmatch(r"(?:utc|gmt)?\s*([+\-−])\s*(\d{1,2}):?(\d\d)?", name)
    if shift:
        minutes = int(shift[2]) * 60 + int(shift[3] or 0)
        if minutes >= 24 * 60:
            return zone
        return timezone(timedelta(minutes=-minutes if shift[1] in "-−" else minutes))
    if name in OFFSETS_H:
        return timezone(timedelta(hours=OFFSETS_H[name])) if OFFSETS_H[name] else UTC
    try:
        return ZoneInfo(PLACES[name]) if name in PLACES else zone
    except ZoneInfoNotFoundError:  # a machine without the time zone database
        return zone


def count_of(words: str) -> float:
    """ "3", "three", "a few", "half an" as a number."""
    for word in words.lower().split():
        if word.isdigit():
            return float(min(int(word), 100_000))
        if word in COUNTS and not (word in ("a", "an") and len(words.split()) > 1):
            return float(COUNTS[word])
    return 1.0


def _unit(word: str) -> str:
    word = word.lower().rstrip("s")
    return {"sec": "second", "min": "minute", "hr": "hour"}.get(word, word)


def unit_step(unit: str) -> float:
    """Length of a unit in seconds; of a month and a year, on average."""
    return STEPS_S.get(_unit(unit), 31557600.0)


def add_units(moment: datetime, unit: str, count: float) -> datetime:
    """`count` units later; months and years by the calendar; as far as the calendar goes."""
    name = _unit(unit)
    try:
        if name not in ("month", "year"):
            return moment + timedelta(seconds=count * unit_step(unit))
        months = moment.year * 12 + moment.month - 1 + round(count * (12 if name == "year" else 1))
        year, month = divmod(months, 12)
        last = (datetime(year + month // 11, (month + 1) % 12 + 1, 1) - timedelta(days=1)).day
        return moment.replace(year=year, month=month + 1, day=min(moment.day, last))
    except (ValueError, OverflowError):
        return moment.replace(year=1971, month=1, day=1) if count < 0 else moment.replace(year=9000, month=1, day=1)


def unit_start(moment: datetime, unit: str) -> datetime:
    """Midnight of the day, of the Monday, of the first of the month or year."""
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    if unit == "week":
        return day - timedelta(days=day.weekday())
    if unit == "month":
        return day.replace(day=1)
    if unit == "year":
        return day.replace(month=1, day=1)
    return day


def read_moment(words: str, here: datetime, named_zone: str | None = None, ahead: bool = False) -> Moment | None:
    """The day, part of day or time of day in `words`, counted from `here` (in its zone, or in the one named).

    Without a day, a clock is the latest such time that is past, or the next one with `ahead`; so is a weekday (today
    counts as past); a date without a year is the nearest, the past one at twice the distance.
    None where there is no such date.
    """
    assert here.tzinfo is not None
    inner = _ZONE.search(words)
    if inner:
        words = words[: inner.start()] + " " + words[inner.end() :]
    here = here.astimezone(zone_of(named_zone or (inner.group() if inner else None), here.tzinfo))
    day_found = _DAY.search(words)
    day_words = re.sub(r"\s+", " ", day_found.group().lower()) if day_found else ""
    left = words[: day_found.start()] + " " + words[day_found.end() :] if day_found else words
    clock_found = _CLOCK.search(left)
    try:
        day = _day(day_words, here, ahead) if day_words else None
        if day_words and day is None:
            return None
        if clock_found:
            return _at_clock(clock_found.group().lower(), day, here, ahead)
        part = _PART_OF_DAY.search(left) or _PART_OF_DAY.search(day_words)
        if day is None:
            return None
        if day_words == "tonight" or part:
            name = re.sub(r"\s+", " ", part.group().lower()) if part else "night"
            first_h, last_h = PARTS_H[name]
            return Moment(_plus(day, first_h), _plus(day, last_h), False)
        return Moment(day.timestamp(), _plus(day, 24), False)
    except (ValueError, OverflowError):
        return None


def _plus(day: datetime, hours: float) -> float:
    """Wall clock, so that a day of a clock change has its 23 or 25 hours."""
    whole, rest = divmod(hours, 24)
    later = day + timedelta(days=whole)
    return (later.replace(hour=int(rest)) if rest else later).timestamp()


def _day(words: str, here: datetime, ahead: bool) -> datetime | None:
    today = unit_start(here, "day")
    for start, days in (("the day before yesterday", -2), ("the day after tomorrow", 2), ("yesterday", -1),
                        ("last night", -1), ("tomorrow", 1), ("today", 0), ("tonight", 0)):  # fmt: skip
        if words == start:
            return today + timedelta(days=days)
    if re.match(rf"this (?:{_PART})", words):
        return today
    date = re.search(DATE, words)
    if date:
        return _date(date.group(), here)
    weekday = next((n for n, name in enumerate(WEEKDAYS) if words.endswith(name)), None)
    if weekday is None:
        return None
    back = (today.weekday() - weekday) % 7
    if words.startswith("next") or (ahead and not words.startswith(("last", "past", "this past"))):
        return today + timedelta(days=7 - back if back or words.startswith("next") else 0)
    if words.startswith(("last", "past", "this past")) and back == 0:
        back = 7
    return today - timedelta(days=back)


def _date(words: str, here: datetime) -> datetime:
    """Raises ValueError for a date that no calendar has."""
    numbers = re.match(r"(\d{4})[-/](\d{1,2})[-/](\d{1,2})", words)
    if numbers:
        return datetime(int(numbers[1]), int(numbers[2]), int(numbers[3]), tzinfo=here.tzinfo)
    dotted = re.match(r"(\d{1,2})\.(\d{1,2})\.(\d{4})?", words)
    if dotted:
        day, month, year = int(dotted[1]), int(dotted[2]), dotted[3]
    else:
        name = re.search(r"[a-z]{3,}", re.sub(r"\b(?:the|of)\b|(?<=\d)(?:st|nd|rd|th)", " ", words))
        if name is None:
            raise ValueError(words)
        month = 1 + next(n for n, full in enumerate(MONTHS) if full.startswith(name.group()[:3]))
        day = int(re.search(r"\d{1,2}", words).group())  # type: ignore[union-attr]
        found_year = re.search(r"\d{4}", words)
        year = found_year.group() if found_year else None
    if year:
        return datetime(int(year), month, day, tzinfo=here.tzinfo)
    near = []
    for candidate in (here.year - 1, here.year, here.year + 1):
        try:
            near.append(datetime(candidate, month, day, tzinfo=here.tzinfo))
        except ValueError:  # 29 February
            continue
    if not near:
        raise ValueError(words)
    return min(near, key=lambda date: (here - date) / 2 if date < here else date - here)


def _at_clock(words: str, day: datetime | None, here: datetime, ahead: bool) -> Moment:
    if words in ("noon", "midnight"):
        hour, minute = (12 if words == "noon" else 0), 0
    else:
        digits = re.match(r"(\d{1,2})(?:[:h](\d\d))?|", words)
        packed = re.fullmatch(r"(\d\d)(\d\d)", words)
        assert digits is not None
        hour, minute = (int(packed[1]), int(packed[2])) if packed else (int(digits[1]), int(digits[2] or 0))
        half = re.search(r"([ap])\.?m", words)
        if half:
            if not 1 <= hour <= 12:
                raise ValueError(words)
            hour = hour % 12 + (12 if half[1] == "p" else 0)
        if hour == 24 and minute == 0:
            hour, day = 0, (day or unit_start(here, "day")) + timedelta(days=1)
    at = (day or here).replace(hour=hour, minute=minute, second=0, microsecond=0)
    if day is None:
        if at > here and not ahead:
            at -= timedelta(days=1)
        elif at < here and ahead:
            at += timedelta(days=1)
    return Moment(at.timestamp(), at.timestamp() + 60.0, True)
