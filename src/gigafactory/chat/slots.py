"""What of a sentence answers: the name, time, place, quantity, pair of numbers, reason or state that is asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from gigafactory.chat.concepts import OPPOSITES, concepts_in, concepts_of
from gigafactory.chat.dates import Moment
from gigafactory.chat.hedges import NEGATORS, STOP
from gigafactory.chat.naming import BEFORE_ASKED, LINKS, STARTS, capital, common, names_in, predecessors_in
from gigafactory.chat.numbers import Quantity
from gigafactory.chat.question import Asked
from gigafactory.chat.question_words import LIGHT, Kind
from gigafactory.chat.reading import Sentence, takes_back
from gigafactory.chat.tokens import Token, fold

Value = tuple[str, ...]
"""What a statement says in the place that is asked for, folded, so that equal ones are equal. () where it cannot be
compared."""

NEAR = 7  # tokens between a quantity and the word that says what it counts
_MONEY = frozenset(["usd", "eur", "gbp", "jpy", "inr", "cny", "chf"])
_PLACE_KINDS = frozenset(("lane", "gate", "building", "region", "school", "hospital", "site", "court", "location"))
_ENDS = frozenset(("until", "till", "til", "since", "through", "bis", "hasta", "by"))
_SCORE = re.compile(r"(?<![\d:.$€£-])(\d{1,3})(?:\s?[:–-]\s?| to )(\d{1,3})(?![\d:.%-])")
_AYES = re.compile(
    r"\b(\d+)(?: \w+)? (?:for|in favou?r|ayes?|yes|yeas?|backed|voted for|supported)\b[^.\d]{0,30}\b(\d+)(?: "
    r"\w+)? (?:against|noes|nays?|no|opposed|voted against)\b"
)
_SPEECH = re.compile(
    r"\b(?:said|says|say|saying|told|tells|according to|announced|declared|words of|added|explained|stated|"
    r"insisted|warned|promised|"
    r"claimed|remarked|argued|replied|answered|put it|as quoted|quoted?|spoke|speaking|commented|in the words)\b|"
    r"\w:|[-–—]"
)
_SHIFTED = frozenset(("up", "down", "revised", "corrected", "changed", "cut", "raised", "lowered", "amended"))
_TOLD = frozenset(("post", "number", "figure", "version", "report", "tweet", "message", "statement", "update"))
_OLD = frozenset(("previous", "initial", "original", "old", "former", "outdated"))
_GENERIC = frozenset(("unit", "person", "worker", "customer", "mountaineer"))
_COINS_WORDS = """
crown krone krona kronor kroner peso real reais ruble rouble won zloty lira dirham riyal credit
"""
_TAKES_BACK = frozenset(
    ("was wrong", "is wrong", "was incorrect", "as we", "as i", "as previously", "as first", "as earlier",
     "as initially", "as originally", "as reported")
)  # fmt: skip
_DONE_WORDS = """
sent led told taken brought got hurt cut held kept put made safe found lost left seen met won dead sick ill missing
alive down aboard ashore homeless free gone driven thrown struck hit shot stuck caught given shown known written
"""
_DONE = frozenset(_DONE_WORDS.split())
_COINS = frozenset(_COINS_WORDS.split())
_WINS = frozenset(("win", "beat", "lose", "defeat", "triumph", "prevail", "victor", "champion", "advance"))
_PLACES_WORDS = """
departs departed departing
in at near outside inside off around beside behind opposite along between from to into onto on under above across by
within aboard via
"""
_STRONG = frozenset(
    ("in", "at", "near", "outside", "inside", "off", "aboard", "beside", "opposite", "to", "on", "departs", "departed")
)
_NOWHERE = frozenset((word,) for word in ("site", "scene", "air", "line", "board", "hold", "duty", "sale", "track"))
_PLACES = frozenset(_PLACES_WORDS.split())
_REASONS = re.compile(
    r"\b(?:because|due to|(?:after|following|amid) (?!this|that|it\b|all\b|these|years|what|which|\d|work|today|"
    r"yesterday)|caused by|owing to|thanks to|bc|b/c|cos|cuz|coz|blam\w+|cause[ds]?|reasons?|trigger\w*|"
    r"result(?:ed|s|ing)? (?:of|from)|led to|linked to|down to|stem\w* from|prompted by|as a result|attribut\w+|"
    r"did it|for \w+ing|(?:guilty|convicted|accused) of|charged with|(?:is|was|that's|here's) why|culprit|"
    r"behind (?:the|it)|forced by|on account of|in response to|citing)\b"
)
_REASON_WORDS_OTHER = re.compile(
    r"ため|原因|因为|因為|由于|porque|debido|a causa|parce que|en raison|a cause|weil|wegen|aufgrund"
)
_OVER = re.compile(r"\b[Oo]ver (?!the\b|from\b|[A-Z\d]|time\b|night|weekend|here\b|there\b|to\b|half\b|one\b)")
_MAGNITUDE = re.compile(r"\bM[wL]?\s?(\d+(?:\.\d+)?)\b")
_FLAW_ASKED = re.compile(r"\b(?:wrong with|notice|recall\w*|unsafe|faulty|not use|stop using|defects?|problem with)\b")
_FLAW = re.compile(r":\s+an? \w+|\bwith an? \w+")
_IS_A = re.compile(r"\b(?:was|is|were|turn(?:s|ed) out to be) (?:an?|down to|the fault)\b")
_SOON = re.compile(
    r"\b(?<!more )(?:in|within) (?:\d+|an?|one|two|three|four|five|six|half an) (?:seconds?|minutes?|mins?|hours?|hrs?|"
    r"days?|weeks?|months?)\b|\b(?:\d+|an|one|two|three|half an) (?:minutes?|hours?|days?) ago\b|\b(?:just now|"
    r"moments ago)\b"
)


@dataclass(frozen=True, slots=True)
class Slot:
    """value: what is said in the place asked for. strength: 0 to 1, how surely it is in that place. former: the values
    that the sentence itself takes back ("14, not 12"; "moved from Friday to Sunday")."""

    value: Value
    strength: float
    former: tuple[Value, ...] = ()


def slot(sentence: Sentence, asked: Asked, covered: frozenset[int]) -> Slot | None:
    """What `sentence` gives for the question; covered: indices of its tokens that say words of the question. None if it
    lacks what is asked, however many words it shares."""
    if asked.kind is Kind.WHO:
        return _who(sentence, asked, covered)
    if asked.kind is Kind.WHEN:
        return _when(sentence, asked)
    if asked.kind is Kind.WHERE:
        return _where(sentence, asked, covered)
    if asked.kind is Kind.NUMBER:
        return _number(sentence, asked, covered)
    if asked.kind is Kind.SCORE:
        return _score(sentence, asked, covered)
    if asked.kind is Kind.WHY:
        plain = fold(sentence.text)
        if _REASON_WORDS_OTHER.search(plain) or (covered and (_REASONS.search(plain) or _OVER.search(sentence.text))):
            return Slot(_content(sentence, asked), 1.0)
        flawed = _FLAW_ASKED.search(fold(asked.text)) and _FLAW.search(plain)
        if covered and (flawed or _IS_A.search(plain) or _made_so(sentence, asked, covered)):
            return Slot(_content(sentence, asked), 0.6)
        return None
    return Slot(state(sentence), 1.0)


def _made_so(sentence: Sentence, asked: Asked, covered: frozenset[int]) -> bool:
    """ "A cracked bearing has closed the bridge": what is asked about is the object of what happened."""
    names = [i for i, token in enumerate(sentence.tokens) if token.word in {term.word for term in asked.names}]
    return any(
        (
            (sentence.tokens[i - 1].word in ("has", "have", "had") and sentence.tokens[i].word not in STOP)
            or _acts(sentence.tokens, i)
        )
        and any(0 < name - i <= 3 for name in names)
        for i in covered
        if i > 1
    )


def _acts(words: Sequence[Token], i: int) -> bool:
    """ "A police operation blocks ...": a verb behind a noun of small letters."""
    before = words[i - 1]
    return (
        words[i].word.endswith(("s", "ed"))
        and before.kind == "word"
        and before.text.islower()
        and (before.word not in STOP)
    )


def told_in(sentence: Sentence, mine: frozenset[str]) -> Value:
    """All that a sentence tells which could be otherwise: states, quantities, dates, and names that are not `mine`."""
    words = sentence.tokens
    told = [f"state {one}" for one in state(sentence)]
    for quantity in sentence.quantities:
        if not all(token.word in mine for token in words[quantity.first : quantity.last + 1]):
            told.append(" ".join((quantity.kind, *(f"{x:.10g}" for x in quantity.values))))
    if not any(one.startswith("pair") for one in told):
        score = _SCORE.search(sentence.text)
        times = any(moment.grain == "time" for moment in sentence.moments)
        told += [f"pair {int(score[1])} {int(score[2])}"] if score and not times else []
    told += [f"date {part}" for moment in sentence.moments for part in _moment_value(moment)]
    for first, last in names_in(sentence):
        name = [words[i].word for i in range(first, last + 1) if words[i].word not in LINKS]
        if any(word not in mine for word in name) and first not in sentence.taken and words[first - 1].text != "#":
            told.append("name " + " ".join(name))
    return tuple(sorted(set(told)))


def state(sentence: Sentence) -> Value:
    """Which way things are, as opposites know it: ("3+0",) for open, ("3+1",) for closed; a negation turns it round."""
    found = set()
    words = sentence.tokens
    for i, token in enumerate(words):
        if token.stem not in OPPOSITES or _taken_back(words, i):
            continue
        line, column = OPPOSITES[token.stem]
        negated = any(w.word in NEGATORS or w.word.endswith("n't") for w in words[max(0, i - 3) : i])
        found.add(f"{line}+{'not ' if negated else ''}{column}")
    return tuple(sorted(found))


def exclude(one: Value, other: Value) -> bool:
    """Can two states of the same thing not hold at once?"""
    return any(_opposed(*a.split("+"), *b.split("+")) for a in one for b in other)


def _opposed(line: str, column: str, line_b: str, column_b: str) -> bool:
    """ "not 0" and 0 exclude each other, and so do 0 and 1; "not 0" and 1 do not."""
    if line != line_b or column == column_b:
        return False
    negated = column.startswith("not "), column_b.startswith("not ")
    return not any(negated) or (not all(negated) and column.removeprefix("not ") == column_b.removeprefix("not "))


def values_of(sentence: Sentence, asked: Asked) -> list[Value]:
    """All of the kind that is asked for in the sentence, in the question's place or not."""
    if asked.kind is Kind.WHO:
        mine = {term.word for term in asked.terms}
        names = [[sentence.tokens[i].word for i in range(first, last + 1)] for first, last in names_in(sentence)]
        return [tuple(sorted(name)) for name in names if not mine & set(name)]
    if asked.kind is Kind.WHEN:
        return [_moment_value(moment) for moment in sentence.moments]
    if asked.kind is Kind.SCORE:
        return [tuple(f"{x:.10g}" for x in q.values) for q in sentence.quantities if q.kind == "pair"]
    if asked.kind is Kind.NUMBER:
        return [(q.kind, *(f"{x:.10g}" for x in q.values)) for q in sentence.quantities]
    return []


