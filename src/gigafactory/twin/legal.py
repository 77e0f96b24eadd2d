"""What makes a case impossible: degrees that do not divide, more stages than layers, more chips than there are.

Rules that only some trainers have are asked of those alone: Megatron's family pads the vocabulary and cuts uneven
stages, Gigafactory's trainer (Software.own) does neither.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from gigafactory.twin.case import Array, Cases

Look = Callable[[str], float]
"""Name of a field -> its value in the case that is spoken of."""


@dataclass(frozen=True)
class Violation:
    """field: of the case. mask: where it is violated (bool, broadcasts to the cases). text: what was given in the
    first such case and what would be legal, one line to print behind the field's name."""

    field: str
    mask: Array
    text: str


@dataclass(frozen=True)
class _Rule:
    field: str
    broken: Array
    say: Callable[[Look], str]


def violations(cases: Cases, chips: Array | None = None) -> list[Violation]:
    """Every rule that some case breaks, with the cases that break it. chips: how many there are, where that counts."""
    found = []
    for rule in _rules(cases, chips):
        mask = np.asarray(rule.broken)
        if mask.any():
            found.append(Violation(rule.field, mask, rule.say(_looker(cases, mask))))
    return found


def legal(cases: Cases, chips: Array | None = None) -> Array:
    """Mask of the cases that break no rule; its shape broadcasts to that of the cases."""
    broken: Array = np.False_
    # Small masks first: the intermediate results stay small as well.
    for mask in sorted((np.asarray(rule.broken) for rule in _rules(cases, chips)), key=lambda mask: mask.size):
        broken = broken | mask
    return np.logical_not(broken)


def _rules(cases: Cases, chips: Array | None) -> Iterator[_Rule]:
    plan, work = cases.plan, cases.work
    own = np.greater(cases.software.own, 0)  # of plain numbers too an array: ~True is -2
    for name in ("tensor", "pipe", "interleave", "data", "context", "expert", "expert_tensor", "shard_group"):
        yield _counted(name, getattr(plan, name))
    yield _counted("micro_rows", work.micro_rows)
    yield from _tensor_rules(cases, own)
    yield from _pipe_rules(cases, own)
    yield from _expert_rules(cases, own)
    yield from _sequence_rules(cases, own)
    yield _Rule(
        "global_rows",
        _uneven(work.global_rows, plan.data * work.micro_rows),
        lambda look: (
            f"must be a multiple of data x micro_rows = {look('data'):g} x {look('micro_rows'):g} ="
            f" {look('data') * look('micro_rows'):g}, got {look('global_rows'):g};"
            f" {_multiples(look('global_rows'), look('data') * look('micro_rows'))}"
        ),
    )
    yield _Rule(
        "shard_group",
        own & (plan.shard > 2) & _uneven(cases.network.hidden, plan.shard_group),
        lambda look: _must_divide("hidden", look("hidden"), look("shard_group"), "with fsdp"),
    )
    yield _Rule(
        "shard_group",
        (plan.shard > 0) & _uneven(plan.data * plan.context, plan.shard_group),
        lambda look: _must_divide("data x context", look("data") * look("context"), look("shard_group")),
    )
    if chips is not None:
        yield _Rule(
            "chips",
            plan.chips > chips,
            lambda look: (
                f"tensor {look('tensor'):g} x pipe {look('pipe'):g} x data {look('data'):g} x context"
                f" {look('context'):g} = {look('tensor') * look('pipe') * look('data') * look('context'):g} are more"
                f" than there are ({float(np.max(chips)):g}); data at most"
                f" {np.max(chips) // (look('tensor') * look('pipe') * look('context')):g}"
            ),
        )


def _tensor_rules(cases: Cases, own: Array) -> Iterator[_Rule]:
    network, plan = cases.network, cases.plan
    latent = np.greater(network.kv_rank, 0)
    divided = (
        ("heads", np.True_),
        # Fewer key heads than chips: each has a copy, which our trainer does not make. Latent attention has no key
        # heads of its own.
        ("kv_heads", ~latent & (own | _uneven(plan.tensor, network.kv_heads))),
        ("ffn", (network.experts < 1) | (network.dense_layers > 0)),
        ("shared_ffn", network.shared_ffn > 0),
        ("vocab", own),  # others pad it
    )
    for name, asked in divided:
        yield _divided("tensor", name, asked & _uneven(getattr(network, name), plan.tensor), ("tensor",))
    yield _Rule(
        "expert_tensor",
        (network.experts > 0) & _uneven(network.moe_ffn, plan.expert_tensor),
        lambda look: _must_divide("moe_ffn", look("moe_ffn"), look("expert_tensor")),
    )


def _pipe_rules(cases: Cases, own: Array) -> Iterator[_Rule]:
    network, plan = cases.network, cases.plan
    places = network.layers + network.mtp_layers + 2.0 * plan.balanced
    chunks = plan.pipe * plan.interleave
    yield _Rule(
        "pipe",
        chunks > places,
        lambda look: (
            f"{look('pipe'):g} x interleave {look('interleave'):g} = {look('pipe') * look('interleave'):g} stages"
            f" are more than the {look('layers'):g} layers; at most pipe {look('layers') // look('interleave'):g}"
        ),
    )
    yield _Rule(
        "pipe",
        own & _uneven(network.layers, chunks),
        lambda look: _must_divide("layers", look("layers"), look("pipe") * look("interleave"), "pipe x interleave"),
    )
    yield _Rule(
        "interleave",
        (plan.interleave > 1) & (plan.pipe < 2),
        lambda look: f"must be 1 without a pipeline (pipe=1), got {look('interleave'):g}",
    )
    filled = (plan.pipe > 1) & ((plan.interleave > 1) | own)  # both send a whole group of micro-batches round
    rows = np.maximum(plan.data * cases.work.micro_rows, 1.0)
    yield _Rule(
        "interleave",
        filled & ~_uneven(cases.work.global_rows, rows) & _uneven(cases.work.global_rows / rows, plan.pipe),
        lambda look: (
            f"{look('interleave'):g} needs micro-batches in multiples of pipe={look('pipe'):g}, got"
            f" {look('global_rows') / (look('data') * look('micro_rows')):g} (global_rows / (data x micro_rows))"
        ),
    )


