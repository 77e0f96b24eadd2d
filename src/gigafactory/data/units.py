"""Pieces of work for the tokeniser: groups of small files or slices of a large one, named by their content.

A unit's key depends on what its files hold and on how they are read, not on where they lie: renaming a folder costs
nothing, and of a source that changed only the units that hold a changed file are done again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gigafactory.data import readers
from gigafactory.data.readers import Slice
from gigafactory.data.sources import SourceFile

FORMAT = 1  # raise it when shards written by older code must not be used
SLICE_BYTES = 32 << 20
_GROUP_BYTES = 8 << 20
_GROUP_FILES = 64  # a group ends at every 64th file on average


@dataclass(frozen=True)
class Unit:
    """What one shard is made of."""

    key: str
    files: tuple[SourceFile, ...]
    part: Slice | None
    text_field: str
    ends_document: bool  # False for slices of a text file that goes on in the next unit
    bytes: int


def units(
    files: tuple[SourceFile, ...], hashes: Mapping[Path, str], *, text_field: str, tokenizer: str, signatures: bool
) -> Iterator[Unit]:
    """Cut a source into units, in order. hashes: SHA-256 of each file. tokenizer: its fingerprint."""

    def unit(group: list[SourceFile], part: Slice | None = None, *, ends_document: bool = True) -> Unit:
        how = [
            FORMAT,
            tokenizer,
            text_field,
            signatures,
            part,
            ends_document,
            [(f.kind, hashes[f.path]) for f in group],
        ]
        key = hashlib.sha256(json.dumps(how).encode()).hexdigest()[:32]
        size = part[1] - part[0] if part and group[0].kind != "parquet" else sum(f.size for f in group)
        return Unit(key, tuple(group), part, text_field, ends_document, size)

    group: list[SourceFile] = []
    for file in files:
        parts = readers.slices(file.path, file.kind, file.size, limit_bytes=SLICE_BYTES)
        if len(parts) > 1:
            if group:
                yield unit(group)
                group = []
            for number, part in enumerate(parts):
                yield unit([file], part, ends_document=file.kind != "text" or number == len(parts) - 1)
            continue
        group.append(file)
        # the cut depends on the file's own content, so that a new file does not move all later cuts
        if sum(f.size for f in group) >= _GROUP_BYTES or int(hashes[file.path][:8], 16) % _GROUP_FILES == 0:
            yield unit(group)
            group = []
    if group:
        yield unit(group)
