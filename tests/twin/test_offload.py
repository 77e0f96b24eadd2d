"""What is kept in the servers' memory costs the time that the link to it takes, less what computation hides."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from made_cases import layouts, made

from gigafactory.twin.case import Cases
from gigafactory.twin.constants import default
from gigafactory.twin.offload import OPTIMIZER_BYTES, offload_seconds
from gigafactory.twin.parameters import stage_parameters
from gigafactory.twin.step import step_time

C = default()
MOVED = ("offload_activations", "offload_weights", "offload_optimizer")


def seconds(cases: Cases, busy_s: float = 0.0) -> tuple[float, float]:
    through, optimizer = offload_seconds(cases, stage_parameters(cases), cases.micro_batches, busy_s, C)
    return float(through), float(optimizer)


def test_nothing_moved_takes_no_time() -> None:
    assert seconds(made("llama-8b")) == (0.0, 0.0)


def test_the_optimizer_is_read_and_written_once_a_step() -> None:
    case = made("llama-8b", offload_optimizer=1.0, shard=1.0, data=8.0, shard_group=8.0, host_bytes_per_s=50e9)
    _, moved_s = seconds(case)
    parameters = 8.03e9  # of Llama 3.1 8B
    assert moved_s == pytest.approx(OPTIMIZER_BYTES * parameters / 8 / 50e9, rel=0.01)
    assert seconds(case.replace(offload_optimizer=0.5))[1] == pytest.approx(moved_s / 2)


def test_weights_come_in_twice_per_micro_batch_unless_computation_hides_it() -> None:
    case = made("llama-8b", offload_weights=1.0, host_bytes_per_s=50e9, global_rows=4.0)
    moved_s, _ = seconds(case)
    assert moved_s == pytest.approx(4 * 2 * 2 * 8.03e9 / 50e9, rel=0.01)
    hidden_s, _ = seconds(case, busy_s=1e3)
    assert hidden_s == pytest.approx(moved_s * (1.0 - C.data_covered))


@settings(max_examples=30)
@given(layouts())
def test_moving_more_or_over_a_slower_link_is_never_faster(case: Cases) -> None:
    for name in MOVED:
        share = case.replace(**{name: np.array([0.0, 0.3, 1.0])})
        times = np.broadcast_to(step_time(share, C).step_s, 3)
        assert (np.diff(times) >= -1e-12 * times[0]).all(), name
        rates = case.replace(**{name: 1.0}, host_bytes_per_s=np.array([400e9, 50e9, 10e9]))
        times = np.broadcast_to(step_time(rates, C).step_s, 3)
        assert (np.diff(times) >= -1e-12 * times[0]).all(), name
