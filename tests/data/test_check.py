from __future__ import annotations

import base64
import random
from pathlib import Path
from typing import Any

import pytest

from gigafactory.cli.main import main
from gigafactory.data.check import Report, check
from gigafactory.data.inspect import flaws
from gigafactory.factory.training import DataSection, TrainSection


def prose(words: int, seed: int) -> str:
    rng = random.Random(seed)
    return " ".join("".join(rng.choices("aeiourstlnmpd", k=rng.randint(2, 9))) for _ in range(words))


def report(base: Path, *, vocab: int = 258, train: dict[str, Any] | None = None, **data: Any) -> Report:
    section = {"sources": [{"path": "texts"}], "cache": str(base / "cache"), **data}
    run = {"steps": 10, "batch_rows": 2, "sequence": 64, **(train or {})}
    return check(DataSection.model_validate(section), base, train=TrainSection.model_validate(run), vocab=vocab)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.txt").write_text(prose(2000, number))
    return folder


def found(report: Report, level: str, words: str) -> str:
    lines = ["\n".join(finding.lines()) for finding in report.findings if finding.level == level]
    matching = [line for line in lines if words in line]
    assert len(matching) == 1, report.lines()
    return matching[0]


def test_good_text_has_no_findings(texts: Path) -> None:
    good = report(texts.parent)
    assert not good.findings
    assert good.lines()[0].startswith("4 files, 4 documents")
    assert good.lines()[-1] == "nothing found that would ruin the run"


def test_every_unreadable_file_is_named_at_once(texts: Path) -> None:
    (texts / "latin.txt").write_bytes("déjà vu".encode("latin-1"))
    (texts / "binary.txt").write_bytes(bytes(range(256)))
    (texts / "bad.jsonl").write_text('{"text": "x"}\n{"tex')
    bad = report(texts.parent)
    assert bad.ruinous
    line = found(bad, "ruinous", "3 files cannot be read")
    assert all(name in line for name in ("latin.txt: line 1", "binary.txt", "bad.jsonl: line 2"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("crÃ©pe â€™ Â£ " * 200, "doubly encoded character"),
        ("lost \ufffd\ufffd " * 500, "replacement character"),
        ("\x1b[0m \x01\x02 " * 500, "control character"),
    ],
)
def test_broken_characters_are_ruinous_when_many_and_a_warning_when_few(texts: Path, text: str, words: str) -> None:
    (texts / "bad.txt").write_text(text)
    line = found(report(texts.parent), "ruinous", words)
    assert "in 1 file:" in line
    assert "texts/bad.txt: " in line
    (texts / "bad.txt").write_text(text[:12] + prose(500, 9))
    few = report(texts.parent)
    found(few, "warning", words)
    assert not few.ruinous


def test_long_lines_and_encoded_data_are_warned_of(texts: Path) -> None:
    blob = base64.b64encode(random.Random(0).randbytes(30_000)).decode()
    (texts / "data.txt").write_text(blob)
    both = report(texts.parent)
    found(both, "warning", "1 overlong line in 1 file")
    found(both, "warning", "run of encoded data")
    assert not both.ruinous


def test_empty_documents_and_unknown_files_are_noted(texts: Path) -> None:
    (texts / "empty.txt").write_text("  \n")
    (texts / "picture.png").write_bytes(b"\x89PNG")
    noted = report(texts.parent)
    assert "texts/empty.txt: 1" in found(noted, "note", "1 empty document in")
    assert "picture.png" in found(noted, "note", "no known text format")


def test_nothing_but_empty_files_is_ruinous(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("")
    found(report(tmp_path), "ruinous", "no text at all")


def test_duplicates_are_noted_or_ruinous_when_they_would_stay(texts: Path) -> None:
    (texts / "copy.txt").write_text((texts / "1.txt").read_text())
    (texts / "near.txt").write_text((texts / "2.txt").read_text() + " and more")
    noted = report(texts.parent)
    assert "texts/copy.txt repeats texts/1.txt" in found(noted, "note", "1 exact duplicate, 16.")
    assert "texts/near.txt repeats texts/2.txt" in found(noted, "note", "1 near duplicate,")
    found(report(texts.parent, deduplicate=False), "ruinous", "exact duplicate")


def test_held_out_text_that_is_trained_on_is_found(texts: Path) -> None:
    refrain = prose(1500, seed=77)
    for path in texts.iterdir():
        path.write_text(f"{path.read_text()} {refrain}")
    leaking = report(texts.parent, validation_fraction=0.3)
    assert "held-out text" in found(leaking, "ruinous", "is in the training text too")
    assert leaking.ruinous


def test_too_little_text_for_the_run(texts: Path) -> None:
    often = report(texts.parent, train={"steps": 30_000})
    assert "texts: " in found(often, "ruinous", "train.steps = 30000 reads sources more than 4 times")
    found(report(texts.parent, train={"steps": 4000}), "warning", "more than 4 times")
    found(report(texts.parent, train={"steps": 30_000, "max_seconds": 60.0}), "warning", "more than 4 times")
    short = report(texts.parent, train={"sequence": 10_000})
    found(short, "ruinous", "too little validation text")


def test_a_model_with_too_small_a_vocabulary(texts: Path) -> None:
    assert "got 200" in found(report(texts.parent, vocab=200), "ruinous", "does not fit the model")


def test_a_damaged_shard_is_found(texts: Path) -> None:
    report(texts.parent)
    (shard,) = (texts.parent / "cache" / "shards").glob("*.bin")
    data = bytearray(shard.read_bytes())
    data[1000] ^= 1
    shard.write_bytes(data)
    assert str(shard) in found(report(texts.parent), "ruinous", "1 token shard damaged: delete")


def test_the_command_exits_with_what_it_found(texts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = texts.parent / "factory.toml"
    cache = texts.parent / "cache"
    file.write_text(f'[data]\nsources = [{{ path = "texts" }}]\ncache = "{cache}"\n[train]\nsteps = 5\n')

    def run(*words: str) -> tuple[int | str | None, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["data", "check", str(file), *words])
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    code, out, _ = run()
    assert (code, "nothing found" in out) == (0, True)
    code, out, _ = run("--set", "train.sequence=100000")
    assert (code, "would ruin the run" in out) == (1, True)
    code, out, err = run("--set", 'data.sources=[{path="nowhere"}]')
    assert (code, out) == (2, "")
    assert "nowhere: no such file or folder" in err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("naïve café – “quotes” … Ça, Ãcran, £5, Âge, 日本", {}),
        ("caf\u00c3\u00a9", {"mojibake": 1}),
        ("it\u00e2\u20ac\u2122s", {"mojibake": 1}),
        ("tab\t newline\n return\r form feed\f", {}),
        ("-" * 1000, {}),
        ("ACGT" * 200, {}),
        ("   ", {"empty": 1}),
    ],
)
def test_flaws_of_a_text(text: str, expected: dict[str, int]) -> None:
    assert flaws(text) == expected
