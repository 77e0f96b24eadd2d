"""A post as an answer reads it: its sentences, and what makes it unfit to answer as fact.

Words of a post are data: what asks a machine to do something is a mark against the post, nothing else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, lru_cache

from gigafactory.chat.dates import Moment, moments
from gigafactory.chat.hedges import MODAL, RUMOUR, marks
from gigafactory.chat.numbers import Quantity, quantities
from gigafactory.chat.sentences import sentences
from gigafactory.chat.tokens import Token, fold, tokens
from gigafactory.chat.windows import BLANK, masked
from gigafactory.feed.post import Post

_SATIRE = re.compile(
    r"(?:^|[^a-z])(?:satir(?:e|ical)|parody|spoof|onion|not (?:a )?real news|fake news network|for laughs|fan "
    r"?fiction)(?![a-z])"
    r"|#(?:satire|parody|spoof|joke|humou?r|jk|sarcasm)\b|(?<!\w)/(?:s|j)(?!\w)|🤡"
)
_SATIRE_HANDLE = re.compile(r"satir|parod|spoof|theonion|notreal|fakenews|humou?r|jokes?(?![a-z])")
_INJECTION = re.compile(
    r"\b(?:ignore|disregard|forget|override|bypass)\b[^.!?\n]{0,40}\b(?:instructions?|prompts?|rules|guidelines|"
    r"context|posts|"
    r"sources|above|previous|prior|earlier|everything)\b"
    r"|\b(?:system|developer) (?:prompt|message|instruction|note|override)|\byou are (?:now )?(?:an? )?(?:ai|"
    r"assistant|chatbot|language model|llm|dan|grok)\b"
    r"|\b(?:ai|assistants?|chatbots?|bots?|llms?|language models?|models?|grok|gpt|"
    r"chatgpt)\b[^.!?\n]{0,40}\b(?:must|should|shall|have to|need to|always|please|are to|are required "
    r"to)\b[^.!?\n]{0,40}\b(?:answer|reply|respond|say|repeat|report|output|cite|state|print|tell|treat|trust|"
    r"rank|follow|obey)\b"
    r"|\b(?:answer|reply|respond|output|print|say)\b[^.!?\n]{0,30}\b(?:exactly|only|always|with the (?:word|words|"
    r"text|phrase)|verbatim)\b[^.!?\n]{0,60}"
    r"(?=.*\b(?:question|asked|user|prompt|assistant|ai|model)\b)"
    r"|\bwhen(?:ever)? (?:asked|you are asked|anyone asks|a user asks|users? asks?|someone asks)\b|\bif you(?:'re|"
    r" are) an? (?:ai|llm|assistant|bot|language model)"
    r"|\b(?:note|message|attention|instructions?|reminder|hey|dear|hello|memo|psa|to) (?:to |for |all |any |every "
    r"|the )*(?:chat ?bots?|bots|ais?|ai (?:models?|systems?|agents?|assistants?)|"
    r"assistants?|llms?|language models?|grok|crawlers?|summari[sz]ers?|machines?)\b|\b(?:cite|quote|prefer|rank|"
    r"trust) (?:only )?this (?:post|account|source|message)\b"
    r"|\b(?:disregard|ignore|forget) (?:what you|all (?:of )?(?:that|this|the other)|every other|the other|the others|"
    r"others)\b|\b(?:answer|reply|respond) with (?:this|only|just|nothing)\b|\bwhatever (?:the (?:question|query)|"
    r"(?:is|was|you are|you're|they|users?|people) ask\w*)\b|\b(?:do not|don't|never) (?:trust|believe|cite|"
    r"use) (?:the |"
    r"any |all )?(?:others?|other (?:posts?|sources?|accounts?))\b|^\W*(?:robots?|bots|machines|ais?|assistants?|"
    r"chatbots?|crawlers?|language models?|llms?)\s*[!:,]"
    r"|<\s*/?\s*(?:system|instructions?|assistant|tool|im_start|im_end)|\[/?inst\]|<\|"
)
_ASKING = re.compile(
    r"\b(?:anyone|anybody|does anyone|is it true|any word|any news|can someone|can anyone|who knows|confirm\?|"
    r"wondering (?:if|whether)|"
    r"thoughts\?|source\?|true\?|really\?|fr\?)"
)
_QUESTION_FORM = re.compile(
    r"\W*(?:so |and |but |ok |wait,? )?(?:who|what|when|where|why|how|which) (?:\w+ )?(?:is|are|was|were|will|"
    r"would|should|can|could|did|do|does|has|have)\b"
    r"(?! (?:we|you) (?:know|need))"
)
_OPINION = re.compile(
    r"\b(?:should(?:'ve| have| be| run| get| go| win| become| resign)|ought to|deserves?|wants? to see|would love|"
    r"can'?t wait|"
    r"better (?:be|not)|needs to (?:go|resign|win|be))\b"
)
_RUMOUR = re.compile(
    r"\b(?:hearing (?:that|from|reports|rumou?rs|it)|i heard|we(?:'re| are) hearing|heard (?:that|from)|word "
    r"(?:is|on the street|has it)|rumou?rs?|rumou?red|"
    r"unconfirmed|not (?:yet )?(?:been )?(?:confirmed|verified)|unverified|yet to be (?:confirmed|verified)|"
    r"reportedly|allegedly|supposedly|purportedly|"
    r"apparently|(?:a )?(?:friend|cousin|neighbou?r|colleague|guy|someone|somebody|my \w+) (?:\w+ ){0,4}?(?:told|"
    r"says|said|swears|reckons|claims)|told by a|some(?: people)? (?:are )?say(?:ing)?|"
    r"people (?:are )?say(?:ing)?|they say|sources? (?:say|tell|claim|close to)|(?:my|our|a|an|one|anonymous) "
    r"(?:\w+ )?sources?|insiders?|tipsters?|speculat\w+|"
    r"overheard|going (?:a)?round|doing the rounds|making the rounds|circulating|floating around|"
    r"swirling|there(?:'s| is| was) talk|talk of|nothing is (?:certain|sure|confirmed|official)|(?:nobody|no one|"
    r"no-one|"
    r"none) (?:\w+ ){0,2}confirm\w*|can'?t vouch|no proof|trust me|i gather|hold me to|not gospel|if "
    r"you believe|needs? confirming|word on|whisper(?:ed|ing)?|a bloke|someone on the|"
    r"so they say|(?:my|the|our) (?:feed|group chat|timeline|barber|hairdresser|uncle|aunt|mate|"
    r"neighbou?rhood app) (?:says?|is saying|has it)|talk is|the talk|(?:the )?buzz is|tipped (?:to|"
    r"for|as)|linked with|in the frame|front ?runner|"
    r"scuttlebutt|rumblings?|murmurs?|no idea (?:if|whether)|don'?t know (?:if|whether)|can'?t say (?:if|whether)|"
    r"(?:dubious|sketchy|anonymous|unnamed)|supposed to be|hearsay|second ?hand|read (?:it )?somewhere|saw "
    r"somewhere|unchecked|unsourced|no source|source unclear|waiting to hear|i (?:am|was) told|been told|someone "
    r"heard|guessing|pure speculation|could be true|may be wrong|might be wrong|could be wrong|"
    r"gossip|grapevine|whispers?|chatter|leaked|take (?:this|it) with|grain of salt|pinch of salt|big if true|if "
    r"(?:this is |it's |that's )?true|don't quote me|"
    r"can'?t confirm|cannot confirm|could not confirm|no confirmation|waiting (?:for|on) (?:official "
    r")?(?:confirmation|word)|awaiting (?:official )?confirmation|treat with caution|"
    r"not official|unofficial(?:ly)?|no official (?:word|statement|confirmation)|seems like|looks like|sounds "
    r"like|(?:i|we) (?:\w+ )?(?:think|guess|believe|reckon|suspect|bet|doubt|wonder)|"
    r"imo|imho|afaik|my guess|my bet|my prediction|i predict|fingers crossed|hopefully|hope|wish|bet it|"
    r"conflicting reports|early reports|initial reports suggest|tbc|"
    r"to be confirmed|may or may not|who knows|idk|not sure|so i'm told|i'm told|we're told|tbd)\b"
)
_DENIED = re.compile(
    r"\b(?:false|untrue|not true|no truth|den(?:y|ies|ied)|debunk\w*|contrary to|ignore|dismiss\w*|despite|wrong|"
    r"hoax|fake|"
    r"end (?:to )?(?:the )?|quash\w*|baseless|unfounded|never happened|confirm(?:s|ed)?(?! \?))\b"
)
_UNCONFIRMED = re.compile(
    r"\b(?:not|nobody|no one|no-one|none|never|yet|cannot|can't|couldn't|hasn't|haven't|isn't|nothing|without|awaiting|"
    r"until|if)\W+(?:\w+\W+){0,3}?(?:confirm\w*|official\w*)"
)
_WEAK_WORDS = """
may might could possibly perhaps maybe likely probably potentially unlikely seems seem appears appear unclear suggests
"""
_WEAK = frozenset(_WEAK_WORDS.split())
_PAST = re.compile(
    r"\b(?:flashback|throwback|tbt|on this day|anniversary|remember when|remember the|years? ago|decades? ago|"
    r"back in (?:the )?\d|"
    r"last (?:year|season|time|decade|century|term|edition|election|meeting|mission)|"
    r"(?:an? |the |its |their |in )?(?:older|earlier|previous|prior|former|past|old) (?:\w+ ){0,2}?(?:case|flight|"
    r"launch|term|match|game|event|edition|season|vote|recall|outage|quake|earthquake|"
    r"fire|strike|closure|deal|bid|takeover|mission|attempt|election|ceremony|winner|fine|storm|crash|festival|"
    r"incident|occasion)\b|last (?:month|week)['’]s|last met|(?:their|the) (?:last|previous) (?:meeting|encounter|"
    r"clash|visit|one)|reverse fixture|earlier this (?:season|year)|(?:months|a month) ago|long ago|once upon|"
    r"(?:an|a|the|its|their|our|his|her) (?:older|earlier|previous|prior) (?!(?:\w+ )?(?:posts?|reports?|tweets?|"
    r"figures?|"
    r"numbers?|statements?|counts?|versions?|messages?|updates?|estimates?|tall(?:y|ies)|claims?|ones?|day|week|today|"
    r"director|chief|head|owner|record|manager|mayor|president|minister|holder|chair\w*|coach|boss|leader|captain|than|"
    r"values?|sums?|times?|dates?|announcements?)\b)\w+|of old|in (?:my|our|his|her|their) (?:day|time|youth)|"
    r"when (?:i|we|he|she|my \w+|our \w+) (?:was|were) (?:\w+ )?(?:young|younger|little|small|kids?|a (?:kid|child|boy|"
    r"girl|student|teenager))|(?<=\w )once (?:lasted|ended|paid|cost|struck|measured|hit|drew|registered|"
    r"\w+ed (?:until|"
    r"at|with|by|in)\b)|back then|at the time|in those days|previous (?:year|season|decade)|in the past|used to|"
    r"historically|"
    r"i (?:remember|recall)|as i recall|my first (?:\w+ ){1,3}was|an old (?:\w+ ){1,4}(?:was|were|had|cost)|history|"
    r"not the first (?:time|recall|one)|"
    r"once (?:\w+ )?(?:refused|turned|failed|offered|sold|bought|had|"
    r"was|were|won|played|held|paid|said|rejected)|(?:the )?time before|before that|same story|since 1[89]\d\d)\b"
)
_CORRECTION = re.compile(
    r"\b(?:correction|correcting|corrected|corrects|erratum|we (?:got|had) (?:it|that|this|the \w+) wrong|our "
    r"mistake|my mistake|mistaken(?:ly)?|misreported|misstated|mistyped|"
    r"misheard|misread|typo|in error|erroneous(?:ly)?|we erred|i erred|earlier (?:\w+ ){0,3}?(?:was|were|is) "
    r"(?:wrong|incorrect|inaccurate|false|off)|(?:previous|earlier|first|last|prior|initial) (?:post|report|tweet|"
    r"figure|number|statement|count|version|message|update)|"
    r"as (?:we|i|previously|earlier|first|initially|originally|wrongly|had) (?:\w+ ){0,2}?(?:said|reported|stated|"
    r"posted|wrote|written|announced|claimed|told|tweeted|published|thought)|"
    r"retract\w*|to clarify|clarification|clarify|scratch that|to set the record straight|set the record straight|"
    r"apolog\w+|sorry,? (?:it|we|that|i|the)|disregard (?:our|my|the) (?:earlier|previous|last)|"
    r"we (?:previously|earlier|wrongly|mistakenly|initially) (?:said|reported|posted|wrote|stated)|fixed:|fix:|"
    r"(?:please )?(?:ignore|disregard) [^.:!?]{1,40}: |amended|amending|revised|debunk\w*|contrary to)\b"
)
_REPOST = re.compile(r"^\s*(?:rt|repost|via|mt|ht)\s*:?\s*@(?P<who>\w+(?:[.\-]\w+)*)\s*:?\s*", re.IGNORECASE)
_BOT = re.compile(r"(?:^|[^a-z])bot(?![a-z])|bot(?:\d*|_\w*)$|^bot|_bot|autopost|newsbot")
_ENGLISH = frozenset(("the", "is", "was", "are", "at", "and", "has", "of", "to", "were", "will", "for"))
_OTHER_LANGUAGES_WORDS = """
el los las del por para con se ha fue le les des du et est sont sur pour par avec der die das den dem ein eine und ist
sind von mit auf fur bei nach wegen bis im il gli della nel che non una um uma dos na no em het een van voor naar
och av menschen personen personas personnes persone pessoas utenti usuarios nutzer heridos
feuer gerettet streik beschaftigte huelga greve sciopero contrata guida dirige leitet startet gewinnt gana remporte
gesperrt cerrado ferme chiuso terremoto erdbeben sismo seisme incendio incendie funziona
"""
_OTHER_LANGUAGES = frozenset(_OTHER_LANGUAGES_WORDS.split())


@dataclass(frozen=True)
class Sentence:
    """One sentence of a post, as written, by whom and when."""

    text: str
    written_at: float
    author: str = ""

    @cached_property
    def tokens(self) -> tuple[Token, ...]:
        return tokens(self.text)

    @cached_property
    def words(self) -> frozenset[str]:
        return frozenset(token.word for token in self.tokens)

    @cached_property
    def moments(self) -> tuple[Moment, ...]:
        return moments(self.tokens, self.written_at)

    @cached_property
    def taken(self) -> frozenset[int]:
        """Indices of tokens that belong to dates and times."""
        return frozenset(i for moment in self.moments for i in range(moment.first, moment.last + 1))

    @cached_property
    def quantities(self) -> tuple[Quantity, ...]:
        return quantities(self.tokens, self.taken)

    @cached_property
    def own(self) -> str:
        """The sentence without the words that it quotes, unless it is nothing else."""
        rest = masked(self.text).replace(BLANK, "")
        return rest if re.search(r"\w", rest) else self.text

    @cached_property
    def rumour(self) -> str:
        """Words that make it and what stands around it hearsay; "" where there are none, or where it denies them."""
        plain = fold(self.own)
        rumour = _RUMOUR.search(plain)
        if rumour and not _denied(plain):
            return f"it says “{rumour.group()}”"
        return "it asks for confirmation" if _ASKING.search(plain) else ""

    @cached_property
    def hedged(self) -> str:
        """Why this sentence states nothing as fact: the word that weakens it, or that it asks; "" if it states."""
        plain = fold(self.own)
        if self.rumour:
            return self.rumour
        if self.own.rstrip(" \"'”’)!#").endswith(("?", "？")) or _QUESTION_FORM.match(plain):
            return "it is a question"
        if re.match(r"\W*(?:if|unless|in case|should)\b", plain):
            return "it is conditional"
        if _OPINION.search(plain):
            return "it is an opinion"
        for mark in marks(self.tokens if self.own == self.text else tokens(self.own)):
            if (mark.kind == RUMOUR and not _denied(plain)) or (mark.kind == MODAL and mark.word in _WEAK):
                return f"it says “{mark.word}”"
        return ""


def _dated_event(sentence: Sentence, of: int) -> bool:
    """ "the fire of 1984", not "a crowd of 1984"."""
    return (
        of > 0
        and any(token.word == "the" for token in sentence.tokens[max(0, of - 5) : of])
        and sentence.tokens[of - 1].word
        not in ("crowd", "total", "number", "attendance", "capacity", "maximum", "audience")
    )


def _was(sentence: Sentence, moment: Moment) -> bool:
    """Does the sentence tell what was in that month, another one than it was written in?"""
    name = f"{datetime.fromtimestamp(sentence.written_at, UTC):%B}".lower()
    past = any(
        token.word in ("was", "were", "had", "won", "lost", "beat", "took", "came", "went", "drew")
        or (token.word.endswith("ed") and len(token.word) > 4)
        for token in sentence.tokens
    )
    month = sentence.tokens[moment.last].word
    return past and not name.startswith(month[:3]) and sentence.words.isdisjoint(("will", "until", "planned", "set"))


_THE_FIRST = re.compile(r"\b[Tt]he (?:very )?first [A-Z]\w+(?: [A-Z]\w*)* (?:went|was|were|had|drew|ended|saw|took)\b")


def _denied(plain: str) -> bool:
    """Does it deny what is rumoured, or confirm it? "Not confirmed" does neither."""
    return bool(_DENIED.search(_UNCONFIRMED.sub(" ", plain)))


@dataclass(frozen=True)
class Reading:
    """A post with what can be told from its words alone. body: its text without "RT @x:"."""

    post: Post
    body: str
    repost_of: str

    @cached_property
    def sentences(self) -> tuple[Sentence, ...]:
        return tuple(Sentence(text, self.post.created_at, self.post.author) for text in sentences(self.body))

    @cached_property
    def tokens(self) -> tuple[Token, ...]:
        return tokens(self.body)

    @cached_property
    def words(self) -> frozenset[str]:
        return frozenset(token.word for token in self.tokens)

    @cached_property
    def stems(self) -> frozenset[str]:
        return frozenset(token.stem for token in self.tokens)

    @cached_property
    def plain(self) -> str:
        return fold(self.body)

    @cached_property
    def satire(self) -> bool:
        return bool(_SATIRE.search(self.plain) or _SATIRE_HANDLE.search(fold(self.post.author)))

    @cached_property
    def injection(self) -> bool:
        """It speaks to a machine that reads it."""
        return bool(_INJECTION.search(self.plain))

    @cached_property
    def bot(self) -> bool:
        return bool(_BOT.search(fold(self.post.author)))

    @cached_property
    def foreign(self) -> bool:
        """It seems not to be English: no common English word among six words or more, or letters of other scripts."""
        plain = [token.word for token in self.tokens if token.kind == "word"]
        if sum(not word.isascii() for word in plain) > len(plain) / 2:
            return True
        return bool(self.words & _OTHER_LANGUAGES) and not self.words & _ENGLISH

    @cached_property
    def corrects(self) -> bool:
        """It takes an earlier statement back."""
        return bool(_CORRECTION.search(self.plain))

    def doubt(self, number: int) -> str:
        """Why sentence `number` is no fact of now: what the post is, what the sentence says, or hearsay around it."""
        own = self.unfit or self.sentences[number].hedged
        return own or next((one.rumour for one in self.sentences if one.rumour), "") or self.past

    @cached_property
    def past(self) -> str:
        """It tells of an earlier time than it was written in."""
        year = datetime.fromtimestamp(self.post.created_at, UTC).year
        for sentence in self.sentences:
            for moment in sentence.moments:
                near = year if moment.grain in ("year", "decade") else year - 1
                dated = moment.grain in ("year", "month", "day", "decade") and moment.year is not None
                before = sentence.tokens[moment.first - 1].word if moment.first else ""
                told = moment.grain != "year" or before not in ("from", "to", "about", "around", "of", "circa", "than")
                told = told or (before == "of" and _dated_event(sentence, moment.first - 1))
                if (
                    moment.grain == "month"
                    and moment.year is None
                    and before in ("in", "last")
                    and _was(sentence, moment)
                ):
                    return "it tells of another time"
                if dated and told and (moment.year or 0) < near:
                    return "it tells of another time"
        if _THE_FIRST.search(self.body):
            return "it tells of another time"
        own = fold(" ".join(sentence.own for sentence in self.sentences))
        return "it tells of another time" if _PAST.search(own) else ""

    @cached_property
    def unfit(self) -> str:
        """Why nothing in this post is a fact, in words a reader understands; "" if it may be."""
        if self.injection:
            return "it gives instructions to machines"
        if self.satire:
            return "it is satire"
        return ""


@lru_cache(maxsize=1024)
def read(post: Post) -> Reading:
    """Reading of one revision of a post; kept, since neighbouring questions meet the same posts."""
    match = _REPOST.match(post.text)
    of = next((ref.removeprefix("repost:") for ref in post.refs if ref.startswith("repost:")), "")
    if match:
        return Reading(post, post.text[match.end() :].strip() or post.text, of or "@" + match["who"])
    return Reading(post, post.text, of)


_CHATTER = re.compile(
    r"(?:^|[^a-z])(?:i|i'm|i've|my|me|mine|we're all|lol|lmao|omg|wtf|wow|oof|ugh|yay|wild|unreal|insane|crazy|"
    r"smh|tbh|ngl|haha\w*|fun|love|loved|hate|"
    r"hated|awful|boring|beautiful|gorgeous|delicious|favou?rite|as usual|as always|great|nice|what a|can't "
    r"believe|so (?:they|that|now|happy|sad|glad|proud|excited|tired)|"
    r"just read|congrats|congratulations|rip|thoughts|prayers|praying|hmm+|heartbroken|gutted|buzzing|fingers "
    r"crossed|switching|sick of|tired of|fed up|thank(?:s| you))(?![a-z])"
    r"|!!|[\U0001F300-\U0001FAFF\u2600-\u27bf]"
)


def chatty(sentence: Sentence) -> bool:
    """Does it tell how somebody feels, more than what is?"""
    return bool(_CHATTER.search(fold(sentence.own))) or sentence.text[:1].islower()


_PREVIEW = re.compile(
    r"\b(?:soon|in an hour|later (?:today|tonight)|coming up|preview|kick-?off (?:at|in|soon)|ahead of|next week|"
    r"stay tuned|"
    r"(?:tonight|today|tomorrow) is (?:the )?(?!when|not)|(?:decides?|votes?|meets?|speaks?|plays?|starts?|gives an "
    r"interview|returns?|opens?) (?:\w+ ){0,6}(?:tonight|tomorrow|this (?:morning|afternoon|evening))|back in court|"
    r"nominees|(?:arrives?|gathers?|queues?|queuing|warms? up|lines? up) for|rehears\w*|watch (?:it )?live|"
    r"starting now|about to|maintenance window|press conference|open day|tickets? on sale)\b"
)


def previews(sentence: Sentence) -> bool:
    """Does it tell of what is to come?"""
    return bool(_PREVIEW.search(fold(sentence.own)))


_BACK = re.compile(
    r"\b(?:(?:we|i|had|were|was|it|first|which|that|this|they|it's)? ?(?:wrong(?:ly)?|incorrect(?:ly)?|inaccurate|"
    r"mistaken(?:ly)?|in error|not correct|a mistake|an error)"
    r"|(?:earlier|previous(?:ly)?|initial(?:ly)?|original(?:ly)?|prior|first|last|older) (?:\w+ )?(?:said|post\w*|"
    r"gave|reported?|tweet\w*|stated?|statement|figures?|numbers?|version|wrote|had|told|message|claim\w*|named|"
    r"count|update)"
    r"|(?:said|posted|reported|stated|wrote|gave|named|claimed) (?:earlier|before|previously|initially|originally|"
    r"at first)|disregard|retract\w*|by mistake|(?:it|which|that|this) (?:does|did|do) not say|no longer (?:true|"
    r"valid|correct|right|current|stands?))\b"
)


def takes_back(text: str) -> bool:
    """Is the sentence about an earlier statement that was wrong ("An earlier post gave 2 July, which is incorrect")?"""
    return bool(_BACK.search(fold(text)))