def _content(sentence: Sentence, asked: Asked) -> Value:
    mine = {term.stem for term in asked.terms}
    kept = {
        t.stem for t in sentence.tokens if t.kind in ("word", "number") and t.word not in STOP and t.stem not in mine
    }
    return tuple(sorted(kept))


def _taken_back(words: Sequence[Token], i: int) -> bool:
    """Does the sentence take token i back: "not 12", "earlier: 12", "from 12 to 14", "we said 12"?"""
    before = [token.word for token in words[max(0, i - 5) : i] if token.kind in ("word", "symbol")]
    for back, word in enumerate(reversed(before)):
        if word in (".", ";", "!", "?", ":", "but"):
            return False
        if word == "," and back:
            return False
        if word == "not" or word in ("than", "instead", "earlier", "previously", "initially", "originally"):
            tail = before[len(before) - back :]
            return (
                word != "than" or (len(before) > back + 1 and before[-back - 2] == "rather")
                if not tail or back <= 2
                else False
            )
        if word == "from" and back <= 1 and len(before) > back + 1 and before[-back - 2] in _SHIFTED:
            return True
        if (word in _OLD or word in ("ignore", "disregard")) and back <= 2:
            return True
        if word == "from" and back <= 1:
            return any(token.word == "to" for token in words[i + 1 : i + 6])
        if (
            word in ("said", "reported", "stated", "posted")
            and back <= 1
            and len(before) > back + 1
            and before[-back - 2] in ("we", "i", "first", "previously", "as")
        ):
            return True
    opened = next((k for k in range(i - 1, max(-1, i - 4), -1) if words[k].text == "("), None)
    if opened and words[opened - 1].word in _TOLD and ")" in [token.text for token in words[i + 1 : i + 4]]:
        return True  # "wrong number in our last post (12)"
    after = [token.word for token in words[i + 1 : i + 5]]
    return " ".join(after[:2]) in _TAKES_BACK


