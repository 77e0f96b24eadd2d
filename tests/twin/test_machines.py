"""Machines of the catalogue under the names that people use, in their servers and networks."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from gigafactory.errors import UserError
from gigafactory.factory import catalog
from gigafactory.factory.cluster import ClusterSection
from gigafactory.twin.machines import (
    chip_by_name,
    cluster_machines,
    machine_by_name,
    machine_of,
    measured_machine,
    slowest,
)

RUNS = Path(__file__).parents[3] / "shared" / "data" / "published_runs.csv"


@pytest.mark.parametrize(
    ("name", "chip"),
    [
        ("A100-SXM", "a100-sxm"),
        ("A100-SXM-40GB", "a100-sxm-40gb"),
        ("A100-SXM-80GB", "a100-sxm"),
        ("A100 80GB", "a100-sxm"),
        ("NVIDIA A100-SXM4-40GB", "a100-sxm-40gb"),
        ("H100-SXM5-80GB", "h100-sxm"),
        ("H100", "h100-sxm"),
        ("h100 sxm", "h100-sxm"),
        ("NVIDIA H100 80GB", "h100-sxm"),
        ("DGX H100", "h100-sxm"),
        ("8xH100", "h100-sxm"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("H100-96GB-HBM2e-500W", "h100-sxm-96gb"),
        ("H200-SXM-141GB", "h200-sxm"),
        ("B200-SXM", "b200"),
        ("HGX B200 192GB", "b200"),
        ("B300-SXM", "b300"),
        ("GB200-NVL72", "gb200-nvl72"),
        ("GB200", "gb200-nvl72"),
        ("gb300", "gb300-nvl72"),
        ("AMD Instinct MI300X", "mi300x"),
    ],
)
def test_names_that_people_write(name: str, chip: str) -> None:
    assert chip_by_name(name).name == chip


@pytest.mark.parametrize("chip", catalog.chips().values(), ids=lambda chip: chip.name)
def test_each_chip_is_found_under_all_its_names_and_makes_a_machine(chip: catalog.Chip) -> None:
    for name in (chip.name, *chip.device_names, *chip.run_names):
        assert chip_by_name(name).name == chip.name, name
    machine = machine_of(chip)
    assert all(value > 0 for name, value in vars(machine).items() if name != "reference_flops")
    assert 0 < machine.power_share <= 1


@pytest.mark.skipif(not RUNS.exists(), reason="the table of published runs is not on this machine")
def test_each_machine_of_the_published_runs_is_known_in_its_format() -> None:
    with RUNS.open(encoding="utf-8") as file:
        pairs = {(row["gpu"], row["precision"]) for row in csv.DictReader(file)}
    for name, precision in pairs:
        assert machine_by_name(name, precision).low_flops > 1e14


def test_an_unknown_name_is_a_user_error_with_what_is_near() -> None:
    with pytest.raises(UserError, match=r"no chip 'GB2000' in the catalogue; did you mean .*'gb200-nvl72'"):
        machine_by_name("GB2000")
    with pytest.raises(UserError, match="known: a100-sxm-40gb, "):
        machine_by_name("")
    with pytest.raises(UserError, match="no matmul format 'bf61'; did you mean 'bf16'"):
        machine_by_name("H100", "bf61")
    with pytest.raises(UserError, match="chip a100-sxm: no peak for 'fp8'"):
        machine_by_name("A100", "fp8")


def test_the_format_picks_the_peak() -> None:
    peaks = {name: machine_by_name("GB200", name).low_flops for name in ("fp32", "bf16", "fp8-cs", "mxfp8", "NVFP4")}
    assert peaks == {"fp32": 1.25e15, "bf16": 2.5e15, "fp8-cs": 5e15, "mxfp8": 5e15, "NVFP4": 1e16}
    assert machine_by_name("GB200", "fp8").flops == 2.5e15


def test_reference_servers() -> None:
    """As in NVIDIA's reference infrastructure table: A100 8 x 200G, H100 8 x 400G, B300 8 x 800G, GB200 4 per tray."""

    def facts(name: str) -> tuple[float, float, float]:
        machine = machine_by_name(name)
        return machine.nic_bytes_per_s * 8, machine.node_chips, machine.domain_chips

    assert facts("A100") == (200e9, 8, 8)
    assert facts("H100") == (400e9, 8, 8)
    assert facts("B300") == (800e9, 8, 8)
    assert facts("GB200") == (400e9, 4, 72)
    assert facts("GB300") == (800e9, 4, 72)
    assert machine_by_name("A100", nic_bits_per_s=1e11).nic_bytes_per_s == 12.5e9


def test_a_power_limit_is_a_share_of_the_rated_power() -> None:
    assert machine_by_name("H100").power_share == 1
    assert machine_by_name("H100 350W").power_share == 0.5
    assert machine_by_name("H100", power_cap_w=350).power_share == 0.5
    assert machine_by_name("H100", power_cap_w=900).power_share == 1
    assert machine_by_name("H100-96GB-HBM2e-500W").power_share == pytest.approx(5 / 7)


def test_a_cluster_of_two_kinds() -> None:
    cluster = ClusterSection.model_validate(
        {
            "chips": [
                {"name": "h100-sxm", "count": 64, "power_cap_w": 560, "facts": {"hbm_bytes": 96e9}},
                {"name": "h200-sxm", "count": 64},
            ],
            "node": {"chips": 8, "nics": 4},
            "fabric": {"name": "spectrum-x-400g", "tiers": 3, "rails": 4, "oversubscription": 3.0, "scaleup_chips": 4},
        }
    )
    first, second = cluster_machines(cluster, "fp8")
    assert first.nic_bytes_per_s == second.nic_bytes_per_s == 25e9, "four cards for eight chips"
    assert (first.hbm_bytes, second.hbm_bytes) == (96e9, 141e9)
    assert (first.power_share, second.power_share) == (0.8, 1.0)
    assert (first.domain_chips, first.tiers, first.oversubscription, first.throughput_share) == (4, 3, 3.0, 0.95)
    assert first.leaf_nodes == 96, "of 128 ports 96 go down at 3 to 1, one per server in each of four planes"
    both = slowest([second, first])
    assert (both.power_share, both.hbm_bytes, both.hbm_bytes_per_s) == (0.8, 96e9, 3.35e12)


def test_one_plane_reaches_fewer_servers_per_leaf() -> None:
    h100 = catalog.chip("h100-sxm")
    assert machine_of(h100).leaf_nodes == 32
    assert machine_of(h100, rails=1).leaf_nodes == 4
    assert machine_of(h100, tiers=1).leaf_nodes == 64


def test_a_measured_machine_is_of_no_generation() -> None:
    machine = measured_machine(
        flops=5e10, memory_bytes=4e9, memory_bytes_per_s=1e10, link_bytes_per_s=2e9, devices=8, cores=2
    )
    assert (machine.generation, machine.low_flops, machine.domain_chips, machine.units) == (0, 5e10, 8, 2)
