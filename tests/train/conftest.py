"""Runs in process, for the tests of the training loop."""

from pathlib import Path

import pytest
from tiny_run import SWEEP, BuiltOnce, Runs

from gigafactory.train import foresight, session

BUILD = BuiltOnce(session.build_program)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    """Programs are shared between starts, the machine's speed is given and not measured; else as the user has it."""
    monkeypatch.setattr(session, "build_program", BUILD)
    monkeypatch.setattr(session, "measure_gemm", lambda: 1e10)
    monkeypatch.setattr(foresight, "machine_sweep", lambda folder, say: SWEEP)
    monkeypatch.setattr(foresight, "kept_at", lambda folder: tmp_path / "machine.json")
    return Runs(tmp_path)