def _who(sentence: Sentence, asked: Asked, covered: frozenset[int]) -> Slot | None:
    """The name nearest to the words of the question that are no names."""
    words = sentence.tokens
    mine = {term.word for term in asked.terms} | {term.stem for term in asked.terms}
    named = {term.word for term in asked.names}
    predicate = next((term.stem for term in asked.terms if not term.name and term.weight > LIGHT), "")
    before = BEFORE_ASKED.search(fold(asked.text))
    predecessors = predecessors_in(sentence) if before else None
    winner = predicate in _WINS
    rivals = winner and len(asked.names) >= 2 and _wins(sentence)
    found: list[tuple[int, int, Value]] = []
    former: list[Value] = []
    for first, last in names_in(sentence):
        if any(i in sentence.taken for i in range(first, last + 1)):
            continue
        name = tuple(words[i].word for i in range(first, last + 1) if words[i].word not in LINKS)
        if first and words[first - 1].text == "#":
            continue
        if predecessors is not None and not any(words[i].start in predecessors for i in range(first, last + 1)):
            continue
        if not any(word not in mine and word.isalpha() and len(word) > 1 for word in name) and not rivals:
            continue
        if words[first].kind == "handle" and "".join(sorted(named)) and all(word in name[0] for word in named):
            continue  # the account of what is asked about
        if _taken_back(words, first):
            former.append(tuple(sorted(name)))
            continue
        whole = bool(named & set(name)) and not rivals
        distance = min((abs(i - j) for i in covered for j in (first, last)), default=99)
        found.append((distance + (20 if whole else 0), first, tuple(sorted(name))))
    spoken = [i for i in covered if i and words[i - 1].word in ("i", "we") and words[i - 1].text in ("I", "We", "we")]
    if spoken and sentence.author and not asked.quotes and not takes_back(sentence.text):
        return Slot((fold(sentence.author),), 1.0)  # "I moved the fare cap": its author did
    if not found or (asked.quotes and not _SPEECH.search(fold(sentence.text))):
        return None
    distance, _, best = min(found)
    return Slot(best, 1.0 if distance <= 4 else 0.8 if distance <= 9 else 0.6, tuple(former))


