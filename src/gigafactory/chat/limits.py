"""How much a client may ask for: pure, the clock is an argument."""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass
class RateLimit:
    """A bucket per key that holds `per_minute` requests and fills at that rate. Keys are few: those of the file."""

    per_minute: int

    def __post_init__(self) -> None:
        self._left: dict[str, tuple[float, float]] = {}  # by key: requests left, at what time

    def take(self, key: str, now_s: float) -> tuple[float, int]:
        """(seconds to wait, requests left): 0 seconds where the request may go on, and is counted."""
        left, at = self._left.get(key, (float(self.per_minute), now_s))
        left = min(float(self.per_minute), left + max(0.0, now_s - at) * self.per_minute / 60)
        if left < 1:
            self._left[key] = (left, now_s)
            return (1 - left) * 60 / self.per_minute, 0
        self._left[key] = (left - 1, now_s)
        return 0.0, math.floor(left - 1)


class Keys:
    """API keys, held as digests. No keys: everyone is the owner ""."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    def owner(self, authorization: str) -> str | None:
        """Who sends this Authorization header: 16 hex digits of the key's digest; None for a wrong or missing key.

        Every key is compared, each in constant time.
        """
        if not self._digests:
            return ""
        scheme, _, key = authorization.partition(" ")
        given = hashlib.sha256(key.strip().encode()).digest()
        equal = sum([hmac.compare_digest(given, digest) for digest in self._digests])
        return given.hex()[:16] if equal and scheme.lower() == "bearer" else None
