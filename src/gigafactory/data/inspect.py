"""What is wrong with one text: pure functions of its characters."""

from __future__ import annotations

import re
from collections import Counter

LONG_LINE = 20_000
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]")
# UTF-8 that was read as latin-1 or Windows-1252 and encoded again: the bytes C2..C3 xx become Ã or Â and a second
# character of the upper half; the quotes and dashes E2 80 xx become â€ and a third
_MOJIBAKE = re.compile(
    "[ÂÃ][\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]|â€[\u0080-\u00bf˜™œ“”¦¢š]?|â\u0080[\u0080-\u00bf]|ï»¿"
)
_BLOB = re.compile(r"[A-Za-z0-9+/_-]{400,}")


def flaws(text: str) -> Counter[str]:
    """How often each flaw is in a text: control, mojibake, replacement, long_line, blob; empty counts 1."""
    found: Counter[str] = Counter()
    if not text.strip():
        found["empty"] = 1
        return found
    found["control"] = len(_CONTROL.findall(text))
    if not text.isascii():
        found["mojibake"] = len(_MOJIBAKE.findall(text))
        found["replacement"] = text.count("\ufffd")
    if len(text) > LONG_LINE:
        found["long_line"] = sum(len(line) > LONG_LINE for line in text.split("\n"))
    found["blob"] = sum(_encoded(match.group()) for match in _BLOB.finditer(text))
    return +found


def _encoded(run: str) -> bool:
    """Base64 mixes cases and digits; a ruler of dashes or a word of one case does not."""
    return any(c.isdigit() for c in run) and any(c.islower() for c in run) and any(c.isupper() for c in run)