def _wins(sentence: Sentence) -> bool:
    return "win" in concepts_in(sentence.tokens) or any(q.kind == "pair" for q in sentence.quantities)


def _when(sentence: Sentence, asked: Asked) -> Slot | None:
    mine = {term.word for term in asked.terms if term.name}
    kept: list[Moment] = []
    former: list[Value] = []
    for moment in sentence.moments:
        span = sentence.tokens[moment.first : moment.last + 1]
        if moment.grain in ("decade",) or (mine and all(token.word in mine for token in span)):
            continue
        if [token.word for token in sentence.tokens[max(0, moment.first - 2) : moment.first]] == ["as", "of"]:
            continue  # "as of today" says when it is told
        if _taken_back(sentence.tokens, moment.first):
            former.append(_moment_value(moment))
        else:
            kept.append(moment)
    if kept:
        value = tuple(sorted({part for moment in kept for part in _moment_value(moment)}))
        fine = any(moment.grain in ("time", "day", "weekday") for moment in kept)
        return Slot(value, 1.0 if fine else 0.8, tuple(former))
    soon = _SOON.search(fold(sentence.text))
    return Slot((soon.group(),), 0.9) if soon else None


def _moment_value(moment: Moment) -> Value:
    if moment.grain == "time":
        return tuple(f"{minute // 60:02d}:{minute % 60:02d}" for minute in moment.minutes[:1])
    if len(moment.days) == 1:
        return (next(iter(moment.days)).isoformat(),)
    return (fold(moment.text),)


