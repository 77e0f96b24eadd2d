"""The last step of an answer: a model may word it, the verifier has the last word, and the quotes catch what fails."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from gigafactory.chat.answer import Answer, Claim, Verdict
from gigafactory.chat.sentences import sentences
from gigafactory.chat.verify import Checker, verify_all
from gigafactory.factory.chat import AnswerSection
from gigafactory.feed.post import Post

if TYPE_CHECKING:
    from gigafactory.chat.writer import Writer

# a sentence of a model has no business with links, tags or marks that a client would follow
MARKUP = re.compile(r"https?:|www\.|<[A-Za-z/!?]|\]\(|```", re.IGNORECASE)


SPEECH = re.compile('["“”„«»「」『』]')


def lines(claims: Sequence[Claim]) -> str:
    return "\n".join(claim.text for claim in claims)


def reword(
    answer: Answer,
    posts: Sequence[Post],
    writer: Writer,
    section: AnswerSection,
    now: float,
    checker: Checker | None = None,
    join: Callable[[Sequence[Claim]], str] = lines,
) -> Answer:
    """The answer in the words of the writer, as far as the posts support each of its sentences.

    posts: those that the quoted answer cites. A sentence stays if it is supported by one of them, and its citations are
    the verifier's, not the writer's. Quotes of posts that no sentence cites stay as they are, so that a model that
    leaves something out takes nothing away. Speech is never reworded, nor a question about words in quotation marks
    (who said it is the answer), nor an abstention.
    """
    quotes = [claim.citations[0] for claim in answer.claims if claim.citations and not _is_speech(claim)]
    if answer.abstained or not quotes or not posts or SPEECH.search(answer.question):
        return answer
    draft = writer.write(answer.question, posts, quotes, now)
    spent = replace(
        answer.cost,
        prompt_tokens=answer.cost.prompt_tokens + draft.prompt_tokens,
        output_tokens=answer.cost.output_tokens + draft.output_tokens,
    )
    texts = dict.fromkeys(text for sentence in draft.sentences for text in sentences(sentence.text))
    wording = [text for text in texts if not MARKUP.search(text)]
    stay: list[Claim] = []
    out: list[Claim] = []
    for claim in verify_all(wording, posts, now, least=section.support, checker=checker):
        (stay if claim.verdict is Verdict.SUPPORTED and claim.citations else out).append(claim)
    said_by_others = {post for claim in answer.claims if _is_speech(claim) for post in _posts(claim)}
    stay = [claim for claim in stay if not _posts(claim) <= said_by_others]
    if not stay:
        return replace(answer, removed=(*answer.removed, *out), cost=spent)
    claims, removed = in_place(stay, answer.claims), tuple(out)
    if section.show_unsupported:
        claims, removed = claims + out, ()
    return replace(
        answer,
        text=join(claims),
        claims=tuple(claims),
        removed=(*answer.removed, *removed),
        grounded=True,
        written_by=writer.name,
        cost=spent,
    )


def in_place(worded: Sequence[Claim], quoted: Sequence[Claim]) -> list[Claim]:
    """In the order of the quotes: the sentences that cite the post of a quote instead of it, else the quote."""
    left, result = list(worded), []
    for quote in quoted:
        mine = [] if _is_speech(quote) else [claim for claim in worded if _posts(claim) & _posts(quote)]
        result += [claim for claim in mine if claim in left] if mine else [quote]
        left = [claim for claim in left if claim not in mine]
    return result + left


def _is_speech(claim: Claim) -> bool:
    return any(SPEECH.search(citation.quote) for citation in claim.citations)


def _posts(claim: Claim) -> set[tuple[str, str]]:
    return {(citation.source, citation.id) for citation in claim.citations}
