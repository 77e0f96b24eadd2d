"""Quantities in a text: counts, money, percentages, scores, ordinals, measures, with their units and bounds."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from gigafactory.chat.english import row, table, words
from gigafactory.chat.tokens import ORDINALS, Token

DIGITS = {word: value for value, word in enumerate(row("digits"))}
TENS = {word: 10 * value for value, word in enumerate(row("tens"), start=2)}
SCALES: dict[str, float] = table("scales")
SHORT_SCALES = frozenset(("k", "m", "b", "bn", "mn", "mln", "tn"))  # only right behind the digits: "10k", "$1.2 bn"
CURRENCIES: dict[str, str] = table("currencies")
MEASURES: dict[str, tuple[str, float]] = table("measures")
MEASURED = frozenset(kind for kind, _ in MEASURES.values())
ABOUT, MORE, LESS = words("about"), words("more"), words("less")
NOT_ONE, ONE_OF = words("not_one"), words("one_of")
LONGEST = 30  # digits: more are no quantity
DASHES = frozenset("-–—−")


BEGIN = frozenset(("a", "an", *(word.casefold() for word in CURRENCIES))).union(DIGITS, TENS, ORDINALS)


@dataclass(frozen=True, slots=True)
class Quantity:
    """values: one number, or those of a score or range ("8-5") in their order. kind: "count", "percent", "ordinal",
    "pair", "temperature", a currency ("usd") or what a unit measures ("m", "kg", "s"; values in that base unit).
    bound: "", "about", "more" or "less". first, last: its first and last token. exact: written to this relative
    precision (1,200 is 0.5 of its last written non-zero digit)."""

    values: tuple[float, ...]
    kind: str
    bound: str
    first: int
    last: int
    text: str
    step: float

    @property
    def whole(self) -> float:
        return self.values[0]


def quantities(tokens: Sequence[Token], taken: frozenset[int] = frozenset()) -> tuple[Quantity, ...]:
    """The quantities of a token sequence in their order. taken: indices of tokens that belong to dates and times."""
    found: list[Quantity] = []
    i = 0
    while i < len(tokens):
        may = tokens[i].kind == "number" or tokens[i].text in CURRENCIES or tokens[i].word in BEGIN
        quantity = _at(tokens, i, taken) if may and i not in taken else None
        if quantity:
            found.append(quantity)
            i = quantity.last + 1
        else:
            i += 1
    return tuple(found)


def agree(claimed: Quantity, given: Quantity) -> bool:
    """Does a post's quantity carry the claimed one? Exact, but for conversions of units and for a claim that says
    "about" or "more than" of a number the post gives exactly."""
    if claimed.kind != given.kind or len(claimed.values) != len(given.values):
        return False
    if claimed.bound != given.bound and (given.bound or claimed.bound == "less"):
        return False
    pairs = list(zip(claimed.values, given.values, strict=True))
    if all(math.isclose(a, b, rel_tol=1e-9) for a, b in pairs):
        # "more than 30" is not what "30" says
        return claimed.bound == given.bound or claimed.bound == "about"
    if claimed.bound in ("about", "more") and not given.bound:
        near = all(abs(a - b) <= min(claimed.step / 2, abs(b) / 10) for a, b in pairs)
        return near and (claimed.bound == "about" or all(a <= b for a, b in pairs))
    converted = claimed.kind in MEASURED and _unit(claimed) != _unit(given)
    return converted and all(abs(a - b) <= min(claimed.step / 2, abs(b) / 20) for a, b in pairs)


def _unit(quantity: Quantity) -> str:
    return re.sub(r"[\d.,\s]", "", quantity.text).casefold()


def _at(tokens: Sequence[Token], i: int, taken: frozenset[int]) -> Quantity | None:
    """The quantity that begins at token i, if any."""
    first = i
    currency = ""
    if tokens[i].text in CURRENCIES and tokens[i].kind == "symbol" and i + 1 < len(tokens):
        currency, i = CURRENCIES[tokens[i].text], i + 1
    elif tokens[i].text in ("USD", "EUR", "GBP", "JPY", "INR", "CHF", "CNY") and _number(tokens, i + 1):
        currency, i = CURRENCIES[tokens[i].word], i + 1
    start = i
    number = _number(tokens, i)
    if number is None or any(j in taken for j in range(start, number[2] + 1)):
        return None
    value, step, last, spelled = number
    if _negative(tokens, first):
        value = -value
    if tokens[start].text.count(".") > 1:  # a version, an address
        return None
    if spelled and tokens[start].word in ORDINALS and last == start:
        return _ordinal(tokens, start)
    if not spelled and tokens[start].word[-1].isalpha():
        return Quantity((value,), "ordinal", "", first, last, _text(tokens, first, last), 1.0)
    values, steps = [value], [step]
    if not spelled:
        while (more := _joined(tokens, last, taken)) is not None and len(values) < 3:
            values.append(more[0])
            steps.append(more[1])
            last = more[2]
    factor, last = _scaled(tokens, last, spelled)
    values, steps = [v * factor for v in values], [s * factor for s in steps]
    kind, factor, last = _kind(tokens, last, currency)
    if len(values) > 1 and kind == "count":
        kind = "pair"
    bound = _bound(tokens, first)
    text = _text(tokens, first, last)
    return Quantity(tuple(v * factor for v in values), kind, bound, first, last, text, max(steps) * factor)


def _negative(tokens: Sequence[Token], first: int) -> bool:
    """A minus stands before it: a word, or a dash after a space that touches the number."""
    if not first or tokens[first - 1].text not in (*DASHES, "minus", "Minus"):
        return False
    if tokens[first - 1].kind == "word":
        return True
    apart = first == 1 or tokens[first - 1].start > tokens[first - 2].end
    return apart and tokens[first].start == tokens[first - 1].end


def _text(tokens: Sequence[Token], first: int, last: int) -> str:
    parts = [tokens[first].text]
    for before, token in zip(tokens[first:last], tokens[first + 1 : last + 1], strict=True):
        parts.append((" " if token.start > before.end else "") + token.text)
    return "".join(parts)


def _next(tokens: Sequence[Token], i: int) -> Token | None:
    return tokens[i + 1] if i + 1 < len(tokens) else None


def _number(tokens: Sequence[Token], i: int) -> tuple[float, float, int, bool] | None:
    """(value, step of its last written digit, last token, spelled out) of the plain number at token i."""
    if i >= len(tokens):
        return None
    token = tokens[i]
    if token.kind == "number":
        if len(token.word) > LONGEST:
            return None
        if token.word[-1].isalpha():
            return float(token.word[:-2]), 1.0, i, False
        parts = token.word.split(".")
        if len(parts) > 2:
            return 0.0, 1.0, i, False
        value = float(token.word)
        zeros = len(parts[0]) - len(parts[0].rstrip("0"))
        step = 10.0 ** (-len(parts[1])) if len(parts) == 2 else 10.0 ** (zeros if value else 0)
        return value, step, i, False
    return _spelled(tokens, i)


def _spelled(tokens: Sequence[Token], i: int) -> tuple[float, float, int, bool] | None:
    word = tokens[i].word
    if (
        word in ("a", "an")
        and i + 1 < len(tokens)
        and tokens[i + 1].word in ("hundred", "thousand", "million", "dozen")
    ):
        return 1.0, 1.0, i, True
    if word == "dozens":
        return None
    if word == "one" and not _counts(tokens, i):
        return None
    if word in ORDINALS:
        return float(ORDINALS[word]), 1.0, i, True
    if word in DIGITS:
        return float(DIGITS[word]), 1.0, i, True
    if word in TENS:
        rest = i + 1
        if rest < len(tokens) and tokens[rest].text in DASHES:
            rest += 1
        if rest < len(tokens) and 0 < DIGITS.get(tokens[rest].word, 0) < 10:
            return float(TENS[word] + DIGITS[tokens[rest].word]), 1.0, rest, True
        return float(TENS[word]), 1.0, i, True
    return None


def _counts(tokens: Sequence[Token], i: int) -> bool:
    """Is this "one" a number, not a pronoun?"""
    before = tokens[i - 1].word if i else ""
    after = _next(tokens, i)
    if before in NOT_ONE or after is None or after.kind not in ("word", "number"):
        return False
    return after.word not in ONE_OF


def _ordinal(tokens: Sequence[Token], i: int) -> Quantity | None:
    after = _next(tokens, i)
    if tokens[i].word == "second" and i and (tokens[i - 1].kind == "number" or tokens[i - 1].word in ("a", "per")):
        return None
    if i and (tokens[i - 1].word in DIGITS or tokens[i - 1].word == "at") and tokens[i].word != "second":
        return None  # two thirds, at first
    if after is not None and after.word == "of" and tokens[i].word not in ("first", "second"):
        return None
    return Quantity((float(ORDINALS[tokens[i].word]),), "ordinal", "", i, i, tokens[i].text, 1.0)


def _joined(tokens: Sequence[Token], last: int, taken: frozenset[int]) -> tuple[float, float, int] | None:
    """The number that a dash joins to the one that ends at `last`: 8-5, 7–3–0."""
    if last + 2 >= len(tokens) or tokens[last + 1].text not in DASHES or last + 2 in taken:
        return None
    if tokens[last + 2].kind != "number" or tokens[last + 2].start - tokens[last].end > 3:
        return None
    value, step, end, _ = _number(tokens, last + 2) or (0.0, 1.0, 0, False)
    return value, step, end


def _scaled(tokens: Sequence[Token], last: int, spelled: bool) -> tuple[float, int]:
    factor = 1.0
    while (token := _next(tokens, last)) is not None:
        if token.word not in SCALES:
            break
        if token.word in SHORT_SCALES and (spelled or not _short_scale(tokens[last], token)):
            break
        factor *= SCALES[token.word]
        last += 1
    return factor, last


def _short_scale(number: Token, token: Token) -> bool:
    """ "10k" and "1.2 bn" are scaled, "3 m" is metres."""
    gap = token.start - number.end
    return gap == 0 or (gap == 1 and (token.word not in ("m", "b") or token.text.isupper()))


def _kind(tokens: Sequence[Token], last: int, currency: str) -> tuple[str, float, int]:
    """(kind, factor to its base unit, last token) by what follows the number."""
    if currency:
        return currency, 1.0, last
    after = _next(tokens, last)
    if after is None:
        return "count", 1.0, last
    if after.text == "%" or after.word in ("percent", "percentage", "pct"):
        return "percent", 1.0, last + 1
    if after.word == "per" and last + 2 < len(tokens) and tokens[last + 2].word == "cent":
        return "percent", 1.0, last + 2
    if after.word in ("us", "usa") and last + 2 < len(tokens) and tokens[last + 2].word in ("dollars", "dollar"):
        return "usd", 1.0, last + 2
    if after.word in CURRENCIES and after.text != "¥":
        return CURRENCIES[after.word], 1.0, last + 1
    if after.text == "°":
        scale = tokens[last + 2].word if last + 2 < len(tokens) else ""
        return (f"°{scale}", 1.0, last + 2) if scale in ("c", "f") else ("°", 1.0, last + 1)
    unit_at = last + 2 if after.text in DASHES and last + 2 < len(tokens) else last + 1  # "a 10-mile run"
    unit = tokens[unit_at]
    word = unit.word
    if word == "km" and unit_at + 2 < len(tokens) and tokens[unit_at + 2].word in ("h", "hour"):
        return "m/s", 1 / 3.6, unit_at + 2
    if word == "miles" and unit_at + 2 < len(tokens) and tokens[unit_at + 1].word in ("an", "per"):
        return ("m/s", 0.44704, unit_at + 2) if tokens[unit_at + 2].word == "hour" else ("m", 1609.344, unit_at)
    if word == "m" and unit.text == "m":
        return "m", 1.0, unit_at
    if word in MEASURES and (word != "second" or unit_at > last + 1):
        kind, factor = MEASURES[word]
        return kind, float(factor), unit_at
    return "count", 1.0, last


def _bound(tokens: Sequence[Token], first: int) -> str:
    before = [token.word for token in tokens[max(0, first - 3) : first]]
    if not before:
        return ""
    if before[-1] in ABOUT or before[-2:] in (["close", "to"], ["up", "to"]) or before[-2:-1] == ["around"]:
        return "less" if before[-2:] == ["up", "to"] else "about"
    if before[-1] in MORE or before[-2:] in (["more", "than"], ["at", "least"], ["greater", "than"], ["no", "fewer"]):
        return "more"
    if before[-1] in LESS or before[-2:] in (["less", "than"], ["fewer", "than"], ["at", "most"]):
        return "less"
    return ""
