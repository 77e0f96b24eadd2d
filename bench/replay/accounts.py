"""Who posts: newsrooms, reporters, citizens, bots, satire; and the posts that they write."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from bench.replay.names import Names
from bench.replay.template import expand
from bench.replay.words import Wording
from gigafactory.feed.post import Post

SOURCES = (("x", 0.55), ("bsky", 0.75), ("masto", 0.9), ("wire", 1.0))


@dataclass(frozen=True, slots=True)
class Account:
    source: str
    handle: str
    number: str


class Accounts:
    """Pools of accounts that grow with the number of posts, and post ids that never repeat."""

    def __init__(self, wording: Wording, names: Names, rng: Random, posts: int) -> None:
        self._wording, self._names, self._rng = wording, names, rng
        self._next = 10_000 + rng.randrange(10**6)
        self._pools: dict[str, list[Account]] = {}
        people = max(20, posts // 8)
        for role, size in (("newsroom", 12 + people // 40), ("reporter", 10 + people // 30), ("citizen", people)):
            self._pools[role] = [self.open(role) for _ in range(size)]
        self._pools["bot"] = [self.open("bot") for _ in range(6 + people // 60)]
        self._pools["satire"] = [self.open("satire") for _ in range(4 + people // 80)]

    def open(self, role: str, stem: str = "") -> Account:
        """A new account; a role without a pool is an official account named after its stem."""
        rng, names = self._rng, self._names
        if not stem:
            line = rng.choice(self._wording.tables["accounts"][role])
            parts = {"n": str(rng.randrange(2, 999))}
            parts["town"] = names.pick("town_head") + names.pick("town_tail")
            parts["first"] = names.pick("first")
            parts["last"] = names.pick("last_head") + names.pick("last_tail")
            stem = expand(line, rng, parts)
        pick = rng.random()
        source = "wire" if role == "newsroom" and pick < 0.4 else next(name for name, upto in SOURCES if pick <= upto)
        self._next += rng.randrange(1, 9)
        return Account(source, names.handle(stem), str(self._next))

    def anyone(self, role: str) -> Account:
        pool = self._pools[role]
        return pool[int(self._rng.random() * len(pool))]

    def post(self, account: Account, text: str, at: float, lang: str = "en", refs: tuple[str, ...] = ()) -> Post:
        """A post of an account, which reaches us some seconds later."""
        self._next += self._rng.randrange(1, 50)
        number = str(self._next)
        at = round(at, 3)
        seen = round(at + self._rng.expovariate(0.5), 3)
        url = f"https://{account.source}.example/{account.handle}/{number}"
        return Post(
            account.source, number, 1, account.handle, account.number, at, seen, text, url, lang, refs=refs
        )  # fmt: skip
