"""One file (or a slice of it) -> documents. Every flaw of the file is a UserError that names file and line."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from gigafactory.errors import UserError

Slice = tuple[int, int]
"""First and last+1 byte (text, JSONL), row group (Parquet); a slice begins at the first line that begins in it."""

_BOMS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
_UTF8_BOM = b"\xef\xbb\xbf"


def read(path: Path, kind: str, text_field: str, *, name: str, part: Slice | None = None) -> Iterator[tuple[int, str]]:
    """Documents of a file as (line or row counted from 1, text), lazily. part: only this slice of it."""
    try:
        if kind == "text":
            yield 1, decode(_text_bytes(path, part), name)
        elif kind == "jsonl":
            yield from _jsonl(path, text_field, name, part)
        else:
            yield from _table(path, kind, text_field, name, part)
    except OSError as error:
        raise UserError(f"{name}: cannot be read: {error.strerror or error}") from None
    except (EOFError, zlib.error) as error:
        raise UserError(f"{name}: not a whole .gz file: {error}") from None


def slices(path: Path, kind: str, size: int, *, limit_bytes: int) -> list[Slice | None]:
    """Cut a file into parts of about limit_bytes that can be read on their own; [None] is the whole file."""
    if size <= limit_bytes or path.suffix == ".gz" or kind == "arrow":
        return [None]
    if kind == "parquet":
        groups = _open_parquet(path, path.name).num_row_groups
        step = max(1, groups * limit_bytes // size)
        return [(start, min(start + step, groups)) for start in range(0, groups, step)]
    return [(start, min(start + limit_bytes, size)) for start in range(0, size, limit_bytes)]


def decode(data: bytes, name: str) -> str:
    """UTF-8 to text. Raises UserError that says what the bytes look like and what to do."""
    data = data.removeprefix(_UTF8_BOM)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        encoding = _BOMS.get(data[:2], "latin-1 or Windows-1252")
        line = data.count(b"\n", 0, error.start) + 1
        if b"\0" in data[:4096] and data[:2] not in _BOMS:
            raise UserError(f"{name}: a binary file, not text: leave it out with exclude") from None
        source = "UTF-16" if encoding == "UTF-16" else "WINDOWS-1252"
        raise UserError(
            f"{name}: line {line}: not UTF-8 (byte {error.start}); it looks like {encoding}:"
            f" convert it with iconv -f {source} -t UTF-8, or leave it out with exclude"
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(f"{name}: line {line}: a NUL byte: a binary file? leave it out with exclude")
    return text


def open_bytes(path: Path) -> BinaryIO:
    """The file's bytes, decompressed when its name ends in .gz."""
    return gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb")  # type: ignore[return-value]


def _text_bytes(path: Path, part: Slice | None) -> bytes:
    if part is None:
        with open_bytes(path) as file:
            return file.read()
    return b"".join(line for _, line in _lines(path, part))


def _lines(path: Path, part: Slice | None) -> Iterator[tuple[int, bytes]]:
    """Lines that begin in the slice, each with the byte that it begins at (0 in compressed files)."""
    with open_bytes(path) as file:
        start, stop = part or (0, -1)
        if start:
            file.seek(start - 1)
            file.readline()
        at = file.tell() if part else 0
        while (stop < 0 or at < stop) and (line := file.readline()):
            yield at, line
            at += len(line)


def _jsonl(path: Path, text_field: str, name: str, part: Slice | None) -> Iterator[tuple[int, str]]:
    number = 0
    for at, line in _lines(path, part):
        if number == 0:
            number = _line_number(path, at) if part and at else 1
        else:
            number += 1
        if not line.strip():
            continue
        try:
            record = json.loads(line.rstrip(b"\r\n"))
        except json.JSONDecodeError as error:
            raise UserError(f"{name}: line {number}: not valid JSON: {error.msg} (column {error.colno})") from None
        except UnicodeDecodeError as error:
            raise UserError(f"{name}: line {number}: not UTF-8 (byte {error.start} of the line)") from None
        except RecursionError:
            raise UserError(f"{name}: line {number}: nested too deeply") from None
        if not isinstance(record, dict):
            raise UserError(f"{name}: line {number}: must be a JSON object, got {type(record).__name__}")
        _allowed(record.get("train_ok", True), name, f"line {number}")
        if not isinstance(record.get(text_field), str):
            got = (
                f"{type(record[text_field]).__name__}"
                if text_field in record
                else f"only {', '.join(map(repr, record)) or 'nothing'}"
            )
            raise UserError(f"{name}: line {number}: text_field = {text_field!r} must be a string there, got {got}")
        yield number, _whole(record[text_field])


def _allowed(train_ok: object, name: str, where: str) -> None:
    """Posts say whether training may read them; those of X never do (X's terms)."""
    if train_ok is not True:
        raise UserError(
            f"{name}: {where}: train_ok is not true: its source forbids training;"
            " `gigafactory feed export` writes the posts that may be used"
        )


def _whole(text: str) -> str:
    """JSON can escape half a surrogate pair, which no text has: it becomes U+FFFD."""
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _line_number(path: Path, at: int) -> int:
    with open(path, "rb") as file:
        lines = 1
        while at > 0 and (chunk := file.read(min(at, 1 << 20))):
            lines += chunk.count(b"\n")
            at -= len(chunk)
    return lines


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError:
        raise UserError(
            "Parquet and Hugging Face datasets need the package pyarrow: pip install 'gigafactory[data]'"
        ) from None
    return pyarrow


def _open_parquet(path: Path, name: str) -> Any:
    pyarrow = _pyarrow()
    try:
        return pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{name}: not a whole Parquet file: {_first_line(error)}") from None


def _table(path: Path, kind: str, text_field: str, name: str, part: Slice | None) -> Iterator[tuple[int, str]]:
    pyarrow = _pyarrow()
    row = 0
    try:
        if kind == "parquet":
            file = _open_parquet(path, name)
            _need_column(file.schema_arrow, text_field, name)
            groups = range(*part) if part else range(file.num_row_groups)
            row = sum(file.metadata.row_group(group).num_rows for group in range(groups.start))
            columns = [text_field, *({"train_ok"} & set(file.schema_arrow.names) - {text_field})]
            batches = file.iter_batches(batch_size=1024, row_groups=list(groups), columns=columns)
        else:
            batches = pyarrow.ipc.open_stream(io.BufferedReader(io.FileIO(path)))
            _need_column(batches.schema, text_field, name)
        for batch in batches:
            names = batch.schema.names
            texts = batch.column(names.index(text_field)).to_pylist()
            allowed = batch.column(names.index("train_ok")).to_pylist() if "train_ok" in names else [True] * len(texts)
            for text, train_ok in zip(texts, allowed, strict=True):
                row += 1
                _allowed(train_ok, name, f"row {row}")
                if text is None:
                    continue
                if not isinstance(text, str):
                    raise UserError(
                        f"{name}: row {row}: text_field = {text_field!r} must hold strings, got {type(text).__name__}"
                    )
                yield row, text
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{name}: after row {row}: not a whole {kind} file: {_first_line(error)}") from None


def _need_column(schema: Any, text_field: str, name: str) -> None:
    if text_field not in schema.names:
        raise UserError(f"{name}: text_field = {text_field!r} is no column there; it has {', '.join(schema.names)}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
