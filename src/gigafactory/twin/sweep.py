"""Measured matrix products of a user's machine: a table of shapes and seconds, and the constants that it tells.

A CSV with a header and the columns m, n, k (a result of [m, n] from [m, k] by [k, n]), format (bf16, fp16, fp32, fp8,
mxfp8, nvfp4 ...), and seconds of one product or tflops reached; optionally gpu, as in a table of runs, where it is not
that of the runs. Others are ignored.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gigafactory.errors import UserError
from gigafactory.twin import calibrate
from gigafactory.twin.case import Array, Cases, Network, Plan, Software, Work, stack
from gigafactory.twin.constants import Constant, Constants
from gigafactory.twin.machines import machine_by_name
from gigafactory.twin.operator import Matmul
from gigafactory.twin.price import matmul_seconds, speeds

FORMATS = ("fp32", "fp16", "bf16", "fp8", "mxfp8", "nvfp4", "int8")
FEW = 5  # products that make parts to leave out


@dataclass(frozen=True)
class SweepFit:
    """constants: name -> constant with the fitted value and sigma, only those that the products tell. products: how
    many; before, after: mean error; left_out: of products that the fit had not seen (nan: too few)."""

    constants: dict[str, Constant]
    products: int
    before: float
    after: float
    left_out: float


def fit_sweep(path: Path, constants: Mapping[str, Constant], gpu: str | None) -> SweepFit:
    """Fits the constants of matrix products. gpu: where the table does not say it, as `machine_by_name` takes it.

    Raises UserError with the row and column for what is no such table.
    """
    cases, seconds = read_sweep(path, gpu)
    values = Constants({name: one.value for name, one in constants.items()})
    believed = calibrate.of_one_machine(constants)
    fitted = calibrate.fit(cases, seconds, product_seconds, believed)
    left_out = math.nan
    if len(seconds) >= FEW:
        parts = calibrate.folds(np.arange(len(seconds)))
        predicted = calibrate.leave_out(cases, seconds, product_seconds, believed, parts, full=fitted)
        left_out = float(np.mean(np.abs(predicted / seconds - 1.0)))
    told = set(fitted.touched) - set(fitted.silent)
    return SweepFit(
        constants={name: one for name, one in fitted.update(constants).items() if name in told},
        products=len(seconds),
        before=float(np.mean(np.abs(product_seconds(cases, values) / seconds - 1.0))),
        after=fitted.error,
        left_out=left_out,
    )


def product_seconds(cases: Cases, c: Constants) -> Array:
    """Of one product per case: `sequence` rows of `hidden` numbers by a matrix of `hidden` by `ffn`."""
    product = Matmul("product", "forward", "step", cases.work.sequence, cases.network.ffn, cases.network.hidden)
    return matmul_seconds(product, cases, speeds(cases, c), c)


def read_sweep(path: Path, gpu: str | None) -> tuple[Cases, np.ndarray]:
    """The products as cases for `product_seconds`, and their measured seconds."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as CSV: {error}") from None
    if not rows:
        raise UserError(f"{path}: needs a header and at least one row")
    missing = [name for name in ("m", "n", "k", "format") if name not in rows[0]]
    if missing:
        raise UserError(f"{path}: {missing[0]}: column is missing; needed are m, n, k, format, and seconds or tflops")
    if not {"seconds", "tflops"} & rows[0].keys():
        raise UserError(f"{path}: seconds: column is missing; needed are seconds of one product, or tflops")
    found = [_product(path, line, row, gpu) for line, row in enumerate(rows, start=2)]
    return stack([case for case, _ in found]), np.array([seconds for _, seconds in found])


def _product(path: Path, line: int, row: dict[str, str], gpu: str | None) -> tuple[Cases, float]:
    where = f"{path}: row {line}"
    m, n, k = (_number(where, row, name) for name in ("m", "n", "k"))
    form = (row["format"] or "").strip().lower()
    if form not in FORMATS:
        raise UserError(f"{where}: format: must be one of {', '.join(FORMATS)}, got {row['format']!r}")
    if row.get("seconds"):
        seconds = _number(where, row, "seconds")
    else:
        seconds = 2.0 * m * n * k / (_number(where, row, "tflops") * 1e12)
    name = (row.get("gpu") or gpu or "").strip()
    if not name:
        raise UserError(f"{where}: gpu: the runs are of more than one chip, so each product must name its own")
    try:
        machine = machine_by_name(name, form)
    except UserError as error:
        raise UserError(f"{where}: gpu: {error}") from None
    low = float(form in ("fp8", "mxfp8", "nvfp4", "int8"))
    work = Work(
        sequence=m,
        micro_rows=1.0,
        global_rows=1.0,
        number_bytes=4.0 if form == "fp32" else 2.0,
        low=low,
        block_scaled=float(form in ("mxfp8", "nvfp4")),
        four_bit=float(form == "nvfp4"),
    )
    network = Network(layers=1.0, hidden=k, heads=1.0, kv_heads=1.0, head_dim=k, ffn=n, vocab=1.0)
    return Cases(network, Plan(), work, machine, Software()), seconds


def _number(where: str, row: dict[str, str], name: str) -> float:
    try:
        value = float(row[name])
    except (KeyError, TypeError, ValueError):
        value = math.nan
    if not 0 < value < math.inf:
        raise UserError(f"{where}: {name}: must be a number above 0, got {row.get(name)!r}")
    return value
