"""WebSub: a hub pushes a feed's new entries to us, and is believed where it proves that it knows our secret.

https://www.w3.org/TR/websub/
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

LEASE_S = 10 * 86_400  # that is asked for; the hub decides
RENEW_AT = 0.8  # of the lease
RETRY_S = 3600.0  # after a hub did not answer, or refused
METHODS = {"sha1": hashlib.sha1, "sha256": hashlib.sha256, "sha384": hashlib.sha384, "sha512": hashlib.sha512}


@dataclass(slots=True)
class Subscription:
    """One topic at one hub. callback: the address that only this hub is told. secret: shared with it alone.

    Times are Unix seconds. until: when the lease ends; 0 while there is none.
    """

    hub: str
    topic: str
    callback: str
    secret: str = field(repr=False)
    until: float = 0.0
    renew_at: float = 0.0
    denied: str = ""
    rejected: int = 0  # deliveries that did not prove themselves
    _pending: bool = False

    def live(self, now: float) -> bool:
        return now < self.until

    def due(self, now: float) -> bool:
        """It is time to ask the hub, for the first time or for a longer lease."""
        return now >= self.renew_at

    def request(self, now: float) -> dict[str, str]:
        """The form to post to the hub. Asked again in an hour if nothing comes of it."""
        self._pending = True
        self.renew_at = now + RETRY_S
        return {
            "hub.mode": "subscribe",
            "hub.topic": self.topic,
            "hub.callback": self.callback,
            "hub.lease_seconds": str(LEASE_S),
            "hub.secret": self.secret,
        }

    def verify(self, query: Mapping[str, str], now: float) -> tuple[int, str]:
        """(status, body) to a hub's GET: its challenge, if we did ask for this topic, and 404 otherwise."""
        if query.get("hub.topic") != self.topic:
            return 404, ""
        if query.get("hub.mode") == "denied":
            self._pending, self.until = False, 0.0
            self.denied = query.get("hub.reason", "")[:200] or "no reason given"
            return 200, ""
        lease = query.get("hub.lease_seconds", "")
        challenge = query.get("hub.challenge", "")
        if query.get("hub.mode") != "subscribe" or not self._pending or not challenge or not lease.isdecimal():
            return 404, ""
        seconds = min(float(lease[:12]), 365 * 86_400.0)
        self._pending, self.denied = False, ""
        self.until, self.renew_at = now + seconds, now + RENEW_AT * seconds
        return 200, challenge

    def proves_itself(self, headers: Mapping[str, str], body: bytes) -> bool:
        """The delivery carries the right signature; headers have names in lower case."""
        method, _, digest = headers.get("x-hub-signature", "").partition("=")
        if method in METHODS:
            right = hmac.new(self.secret.encode(), body, METHODS[method]).hexdigest()
            if hmac.compare_digest(right.encode(), digest.strip().lower().encode()):
                return True
        self.rejected += 1
        return False


def acceptable_hub(hub: str, feed: str) -> bool:
    """A feed may name any hub, and we post to it: not to this machine or its network, unless the feed is of there."""
    return urlsplit(hub).scheme in ("http", "https") and (not _is_inner(hub) or _is_inner(feed))


def _is_inner(url: str) -> bool:
    host = urlsplit(url).hostname or "localhost"
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return "." not in host or host.endswith((".localhost", ".local", ".internal", ".lan", ".home.arpa"))
