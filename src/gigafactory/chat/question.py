"""What a question asks: the kind of answer it wants, about what, in which time."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, replace
from datetime import UTC, tzinfo
from enum import StrEnum

from gigafactory.chat.answer import Window
from gigafactory.chat.concepts import CONTRASTS, FAMILIES, LONGEST, concepts_in, concepts_of
from gigafactory.chat.hedges import STOP
from gigafactory.chat.moments import MONTHS, WEEKDAYS
from gigafactory.chat.numbers import MEASURES
from gigafactory.chat.tokens import Token, fold, tokens
from gigafactory.chat.windows import masked, time_asked


class Kind(StrEnum):
    """What an answer must hold: a name, a date or time, a place, a quantity, a pair of numbers, a reason; or which way
    something is (STATE), what is known (NEWS), who wrote something (AUTHOR), any matching sentence (FACT)."""

    WHO = "who"
    WHEN = "when"
    WHERE = "where"
    NUMBER = "number"
    SCORE = "score"
    WHY = "why"
    STATE = "state"
    NEWS = "news"
    AUTHOR = "author"
    FACT = "fact"


@dataclass(frozen=True, slots=True)
class Term:
    """A content word of the question. name: it must be in what answers, as it is. attribute: it says what is asked, as
    "injured" in
        "how many were injured in the tram crash at Harrow". weight: share in the coverage. search: the unbroken
    run of signs that it is part of ("Haliport-14b"), for the store cuts words in its own way."""

    word: str
    stem: str
    concepts: frozenset[str]
    weight: float
    name: bool
    search: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """terms: in the order of the question, each once. phrases: names of several words, as indices of terms. measure:
    what a quantity must measure, of numbers.Quantity.kind, "" for any. unit: stems of the noun that is counted.
    quotes: quoted words. speaker: handle whose words are asked ("what did @x say"). cased: its capitals tell names.
    runs: terms that stand side by side. ahead: a day to come is named."""

    text: str
    kind: Kind
    terms: tuple[Term, ...]
    phrases: tuple[tuple[int, ...], ...]
    window: Window
    quotes: tuple[str, ...] = ()
    speaker: str = ""
    measure: frozenset[str] = frozenset()
    unit: frozenset[str] = frozenset()
    cased: bool = True
    runs: tuple[tuple[int, ...], ...] = ()
    ahead: bool = False

    @property
    def names(self) -> tuple[Term, ...]:
        return tuple(term for term in self.terms if term.name)


# first match decides; read on the folded question without its time words
_KINDS: tuple[tuple[Kind, str], ...] = (
    (Kind.AUTHOR,
        r"\b(?:who|which (?:account|user|author|handle)|what (?:account|user|handle)|by whom|"
        r"whose)\b.*\b(?:tweet\w*|posted|wrote|written|author of th\w+ (?:post|tweet|quote)|account)\b"),
    (Kind.AUTHOR, r"\bsource of (?:the|this) (?:quote|post|statement)|\bwho (?:first )?(?:broke|reported)\b"),
    (Kind.NEWS,
        r"\bwhat(?:'s| is| has| have| had)?(?: \w+){0,2} (?:chang\w*|new|happen\w*|going on|latest|occur\w*|up "
        r"with|the news|the situation)\b"),
    (Kind.NEWS,
        r"\b(?:latest|news|updates?|summar\w+|catch me up|tell me about|what do (?:we|you) know|what about|"
        r"developments?|situation)\b(?!.*\b(?:how many|how much|who|when|where)\b)"),
    (Kind.WHY,
        r"\bwhat\b.*\b(?:guilty of|fined for|accused of|charged with|convicted of|jailed for|arrested for|sued "
        r"for|punished for)\b|^(?:\W*(?:and|so|but)\W+)?(?:why|how come)\b|\bwhat (?:caused|led to|is behind|was "
        r"behind|triggered|prompted)\b|\bwhat(?:'s| is| was| were| are) (?:the |being )?(?:(?:given|official|"
        r"stated|main|root) )*(?:cause|reason|blame)|\bfor what reason|\b(?:cause|reason) (?:of|for|behind|"
        r"given)\b|\bbecause of what\b|\bwhat made\b|\bhow (?:did|does|do|could|come) .*\b(?:start|begin|happen|"
        r"break out|come about|occur|catch fire)\b"),
    (Kind.SCORE,
        r"\bhow many (?:\w+ )?voted\b|^(?:how|what|which|tell).*\b(?:outcome|result|end|ended|finish|"
        r"finished|final|go|turn out|turned out|"
        r"fare|get on|score|scoreline|tally)\b.*\b(?:v|vs|versus|against|between)\b|\b(?:v|vs|versus|against|"
        r"between)\b.*\b(?:outcome|result|end|ended|finish|finished|turn out|final score|scoreline)\b|\bhow many "
        r"(?:votes|members|councillors|delegates|lawmakers|mps)\b.*\b(?:for|favou?r|against|back|yes)\b|"
        r"\b(?:split|margin|tally|breakdown|count) (?:of|in|on|for) the\b.*\bvote\b|\bvote\b.*\b(?:split|margin|"
        r"tally|breakdown|count)\b|\bhow did .*\bvote\b|\bby how many (?:votes|goals|points|runs|seats)\b|"
        r"\bscores?\b(?! ?d)|\b(?:full|half)[ -]time\b|\bscoreline\b|\b(?:final|half ?time|full ?time|"
        r"match) result\b|\bresult of (?:the "
        r")?(?:match|game|final|derby)|\bresult (?:of|in|for|between) .*\b(?:v|vs|versus|against|and)\b|\bhow did "
        r".*\b(?:finish|end|do against|go against)\b|\bby what margin\b|\bvote (?:count|tally|split)\b|\bwhat was "
        r"the (?:vote|tally|margin)\b"),
    (Kind.NUMBER,
        r"\bhow (?:many|much|long|far|tall|high|fast|big|large|old|heavy|hot|cold|warm|strong|powerful|severe|"
        r"violent|intense|bad|hard|serious|deep|wide|often|loud|expensive|quickly)\b"),
    (Kind.WHEN,
        r"\bwhat(?:'s| is| was) the (?:\w+ ){0,3}(?:t-0|t-zero|window|slot|schedule|timetable|"
        r"departure|eta|deadline|day)\b|"
        r"\bwhat (?:\w+ ){0,2}(?:t-0|launch window|slot)\b|"
        r"\bwhen\b|\b(?:what|which|at what|on what|on which|by what) (?:exact |new |scheduled |planned |local |"
        r"start(?:ing)? |opening |launch )?(?:time|day|date|hour|month|year|weekday)\b|\bhow soon\b|\bwhat(?:'s| "
        r"is| was) the (?:\w+ ){0,2}(?:date|time|deadline|eta)\b|\bsince when\b|\buntil when\b"),
    (Kind.WHERE,
        r"\bwhere\b|\b(?:what|which|in what|in which|at which|at what) (?:\w+ )?(?:place|venue|location|site|city|"
        r"town|country|state|station|stadium|hall|spot|building|airport|port|hospital|neighbou?rhood|district|"
        r"village|street|road)\b|\bwhat(?:'s| is| was) the (?:\w+ ){0,2}(?:venue|location|site|address)\b"),
    (Kind.NUMBER,
        r"\b(?:what|which)(?:'s| is| was| are| were)? (?:\w+ ){0,3}?(?:number|count|total|percent|percentage|"
        r"share|proportion|rate|price|cost|fee|fare|amount|magnitude|turnout|attendance|temperature|speed|height|"
        r"weight|length|distance|depth|level|size|age|toll|death toll|figure|value|budget|margin|salary|capacity|"
        r"population|revenue|profit|fine|estimate|duration|sum)\b"),
    (Kind.NUMBER,
        r"\bwhat (?:did|does|do|was|must|will|would|should)\b.*\b(?:register|measure|pay|cost|owe|charge|fetch|"
        r"raise|sell for|sold for|go for|get back|receive back|weigh)\b|\b(?:what|which) (?:\w+ )?(?:penalty|fine|"
        r"damages|compensation|bail|refund|sum|amount|magnitude|attendance|crowd|turnout|reading)\b|\bat what "
        r"(?:price|cost|speed|height|rate|temperature)\b|\bfor how (?:much|many|long)\b"),
    (Kind.WHO,
        r"\b(?:who|whom|whose|who's)\b|^\W*(?:name|identify)\b|\b(?:successor|replacement|stand-?in|"
        r"caretaker)\b|\b(?:which|what) (?:\w+ ){0,2}(?:person|chair|officer|head|secretary|treasurer|"
        r"ceo|successor|candidate|"
        r"man|woman|player|team|side|club|"
        r"candidate|party|company|firm|country|nation|agency|airline|band|artist|singer|actor|actress|director|"
        r"author|minister|official|politician|driver|rider|runner|scientist|group|union|driver|contestant|nominee|"
        r"bidder|athlete|coach|scorer|judge|lawyer|laureate|recipient|novelist|poet|painter|composer|architect|"
        r"researcher|professor|engineer|executive|manager|leader|name|mayor|minister|president|senator|chef|"
        r"doctor|pilot|captain|boss|chief|firm|buyer|maker|studio|label|school|university|bank|operator|brand|"
        r"newspaper|sponsor|act|headliner|winner|speaker)\b|\bwhat(?:'s| is| was) the name of\b|\bname of the\b"),
)  # fmt: skip
_POSTED = re.compile(
    r"\b(?:source|post\w*|tweet\w*|wr(?:ote|ite|itten)|link|author|accounts?|handle|original\w*|url|find|"
    r"publish\w*|share[ds]?|toot\w*)\b"
    r"|投稿|发布|發布|publico|posteo|gepostet|publie"
)
_SPOKE = re.compile(
    r"\b(?:who|whose|whom|when|where|what time|sa(?:id|ys?|ying)|words|quote\w*|speaker|spoke|from|quien|wer|qui|"
    r"quem|chi)\b|誰|だれ|谁|누가"
)
_YES_NO = re.compile(
    r"^(?:\W*(?:so|and|but|hey|ok|tell me|do you know|can you tell me)\W+)*(?:whether |if )?(?:is|are|was|were|"
    r"did|does|do|has|have|had|"
    r"will|won't|can|could|should|would|isn't|aren't|wasn't|weren't|didn't|doesn't|hasn't|haven't)\b"
)
_STATE = re.compile(
    r"\b(?:what(?:'s| is| was)? (?:the )?(?:\w+ ){0,2}(?:status|state|outcome|verdict|decision)|how is|how are)\b"
)
_OTHER_LANGUAGES: tuple[tuple[Kind, str], ...] = (
    (Kind.WHO, r"^\W*(?:quien|quienes|qui|wer|wen|wem|quem|chi|wie is|wie heeft|kto|vem)\b|誰|だれ|谁|누가|누구"),
    (Kind.NUMBER,
        r"^\W*(?:cuant[oa]s?|combien|wie ?viele?|quant[oiae]s?|hoeveel|ile|hur manga)\b|何人|いくつ|"
        r"いくら|何件|何台|何回|何個|多少|"
        r"几[个人次]|몇|얼마"),
    (Kind.WHEN,
        r"^\W*(?:cuando|quand|wann|quando|wanneer|kiedy|nar)\b|\ba que hora\b|\bum wie viel uhr\b|"
        r"いつ|何時|何日|什么时候|"
        r"什麼時候|何时|几点|언제"),
    (Kind.WHERE, r"^\W*(?:donde|ou|wo|onde|dove|waar|gdzie|var)\b|どこ|哪里|哪裡|哪儿|何处|在哪|어디"),
    (Kind.WHY, r"^\W*(?:por que|pourquoi|warum|wieso|weshalb|"
    r"perche|waarom|dlaczego|varfor)\b|なぜ|どうして|为什么|為什麼|왜"),
    (Kind.NEWS,
        r"\b(?:que paso|que ha pasado|que ocurrio|que s'est-il passe|qu'est-il arrive|was ist passiert|was ist "
        r"(?:\w+ )*passiert|o que aconteceu|cosa e successo|wat is er gebeurd)\b|何が起き|何があった|"
        r"どうなった|发生了什么|發生了什麼|怎么了|"
        r"怎麼了|무슨 일"),
)  # fmt: skip
_SAID = re.compile(
    r"\bwhat (?:else )?(?:did|does|do|has|have|is|was|were) (?P<who>@?\w[\w.'’ -]*?) "
    r"(?:say|said|saying|write|written|post|posted|posting|tweet|tweeted|announce|announced|claim|claimed|report|"
    r"reported|reporting|think|share|shared|tell|told|mention|mentioned)\b",
    re.IGNORECASE,
)
_ACCORDING = re.compile(r"\baccording to (?P<who>@\w+(?:[.\-]\w+)*)", re.IGNORECASE)
_ENDS = re.compile(r"[.!?？。](?=\s|$)\s*")
_MANNER = re.compile(
    r"\s*(?:please|pls|answer|reply|respond|keep|be|use|cite|give|just|thanks?|thank you|cheers|no |only|short|"
    r"brief|briefly|"
    r"in (?:one|a few|\d+|short|brief|plain)|one (?:sentence|line|word)|with sources?|sources? please|i need|i "
    r"want|quick|asap|"
    r"hi|hello|hey|good (?:morning|evening|afternoon|day))\b(?![^.!]*\b(?:who|what|when|where|why|how|"
    r"which)\b)[^?？]*[.!]?\s*$",
    re.IGNORECASE,
)
_PREAMBLE = re.compile(
    r"\s*(?:(?:hi|hello|hey|ok|okay|so|well|and|but|also|please|pls|sorry|excuse me|quick question|question|grok|"
    r"@grok)\b[\s,:;!.\-–—]*"
    r"|(?:do|does|did|could|can|would|will|may) (?:you|anyone|anybody|someone|somebody|i|we) (?:\w+ )?(?:know|"
    r"tell me|say|remind me|explain|find out|check|"
    r"look up|ask|help me with|please tell me)\b(?: me| us)?(?: if| whether)?[\s,:;\-–—]*"
    r"|(?:i (?:was |am |'m )?(?:wonder(?:ing)?|want(?:ed)? to know|'d like to know|would like to know|need to "
    r"know|curious)|tell me|let me know|remind me|any idea|"
    r"any chance you know|just wondering|i'd like to know)\b(?! about)[\s,:;\-–—]*)",
    re.IGNORECASE,
)
_QUOTES = re.compile(
    r'"([^"]{2,})"|“([^”]{2,})”|«([^»]{2,})»|「([^」]{2,})」|„([^“”]{2,})[“”]|(?<!\w)\'([^\']{8,})\'(?!\w)'
)

# what a "how ..." or "what ..." measures
_MEASURES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"\bhow many\b", ("count",)),
    (
        r"\bhow much more\b|\bby how much\b|\bhow much (?:higher|lower|less)\b",
        ("percent", "usd", "eur", "gbp", "count"),
    ),
    (
        r"\bhow (?:strong|powerful|big|severe|violent|intense) (?:was|is)\b|\bmagnitude\b|\bregister\b|\bon the "
        r"(?:richter )?scale\b", ("magnitude",)),
    (r"\battendance\b|\bcrowd\b", ("count",)),
    (r"\bhow old\b|\bage of\b", ("count", "month", "day")),
    (
        r"\bhow (?:much (?:money|does .* cost|did .* cost|do .* cost|is a ticket|are tickets))|\b(?:price|cost|"
        r"costs|fee|fare|budget|salary|revenue|profit|fine|penalty|damages|refund|pay|paid|get back|sold for|"
        r"worth|how expensive)\b", ("usd", "eur", "gbp", "jpy", "inr", "cny", "chf")),
    (r"\b(?:percent|percentage|share|proportion|turnout)\b", ("percent",)),
    (
        r"\bhow long (?:is|was|are) the (?:\w+ ){0,2}(?:bridge|tunnel|road|track|course|route|wall|queue|trail|"
        r"pipeline|runway|ship|vessel)\b|\bhow (?:far|tall|high|deep|wide)\b|\b(?:distance|height|depth|length)\b",
        ("m",),
    ),
    (r"\bhow long (?:is|was|are|were) (?:the|this|that|its)\b", ("m", "s", "day", "month")),
    (r"\bhow long\b|\bduration\b", ("s", "day", "month")),
    (r"\bhow fast\b|\bspeed\b", ("m/s",)),
    (r"\bhow heavy\b|\bweight\b", ("kg",)),
    (r"\bhow (?:hot|cold|warm)\b|\btemperature\b", ("°", "°c", "°f")),
)  # fmt: skip
_QUESTION_WORDS_WORDS = """
who whom whose what when where why how which is are was were do does did has have had will would can could should
please tell i the a an in on at for of to and or by from with since after before during until it this that there any
whether if
"""
_QUESTION_WORDS = frozenset(_QUESTION_WORDS_WORDS.split())
_FLUFF_WORDS = """
near nearby anybody nobody noone v vs versus please tell know give show find ask question anyone somebody someone
everyone anything something thing things much many lot exact exactly current currently latest now recent recently new
news update updates happen happened happening going far yet already so just actually really right moment today get got
s what's who's official officially say said says saying post posts posted tweet tweets tweeted wrote write people's
hear heard report reported reports reportedly according name called know known far long often tall high fast big large
old hot cold heavy strong deep wide change changed changes summary summarise summarize day time date hour kind type
number total amount figure likely make made take took use used there here like also still since about last first
"""
_FLUFF = frozenset(_FLUFF_WORDS.split())
# they say how it is asked more than what: alone they make no post an answer
LIGHT = 0.3
_LIGHT_WORDS = """
expect expected expects planned plan plans scheduled schedule due set supposed become becomes became takes taking held
hold place person man woman player team side company firm candidate party group country band actor estimated given
stated announced announce reported involved considered mentioned people persons caused cause causes reason reasons
blame new words
"""
_LIGHT = frozenset(_LIGHT_WORDS.split())
_DAYS = frozenset((*WEEKDAYS, *MONTHS)) - {"may", "march"}
_TITLES_WORDS = """
mayor president minister senator governor chancellor king queen prince princess dr mr mrs ms sir dame lord lady judge
justice coach captain general colonel professor prof chairman chairwoman director ceo secretary councillor mp pope
"""
_TITLES = frozenset(_TITLES_WORDS.split())
_OTHER_STOPS_WORDS = """
el la los las un una unos unas de del al en y o que se por para con es son fue fueron ha han esta este le les des du
et au aux est sont dans sur pour par avec ce cette il elle qui quoi der die das den dem des ein eine einen einem und
oder ist sind war waren wird wurde im am zu zur zum mit von auf fur bei hat haben quien quienes cuando donde cuantos
cuantas cuanto cuanta quand ou combien pourquoi wer wann wo wie viele viel warum quem quando onde quantos quantas chi
dove quanti quante che di il lo gli nel nella della uma um no na os as e foi
"""
_OTHER_STOPS = frozenset(_OTHER_STOPS_WORDS.split())


def read_question(
    question: str, now: float, zone: tzinfo = UTC, window: Window | None = None, past: bool = False
) -> Asked:
    """What `question` asks at the clock `now`; `window` overrides its time words; past: its days lie behind it."""
    timed = time_asked(question, now, zone, past)
    rest = _asking(timed.rest)
    plain = fold(masked(rest)).replace("\0", " ").strip()
    quotes = quotes_in(question)
    kind = _kind(plain, quotes)
    speaker, rest, kind = _speaker(rest, kind)
    found = tokens(masked(rest).replace("\0", " "))
    terms, phrases, runs, cased = _terms(found, masked(rest))
    if kind is Kind.FACT and terms and (all(term.name for term in terms) or not re.search(r"\?|\s.*\s.*\s", plain)):
        kind = Kind.NEWS  # "Saltmarsh Bridge"
    measure = frozenset[str]()
    unit: frozenset[str] = frozenset()
    if kind is Kind.NUMBER:
        measure = next((frozenset(kinds) for rule, kinds in _MEASURES if re.search(rule, plain)), frozenset())
        unit = _unit(found)
        if not measure and not unit and any("quake" in term.concepts for term in terms):
            measure = frozenset(("magnitude",))
        measured = {MEASURES[word][0] for token in found if (word := token.word) in MEASURES and token.stem in unit}
        measure = frozenset(measured) if measured else measure
    return Asked(
        question, kind, terms, phrases, window if window is not None else timed.window, quotes, speaker,
        measure, unit, cased, runs, bool(timed.ahead) and window is None,
    )  # fmt: skip


def quotes_in(text: str) -> tuple[str, ...]:
    """What stands between quotation marks."""
    return tuple(next(part for part in match.groups() if part).strip() for match in _QUOTES.finditer(text))


def _asking(question: str) -> str:
    """The question without sentences that only say how to answer, and without "Do you know:" before it."""
    masks = masked(question)
    cuts = [0, *(match.end() for match in _ENDS.finditer(masks)), len(question)]
    parts = [question[a:b] for a, b in itertools.pairwise(cuts) if question[a:b].strip()]
    kept = [part for part in parts if not _MANNER.match(part)]
    text = "".join(kept) or question
    while (match := _PREAMBLE.match(text)) and text[match.end() :].strip(" ?.!"):
        text = text[match.end() :]
    return text


def _kind(plain: str, quotes: tuple[str, ...]) -> Kind:
    if quotes and _POSTED.search(plain):
        return Kind.AUTHOR
    if quotes and _SPOKE.search(plain):
        return (
            Kind.WHERE
            if re.search(r"\bwhere\b|\b(?:which|what) (?:city|town|place|venue|location|village)", plain)
            else Kind.WHEN
            if "when" in plain or "what time" in plain
            else Kind.WHO
        )
    for kind, rule in _OTHER_LANGUAGES:
        if re.search(rule, plain):
            return kind
    if _YES_NO.search(plain):
        return Kind.STATE
    for kind, rule in _KINDS:
        if re.search(rule, plain):
            return kind
    if re.search(r"\w (?:v|vs\.?|versus) \w", plain):
        return Kind.SCORE
    return Kind.STATE if _STATE.search(plain) else Kind.FACT


def _speaker(rest: str, kind: Kind) -> tuple[str, str, Kind]:
    """("what did @x say about y" -> x, the question without it, what is asked about y)."""
    match = _SAID.search(rest) or _ACCORDING.search(rest)
    if match is None or kind is Kind.AUTHOR:
        return "", rest, kind
    who = match["who"].strip()
    if not who.startswith("@") and not who[:1].isupper():
        return "", rest, kind
    left = (rest[: match.start("who")] + " " + rest[match.end("who") :]).strip()
    if match.re is _SAID:
        kind = Kind.NEWS
    return who.removeprefix("@"), left, kind


def _terms(
    found: tuple[Token, ...], text: str
) -> tuple[tuple[Term, ...], tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...], bool]:
    words = [token for token in found if token.kind in ("word", "number", "handle")]
    letters = [token for token in words if token.kind == "word" and token.text[0].isalpha()]
    capital = [token for token in letters if token.text[0].isupper()]
    lower = [token for token in letters if token.text[0].islower() and token.word not in STOP]
    # "what happened to northgate bridge", "WHAT HAPPENED ...": case says nothing of names
    cased = bool(capital[1:] or (capital and capital[0] is not letters[0])) and bool(
        lower or len(capital) < len(letters)
    )
    terms: list[Term] = []
    place: dict[str, int] = {}
    phrases: list[tuple[int, ...]] = []
    run: list[int] = []
    runs: list[list[int]] = []
    before: Token | None = None
    concepts = _phrase_concepts(found)
    for number, token in enumerate(words):
        joined = before is not None and token.start - before.end <= 1
        glued = bool(run) and before is not None and token.start == before.end  # "14" and "b" of "Haliport-14b"
        after = words[number + 1] if number + 1 < len(words) else None
        leads = after is not None and after.start - token.end <= 1 and after.word not in STOP
        index = _term(token, token is words[0], cased, terms, place, concepts.get(token.start), glued, leads)
        if index is not None:
            terms[index] = replace(terms[index], search=_chunk(text, token))
            if joined and runs and runs[-1]:
                runs[-1].append(index)
            else:
                runs.append([index])
        else:
            runs.append([])
        if index is not None and terms[index].name:
            run = [*run, index] if joined and run else [index]
            if len(run) > 1:
                phrases = (
                    [*phrases[:-1], tuple(run)]
                    if phrases and phrases[-1] == tuple(run[:-1])
                    else [*phrases, tuple(run)]
                )
        elif not (joined and run and token.word in ("of", "the", "de", "la", "and", "von", "van", "al", "el", "du")):
            run = []
        before = token
    side_by_side = tuple(tuple(one) for one in runs if len(one) > 1)
    return tuple(terms), tuple(dict.fromkeys(phrases)), side_by_side, cased


def _phrase_concepts(found: tuple[Token, ...]) -> dict[int, frozenset[str]]:
    """What phrases of several words say, by where their content words start: "main act", "takes over"; of a phrase of
    stop words only ("is down"), by its last."""
    said: dict[int, frozenset[str]] = {}
    stems = [token.stem for token in found]
    for length in range(LONGEST, 1, -1):
        for first in range(len(found) - length + 1):
            span = found[first : first + length]
            concepts = FAMILIES.get(tuple(stems[first : first + length]))
            if not concepts or any(token.start in said or token.text[0].isupper() for token in span[1:]):
                continue
            content = [token for token in span if token.word not in STOP and token.word not in _FLUFF] or [span[-1]]
            said.update(dict.fromkeys((token.start for token in content), concepts))
    return said


def _chunk(text: str, token: Token) -> str:
    """The run of letters, digits, hyphens and points around the token."""
    start, end = token.start, token.end
    while start and (
        text[start - 1].isalnum() or (text[start - 1] in "-_." and start > 1 and text[start - 2].isalnum())
    ):
        start -= 1
    while end < len(text) and (
        text[end].isalnum() or (text[end] in "-_." and end + 1 < len(text) and text[end + 1].isalnum())
    ):
        end += 1
    return token.word if not text[start:end].isascii() or token.kind == "handle" else text[start:end]


def _term(
    token: Token,
    first: bool,
    cased: bool,
    terms: list[Term],
    place: dict[str, int],
    said: frozenset[str] | None,
    glued: bool,
    led: bool,
) -> int | None:
    """The index of the token's term; None for a word without content."""
    upper = token.text[0].isupper()
    name = token.kind in ("number", "handle") or any(c.isdigit() for c in token.text) or glued
    if not name and cased and upper and token.word not in _QUESTION_WORDS:
        name = not first or (token.word not in STOP and token.word not in _FLUFF and not FAMILIES.get((token.stem,)))
    if name and (token.word in _TITLES or token.word in _DAYS):
        name = False
    if not cased and led and said is None and token.stem in CONTRASTS and token.word not in STOP:
        said = frozenset()  # "old palvik": part of a name, as far as anyone can tell
    if not name and said is None and (token.word in STOP or token.word in _FLUFF or token.word in _OTHER_STOPS):
        return None
    if name and token.kind == "word" and token.word in STOP and not (upper and not first) and not glued:
        return None
    key = token.word.upper() if name else token.word  # "Cornet power bank" of the "Dynadyne Bank"
    if key in place:
        return place[key]
    concepts = concepts_of(token.stem) if said is None else said
    weight = 2.0 if name else LIGHT if token.word in _LIGHT or token.word in _DAYS else 1.0 if concepts else 1.3
    place[key] = len(terms)
    terms.append(Term(token.word, token.stem, frozenset() if name else concepts, weight, name))
    return len(terms) - 1


def _unit(found: tuple[Token, ...]) -> frozenset[str]:
    """Stems and concepts of the noun behind "how many"."""
    for index, token in enumerate(found[:-1]):
        if token.word in ("many", "much") and index and found[index - 1].word == "how":
            unit: set[str] = set()
            for noun in found[index + 1 : index + 4]:
                if noun.kind != "word" or noun.word in STOP or noun.word in _FLUFF:
                    break
                unit.add(noun.stem)
                unit |= {f"~{name}" for name in concepts_in((noun,))}
            return frozenset(unit)
    return frozenset()
