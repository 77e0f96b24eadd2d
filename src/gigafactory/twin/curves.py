"""Measured curves of collectives (nccl-tests as CSV): fits the constants of the links to them, and says how well."""

from __future__ import annotations

import csv
import dataclasses
import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gigafactory.errors import UserError
from gigafactory.twin import calibrate
from gigafactory.twin.case import Cases, Machine, Network, Plan, Software, Work, take
from gigafactory.twin.collectives import message_seconds
from gigafactory.twin.constants import Constants, shipped
from gigafactory.twin.machines import machine_by_name
from gigafactory.twin.operator import Collective, Message

LINKS = (
    "scaleup_share",
    "scaleout_share",
    "switch_bytes_per_s",
    "ramp_s",
    "scaleup_hop_s",
    "scaleout_hop_s",
    "tier_hop_s",
    "ring_members",
)
SMALL_BYTES = 2.0**20  # below it latency is measured, and errors are not counted
COLUMNS = ("collective", "system", "n_gpus", "n_nodes", "size_bytes", "time_us")
KINDS: dict[str, Collective] = {
    "allgather": "all-gather",
    "reducescatter": "reduce-scatter",
    "allreduce": "all-reduce",
    "alltoall": "all-to-all",
    "sendrecv": "permute",
    "permute": "permute",
}


@dataclass(frozen=True)
class Curves:
    """Points of curves: systems, sources, kinds: text per point; size_bytes, chips, seconds: [N]; machine: of [N]."""

    systems: list[str]
    sources: list[str]
    kinds: list[Collective]
    size_bytes: np.ndarray
    chips: np.ndarray
    seconds: np.ndarray
    machine: Machine

    @property
    def counted(self) -> np.ndarray:
        """[N] whether a point's error counts."""
        return self.size_bytes >= SMALL_BYTES

    def predicted(self, c: Constants) -> np.ndarray:
        """[..., N] seconds, with what the program that measured adds to each launch; c may hold arrays [..., 1]."""
        order = np.argsort(self.kinds, kind="stable")
        parts = []
        for kind in sorted(set(self.kinds)):
            at = np.flatnonzero(np.array(self.kinds) == kind)
            message = Message(kind, "forward", "step", kind, "data", self.size_bytes[at], self.chips[at], 1.0)
            parts.append(message_seconds(message, take(self.machine, at), c))
        seconds = np.concatenate(parts, axis=-1)[..., np.argsort(order)]
        return seconds + self._launch_s(seconds)

    def _launch_s(self, seconds: np.ndarray) -> np.ndarray:
        """[..., N] of each point's source: what its small messages in one domain take beyond the model (0 at least)."""
        launch = np.zeros_like(seconds)
        small = ~self.counted & (self.chips <= self.machine.domain_chips)
        for source in set(self.sources):
            at = np.array(self.sources) == source
            if np.any(at & small):
                beyond = np.median((self.seconds - seconds)[..., at & small], axis=-1, keepdims=True)
                launch[..., at] = np.maximum(beyond, 0.0)
        return launch


@dataclass(frozen=True)
class CurveFit:
    """constants: name -> fitted value, only those that the curves can tell. points: used (of at least 1 MB).
    median_error, max_error: |predicted / measured - 1| over them. rows: one line per curve for a person."""

    constants: dict[str, float]
    points: int
    median_error: float
    max_error: float
    rows: list[str]


