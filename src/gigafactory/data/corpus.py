"""Sources -> an open corpus. Everything that was done once is found again in the cache by its content.

CACHE/tokenizers/  BPE vocabularies trained here
CACHE/shards/      token shards, shared by all corpora (see shards.py)
CACHE/corpora/KEY/ manifest.json (files with hashes, shards with checksums, totals of the splits) and pieces.npy
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gigafactory.data import shards, split
from gigafactory.data.batches import Corpus, ShardReader, Split, Stream, check_vocab
from gigafactory.data.files import exclusive, make_folder, remove_temporaries, sha256_file, write_cached
from gigafactory.data.shards import Say, Shard
from gigafactory.data.sources import SourceFile, documents, list_files
from gigafactory.data.tokenizer import Tokenizer, bpe_size, load_tokenizer, tokenizer_file, train_bpe
from gigafactory.data.units import FORMAT, units
from gigafactory.errors import UserError
from gigafactory.factory.training import DataSection

__all__ = ["Corpus", "check_vocab", "prepare"]

_BESIDE = (
    "pieces.npy",
    "tokenizer.json",
    "tokenizer_config.json",
)  # files beside the manifest that it holds the SHA-256 of
_BPE_TEXT_BYTES = 100 << 20  # more text does not change a vocabulary much


@dataclass(frozen=True)
class Totals:
    """Of one source and split."""

    tokens: int
    bytes: int
    documents: int


def prepare(section: DataSection, base_dir: Path, *, progress: Say | None = None) -> Corpus:
    """Tokenise what is not in the cache yet and open the corpus.

    base_dir: what relative paths of the section are relative to (the factory file's folder). progress: receives lines
    about work that takes long. Safe to call from several processes at once: one works, the others wait.
    Raises UserError for anything wrong with the sources, the tokenizer or the cache.
    """
    say = progress or (lambda _: None)
    if not section.sources:
        raise UserError(
            'data.sources: is empty: name a package, a file or a folder, e.g. sources = [{ path = "texts" }]'
        )
    cache = cache_folder(section, base_dir)
    folder = cache / "corpora" / corpus_key(section, base_dir)
    files = [
        list_files(source, base_dir, f"data.sources[{number}]").files for number, source in enumerate(section.sources)
    ]
    manifest = _current(folder, cache, files)
    if manifest is None:
        with exclusive(cache / "lock", say) as alone:
            manifest = _current(folder, cache, files)
            if manifest is None:
                if alone:
                    remove_temporaries(cache)
                try:
                    manifest = _build(section, base_dir, cache, folder, files, say)
                except BaseException:
                    if alone:
                        remove_temporaries(cache)
                    raise
    return _open(section, base_dir, cache, folder, manifest)


def cache_folder(section: DataSection, base_dir: Path) -> Path:
    return base_dir / Path(section.cache).expanduser()


def corpus_key(section: DataSection, base_dir: Path) -> str:
    """Names a corpus by what was asked for: the section (less what cannot change the result) and where it is from."""
    asked = section.model_dump(exclude={"cache", "workers", "document_mask"}, mode="json")
    for source in asked["sources"]:
        source.pop("weight")
    named = (
        []
        if section.tokenizer == "bytes" or bpe_size(section.tokenizer)
        else [tokenizer_file(section.tokenizer, base_dir)]
    )
    beside = [path.with_name("tokenizer_config.json") for path in named]
    used = [sha256_file(path) for path in (*named, *beside) if path.is_file()]
    text = json.dumps([FORMAT, str(base_dir.resolve()), asked, used], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a corpus folder, or None when there is no whole one."""
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        return manifest if manifest["format"] == FORMAT else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _facts(file: SourceFile) -> list[Any]:
    return [str(file.path), file.name, file.size, file.mtime_ns]


def _current(folder: Path, cache: Path, files: Sequence[Sequence[SourceFile]]) -> dict[str, Any] | None:
    """The manifest when no source changed since and every file that it names is there with its size."""
    manifest = read_manifest(folder)
    if manifest is None:
        return None
    if [[entry[:4] for entry in source] for source in manifest["files"]] != [[_facts(f) for f in fs] for fs in files]:
        return None
    kept = [Shard(**entry) for entry in manifest["shards"]]
    item_bytes = np.dtype(manifest["dtype"]).itemsize
    if any(shards.finished(cache / "shards", shard.key, item_bytes) != shard for shard in kept):
        return None
    try:
        whole = all(
            hashlib.sha256((folder / name).read_bytes()).hexdigest() == hash
            for name, hash in manifest["beside"].items()
        )
    except OSError:
        return None
    return manifest if whole else None


def _build(
    section: DataSection, base_dir: Path, cache: Path, folder: Path, files: list[tuple[SourceFile, ...]], say: Say
) -> dict[str, Any]:
    hashes = _hashes(files, read_manifest(folder))
    tokenizer = _tokenizer(section, base_dir, cache, files, hashes, say)
    make_folder(folder)
    tokenizer.save(folder / "tokenizer.json")
    per_source = [
        list(
            units(
                fs,
                hashes,
                text_field=source.text_field,
                tokenizer=tokenizer.fingerprint,
                signatures=section.deduplicate,
            )
        )
        for source, fs in zip(section.sources, files, strict=True)
    ]
    every = [unit for source in per_source for unit in source]
    written = shards.write_shards(
        every,
        tokenizer,
        str((folder / "tokenizer.json").resolve()),
        cache / "shards",
        signatures=section.deduplicate,
        workers=section.workers,
        say=say,
    )
    dtype = shards.token_dtype(tokenizer.vocab)
    reader = ShardReader(cache / "shards", [shard.key for shard in written], dtype)
    source_of_unit = np.repeat(np.arange(len(per_source)), [len(source) for source in per_source])
    pieces, totals, dropped = _plan(section, written, source_of_unit, cache / "shards", tokenizer, reader)
    buffer = io.BytesIO()
    np.save(buffer, pieces, allow_pickle=False)
    write_cached(folder / "pieces.npy", buffer.getbuffer())
    manifest = {
        "format": FORMAT,
        "tokenizer": {"spec": section.tokenizer, "fingerprint": tokenizer.fingerprint, "vocab": tokenizer.vocab},
        "dtype": dtype.str,
        "files": [[[*_facts(file), hashes[file.path]] for file in fs] for fs in files],
        "shards": [asdict(shard) for shard in written],
        "sources": source_of_unit.tolist(),
        "units": [[[str(file.path) for file in unit.files], unit.part] for unit in every],
        "totals": [[asdict(total) for total in source] for source in totals],
        "dropped": dropped,
        "beside": {name: sha256_file(folder / name) for name in _BESIDE if (folder / name).is_file()},
    }
    write_cached(folder / "manifest.json", json.dumps(manifest, indent=1).encode())
    return manifest


def _hashes(files: Sequence[Sequence[SourceFile]], old: dict[str, Any] | None) -> dict[Path, str]:
    """SHA-256 of every file; one whose size and time are those of the old manifest is not read again."""
    known = {tuple(entry[:4]): entry[4] for source in old["files"] for entry in source} if old else {}
    every = {file.path: file for fs in files for file in fs}
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        found = pool.map(lambda file: known.get(tuple(_facts(file))) or sha256_file(file.path), every.values())
        return dict(zip(every, found, strict=True))


def _tokenizer(
    section: DataSection,
    base_dir: Path,
    cache: Path,
    files: list[tuple[SourceFile, ...]],
    hashes: Mapping[Path, str],
    say: Say,
) -> Tokenizer:
    size = bpe_size(section.tokenizer)
    if size is None:
        return load_tokenizer(section.tokenizer, base_dir)
    what = [
        size,
        [[source.text_field, *(hashes[f.path] for f in fs)] for source, fs in zip(section.sources, files, strict=True)],
    ]
    path = (
        cache / "tokenizers" / f"bpe-{size}-{hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]}/tokenizer.json"
    )
    if path.is_file():
        return load_tokenizer(str(path))
    make_folder(path.parent)
    say(f"training a BPE of {size} tokens on the sources")
    return train_bpe(size, _bpe_texts(section, files, hashes), path)


def _bpe_texts(section: DataSection, files: list[tuple[SourceFile, ...]], hashes: Mapping[Path, str]) -> Iterator[str]:
    """Text of whole files, in an order that their content decides, until there is enough."""
    pairs = [(source, file) for source, fs in zip(section.sources, files, strict=True) for file in fs]
    read_bytes = 0
    for source, file in sorted(pairs, key=lambda pair: hashes[pair[1].path]):
        for document in documents(file, source.text_field):
            yield document.text
            read_bytes += len(document.text)
            if read_bytes >= _BPE_TEXT_BYTES:
                return


def _plan(
    section: DataSection,
    written: Sequence[Shard],
    source_of_unit: NDArray[np.int64],
    folder: Path,
    tokenizer: Tokenizer,
    reader: ShardReader,
) -> tuple[NDArray[np.void], list[tuple[Totals, Totals]], dict[str, int]]:
    """Duplicates out, then the split. Returns PIECE records, (train, validation) totals by source, dropped counts."""
    tables = [shards.load_documents(folder, shard.key) for shard in written]
    records = np.concatenate(tables)
    unit = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
    start = np.concatenate([np.cumsum(table["tokens"]) - table["tokens"] for table in tables])
    dropped = {"empty": sum(shard.empty_documents for shard in written), "exact_duplicates": 0, "near_duplicates": 0}
    kept = np.ones(len(records), bool)
    if section.deduplicate and len(records):
        duplicates = split.find_duplicates(records)
        kept = duplicates.kept
        dropped["exact_duplicates"] = int(np.count_nonzero(duplicates.exact >= 0))
        dropped["near_duplicates"] = int(np.count_nonzero(duplicates.near >= 0))
    found, totals = [], []
    for source in range(len(section.sources)):
        mine = np.flatnonzero(kept & (source_of_unit[unit] == source))
        if not mine.size:
            why = (
                "every document repeats one of an earlier source"
                if np.any(source_of_unit[unit] == source)
                else "holds no text"
            )
            raise UserError(f"data.sources[{source}]: {why}: leave the source out")
        tokens = records["tokens"][mine].astype(np.int64)
        out = split.held_out(tokens, records["hash"][mine, 0], section.validation_fraction, section.seed)
        parts = split.pieces(source, unit[mine], start[mine], tokens, out)
        found.append(parts)
        whole = out[:, 2] == tokens[out[:, 0]]
        out_bytes = int(records["bytes"][mine[out[whole, 0]]].sum())
        for document, first, count in out[~whole]:
            place = mine[document]
            out_bytes += tokenizer.byte_length(reader.tokens(int(unit[place]), int(start[place] + first), int(count)))
        out_tokens, all_bytes = int(out[:, 2].sum()), int(records["bytes"][mine].sum())
        train = Totals(int(tokens.sum()) - out_tokens, all_bytes - out_bytes, int(mine.size - np.count_nonzero(whole)))
        totals.append((train, Totals(out_tokens, out_bytes, len(np.unique(out[:, 0])))))
    return np.concatenate(found), totals, dropped


def _open(section: DataSection, base_dir: Path, cache: Path, folder: Path, manifest: dict[str, Any]) -> Corpus:
    tokenizer = load_tokenizer(str((folder / "tokenizer.json").resolve()))
    pieces = np.load(folder / "pieces.npy", allow_pickle=False)
    keys = [entry["key"] for entry in manifest["shards"]]
    reader = ShardReader(cache / "shards", keys, np.dtype(manifest["dtype"]))
    weights = tuple(source.weight for source in section.sources)
    parts = []
    for number, name in ((split.TRAIN, "train"), (split.VALIDATION, "validation")):
        mine = pieces[pieces["split"] == number]
        streams = tuple(Stream(reader, mine[mine["source"] == i], tokenizer.end_id) for i in range(len(weights)))
        totals = [Totals(**source[number]) for source in manifest["totals"]]
        shares = [
            weight * (total.bytes / total.tokens if total.tokens else 0.0)
            for weight, total in zip(weights, totals, strict=True)
        ]
        parts.append(
            Split(
                name,
                sum(total.tokens for total in totals),
                sum(total.bytes for total in totals),
                sum(total.documents for total in totals),
                sum(shares) / sum(weights),
                streams,
                weights,
            )
        )
    what = [
        tokenizer.fingerprint,
        manifest["beside"]["pieces.npy"],
        [entry["tokens_sha256"] for entry in manifest["shards"]],
    ]
    fingerprint = hashlib.sha256(json.dumps(what).encode()).hexdigest()
    names = tuple(source.package or source.path or source.hf_dataset or "" for source in section.sources)
    return Corpus(tokenizer, parts[0], parts[1], section.document_mask, fingerprint, folder, names)
