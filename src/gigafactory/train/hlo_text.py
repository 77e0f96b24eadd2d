"""Reads HLO text: the computations of a module, and which instructions run how often (no JAX).

The text is one module as XLA prints it: ``compiled.as_text()``, or a file of ``--xla_dump_to``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_HEADER = re.compile(r"^\s*(ENTRY\s+)?%?([\w.\-]+)\s*(?:\(.*\)\s*->.*)?\{\s*$")
_ASSIGN = re.compile(r"^\s*(ROOT\s+)?%?([\w.\-]+)\s*=\s*(.*)$")
_LEAF = re.compile(r"([a-z]\w*)\[([\d,<=?]*)\]")
_OPCODE = re.compile(r"\s*([\w\-]+)\(")
_COMMENT = re.compile(r"/\*.*?\*/")
_TRIPS = re.compile(r'known_trip_count"?\s*:\s*\{\s*"?n"?\s*:\s*"?(\d+)')
_OP_NAME = re.compile(r'op_name="((?:[^"\\]|\\.)*)"')
_CALLED = re.compile(r"\b(body|condition|to_apply|calls|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_PARTITIONS = re.compile(r"\bnum_partitions=(\d+)")
_SAME_VALUE = {"copy", "convert", "bitcast", "reshape", "optimization-barrier"}


class HloError(ValueError):
    """The text is not a module that can be read, or does not fit the mesh."""


@dataclass(frozen=True)
class Shape:
    """One array: element type as XLA writes it (f32, bf16, s32, pred) and dimensions."""

    dtype: str
    dims: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        return -(-self.size * bits_per_element(self.dtype) // 8)


@dataclass(frozen=True)
class Instruction:
    """One line of a computation. ``shapes`` are the arrays of the result, a tuple's leaves in order."""

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    attributes: str

    @property
    def op_name(self) -> str:
        """Where in the source program it comes from: JAX's path of transformations and scopes."""
        found = _OP_NAME.search(self.attributes)
        return found.group(1).replace("\\'", "'") if found else ""


@dataclass
class Computation:
    """A function of the module: instructions by name, in order."""

    name: str
    instructions: dict[str, Instruction] = field(default_factory=dict)
    root: str = ""


@dataclass
class Module:
    """All computations of a program; ``entry`` names the one that runs."""

    computations: dict[str, Computation]
    entry: str
    partitions: int


@dataclass(frozen=True)
class Site:
    """An instruction that runs: ``count`` times per execution of the module.

    ``conditional`` is set below a branch that may not be taken; then count is what happens if it is.
    """

    instruction: Instruction
    computation: Computation
    count: int
    conditional: bool


def bits_per_element(dtype: str) -> int:
    """Width of an XLA element type (pred is a byte); HloError for an unknown one."""
    if dtype in ("pred", "token", "opaque"):
        return 8 if dtype == "pred" else 0
    found = re.match(r"[a-z]+?(\d+)", dtype)
    if found is None:
        raise HloError(f"unknown element type {dtype!r}")
    return int(found.group(1))


def parse_module(text: str) -> Module:
    """The computations of HLO text. Raises HloError when there is no entry computation."""
    computations: dict[str, Computation] = {}
    entry, current = "", None
    for line in text.splitlines():
        if current is None:
            header = _HEADER.match(line)
            if header:
                current = Computation(header.group(2))
                computations[current.name] = current
                entry = current.name if header.group(1) else entry
        elif line.strip() == "}":
            current = None
        else:
            assign = _ASSIGN.match(line)
            if assign:
                instruction = _parse_instruction(assign.group(2), assign.group(3))
                current.instructions[instruction.name] = instruction
                if assign.group(1) or not current.root:
                    current.root = instruction.name
    if not entry:
        raise HloError("no ENTRY computation: this is not the text of an HLO module")
    partitions = _PARTITIONS.search(text[: text.find("\n")])
    return Module(computations, entry, int(partitions.group(1)) if partitions else 1)


def walk(module: Module) -> Iterator[Site]:
    """Every instruction that runs, with how often. A loop whose number of turns is unknown counts as one turn."""
    yield from _walk(module, module.entry, 1, False)


def _parse_instruction(name: str, rest: str) -> Instruction:
    rest = _COMMENT.sub("", rest)
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.find(" ")
    opcode = _OPCODE.match(rest, end)
    if end <= 0 or opcode is None:
        raise HloError(f"cannot read instruction {name!r}: {rest[:80]!r}")
    close = _closing(rest, opcode.end() - 1)
    shapes = tuple(
        Shape(dtype, tuple(int(re.sub(r"\D", "", d)) for d in dims.split(",") if d))
        for dtype, dims in _LEAF.findall(re.sub(r"\{[^}]*\}", "", rest[:end]))
    )
    inside = rest[opcode.end() : close]
    operands = tuple(_split_operands(inside)) if opcode.group(1) != "constant" else (inside.strip(),)
    return Instruction(name, opcode.group(1), shapes, operands, rest[close + 1 :])


