"""Runs in process, for the tests of the training loop."""

from pathlib import Path

import pytest
from tiny_run import BuiltOnce, Runs

from gigafactory.train import session

BUILD = BuiltOnce(session.build_program)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    """Programs are shared between starts, and the machine's speed is not measured; all else is as the user has it."""
    monkeypatch.setattr(session, "build_program", BUILD)
    monkeypatch.setattr(session, "measure_gemm", lambda: 1e10)
    return Runs(tmp_path)
