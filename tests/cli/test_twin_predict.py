"""gigafactory twin predict as its user meets it: what it prints and leaves behind, and what it says of bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gigafactory.cli import main as cli
from gigafactory.twin.cpu import Product, Sweep

EXAMPLES = Path(__file__).parents[2] / "examples"
GROK = str(EXAMPLES / "grok-1.toml")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        cli.main(("twin", "predict", *words))
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def plain(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert run(*words, "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_it_prints_what_an_engineer_asks_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(GROK) == 0
    text = capsys.readouterr().out
    for expected in (
        "316 B parameters on 2,048 x h100-sxm (tensor 8 x data 256, experts over 8)",
        "80 % interval",
        "MFU",
        "HFU",
        "matrix products",
        "optimizer state",
        "left",
        "none applied: nothing interrupts the run",
        "MWh",
        "M$",
    ):
        assert expected in text
    page = tmp_path / "runs" / "grok-1-twin" / "report.html"
    assert str(page.relative_to(tmp_path)) in text
    assert page.read_text().startswith("<!doctype html>")
    assert [path.name for path in page.parent.iterdir()] == ["report.html"]


def test_the_page_goes_where_it_is_asked_to(tmp_path: Path) -> None:
    assert run(GROK, "--html", str(tmp_path / "a" / "b.html")) == 0
    assert (tmp_path / "a" / "b.html").exists()
    assert not (tmp_path / "runs").exists()


def test_json_keys_are_stable(capsys: pytest.CaptureFixture[str]) -> None:
    found = plain(capsys, GROK)
    ranges = {
        name for name, value in found.items() if isinstance(value, dict) and set(value) == {"value", "low", "high"}
    }
    assert ranges == {
        "step_s", "tokens_per_s", "tokens_per_s_per_chip", "mfu", "hfu", "mfu_of_format", "hfu_of_format",
        "memory_bytes", "run_s", "wall_s", "chip_hours", "it_power_w", "site_power_w", "energy_kwh", "energy_usd",
        "energy_usd_per_kwh", "rent_usd_per_hour",
        "rent_usd",
    }  # fmt: skip
    assert found.keys() - ranges == {
        "name", "run", "model_parameters", "trainer", "release", "format", "chips", "kinds", "plan", "definitions",
        "parts_s", "busy_share", "tokens_per_step", "model_flops", "hardware_flops", "memory_classes_bytes",
        "hbm_bytes", "memory_limit_bytes", "memory_left_bytes", "fits", "ways_to_fit", "tokens", "goodput", "mixed",
        "operators", "constants", "calibration", "caution", "assumptions",
    }  # fmt: skip
    assert found["definitions"]["mfu"]
    assert sum(found["parts_s"].values()) == pytest.approx(found["step_s"]["value"])


def test_a_simulation_of_the_run_gives_its_goodput(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger = tmp_path / "runs" / "grok-1-sim" / "ledger.json"
    ledger.parent.mkdir(parents=True)
    ledger.write_text(json.dumps({"effective": 0.8}))
    found = plain(capsys, GROK)
    assert found["goodput"] == {"share": 0.8, "source": f"simulated: {ledger.relative_to(tmp_path)}"}
    assert found["wall_s"]["value"] == pytest.approx(found["run_s"]["value"] / 0.8)
    assert plain(capsys, GROK, "--set", "twin.goodput=0.5")["goodput"]["share"] == 0.5
    ledger.write_text("{")
    assert plain(capsys, GROK)["goodput"] is None


def test_what_does_not_fit_says_what_would(capsys: pytest.CaptureFixture[str]) -> None:
    changes = ("--set", "layout.data=4", "--set", "cluster.chips[0].count=256", "--set", "train.remat=none")
    assert run(GROK, *changes) == 0
    text = capsys.readouterr().out
    assert "does not fit" in text
    assert "missing" in text
    assert "would fit: " in text
    found = plain(capsys, GROK, *changes)
    assert not found["fits"]
    assert all(way["memory_bytes"] <= found["memory_limit_bytes"] for way in found["ways_to_fit"])


def test_chips_that_no_run_was_measured_on_come_with_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    chips = ("--set", "cluster.chips[0].name=mi300x")
    assert plain(capsys, GROK)["caution"] is None
    assert "mi300x" in plain(capsys, GROK, *chips)["caution"]
    assert run(GROK, *chips) == 0
    assert "caution no measured run of mi300x is behind the constants" in capsys.readouterr().out


def test_mixed_chips_say_who_waits(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(EXAMPLES / "colossus.toml")) == 0
    text = capsys.readouterr().out
    assert "150,000 h100-sxm" in text
    assert "sets the pace" in text


def test_a_calibration_is_found_beside_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "factory.toml").write_text((EXAMPLES / "grok-1.toml").read_text() + '[twin]\nconstants = "own.json"\n')
    (tmp_path / "own.json").write_text(json.dumps({"constants": {"matmul_hopper": 0.5}}))
    own = plain(capsys, str(tmp_path / "factory.toml"))
    assert own["calibration"] == "own.json"
    assert next(one["value"] for one in own["constants"] if one["name"] == "matmul_hopper") == 0.5
    assert own["step_s"]["value"] > plain(capsys, GROK)["step_s"]["value"]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (["layout.model=16", "layout.data=16"], "layout.model: must divide model.kv_heads=8, got 16"),
        (["cluster.chips[0].name=h1000"], "cluster.chips[0].name: no entry 'h1000' among the chips"),
        (["cluster.chips[0].count=1024"], "layout: needs 2048 devices"),
        (["twin.trainer=megatorn"], "twin.trainer: no entry 'megatorn' among the stacks; did you mean"),
        (["twin.trainer=megatron", "layout.stage=128", "layout.data=1", "layout.expert=2"], "layout.stage: "),
        (["twin.format=fp12"], "twin.format: must be one of auto, bf16"),
        (["twin.format=nvfp4"], "twin.format: "),
        (["twin.constants=none.json"], "none.json: "),
        (['twin.recompute=["norm", "norm"]'], "twin.recompute: each at most once"),
        (["twin.tokens=-3"], "twin.tokens: must be greater than 0"),
        (["cluster.chips[0].facts={hbm_bytes_per_s=0}"], "cluster.chips[0].facts.hbm_bytes_per_s: must be more than 0"),
        (["cluster.fabric.facts={link_bits_per_s=0}"], "cluster.fabric.facts.link_bits_per_s: must be more than 0"),
        (["twin.release=25.99"], "twin.release: "),
        (["twin.network.window=128"], "twin.network.window: has no effect with trainer gigafactory; set twin.trainer"),
        (["twin.offload.optimizer=1"], "twin.offload.optimizer: has no effect with trainer gigafactory"),
    ],
)
def test_a_mistake_is_one_line(
    changes: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(GROK, *(word for change in changes for word in ("--set", change))) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert line in told.err
    assert not (tmp_path / "runs").exists()


def test_a_device_is_written_to_and_stays_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import os
    import threading

    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    assert run(GROK, "--html", str(pipe)) == 0
    reader.join(10)
    assert pipe.is_fifo()
    assert read[0].startswith("<!doctype html>")


def test_narrow_terminals_keep_the_numbers(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert run(GROK) == 0
    lines = capsys.readouterr().out.splitlines()
    products = next(line for line in lines if "matrix products" in line)
    assert " %" in products
    assert len(products) <= 60


@pytest.mark.parametrize("page", [".", ""])
def test_a_folder_is_no_page(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(GROK, "--html", page) == 2
    assert capsys.readouterr().err == "gigafactory: error: .: cannot write: is a directory\n"


def test_a_page_that_cannot_be_written_is_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert run(GROK, "--html", str(tmp_path / "file" / "page.html")) == 2
    assert capsys.readouterr().err.startswith("gigafactory: error: ")


def test_without_chips_it_is_this_machine_as_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("jax")
    products = tuple(Product(m, 128, 128, 1, 2e-9 + 2 * m * 128 * 128 / 5e10) for m in (16, 256, 1024))
    batched = tuple(Product(m, 64, 64, 4, 2e-9 + 2 * 4 * m * 64 * 64 / 3e10) for m in (16, 64, 256))
    sweep = Sweep("a CPU", 2, "0", products, batched, 3e10, 1e10, 1e-4)
    monkeypatch.setattr("gigafactory.train.sweep.machine_sweep", lambda folder, say: sweep)
    monkeypatch.setattr("gigafactory.train.devices.has_gpu", lambda: False)
    found = plain(capsys, str(EXAMPLES / "laptop.toml"), "--set", "layout.data=1")
    assert found["format"] == "fp32"
    assert found["step_s"]["high"] == pytest.approx(1.25 * found["step_s"]["value"])
    assert found["operators"] == []
    assert found["rent_usd"] is None
    assert 0 < found["mfu"]["value"] < 1
    assert run(str(EXAMPLES / "laptop.toml"), "--set", "layout.data=1") == 0
    assert "on this machine (not cut)" in capsys.readouterr().out


def test_gpus_that_the_file_does_not_name_are_a_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gigafactory.train.devices.has_gpu", lambda: True)
    assert run(str(EXAMPLES / "laptop.toml")) == 2
    assert "cluster.chips: is empty, but this machine has GPUs" in capsys.readouterr().err
