"""Chips and fabrics of the catalogue as the twin's machine, by catalogue entry or by the name in a table of runs."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from difflib import get_close_matches
from functools import lru_cache

from gigafactory.errors import UserError
from gigafactory.factory import catalog
from gigafactory.factory.catalog import Chip, Fabric
from gigafactory.factory.cluster import ClusterSection
from gigafactory.twin.case import Machine

_PEAKS = {
    "fp32": (0.5, "bf16"),  # as TF32 on the tensor cores
    "tf32": (0.5, "bf16"),
    "bf16": (1.0, "bf16"),
    "fp16": (1.0, "bf16"),
    "fp8": (1.0, "fp8"),
    "mxfp8": (1.0, "fp8"),
    "nvfp4": (1.0, "fp4"),
    "fp4": (1.0, "fp4"),
    "int8": (1.0, "int8"),
}
_MAKERS = {"nvidia", "amd", "google", "aws", "instinct"}
_FORMS = {"sxm", "sxm2", "sxm3", "sxm4", "sxm5", "sxm6", "hgx", "dgx", "nvl72", "hbm2", "hbm2e", "hbm3", "hbm3e"}
_SAYS_NOTHING = _MAKERS | _FORMS | {"gpu", "gpus", "tensor", "core", "nvlink", "8x", "x8", "ac"}


REFERENCE_CHIPS = {8: "a100-sxm", 9: "h100-sxm", 10: "b200"}
"""Chip of each generation whose sustained share of the peak the fitted constants give."""


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
    that the chip lacks is a UserError. nic_bits_per_s: per chip. power_cap_w above the rated power changes nothing.
    rails: planes of the fabric, one per chip of a server where not given.
    """
    fabric = fabric or catalog.fabric(chip.fabric or "infiniband-ndr")
    nic = nic_bits_per_s or float(chip.nic_bits_per_s or fabric.link_bits_per_s)
    servers_chips = node_chips or float(chip.node_chips)
    rated = float(chip.rated_power_w or chip.power_w or 0.0)
    limit = min(power_cap_w or float(chip.power_w or 0.0), rated or math.inf)
    planes = min(rails or servers_chips, servers_chips)
    links = servers_chips * nic / float(fabric.link_bits_per_s)
    ports = float(fabric.switch_ports) if fabric.switch_ports else 64.0
    down = ports if tiers <= 1 else ports * oversubscription / (1.0 + oversubscription)
    return Machine(
        generation=float(chip.generation),
        flops=float(chip.peak_bf16_flops),
        low_flops=_low_flops(chip, low_format),
        units=float(chip.units),
        hbm_bytes=float(chip.hbm_bytes),
        hbm_bytes_per_s=float(chip.hbm_bytes_per_s),
        domain_chips=domain_chips or float(chip.scaleup_chips),
        domain_bytes_per_s=float(chip.scaleup_bytes_per_s),
        nic_bytes_per_s=nic / 8.0,
        node_chips=servers_chips,
        **_reference(chip, limit),
        power_share=limit / rated if rated else 1.0,
        throughput_share=float(fabric.throughput_share) if fabric.throughput_share else 1.0,
        tiers=tiers,
        rails=planes,
        oversubscription=oversubscription,
        leaf_nodes=max(float(math.floor(down * planes / links)), 1.0),
        **({"host_bytes_per_s": float(chip.host_bytes_per_s)} if chip.host_bytes_per_s else {}),
    )


def _reference(chip: Chip, limit_w: float | None) -> dict[str, float]:
    """Peak and power beside the reference chip of an NVIDIA generation; other chips stand for themselves."""
    name = REFERENCE_CHIPS.get(int(float(chip.generation)))
    if chip.vendor != "NVIDIA" or name is None or not limit_w:
        return {}
    other = catalog.chip(name)
    assert other.power_w is not None
    return {
        "reference_flops": float(other.peak_bf16_flops) * float(chip.units) / float(other.units),
        "reference_power": limit_w / float(other.power_w),
    }


def _low_flops(chip: Chip, low_format: str) -> float:
    name = re.split(r"[^a-z0-9]", low_format.lower())[0]
    if name not in _PEAKS:
        raise UserError(f"no matmul format {low_format!r}; {catalog.suggest(name, list(_PEAKS))}")
    share, peak = _PEAKS[name]
    return share * chip.peak_flops(peak)


