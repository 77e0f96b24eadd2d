"""Chips and fabrics of the catalogue as the twin's machine, by catalogue entry or by the name in a table of runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gigafactory.factory.catalog import Chip, Fabric
from gigafactory.factory.cluster import ClusterSection
from gigafactory.twin.case import Machine


def machine_of(
    chip: Chip,
    *,
    low_format: str = "bf16",
    node_chips: float | None = None,
    nic_bits_per_s: float | None = None,
    domain_chips: float | None = None,
    power_cap_w: float | None = None,
    fabric: Fabric | None = None,
    tiers: float = 2.0,
    rails: float | None = None,
    oversubscription: float = 1.0,
) -> Machine:
    """The chip in its servers and network; what is not given is the chip's reference infrastructure.

    low_format: of the matmuls (fp32, bf16, fp16, fp8, mxfp8, nvfp4, int8; a suffix as in "fp8-cs" is ignored); one
    that the chip lacks is a UserError. nic_bits_per_s: per chip.
    """
    raise NotImplementedError


def machine_by_name(
    name: str,
    low_format: str = "bf16",
    *,
    nic_bits_per_s: float | None = None,
    power_cap_w: float | None = None,
) -> Machine:
    """The machine that a table of runs names ("H100-SXM5-80GB", "NVIDIA H100 80GB", "GB200"), in the reference
    infrastructure of its chip; an unknown name is a UserError with near names."""
    raise NotImplementedError


def chip_by_name(name: str) -> Chip:
    """The catalogue's chip for a name as tables of runs, drivers or people write it; else a UserError."""
    raise NotImplementedError


def cluster_machines(cluster: ClusterSection, low_format: str = "bf16") -> list[Machine]:
    """One machine per kind of chip of a factory file's cluster section, in its order."""
    raise NotImplementedError


def measured_machine(
    *,
    flops: float,
    memory_bytes: float,
    memory_bytes_per_s: float,
    link_bytes_per_s: float,
    devices: float = 1.0,
    cores: float = 1.0,
) -> Machine:
    """A machine known by measuring it alone (generation 0): a CPU whose ``devices`` share its memory.

    flops, memory_bytes and memory_bytes_per_s: of one device while all of them compute. link_bytes_per_s: what one
    device sends to another.
    """
    raise NotImplementedError


def slowest(machines: Sequence[Machine]) -> Machine:
    """The machine that sets the pace of a job over several kinds with equal work: the least of every rate and size."""
    raise NotImplementedError


@dataclass(frozen=True)
class Balance:
    """Work of a step over replicas on several kinds of chips.

    even_s: step with equal work, set by kind ``pace``. balanced_s: step with whole micro-batches dealt by speed;
    micro_batches: of one replica per kind, the larger number where replicas of a kind differ by one. gain: share of
    even_s that balancing saves.
    """

    pace: int
    even_s: float
    balanced_s: float
    micro_batches: tuple[int, ...]

    @property
    def gain(self) -> float:
        return 1.0 - self.balanced_s / self.even_s


def balanced(
    micro_s: Sequence[float], replicas: Sequence[int], micro_batches: int, fixed_s: Sequence[float] | None = None
) -> Balance:
    """Deal a step's micro-batches (``micro_batches`` per replica when even) so that the last replica ends first.

    micro_s: seconds of one micro-batch on each kind; fixed_s: of what does not grow with them (default 0).
    """
    raise NotImplementedError