def _closing(text: str, start: int) -> int:
    """Index of the parenthesis that closes the one at ``start``."""
    depth = 0
    for found in re.compile(r"[()]").finditer(text, start):
        depth += 1 if found.group() == "(" else -1
        if depth == 0:
            return found.start()
    raise HloError(f"unbalanced parentheses in {text[:80]!r}")


def _split_operands(text: str) -> Iterator[str]:
    """Names of operands, printed with or without their shapes."""
    depth, start = 0, 0
    for index, char in enumerate(text + ","):
        if char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif char == "," and depth == 0:
            words = text[start:index].split()
            if words:
                yield words[-1].lstrip("%")
            start = index + 1


def _walk(module: Module, name: str, count: int, conditional: bool) -> Iterator[Site]:
    computation = module.computations.get(name)
    if computation is None:
        raise HloError(f"computation {name!r} is called but not in the text")
    for instruction in computation.instructions.values():
        yield Site(instruction, computation, count, conditional)
        called = dict(_CALLED.findall(instruction.attributes))
        if instruction.opcode == "while":
            turns = trip_count(module, computation, instruction)
            trips = 1 if turns is None else turns
            if trips:
                yield from _walk(module, called["body"], count * trips, conditional)
            yield from _walk(module, called["condition"], count * (trips + 1), conditional)
        elif instruction.opcode == "conditional":
            branches = _BRANCHES.search(instruction.attributes)
            names = (
                [branch.strip().lstrip("%") for branch in branches.group(1).split(",")]
                if branches
                else [called["true_computation"], called["false_computation"]]
            )
            for branch in names:
                yield from _walk(module, branch, count, True)
        elif "calls" in called:
            yield from _walk(module, called["calls"], count, conditional)
        elif instruction.opcode == "call":
            yield from _walk(module, called["to_apply"], count, conditional)


def trip_count(module: Module, computation: Computation, loop: Instruction) -> int | None:
    """Turns of a while loop: XLA's annotation, or read from a counter, its bound and its step. None if neither."""
    annotated = _TRIPS.search(loop.attributes)
    if annotated:
        return int(annotated.group(1))
    called = dict(_CALLED.findall(loop.attributes))
    condition, body = module.computations[called["condition"]], module.computations[called["body"]]
    test = condition.instructions[condition.root]
    direction = re.search(r"direction=(\w+)", test.attributes)
    if test.opcode != "compare" or direction is None or direction.group(1) not in ("LT", "GT"):
        return None
    small, large = test.operands if direction.group(1) == "LT" else reversed(test.operands)
    counter = _element_of_parameter(condition, small)
    limit = _constant(condition, large)
    if limit is None and (position := _element_of_parameter(condition, large)) is not None:
        limit = _unchanged_element(computation, loop, body, position)
    if counter is None or limit is None:
        return None
    start = _constant_element(computation, loop, counter)
    step = _increment(body, counter)
    return max(0, -(-(limit - start) // step)) if start is not None and step else None


def _strip(computation: Computation, name: str) -> Instruction | None:
    """The instruction behind copies and conversions."""
    instruction = computation.instructions.get(name)
    while instruction is not None and instruction.opcode in _SAME_VALUE:
        instruction = computation.instructions.get(instruction.operands[0])
    return instruction


def _constant(computation: Computation, name: str) -> int | None:
    instruction = _strip(computation, name)
    if instruction is None:
        return None
    if instruction.opcode == "constant" and re.fullmatch(r"-?\d+", instruction.operands[0]):
        return int(instruction.operands[0])
    if instruction.opcode == "get-tuple-element":
        source = _strip(computation, instruction.operands[0])
        if source is not None and source.opcode == "tuple":
            return _constant(computation, source.operands[_index(instruction)])
    return None


def _index(instruction: Instruction) -> int:
    found = re.search(r"\bindex=(\d+)", instruction.attributes)
    return int(found.group(1)) if found else -1


def _element_of_parameter(computation: Computation, name: str) -> int | None:
    """Position in the loop's state, if the value is an element of it."""
    instruction = _strip(computation, name)
    if instruction is None or instruction.opcode != "get-tuple-element":
        return None
    source = _strip(computation, instruction.operands[0])
    return _index(instruction) if source is not None and source.opcode == "parameter" else None


def _constant_element(computation: Computation, loop: Instruction, position: int) -> int | None:
    """Constant that an element of the loop's state starts as."""
    state = _strip(computation, loop.operands[0])
    return _constant(computation, state.operands[position]) if state is not None and state.opcode == "tuple" else None


def _unchanged_element(computation: Computation, loop: Instruction, body: Computation, position: int) -> int | None:
    """Constant of an element that the body hands on as it is."""
    result = body.instructions[body.root]
    same = result.opcode == "tuple" and _element_of_parameter(body, result.operands[position]) == position
    return _constant_element(computation, loop, position) if same else None


def _increment(body: Computation, position: int) -> int | None:
    """What one turn adds to an element of the state."""
    result = body.instructions[body.root]
    add = _strip(body, result.operands[position]) if result.opcode == "tuple" else None
    if add is None or add.opcode != "add":
        return None
    for counter, step in (add.operands, add.operands[::-1]):
        if _element_of_parameter(body, counter) == position:
            return _constant(body, step)
    return None
