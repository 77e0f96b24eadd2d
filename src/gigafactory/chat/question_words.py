"""The words by which questions are told apart: kinds of answer, measures, words without content."""

from __future__ import annotations

import re
from enum import StrEnum

from gigafactory.chat.moments import MONTHS, WEEKDAYS


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


# first match decides; read on the folded question without its time words
KINDS: tuple[tuple[Kind, str], ...] = (
    (Kind.AUTHOR,
        r"\b(?:who|which (?:account|user|author|handle)|what (?:account|user|handle)|by whom|"
        r"whose)\b.*\b(?:tweet\w*|posted|(?:wrote|written)(?=.*\b(?:post|tweet|quote|words|message|that)\b)|"
        r"author of th\w+ (?:post|tweet|quote)|account)\b"),
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
        r"given)\b|\b(?:because of|due to|over|owing to) what (?:is|was|are|were|has|have|did|does|do)\b|^\W*of "
        r"what (?:is|was|are|were|has|have|did|does|do)\b|\bwhat\b.*\b(?:due to|down to|guilty of)\W*$|\bwhat(?:'s|"
        r" is| was) "
        r"(?:wrong|the matter|the (?:problem|trouble|defect|fault)|amiss|faulty)\b|^\W*what (?:blocks|blocked|closes|"
        r"closed|broke|stopped|delays|delayed|forced|knocked out|took down|brought down|cut off)\b|\bwhat made\b|"
        r"\bhow (?:did|does|do|could|come) .*\b(?:start|begin|happen|"
        r"break out|come about|occur|catch fire)\b"),
    (Kind.SCORE,
        r"\bhow many (?:\w+ )?voted\b|^(?:how|what|which|tell).*\b(?:outcome|result|end|ended|finish|"
        r"finished|final|go|turn out|turned out|"
        r"fare|get on|score|scoreline|tally)\b.*\b(?:v|vs|versus|against|between)\b|\b(?:v|vs|versus|against|"
        r"between)\b.*\b(?:outcome|result|end|ended|finish|finished|turn out|final score|scoreline)\b|\bhow (?:was|did|"
        r"is) the (?:ballot|division|poll)\b|\b(?:v|vs|versus|against)\b.*\b(?:and|by) (?:how (?:high|much|many)|what "
        r"(?:score|margin))\b|\bwith what majority\b|\bhow (?:big|large|narrow) (?:was|is) the majority\b|"
        r"\bcount (?:of|in|on|for) the\b.*\b(?:council|assembly|senate|parliament|board|committee|chamber|house|"
        r"congress)\b|\bhow many "
        r"(?:votes|members|councillors|delegates|lawmakers|mps)\b.*\b(?:for|favou?r|against|back|yes)\b|"
        r"\b(?:split|margin|tally|breakdown|count) (?:of|in|on|for) the\b.*\bvote\b|\bvote\b.*\b(?:split|margin|"
        r"tally|breakdown|count)\b|\bhow did .*\bvote\b|\bby how many (?:votes|goals|points|runs|seats)\b|"
        r"\bscores?\b|\b(?:full|half)[ -]time\b|\bscoreline\b|\b(?:final|half ?time|full ?time|"
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
        r"\bwhen\b|^\W*(?:the )?(?:[\w-]+ )?(?:time|date|day|deadline) (?:of|for)\b|\b(?:what|which|at what|on what|"
        r"on which|by what) (?:exact |new |scheduled |planned |local |"
        r"start(?:ing)? |opening |launch )?(?:time|day|date|hour|month|year|weekday)\b|\bhow soon\b|\bwhat(?:'s| "
        r"is| was) the (?:\w+ ){0,2}(?:date|time|deadline|eta)\b|\bsince when\b|\buntil when\b"),
    (Kind.WHERE,
        r"\bwhere\b|\b(?:what|which|in what|in which|at which|at what) (?:\w+ )?(?:place|venue|location|site|city|"
        r"town|country|state|station|stadium|hall|spot|building|airport|port|hospital|neighbou?rhood|district|"
        r"village|street|road)\b|\bwhat(?:'s| is| was) the (?:\w+ ){0,2}(?:venue|location|site|address)\b"),
    (Kind.NUMBER,
        r"\b(?:what|which)(?:'s| is| was| are| were)? (?:\w+ ){0,3}?(?:number|money|count|total|percent|percentage|"
        r"share|proportion|rate|price|cost|fee|fare|amount|magnitude|turnout|attendance|temperature|speed|height|"
        r"weight|length|distance|depth|level|size|age|toll|death toll|figure|value|budget|margin|salary|capacity|"
        r"population|revenue|profit|fine|estimate|duration|sum)\b"),
    (Kind.NUMBER,
        r"\bwhat (?:did|does|do|is|are|has|have|was|were|must|will|would|should)\b.*\b(?:register|measure|pay|cost|"
        r"owe|charge|fetch|"
        r"raise|sell for|sold for|go for|get back|receive back|weigh)\b|\b(?:what|which) (?:\w+ )?(?:penalty|fine|"
        r"damages|compensation|bail|refund|sum|amount|magnitude|attendance|crowd|turnout|reading)\b|\bat what "
        r"(?:price|cost|speed|height|rate|temperature)\b|\bfor (?:how (?:much|many|long)|what (?:sum|price|amount))\b|"
        r"^\W*(?:the )?(?:\w+ )?(?:attendance|magnitude|turnout|price|cost|toll|number|count|speed|height|depth|size) "
        r"(?:of|at|for|in)\b"),
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
POSTED = re.compile(
    r"\b(?:source|post\w*|tweet\w*|wr(?:ote|ite|itten)|link|author|accounts?|handle|original\w*|url|find|"
    r"publish\w*|share[ds]?|toot\w*)\b"
    r"|投稿|发布|發布|publico|posteo|gepostet|publie"
)
SPOKE = re.compile(
    r"\b(?:who|whose|whom|when|where|what time|sa(?:id|ys?|ying)|words|quote\w*|speaker|spoke|from|quien|wer|qui|"
    r"quem|chi)\b|誰|だれ|谁|누가"
)
NEWS = re.compile(
    r"\b(?:bring|fill|get|catch|keep|put) (?:me|us) (?:up|in|in the picture|on)\b|\bup to (?:date|"
    r"speed)\b|\b(?:rundown|recap|overview|"
    r"run-?through|round-?up|digest|timeline|state of play|lowdown|briefing)\b|\bbrief me\b|\bwhere "
    r"do(?:es)? .*\bstand\b|"
    r"\bhow (?:have|has|did|are|is) .*\b(?:develop\w*|mov(?:e|ed|ing) on|progress\w*|evolv\w*|"
    r"unfold\w*|com(?:e|ing) along|going)\b|"
    r"\bwhat (?:do|are|did|were) (?:people|they|users|witnesses|posts|locals|residents|fans|you) (?:\w+ )?(?:report|"
    r"say|saying|"
    r"post|posting|reporting|writing|write|hear|know)\w*\b|\bany(?:thing)? (?:new|else|further|more|changes?|"
    r"chang\w+|happen\w*|developments?|progress|"
    r"word|fresh|different|to report|move\w*)\b|"
    r"\bsomething (?:new|chang\w+|happen\w*)\b|\banything\b|\b(?:there|been) (?:any|a) (?:\w+ "
    r")?(?:changes?|news|updates?|developments?|progress)\b|"
    r"\bwhat (?:has |have |had )?(?:become of|came of|went on|took place|transpired|occurred|went "
    r"down|came out|is known|do i need to know|"
    r"did i miss|have i missed|emerged|moved|shifted)\b|\bwhat's (?:going|up|new|on)\b|\bwhat(?:'s| "
    r"is| has been) (?:known|reported|being said|said)\b|"
    r"\bthings? (?:stand|chang\w+|happen\w*|develop\w*)\b"
)
YES_NO = re.compile(
    r"^(?:\W*(?:so|and|but|hey|ok|tell me|do you know|can you tell me)\W+)*(?:whether |if )?(?:is|are|was|were|"
    r"did|does|do|has|have|had|"
    r"will|won't|can|could|should|would|isn't|aren't|wasn't|weren't|didn't|doesn't|hasn't|haven't)\b"
)
STATE = re.compile(
    r"\b(?:what(?:'s| is| was)? (?:the )?(?:\w+ ){0,2}(?:status|state|outcome|verdict|decision)|how is|how are)\b"
)
OTHER_LANGUAGES: tuple[tuple[Kind, str], ...] = (
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
NEWER = re.compile(r"\b(?:newer|later|more recent|fresher) than\b", re.IGNORECASE)
HOW_COME = re.compile(r"\bhow come\b", re.IGNORECASE)
LIFTOFF = re.compile(r"\bT\s?-\s?(?:0|zero)\b", re.IGNORECASE)
# "is it still closed, and until when?"
AND_WHEN = re.compile(r"\b(?:and|,) (?:(?:until|till|since|from|by|for) )?(when|where|why|who)\b")
# what leads into a question or says how to answer it, all of a clause
LEADS_WORDS = """
hey hi hello ok okay so well and but also please pls thanks someone somebody people one quick another simple short
serious real little question questions asked ask asks asking me us you this that here is it's here's goes wondering
curious need want would like just only the a an fact facts answer answers guess guesses guessing no not opinions
opinion help checking check follow up followup i i'm my for from friend quickly small last first next thing now tell
mean meant was is on what of at about again
"""
LEADS = frozenset(LEADS_WORDS.split())
SAID_BY = re.compile(
    r"\b(?:what (?:was|is|were|has been) (?:said|written|posted|announced|reported|claimed|told|tweeted) by|"
    r"(?:word|words|news|anything|something|comments?|statements?|posts?|updates?) (?:from|by|of)) (?P<who>@\w[\w.-]*)"
    r"|\bwhat (?P<whom>@\w[\w.-]*?) (?:(?:has|had|have) )?(?:said|says|wrote|written|posted|posts|announced|reported|"
    r"claimed|tweeted)\b",
    re.IGNORECASE,
)
SAID = re.compile(
    r"\bwhat (?:else )?(?:did|does|do|has|have|is|was|were) (?P<who>@?\w[\w.'’ -]*?) "
    r"(?:say|said|saying|write|written|post|posted|posting|tweet|tweeted|announce|announced|claim|claimed|report|"
    r"reported|reporting|think|share|shared|tell|told|mention|mentioned)\b",
    re.IGNORECASE,
)
ACCORDING = re.compile(r"\baccording to (?P<who>@\w+(?:[.\-]\w+)*)", re.IGNORECASE)
ENDS = re.compile(r"[.!?？。](?=\s|$)\s*")
MANNER = re.compile(
    r"\s*(?:please|pls|answer|reply|respond|keep|be|use|cite|give|just|thanks?|thank you|cheers|no |only|short|"
    r"brief|briefly|"
    r"in (?:one|a few|\d+|short|brief|plain)|one (?:sentence|line|word)|with sources?|sources? please|i need|i "
    r"want|quick|asap|"
    r"hi|hello|hey|good (?:morning|evening|afternoon|day))\b(?![^.!]*\b(?:who|what|when|where|why|how|"
    r"which)\b)[^?？]*[.!]?\s*$",
    re.IGNORECASE,
)
PREAMBLE = re.compile(
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
QUOTES = re.compile(
    r'"([^"]{2,})"|“([^”]{2,})”|«([^»]{2,})»|「([^」]{2,})」|„([^“”]{2,})[“”]|(?<!\w)\'([^\']{8,})\'(?!\w)'
)

# what a "how ..." or "what ..." measures
MEASURED: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"\bhow many\b", ("count",)),
    (
        r"\bhow much more\b|\bby how much\b|\bhow much (?:higher|lower|less)\b",
        ("percent", "usd", "eur", "gbp", "count"),
    ),
    (
        r"\bhow (?:strong|powerful|big|severe|violent|intense) (?:was|is)\b|\bmagnitude\b|\bregister\b|\bon the "
        r"(?:richter )?scale\b", ("magnitude",)),
    (
        r"\b(?:how much|what) (?:did|does|do|will|would|must|has|have|is|was|are|were)\b.*\b(?:get|gets|receive\w*|"
        r"reimburs\w*|refund\w*|charge\w*|spend|spent|bid|offer\w*|earn\w*|owe\w*|purchas\w*|bought|sold|buy|buys|"
        r"sell|sells|acquire\w*|fined|invest\w*|donate\w*|cost|costs)\b|\b(?:for|at) (?:how much|what (?:sum|price|"
        r"amount))\b|\bwhat sum\b", ("usd", "eur", "gbp", "jpy", "inr", "cny", "chf")),
    (r"\battendance\b|\bcrowd\b", ("count",)),
    (r"\bhow old\b|\bage of\b", ("count", "month", "day")),
    (
        r"\bhow (?:much (?:money|does .* cost|did .* cost|do .* cost|is a ticket|are tickets))|\b(?:price|cost|"
        r"costs|fee|fare|budget|salary|revenue|profit|fine|penalty|damages|refund|pay|paid|get back|sold for|"
        r"worth|money|how expensive)\b", ("usd", "eur", "gbp", "jpy", "inr", "cny", "chf")),
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
QUESTION_WORDS_WORDS = """
who whom whose what when where why how which is are was were do does did has have had will would can could should
please tell i the a an in on at for of to and or by from with since after before during until it this that there any
whether if
"""
QUESTION_WORDS = frozenset(QUESTION_WORDS_WORDS.split())
FLUFF_WORDS = """
near nearby anybody nobody noone v vs versus please tell know give show find ask question anyone somebody someone
everyone anything something thing things much many lot exact exactly current currently latest now recent recently new
news update updates happen happened happening going far yet already so just actually really right moment today get got
s what's who's official officially say said says saying post posts posted tweet tweets tweeted wrote write people's
hear heard report reported reports reportedly according name called know known far long often tall high fast big large
old hot cold heavy strong deep wide change changed changes summary summarise summarize day time date hour kind type
number total amount figure likely make made take took use used there here like also still since about last first
"""
FLUFF = frozenset(FLUFF_WORDS.split())
# they say how it is asked more than what: alone they make no post an answer
LIGHT = 0.3
LIGHT_WORDS = """
expect expected expects planned plan plans scheduled schedule due set supposed become becomes became takes taking held
hold place person man woman player team side company firm candidate party group country band actor estimated given
stated announced announce reported involved considered mentioned people persons caused cause causes reason reasons
blame new words remain remains remained stay stays stayed keep keeps kept continue continues word show true wrong
matter problem trouble defect root amiss faulty
"""
SLIGHT = frozenset(LIGHT_WORDS.split())
DAYS = frozenset((*WEEKDAYS, *MONTHS)) - {"may", "march"}
TITLES_WORDS = """
mayor president minister senator governor chancellor king queen prince princess dr mr mrs ms sir dame lord lady judge
justice coach captain general colonel professor prof chairman chairwoman director ceo secretary councillor mp pope
"""
TITLES = frozenset(TITLES_WORDS.split())
OTHER_STOPS_WORDS = """
el la los las un una unos unas de del al en y o que se por para con es son fue fueron ha han esta este le les des du
et au aux est sont dans sur pour par avec ce cette il elle qui quoi der die das den dem des ein eine einen einem und
oder ist sind war waren wird wurde im am zu zur zum mit von auf fur bei hat haben quien quienes cuando donde cuantos
cuantas cuanto cuanta quand ou combien pourquoi wer wann wo wie viele viel warum quem quando onde quantos quantas chi
dove quanti quante che di il lo gli nel nella della uma um no na os as e foi
"""
OTHER_STOPS = frozenset(OTHER_STOPS_WORDS.split())
