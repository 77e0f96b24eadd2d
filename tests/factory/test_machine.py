"""The machine at hand and the file written for it."""

from __future__ import annotations

import os

import pytest

from gigafactory.factory.load import parse_factory
from gigafactory.factory.machine import Gpu, Machine, find_gpus, find_machine, init_text
from gigafactory.factory.summary import check_factory, state_bytes_per_device

CPU = Machine("some processor", 2, 8e9)


def gpus(name: str, memory_bytes: float, count: int) -> Machine:
    return Machine("some processor", 16, 128e9, (Gpu(name, memory_bytes),) * count)


def test_this_machine_is_seen() -> None:
    machine = find_machine()
    assert 1 <= machine.cores <= (os.cpu_count() or 1)
    assert machine.memory_bytes > 1e8
    assert str(machine.cores) in machine.described


def test_gpus_as_nvidia_smi_prints_them() -> None:
    listed = "NVIDIA H100 80GB HBM3, 81559\nNVIDIA H100 80GB HBM3, 81559\n"
    assert find_gpus(lambda: listed) == (Gpu("NVIDIA H100 80GB HBM3", 81559 * 2**20),) * 2
    assert find_gpus(lambda: "") == ()
    assert find_gpus(lambda: "NVIDIA-SMI has failed because\nit could not, [N/A]\n") == ()


@pytest.mark.parametrize(
    "machine",
    [
        CPU,
        gpus("NVIDIA H100 80GB HBM3", 80e9, 8),
        gpus("NVIDIA H100 80GB HBM3", 80e9, 3),
        gpus("NVIDIA H200", 141e9, 1),
        gpus("NVIDIA GeForce GTX 1050", 2e9, 1),
    ],
    ids=["cpu", "8 H100", "3 H100", "H200", "small"],
)
def test_the_file_for_a_machine_is_sound_and_fits_it(machine: Machine) -> None:
    factory = parse_factory(init_text(machine, "mine"), "init")
    check_factory(factory, available_devices=max(len(machine.gpus), 1))
    assert factory.train.name == "mine"
    for gpu in machine.gpus:
        assert state_bytes_per_device(factory) < 0.5 * gpu.memory_bytes


def test_a_known_gpu_becomes_a_cluster_and_an_unknown_one_a_remark() -> None:
    known = init_text(gpus("NVIDIA H200", 141e9, 4))
    assert [(group.name, group.count) for group in parse_factory(known, "init").cluster.chips] == [("h200-sxm", 4)]
    unknown = init_text(gpus("Voodoo 2", 80e9, 1))
    assert "Voodoo 2 is not in the catalogue" in unknown
    assert parse_factory(unknown, "init").cluster.chips == ()