def _where(sentence: Sentence, asked: Asked, covered: frozenset[int]) -> Slot | None:
    words = sentence.tokens
    mine = {term.word for term in asked.terms}
    best: tuple[float, Value] | None = None
    former: list[Value] = []
    for i, token in enumerate(words):
        if token.word not in _PLACES or token.kind != "word":
            continue
        j = i + 1
        while j < len(words) and words[j].word in ("the", "a", "an", "its", "their", "his", "her", "#"):
            j += 1
        if j >= len(words) or j in sentence.taken or words[j].kind not in ("word", "number"):
            continue
        end = j
        while end + 1 < len(words) and _goes_on(words, j, end):
            end += 1
        place = tuple(words[k].word for k in range(j, end + 1))
        if not any(word not in mine and word not in STOP for word in place) or place[0] in STOP or place in _NOWHERE:
            continue
        if any(q.first <= j <= q.last for q in sentence.quantities) and not capital(words[end]):
            continue
        if _taken_back(words, j):
            former.append(place)
            continue
        named = any(capital(words[k]) for k in range(j, end + 1))
        strong = token.word in _STRONG or (token.word == "from" and re.search(r"\bfrom\b", fold(asked.text)))
        known = any(concept in _PLACE_KINDS for k in range(j, end + 1) for concept in concepts_of(words[k].stem))
        strength = (0.7 if named else 0.5 if known else 0.2) + (0.3 if strong else 0.0)
        if best is None or strength > best[0]:
            best = (strength, place)
    if best is None or best[0] < 0.6:
        return None
    return Slot(best[1], best[0], tuple(former))


def _goes_on(words: Sequence[Token], first: int, last: int) -> bool:
    """Is the word behind `last` part of the place that begins at `first`: "Kettle Point", "car park"?"""
    after = words[last + 1]
    if after.kind not in ("word", "number") or after.start - words[last].end > 1:
        return False
    return capital(after) or (not capital(words[first]) and after.word not in STOP and last - first < 3)


