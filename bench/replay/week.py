"""The posts that come with the package, asked as people would ask: hand-written questions with their answers.

    python -m bench.replay.week [FILE]

FILE: week.toml, which answering was developed with, or week-unseen.toml, which it was not. Prints what was answered
otherwise than expected, and how many were answered as they must be.
"""

from __future__ import annotations

import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from gigafactory.chat.answer import Answer, Verdict
from gigafactory.chat.ask import ask
from gigafactory.factory.feed import StoreSection
from gigafactory.feed.open import open_store
from gigafactory.feed.post import Event
from gigafactory.feed.replay import read, shipped
from gigafactory.feed.store import Store

QUESTIONS = Path(__file__).parent / "week.toml"


@dataclass(frozen=True, slots=True)
class Asked:
    """One hand-written question; the fields are those of week.toml. at: Unix seconds, None is the end of the posts."""

    text: str
    at: float | None
    gold: tuple[str, ...]
    wrong: tuple[str, ...]
    by: tuple[str, ...]
    abstain: bool


def load(path: Path = QUESTIONS) -> list[Asked]:
    return [_asked(**entry) for entry in tomllib.loads(path.read_text(encoding="utf-8"))["question"]]


def _asked(
    text: str,
    at: str = "",
    gold: list[str] | None = None,
    wrong: list[str] | None = None,
    by: list[str] | None = None,
    abstain: bool = False,
) -> Asked:
    if abstain == bool(gold):
        raise ValueError(f"{text!r} needs one of gold, abstain")
    clock = datetime.fromisoformat(at).replace(tzinfo=UTC).timestamp() if at else None
    return Asked(text, clock, tuple(gold or ()), tuple(wrong or ()), tuple(by or ()), abstain)


def fault(asked: Asked, answer: Answer) -> str:
    """What is wrong with an answer, "" for nothing."""
    claims = [claim for claim in answer.claims if claim.verdict in (Verdict.SUPPORTED, Verdict.PARTLY)]
    if asked.abstain:
        return "answered" if claims else ""
    if not claims:
        return "abstained"
    gives = [claim for claim in claims if any(word.casefold() in claim.text.casefold() for word in asked.gold)]
    if not gives:
        return "does not say it"
    if not any(citation.author in asked.by for claim in gives for citation in claim.citations):
        return "cites others"
    if any(word in claim.text for claim in claims if claim not in gives for word in asked.wrong):
        return "says something else too"
    return ""


def answers(store: Store, asked: list[Asked], answer: Callable[[str, Store, float], Answer]) -> Iterator[Answer]:
    """The posts into the store up to the clock of each question, and what is answered then; in the order of `asked`."""
    events: list[tuple[float, Event]] = [(line.t, line.event) for line in read(shipped(), "replay") if line.event]
    end, done, given = events[-1][0], 0, dict[int, Answer]()
    for number in sorted(range(len(asked)), key=lambda number: asked[number].at or end):
        now = asked[number].at or end
        due = [event for t, event in events[done:] if t <= now]
        store.apply(due)
        done += len(due)
        given[number] = answer(asked[number].text, store, now)
    return (given[number] for number in range(len(asked)))


def main() -> int:
    asked, faults = load(Path(sys.argv[1]) if len(sys.argv) > 1 else QUESTIONS), Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(f"sqlite:{folder}/posts.db", StoreSection(), write=True)
        try:
            for question, answer in zip(asked, answers(store, asked, ask), strict=True):
                wrong = fault(question, answer)
                faults[wrong] += 1
                if wrong:
                    print(f"{question.text}\n  {wrong}: {answer.text}\n  wanted: {question.gold or 'no answer'}")
        finally:
            store.close()
    wrongs = ", ".join(f"{many} {wrong}" for wrong, many in faults.most_common() if wrong)
    print(f"{faults['']} of {len(asked)} as they must be{': ' if wrongs else ''}{wrongs}")
    return 0 if faults[""] == len(asked) else 1


if __name__ == "__main__":
    sys.exit(main())
