"""Rules of X's filtered stream: what to add and delete so that those of the factory file are there. Rules belong to the
app, not to us: only those with our tag are ever deleted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gigafactory.errors import UserError
from gigafactory.feed.x_payload import problems_of

LONGEST_RULE = 2048  # characters, of the largest plan; X tells where a smaller one allows less
AT_ONCE = 25  # rules in one request


@dataclass(frozen=True, slots=True)
class Rule:
    id: str
    value: str
    tag: str


@dataclass(frozen=True, slots=True)
class Changes:
    """add: values. delete: ids. ours: ids of wanted rules that are there. others: rules that are none of ours, whose
    posts come on the same stream and are charged too."""

    add: tuple[str, ...]
    delete: tuple[str, ...]
    ours: tuple[str, ...]
    others: int


def tag_of(name: str) -> str:
    return f"gigafactory:{name}"


def changes(wanted: Sequence[str], present: Sequence[Rule], tag: str) -> Changes:
    """Pure. A wanted rule that is there under any tag is used as it is: X holds a value once."""
    there = {rule.value for rule in present}
    keep = set(wanted)
    return Changes(
        add=tuple(dict.fromkeys(value for value in wanted if value not in there)),
        delete=tuple(rule.id for rule in present if rule.tag == tag and rule.value not in keep),
        ours=tuple(rule.id for rule in present if rule.value in keep),
        others=sum(rule.tag != tag and rule.value not in keep for rule in present),
    )


def check(rules: Sequence[str]) -> None:
    """What can be seen without asking X; raises UserError."""
    for index, rule in enumerate(rules):
        if not rule.strip():
            raise UserError(f"rules[{index}]: must not be empty")
        if len(rule) > LONGEST_RULE:
            raise UserError(f"rules[{index}]: must be at most {LONGEST_RULE} characters, got {len(rule)}")


def parse_rules(answer: dict[str, Any]) -> tuple[list[Rule], str | None]:
    """Rules of one page, and the token of the next."""
    rules = [
        Rule(str(raw["id"]), str(raw["value"]), str(raw.get("tag", "")))
        for raw in (answer.get("data") if isinstance(answer.get("data"), list) else None) or []
        if isinstance(raw, dict) and "id" in raw and "value" in raw
    ]
    meta = answer.get("meta")
    token = meta.get("next_token") if isinstance(meta, dict) else None
    return rules, token if isinstance(token, str) and token else None


def refused(answer: dict[str, Any], wanted: Sequence[str]) -> str | None:
    """What X has against rules that were to be added, as one line for the user; None: nothing. A rule that is there
    already is no fault."""
    told = []
    for problem in problems_of(answer):
        if problem.kind == "duplicate-rules" or problem.title.startswith("DuplicateRule"):
            continue
        where = f"rules[{wanted.index(problem.resource)}]" if problem.resource in wanted else "rules"
        details = next((_details(raw) for raw in answer.get("errors", []) if _value(raw) == problem.resource), "")
        which = f"X refuses {problem.resource[:80]!r}: " if problem.resource else ""
        told.append(f"{where}: {which}{details or problem}")
    return "; ".join(told[:3]) + (f"; and {len(told) - 3} more" if len(told) > 3 else "") if told else None


def _details(raw: Any) -> str:
    """Rules have their reasons in `details`, a list."""
    listed = raw.get("details") if isinstance(raw, dict) else None
    return "; ".join(str(each)[:200] for each in listed[:3]) if isinstance(listed, list) else ""


def _value(raw: Any) -> str:
    return str(raw.get("value", "")) if isinstance(raw, dict) else ""