def _expert_rules(cases: Cases, own: Array) -> Iterator[_Rule]:
    network, plan = cases.network, cases.plan
    mixture = np.greater(network.experts, 0)
    yield _Rule(
        "expert",
        ~mixture & ((plan.expert > 1) | (plan.expert_tensor > np.maximum(plan.tensor, 1))),
        lambda look: f"must be 1 for a network without experts, got {look('expert'):g}",
    )
    yield _Rule(
        "expert",
        mixture & _uneven(network.experts, plan.expert),
        lambda look: _must_divide("experts", look("experts"), look("expert")),
    )
    yield _Rule(
        "expert",
        mixture & _uneven(plan.data * plan.context * plan.tensor, plan.expert * plan.expert_tensor),
        lambda look: (
            f"{look('expert'):g} x expert_tensor {look('expert_tensor'):g} must divide data x context x tensor ="
            f" {look('data') * look('context') * look('tensor'):g}"
        ),
    )
    yield _Rule(
        "expert",
        own & _uneven(plan.data, plan.expert),
        lambda look: f"must divide data={look('data'):g}, got {look('expert'):g}",
    )
    yield _Rule(
        "sequence_parallel",
        mixture & (plan.expert > 1) & (plan.tensor > 1) & (plan.sequence_parallel < 1),
        lambda look: "must be 1 where tensor and expert parallelism meet in a mixture, got 0",
    )
    yield _Rule(
        "topk",
        mixture & ((network.topk < 1) | (network.topk > network.experts)),
        lambda look: f"must be between 1 and experts={look('experts'):g}, got {look('topk'):g}",
    )


def _sequence_rules(cases: Cases, own: Array) -> Iterator[_Rule]:
    network, plan, work = cases.network, cases.plan, cases.work
    # A ring cuts each sequence into two pieces a chip, an early and a late one, so that the causal mask is shared out.
    pieces = np.where((plan.context > 1) & (plan.ring > 0), 2.0, 1.0) * plan.context
    cut = pieces * np.where(plan.sequence_parallel > 0, plan.tensor, 1.0)
    yield _Rule(
        "context",
        _uneven(work.sequence, cut),
        lambda look: (
            f"{look('context'):g} x tensor {look('tensor'):g}"
            f"{' x 2 (ring)' if look('context') > 1 and look('ring') else ''} must divide sequence={look('sequence'):g}"
        ),
    )
    exchanged = ~own & (plan.context > 1) & (plan.ring < 1)  # ours gathers keys and values instead
    for name in ("heads", "kv_heads"):
        broken = exchanged & _uneven(getattr(network, name), plan.tensor * plan.context)
        if name == "kv_heads":
            broken = broken & (network.kv_rank < 1) & _uneven(plan.tensor * plan.context, network.kv_heads)
        yield _divided("context", name, broken, ("tensor", "context"))


def _counted(name: str, value: Array) -> _Rule:
    broken = (value < 1) | (np.remainder(value, 1.0) != 0)
    return _Rule(name, broken, lambda look: f"must be 1, 2, 3, ..., got {look(name):g}")


def _divided(field: str, name: str, broken: Array, degrees: tuple[str, ...]) -> _Rule:
    """The product of some degrees must divide the dimension ``name``."""

    def say(look: Look) -> str:
        what = " x ".join(degrees) if len(degrees) > 1 else ""
        return _must_divide(name, look(name), math.prod(look(degree) for degree in degrees), what)

    return _Rule(field, broken, say)


def _uneven(whole: Array, part: Array) -> Array:
    return np.remainder(whole, np.maximum(part, 1.0)) != 0


def _looker(cases: Cases, mask: Array) -> Look:
    """Values of the first case of a mask."""
    shape = np.broadcast_shapes(mask.shape, *(np.shape(v) for part in cases.parts() for v in vars(part).values()))
    first = np.unravel_index(np.argmax(np.broadcast_to(mask, shape)), shape) if shape else ()
    fields = {name: value for part in cases.parts() for name, value in vars(part).items()}
    return lambda name: float(np.broadcast_to(fields[name], shape)[first])


def _must_divide(name: str, whole: float, given: float, what: str = "") -> str:
    return f"{what + ' ' if what else ''}must divide {name}={whole:g}, got {given:g}; legal: {divisors_text(whole)}"


def divisors_text(whole: float) -> str:
    """The divisors of a number, at most ten of them, as a text."""
    found = divisors(int(whole))
    return ", ".join(str(n) for n in found[:10]) + (", ..." if len(found) > 10 else "")


def divisors(whole: int) -> list[int]:
    """All divisors in ascending order."""
    small = [n for n in range(1, int(whole**0.5) + 1) if whole % n == 0]
    return sorted({*small, *(whole // n for n in small)})


def _multiples(given: float, step: float) -> str:
    below = given // step * step
    return f"{below:g} or {below + step:g} would do" if below else f"{step:g} would do"