def fit_curves(path: Path, c: Constants) -> CurveFit:
    """Constants of the links from a CSV as `read_curves` takes it; c: where the fit starts and is held to.

    The program that measured adds the host's work to each launch (from PyTorch some 20 us): what small messages inside
    a domain take beyond the model, in the median of a source's curves, is counted as that and not as the links'.
    """
    curves = read_curves(path)
    constants = {name: dataclasses.replace(one, value=c[name], prior=c[name]) for name, one in shipped().items()}
    links = {name: constants[name] for name in LINKS}
    run = Cases(
        Network(1, 1, 1, 1, 1, 1, 1), Plan(), Work(1, 1, 1), curves.machine, Software()
    )  # only its machine counts
    fitted = calibrate.fit(run, curves.seconds, lambda _, tried: curves.predicted(tried), links)
    told = [name for name in LINKS if name in fitted.touched and name not in fitted.silent]
    error = np.abs(fitted.predicted / curves.seconds - 1.0)
    counted = curves.counted
    rows = []
    for system in dict.fromkeys(curves.systems):
        own = error[counted & np.array([each == system for each in curves.systems])]
        if len(own):
            rows.append(
                f"{system}: {len(own)} points, median {100 * np.median(own):.0f} %, max {100 * own.max():.0f} %"
            )
    return CurveFit(
        constants={name: fitted.constants[name] for name in told},
        points=int(counted.sum()),
        median_error=float(np.median(error[counted])),
        max_error=float(error[counted].max()),
        rows=rows,
    )


def read_curves(path: Path) -> Curves:
    """Points of a CSV with the columns COLUMNS and optionally gpu and source; others are ignored.

    system names the chip and may say "8x400G" for the cards of a node; gpu, where it is given, names the chip instead.
    size_bytes: as nccl-tests counts it, the whole array. Raises UserError with the row and column for what is no such
    table.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as CSV: {error}") from None
    if not rows:
        raise UserError(f"{path}: needs a header and at least one row")
    missing = [name for name in COLUMNS if name not in rows[0]]
    if missing:
        raise UserError(f"{path}: {missing[0]}: column is missing; needed are {', '.join(COLUMNS)}")
    points = [_point(f"{path}: row {line}", row) for line, row in enumerate(rows, start=2)]
    if all(point.size_bytes < SMALL_BYTES for point in points):
        raise UserError(f"{path}: size_bytes: needs messages of {SMALL_BYTES:.0f} bytes or more")
    fields = vars(points[0].machine)
    return Curves(
        systems=[point.system for point in points],
        sources=[point.source for point in points],
        kinds=[point.kind for point in points],
        size_bytes=np.array([point.size_bytes for point in points]),
        chips=np.array([point.chips for point in points]),
        seconds=np.array([point.seconds for point in points]),
        machine=Machine(**{name: np.array([getattr(point.machine, name) for point in points]) for name in fields}),
    )


@dataclass(frozen=True)
class _Point:
    system: str
    source: str
    kind: Collective
    size_bytes: float
    chips: float
    seconds: float
    machine: Machine


def _point(where: str, row: dict[str, str]) -> _Point:
    kind = re.sub(r"[^a-z]", "", (row["collective"] or "").lower())
    if kind not in KINDS:
        raise UserError(f"{where}: collective: must be one of {', '.join(KINDS)}, got {row['collective']!r}")
    chips, nodes, size_bytes, time_us = (_number(where, name, row[name]) for name in COLUMNS[2:])
    if chips < 2 or chips % nodes:
        raise UserError(f"{where}: n_gpus: must be at least 2 and the same on each node, got {chips:g} on {nodes:g}")
    machine = _machine(where, row, chips / nodes)
    return _Point(row["system"], row.get("source") or "", KINDS[kind], size_bytes, chips, time_us * 1e-6, machine)


def _machine(where: str, row: dict[str, str], node_chips: float) -> Machine:
    """Of the first word of the system that names a chip; nodes and cards as the row says."""
    system = row["system"] or ""
    names = [row["gpu"]] if row.get("gpu") else re.findall(r"[A-Za-z]+\d+\w*", system) or [system]
    cards = re.search(r"(\d+)\s*x\s*(\d+)\s*G", system, re.IGNORECASE)
    nic_bits_per_s = int(cards[1]) * int(cards[2]) * 1e9 / node_chips if cards else None
    problems = []
    for name in names:
        try:
            machine = machine_by_name(name, nic_bits_per_s=nic_bits_per_s)
        except UserError as error:
            problems.append(str(error).removeprefix("gpu: "))
        else:
            return dataclasses.replace(machine, node_chips=node_chips)
    raise UserError(f"{where}: {'gpu' if row.get('gpu') else 'system'}: {problems[0]}")


def _number(where: str, name: str, text: str | None) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise UserError(f"{where}: {name}: must be a number above 0, got {text!r}")
    return value
