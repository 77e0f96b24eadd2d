"""Seconds of one operator on one chip: matrix products, attention and element-wise work.

A product runs at the efficiency that its chips' generation and number format reach on large shapes, less what its
shape loses: the last wave of tiles, short inner dimensions, thin matrices. Nothing runs below its roofline.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gigafactory.twin.case import Array, Cases
from gigafactory.twin.constants import Constants
from gigafactory.twin.operator import Attention, Matmul, Traffic

TILE = 128.0 * 256.0  # numbers of a result that one multiprocessor works on at a time


CEILING = 0.95
"""Most that products reach of a peak, however much power there is."""


@dataclass(frozen=True)
class Speeds:
    """What a chip reaches: FLOP/s of 16-bit (half) and of the work's own products (low) on large shapes, of the
    attention kernel, bytes/s of its memory; wave_numbers: results that all multiprocessors work on at a time."""

    half_flops: Array
    low_flops: Array
    attention_flops: Array
    hbm_bytes_per_s: Array
    wave_numbers: Array


def by_generation(generation: Array, ampere: float, hopper: float, blackwell: float) -> Array:
    """The number of a chip's generation."""
    return np.where(generation >= 10, blackwell, np.where(generation >= 9, hopper, ampere))


def speeds(cases: Cases, c: Constants) -> Speeds:
    """Speeds that the chips of the cases reach.

    Under load the power that a chip may draw sets its clock, beside the reference chip of its generation: sustained
    FLOP/s are those of the reference for as many multiprocessors, times a power of the power.
    """
    machine, work = cases.machine, cases.work
    age = machine.generation
    silicon = np.where(machine.reference_flops > 0, machine.reference_flops, machine.flops)
    drawn: Array = np.where(machine.reference_flops > 0, machine.reference_power, machine.power_share)
    sustained = silicon * drawn**c.power_exponent
    half = sustained * by_generation(age, c.matmul_ampere, c.matmul_hopper, c.matmul_blackwell)
    half = np.minimum(half, CEILING * machine.flops)
    share = by_generation(age, c.matmul_ampere, c.low_hopper, c.low_blackwell)
    scaled = np.where(age >= 10, c.block_scaled, c.block_scaled_hopper)
    share = share * np.where(work.block_scaled > 0, scaled, 1.0) * np.where(work.four_bit > 0, c.four_bit, 1.0)
    low = np.minimum(sustained * (machine.low_flops / machine.flops) * share, CEILING * machine.low_flops)
    core = by_generation(age, c.flash_ampere, c.flash_hopper, c.flash_blackwell)
    core = core * np.where((cases.software.flash < 2) & (age >= 9), c.flash_untuned, 1.0)
    core = core * np.where(age > 10, c.flash_ultra, 1.0)  # twice the exponentials per clock
    return Speeds(
        half_flops=half,
        low_flops=np.where(work.low > 0, low, half),
        attention_flops=np.minimum(sustained * core, CEILING * machine.flops),
        hbm_bytes_per_s=machine.hbm_bytes_per_s * c.hbm_share,
        wave_numbers=machine.units * TILE,
    )


def matmul_seconds(op: Matmul, cases: Cases, at: Speeds, c: Constants) -> Array:
    """All executions of a product in one micro-batch and layer."""
    work = cases.work
    flops = at.low_flops if op.low else at.half_flops
    edge = c.grouped_edge if op.grouped else c.edge
    lost = 1.0 + c.wave * at.wave_numbers / (op.batch * op.m * op.n) + edge / np.minimum(op.m, op.n) + c.depth / op.k
    computing = 2.0 * op.m * op.n * op.k / flops * lost
    if op.grouped:
        computing = computing * np.where(cases.software.grouped > 0, 1.0, c.grouped)
    number = np.where(work.low > 0, 1.0, work.number_bytes) if op.low else work.number_bytes
    moving = ((op.m + op.n) * op.k * number + op.m * op.n * work.number_bytes) / at.hbm_bytes_per_s
    return np.maximum(computing, moving) * (op.batch * op.count)


def attention_seconds(op: Attention, cases: Cases, at: Speeds, c: Constants) -> Array:
    """All executions of an attention kernel: long rows of keys amortise its start, small heads feed it badly."""
    lost = (1.0 + c.flash_ramp / op.keys) * (128.0 / np.minimum(op.qk_dim, 128.0)) ** c.flash_small_heads
    slower = 1.0 if op.phase != "backward" else c.flash_backward
    faster = np.where(cases.software.low_attention > 0, c.low_attention, 1.0)
    return op.flops / (at.attention_flops * faster) * lost * slower


def traffic_seconds(op: Traffic, at: Speeds, c: Constants) -> Array:
    """All executions of element-wise work; each launch leaves the chip idle for a moment."""
    passes = c[op.passes] if op.passes else 1.0
    return (passes * op.bytes / at.hbm_bytes_per_s + op.kernels * c.kernel_gap_s) * op.count