def _number(sentence: Sentence, asked: Asked, covered: frozenset[int]) -> Slot | None:
    words = sentence.tokens
    mine = {term.word for term in asked.terms if term.name}
    best: tuple[float, Value] | None = None
    former: list[Value] = []
    said = concepts_in(words) if asked.unit else {}
    strength_asked = not asked.unit and asked.measure <= {"count", "magnitude"}
    quake = strength_asked and {"quake", "magnitude"} & {concept for term in asked.terms for concept in term.concepts}
    glued = _MAGNITUDE.search(sentence.text) if quake else None
    if glued:
        best = (0.95, ("count", f"{float(glued[1]):.10g}"))
    for quantity in sentence.quantities:
        span = words[quantity.first : quantity.last + 1]
        if mine and all(token.word in mine for token in span if token.kind in ("number", "word")):
            continue
        before = words[quantity.first - 1] if quantity.first else None
        if (
            before is not None
            and capital(before)
            and before.word not in STARTS
            and quantity.first == quantity.last
            and not common(before)
            and quantity.first > 1
        ):
            continue  # part of a name: "Terminal 2", "Falcon 9"
        if quantity.kind == "ordinal" and "place" not in mine:
            continue
        if not _measures(quantity, asked, words):
            continue
        value = (quantity.kind, *(f"{x:.10g}" for x in quantity.values))
        if asked.measure == {"count"} and asked.unit and any(x != int(x) for x in quantity.values):
            continue  # there are no 5.6 people
        if _taken_back(words, quantity.first):
            former.append(value)
            continue
        distance = min((_between(i, quantity) for i in covered), default=99)
        counted = False
        if asked.unit:
            behind = range(quantity.last + 1, min(len(words), quantity.last + 7))
            counted = any(words[i].stem in asked.unit for i in behind) or any(
                f"~{name}" in asked.unit and places & {*behind, quantity.last} for name, places in said.items()
            )
            counted = counted or words[quantity.last].stem in asked.unit
        noun = next((token for token in words[quantity.last + 1 : quantity.last + 5] if not capital(token)), None)
        noun_at = words.index(noun) if noun is not None else -1
        if noun is not None and (noun.word in _DONE or noun.word.endswith(("ed", "ing"))):
            noun = None  # "448 sent outside" counts nothing else
        of_other = (asked.unit or (asked.measure and asked.measure <= {"count", "magnitude"})) and not counted and (
            quantity.kind != "count"
            or (noun is not None and noun.kind == "word" and noun.word not in STOP and noun_at not in covered)
        )  # fmt: skip
        counted_of = {one.removeprefix("~") for one in asked.unit if one.startswith("~")}
        generic = noun is not None and bool(_GENERIC & concepts_of(noun.stem))
        generic = generic and (not counted_of or bool(counted_of & _GENERIC))
        if "magnitude" in asked.measure and not (0 < quantity.values[0] <= 10 and not (of_other and not counted)):
            continue
        alone = sum(1 for other in sentence.quantities if other.kind == quantity.kind) - len(former) == 1
        strength = (
            1.0
            if counted
            else (0.7 if generic else 0.5)
            if of_other
            else 0.9
            if distance <= 3
            else 0.75
            if distance <= NEAR
            else (0.7 if alone and covered else 0.4)
        )
        if quantity.kind in asked.measure and not asked.measure <= {"count", "magnitude"}:
            strength = min(1.0, strength + 0.2)
        strength -= (
            0.0 if counted else 0.002 * min(distance, 20)
        )  # of several, the one nearest to the words of the question
        if best is None or strength > best[0]:
            best = (strength, value)
    if best is None or best[0] < 0.6:
        ends = asked.measure >= {"s", "day"} and not sentence.words.isdisjoint(_ENDS)
        return _when(sentence, asked) if ends else None  # "closed until Sunday" says how long
    return Slot(best[1], best[0], tuple(former))


def _between(i: int, quantity: Quantity) -> int:
    return quantity.first - i if i < quantity.first else i - quantity.last if i > quantity.last else 0


def _measures(quantity: Quantity, asked: Asked, words: Sequence[Token]) -> bool:
    if quantity.kind == "pair":
        return "vote" in asked.unit or "~vote" in asked.unit
    if not asked.measure:
        return True
    if "magnitude" in asked.measure:
        return quantity.kind == "count"
    if asked.measure & _MONEY and quantity.kind == "count":
        after = words[quantity.last + 1].word if quantity.last + 1 < len(words) else ""
        return after in _COINS or after.rstrip("s") in _COINS
    return quantity.kind in asked.measure or (quantity.kind == "count" and "turnout" in {t.word for t in asked.terms})


def _score(sentence: Sentence, asked: Asked, covered: frozenset[int]) -> Slot | None:
    former: list[Value] = []
    found: Value | None = None
    for quantity in sentence.quantities:
        if quantity.kind != "pair" or len(quantity.values) != 2:
            continue
        value = tuple(f"{x:.10g}" for x in quantity.values)
        if _taken_back(sentence.tokens, quantity.first):
            former.append(value)
        elif found is None:
            found = value
    if found is not None:
        return Slot(found, 1.0, tuple(former))
    ayes = _AYES.search(fold(sentence.text))
    if ayes:
        return Slot((ayes[1], ayes[2]), 1.0, tuple(former))
    spoken = re.search(r"\b(\d+|nil|zero)\s*(?:-|–|:|to|–|against|all)\s*(\d+|nil|zero|all)\b", fold(sentence.text))
    if spoken and not any(m.grain == "time" for m in sentence.moments):
        return Slot((spoken[1], spoken[2]), 0.9, tuple(former))
    counts = [q for q in sentence.quantities if q.kind == "count" and not _taken_back(sentence.tokens, q.first)]
    if len(counts) >= 2 and re.search(r"\b(?:to|against|and|for|versus|vs)\b", fold(sentence.text)):
        return Slot(tuple(f"{q.values[0]:.10g}" for q in counts[:2]), 0.7, tuple(former))
    return None
