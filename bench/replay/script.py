"""From an event to the posts that tell it: previews, rumours, facts, retellings, corrections, copies, satire."""

from __future__ import annotations

from functools import cache
from random import Random

from bench.replay.accounts import Account, Accounts
from bench.replay.names import Names
from bench.replay.template import expand, slots
from bench.replay.timeline import Event, Told, edited
from bench.replay.values import Name, Number, Score, Value
from bench.replay.words import Wording

HOUR = 3600.0
PLOTS = {  # how events go, and how often
    "plain": 0.19,
    "rumour_first": 0.10,
    "rumour_only": 0.05,
    "corrected": 0.17,
    "grown": 0.09,
    "edited": 0.08,
    "deleted": 0.06,
    "satire": 0.06,
    "satire_only": 0.03,
    "injected": 0.06,
    "injected_only": 0.02,
    "foreign": 0.04,
    "recurring": 0.05,
}


class Script:
    """Writes the posts of events into `told`."""

    def __init__(self, wording: Wording, names: Names, accounts: Accounts, rng: Random, told: list[Told]) -> None:
        self._wording, self._names, self._accounts, self._rng, self._told = wording, names, accounts, rng, told

    def write(self, event: Event, size: float) -> None:
        """All posts of an event. size: 1 is a dozen posts or two."""
        self._event = event
        self._kind = self._wording.kinds[event.kind]
        self._official = self._accounts.open("official", expand(self._kind.official, self._rng, event.fields))
        self._size = size
        self._around()
        getattr(self, f"_{event.plot}")()

    # What happens. Each plot decides when which value is told, and by whom.

    def _plain(self) -> None:
        at = self._event.known_at
        self._tell("official", at, "fact", need=self._kind.main)
        self._spread(at, at + 10 * HOUR)

    def _rumour_first(self) -> None:
        for _ in range(self._many(3)):
            self._rumour(self._event.known_at - self._rng.uniform(0.2, 5) * HOUR)
        self._plain()

    def _rumour_only(self) -> None:
        for _ in range(self._many(3)):
            self._rumour(self._event.known_at + self._rng.uniform(0.1, 4) * HOUR)

    def _corrected(self) -> None:
        event, main, rng = self._event, self._kind.main, self._rng
        old = event.truth[main][0][1]
        first = self._tell("official", event.known_at, "fact", need=main)
        self._spread(event.known_at, event.changed_at)
        self._tell(
            "official", event.changed_at, "correction", need=main, wrap="correction", was=old, by=self._account(first)
        )
        for _ in range(self._many(1)):
            at = event.changed_at + rng.uniform(0.05, 2) * HOUR
            self._tell("newsroom", at, "correction", need=main, wrap="correction", was=old)
        self._spread(event.changed_at, event.changed_at + 8 * HOUR)
        self._stale(first)
        if rng.random() < 0.4:  # who has not heard of the correction
            self._tell("casual", event.changed_at + rng.uniform(0.5, 5) * HOUR, "fact", need=main, given={main: old})

    def _grown(self) -> None:
        event, grows = self._event, self._kind.grows or self._kind.main
        old = event.truth[grows][0][1]
        if self._wording.lines(event.kind, "half"):
            first = self._tell("newsroom", event.known_at, "fact", clause="half")
            self._tell("official", event.known_at + 30, "fact", clause="half")
            self._tell("official", event.changed_at, "fact", need=grows)
        else:
            first = self._tell("official", event.known_at, "fact", need=grows)
            self._spread(event.known_at, event.changed_at)
            self._tell("official", event.changed_at, "fact", need=grows, wrap="update", was=old)
        self._spread(event.changed_at, event.changed_at + 8 * HOUR)
        self._stale(first)

    def _edited(self) -> None:
        """Only the edited post says the old value; what others tell, they tell later."""
        event, main = self._event, self._kind.main
        told = self._told[self._tell("official", event.known_at, "fact", need=main)]
        clause, states = self._clause("state", main, self._given(event.changed_at), event.changed_at)
        text = self._wrapped("edited", clause, told.post.author)
        told.edits.append((edited(told.post, text, round(event.changed_at, 3)), states))
        if self._rng.random() < 0.6:
            self._spread(event.changed_at, event.changed_at + 8 * HOUR)

    def _deleted(self) -> None:
        """One post tells it, or a few that all go; nobody copies it."""
        event, rng = self._event, self._rng
        whole = rng.random() < 0.3
        first = self._tell("official", event.known_at, "fact", need=self._kind.main)
        for index in [first] + ([self._repost(first, event.known_at + HOUR)] if rng.random() < 0.3 else []):
            self._told[index].deleted_at = round(event.changed_at + rng.uniform(0, 3), 3)
        if whole:
            for told in (self._told[index] for index in event.told):
                if told.post.author_id == self._told[first].post.author_id:
                    told.deleted_at, told.by_author = self._told[first].deleted_at, True

    def _satire(self) -> None:
        self._plain()
        for _ in range(self._many(1)):
            self._mock(self._event.known_at + self._rng.uniform(0.2, 9) * HOUR)

    def _satire_only(self) -> None:
        for _ in range(self._many(2)):
            self._mock(self._event.known_at + self._rng.uniform(0.1, 5) * HOUR)

    def _injected(self) -> None:
        self._plain()
        for _ in range(self._many(1)):
            self._inject(self._event.known_at + self._rng.uniform(0.2, 9) * HOUR)

    def _injected_only(self) -> None:
        for _ in range(self._many(1)):
            self._inject(self._event.known_at + self._rng.uniform(0.1, 5) * HOUR)

    def _foreign(self) -> None:
        for _ in range(self._many(2)):
            at = self._event.known_at + self._rng.uniform(0, 4) * HOUR
            self._tell("newsroom", at, "fact", clause=self._rng.choice(self._wording.languages(self._event.kind)))

    def _recurring(self) -> None:
        """Told within its own day, so that the day names it."""
        at = self._event.known_at
        self._tell("official", at, "fact", need=self._kind.main)
        self._spread(at, at + 4 * HOUR)

    def _denied(self) -> None:
        event, rng = self._event, self._rng
        for _ in range(self._many(3)):
            self._rumour(event.known_at - rng.uniform(0.2, 5) * HOUR)
        for index in range(self._many(2)):
            at = event.known_at + (rng.uniform(0.05, 3) * HOUR if index else 0)
            line = rng.choice(self._wording.lines("wrap", "denial"))
            self._add(self._poster("newsroom" if index else "official"), expand(line, rng, event.fields), at, "denial")

    # Parts of plots.

    def _around(self) -> None:
        """What is said around every event and states nothing of it."""
        event, rng = self._event, self._rng
        for key, role, share in (("preview", "newsroom", 0.7), ("react", "citizen", 1.6)):
            for _ in range(self._many(share * 1.5)):
                delay = -rng.uniform(0.5, 24) if key == "preview" else rng.expovariate(0.4)
                line = rng.choice(self._wording.lines(event.kind, key))
                who = self._poster(role if rng.random() < 0.7 else "citizen")
                self._add(who, expand(line, rng, event.fields), event.known_at + delay * HOUR, key)
        if rng.random() < 0.35:
            lines = self._wording.lines(event.kind, "history")
            value = self._other(self._kind.main)
            at = event.known_at + rng.uniform(-20, 20) * HOUR
            text = expand(rng.choice(lines), rng, {**event.fields, "earlier": value.show(rng, at)})
            self._add(self._poster("citizen"), text, at, "history", {self._kind.main: value})

    def _spread(self, since: float, until: float) -> None:
        """Facts as they are known, by newsrooms and people, until they change."""
        rng, event = self._rng, self._event
        for role, many, hours in (("newsroom", 2.5, 1.5), ("casual", 4, 3.0)):
            for _ in range(self._many(many)):
                at = since + 60 + rng.expovariate(1 / hours) * HOUR
                if at < until - 60:
                    self._tell(role, at, "fact")
        languages = self._wording.languages(event.kind)
        if languages and rng.random() < 0.3 and not event.again:
            at = since + rng.uniform(0.1, 0.8) * (until - since)
            self._tell("newsroom", at, "fact", clause=rng.choice(languages))
        facts = [i for i in event.told if self._told[i].stance == "fact" and since <= self._told[i].post.created_at]
        for _ in range(self._many(1.2) if facts else 0):
            at = self._told[rng.choice(facts)].post.created_at
            self._repost(rng.choice(facts), min(until - 1, max(at, since) + rng.expovariate(0.5) * HOUR))

    def _stale(self, first: int) -> None:
        """Copies of what is no longer true."""
        for _ in range(self._many(1.5)):
            self._repost(first, self._event.changed_at + self._rng.expovariate(0.3) * HOUR)

    def _repost(self, index: int, at: float) -> int:
        """A repost with its reference, or a bot's copy without one."""
        told, rng = self._told[index], self._rng
        post = told.post
        at, refs = max(at, post.seen_at + 5), tuple[str, ...]()
        if rng.random() < 0.5:
            who = self._poster("citizen")
            who = Account(post.source, who.handle, who.number)
            text, refs = f"RT @{post.author}: {post.text}", (f"repost:{post.id}",)
        else:
            who = self._poster("bot")
            text = expand(rng.choice(self._wording.lines("wrap", "bot")), rng, {"s": post.text})
        copy = self._add(who, text, at, "copy", told.states, lang=post.lang, refs=refs)
        self._told[copy].of = index
        return copy

    def _rumour(self, at: float) -> None:
        main = self._kind.main
        given = self._given(self._event.known_at)
        if self._rng.random() < 0.7:
            given[main] = self._other(main)
        need = "" if self._event.plot == "denied" else main
        self._tell("casual", at, "rumour", need=need, given=given, wrap="rumour")

    def _mock(self, at: float) -> None:
        main = self._kind.main
        who = self._poster("satire")
        self._tell("", at, "satire", need=main, given={main: self._other(main)}, wrap="satire", by=who)

    def _inject(self, at: float) -> None:
        main = self._kind.main
        self._tell("casual", at, "injected", need=main, given={main: self._other(main)}, wrap="inject")

    def _other(self, attribute: str) -> Value:
        """A value that the attribute never has."""
        true = [value for _, value in self._event.truth.get(attribute, [])]
        for _ in range(100):
            value = self._kind.attributes[attribute](self._rng, self._names, self._event.known_at)
            if (
                isinstance(value, Name)
                and isinstance(true[0], Name)
                and " " in true[0].text
                and self._rng.random() < 0.3
            ):
                name = self._names.namesake(true[0].text)
                value = Name(name, name.split(" ", 1)[1]) if true[0].text.split(" ")[0] in name else value
            if value not in true:
                return value
        raise ValueError(f"{self._event.kind}.{attribute}: no other value")

    def _given(self, at: float) -> dict[str, Value]:
        """What is known at a time, less what no post says."""
        event = self._event
        known = {name: event.holds(name, at) for name in event.truth if name != event.hidden}
        return {name: value for name, value in known.items() if value is not None}

    def _tell(
        self,
        role: str,
        at: float,
        stance: str,
        *,
        need: str = "",
        clause: str = "",
        wrap: str = "",
        given: dict[str, Value] | None = None,
        was: Value | None = None,
        by: Account | None = None,
    ) -> int:
        """A post that states something. need: an attribute that it must state. given: what it says where that is not
        what is known."""
        who = by or self._poster("citizen" if role == "casual" else role)
        style = clause or ("casual" if role == "casual" else "state")
        text, states = self._clause(style, need, self._given(at) if given is None else given, at)
        if clause:
            lang = clause if len(clause) == 2 else "en"
            return self._add(who, text, at, stance, states, lang=lang)
        wrap = wrap or ("casual" if role == "casual" else "official" if role == "official" else "news")
        text = self._wrapped(wrap, text, who.handle, was.show(self._rng, at) if was else "")
        return self._add(who, text, at, stance, states)

    def _clause(self, style: str, need: str, known: dict[str, Value], at: float) -> tuple[str, dict[str, Value]]:
        names = frozenset(self._kind.attributes)
        fit = _fitting(self._wording, self._event.kind, style, need, names, frozenset(known))
        if not fit:
            fit = _fitting(self._wording, self._event.kind, "state", need, names, frozenset(known))
        if not fit:
            raise ValueError(f"{self._event.kind}: no {style} sentence states {need} with {sorted(known)}")
        line = fit[int(self._rng.random() * len(fit))]
        states: dict[str, Value] = {}

        def slot(name: str) -> str:
            if name in known:
                states[name] = known[name]
                return known[name].show(self._rng, at)
            return self._event.fields[name]

        return expand(line, self._rng, slot), states

    def _wrapped(self, wrap: str, clause: str, author: str, was: str = "") -> str:
        rng, event = self._rng, self._event
        line = rng.choice(self._wording.lines("wrap", wrap))
        tag = "".join(word.capitalize() for word in rng.choice(list(event.fields.values())).split())
        known = {"s": clause, "was": was, "tag": "".join(filter(str.isalnum, tag)), "author": author}
        text = expand(line, rng, known)
        return text if wrap == "casual" and rng.random() < 0.6 else text[:1].upper() + text[1:]

    def _add(
        self,
        who: Account,
        text: str,
        at: float,
        stance: str,
        states: dict[str, Value] | None = None,
        lang: str = "en",
        refs: tuple[str, ...] = (),
    ) -> int:
        post = self._accounts.post(who, text, at, lang, refs)
        self._told.append(Told(post, self._event.number, stance, states or {}))
        self._event.told.append(len(self._told) - 1)
        return len(self._told) - 1

    def _poster(self, role: str) -> Account:
        if role == "official":
            return self._official
        if role == "newsroom" and self._rng.random() < 0.35:
            role = "reporter"
        return self._accounts.anyone(role)

    def _account(self, index: int) -> Account:
        post = self._told[index].post
        return Account(post.source, post.author, post.author_id)

    def _many(self, mean: float) -> int:
        """At least one; some events are told by many."""
        return 1 + int(self._rng.expovariate(1 / max(0.05, mean * self._size - 0.5)))


@cache
def _fitting(
    wording: Wording, kind: str, style: str, need: str, attributes: frozenset[str], known: frozenset[str]
) -> tuple[str, ...]:
    """Sentences that state only what is known, and state what is needed."""
    lines = [line for line in wording.lines(kind, style) if not (slots(line) & attributes) - known]
    return tuple(line for line in lines if not need or need in slots(line))


def grown(value: Value, rng: Random) -> Value:
    """A later, larger figure; of a match, a later score."""
    if isinstance(value, Score):
        return Score(value.first + rng.randint(0, 3), value.second + rng.randint(1, 3))
    assert isinstance(value, Number)
    return Number(float(int(value.value * rng.uniform(1.15, 2.4)) + 1), value.unit)