def machine_by_name(
    name: str,
    low_format: str = "bf16",
    *,
    nic_bits_per_s: float | None = None,
    power_cap_w: float | None = None,
) -> Machine:
    """The machine that a table of runs names ("H100-SXM5-80GB", "NVIDIA H100 80GB", "GB200", "H100 500W"), in the
    reference infrastructure of its chip; an unknown name is a UserError with near names."""
    limit = re.search(r"(\d+)\s*w\b", name.lower())
    cap = power_cap_w or (float(limit[1]) if limit else None)
    return machine_of(chip_by_name(name), low_format=low_format, nic_bits_per_s=nic_bits_per_s, power_cap_w=cap)


@lru_cache(maxsize=1024)  # tables of runs ask for a few names many times
def chip_by_name(name: str) -> Chip:
    """The catalogue's chip for a name as tables of runs, drivers or people write it; else a UserError.

    Of chips that share a name (A100 of 40 and of 80 GB) it is the one of the memory that the name says, else the one
    whose run_names hold the bare name.
    """
    family, memory_bytes = _parsed(name)
    found: dict[str, Chip] = {}
    names: list[str] = []
    for chip in catalog.chips().values():
        known = (chip.name, chip.title.split("(")[0], *chip.device_names, *chip.run_names)
        names += [chip.name, *(each.lower() for each in chip.run_names)]
        if family and family in {_parsed(each)[0] for each in known}:
            found[chip.name] = chip
    if not found:
        near = get_close_matches(name.lower(), dict.fromkeys(names), n=3, cutoff=0.5)
        words = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known: {', '.join(catalog.chips())}"
        raise UserError(f"gpu: no chip {name!r} in the catalogue; {words}")
    if memory_bytes:
        return min(found.values(), key=lambda chip: abs(math.log(float(chip.hbm_bytes) / memory_bytes)))
    bare = [chip for chip in found.values() if family in {each.lower() for each in chip.run_names}]
    return (bare or list(found.values()))[0]


def caution(names: Sequence[str]) -> str | None:
    """What to say of a prediction for chips that no measured run of the fit had; None where there is nothing to say."""
    unseen = [name for name in names if catalog.chip(name).vendor != "NVIDIA"]
    if not unseen:
        return None
    return (
        f"no measured run of {' or '.join(unseen)} is behind the constants: they are those of NVIDIA's chips, and the"
        " interval is too narrow until you calibrate (twin.constants)"
    )


def _parsed(name: str) -> tuple[str, float | None]:
    """What is left of a name without maker, form factor, memory and power; and the memory in bytes, if said."""
    text = name.lower()
    memory = re.search(r"(\d+)\s*gi?b\b", text)
    text = re.sub(r"\d+\s*(gi?b|w)\b|^\d+\s*x\s*", " ", text)
    words = [word for word in re.findall(r"[a-z0-9]+", text) if word not in _SAYS_NOTHING]
    return "".join(words), float(memory[1]) * 1e9 if memory else None


def cluster_machines(cluster: ClusterSection, low_format: str = "bf16") -> list[Machine]:
    """One machine per kind of chip of a factory file's cluster section, in its order."""
    node, network = cluster.node, cluster.fabric
    return [
        machine_of(
            group.chip,
            low_format=low_format,
            node_chips=float(node.chips),
            nic_bits_per_s=float(network.fabric.link_bits_per_s) * node.nics / node.chips,
            domain_chips=network.scaleup_chips,
            power_cap_w=group.power_cap_w,
            fabric=network.fabric,
            tiers=float(network.tiers),
            rails=float(network.rails),
            oversubscription=network.oversubscription,
        )
        for group in cluster.chips
    ]


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
    return Machine(
        generation=0.0,
        flops=flops,
        low_flops=flops,
        units=cores,
        hbm_bytes=memory_bytes,
        hbm_bytes_per_s=memory_bytes_per_s,
        domain_chips=devices,
        domain_bytes_per_s=link_bytes_per_s,
        nic_bytes_per_s=link_bytes_per_s,
        node_chips=devices,
        host_bytes_per_s=memory_bytes_per_s,
    )


def slowest(machines: Sequence[Machine]) -> Machine:
    """The machine that sets the pace of a job over several kinds with equal work.

    The least of every rate and size; of power_share the one of the chip with the least 16-bit FLOP/s under its limit.
    """
    first = min(machines, key=lambda machine: machine.flops * machine.power_share)
    least = {
        name: min(getattr(machine, name) for machine in machines)
        for name in ("hbm_bytes", "hbm_bytes_per_s", "domain_chips", "domain_bytes_per_s", "nic_bytes_per_s")
    }
    return dataclasses.replace(first, **least)
