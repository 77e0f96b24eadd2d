"""Units -> shards: token ids in flat files, each with an index of its documents. Parallel, resumable, atomic.

A shard is three files named by the unit's key: KEY.bin (little-endian uint16 or uint32), KEY.npy (DOCUMENT records)
and KEY.json (counts and checksums), which is written last: a shard without it was never finished.
"""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gigafactory.data import dedupe, readers
from gigafactory.data.files import disk_errors, make_folder, sha256_file, write_cached
from gigafactory.data.tokenizer import ByteTokenizer, Tokenizer, load_tokenizer
from gigafactory.data.units import Unit
from gigafactory.errors import UserError

_FIELDS = [("tokens", "<i8"), ("bytes", "<i8"), ("file", "<u4"), ("row", "<i8"), ("hash", "<u8", (2,))]
DOCUMENT = np.dtype(_FIELDS)
SIGNED_DOCUMENT = np.dtype([*_FIELDS, ("signature", "<u2", (dedupe.BINS,))])
"""tokens: with the end token. bytes: of UTF-8 text. file: number in the unit. row: line or row in that file."""

_BATCH_BYTES = 4 << 20  # text encoded at once
_BATCH_DOCUMENTS = 4096
_PARALLEL_BYTES = {
    True: 64 << 20,
    False: 8 << 20,
}  # bytes tokenizer or not: below this a process costs more than it saves

Say = Callable[[str], None]
Entry = tuple[int, int, str]
"""Number of the file in the unit, line or row in the file, text."""


@dataclass(frozen=True)
class Shard:
    """What KEY.json holds: sizes and checksums of the other two files."""

    key: str
    tokens: int
    bytes: int
    documents: int
    empty_documents: int
    tokens_sha256: str
    documents_sha256: str


def token_dtype(vocab: int) -> np.dtype:
    """Smallest of uint16 and uint32 that holds every id."""
    return np.dtype("<u2") if vocab <= 1 << 16 else np.dtype("<u4")


def tokens_path(folder: Path, key: str) -> Path:
    return folder / f"{key}.bin"


def documents_path(folder: Path, key: str) -> Path:
    return folder / f"{key}.npy"


def finished(folder: Path, key: str, item_bytes: int) -> Shard | None:
    """The shard of a unit, when it is there and its file has the right size."""
    try:
        shard = Shard(**json.loads((folder / f"{key}.json").read_bytes()))
        whole = tokens_path(folder, key).stat().st_size == shard.tokens * item_bytes
        return shard if whole and documents_path(folder, key).stat().st_size > 0 else None
    except (OSError, ValueError, TypeError):
        return None


def load_documents(folder: Path, key: str) -> NDArray[np.void]:
    """DOCUMENT records of a shard."""
    return np.load(documents_path(folder, key), allow_pickle=False)


def damaged(folder: Path, shard: Shard) -> bool:
    """Whether a shard's files differ from their checksums."""
    return (
        sha256_file(tokens_path(folder, shard.key)) != shard.tokens_sha256
        or sha256_file(documents_path(folder, shard.key)) != shard.documents_sha256
    )


def write_shards(
    units: Sequence[Unit],
    tokenizer: Tokenizer,
    tokenizer_file: str,
    folder: Path,
    *,
    signatures: bool,
    workers: int,
    say: Say,
) -> list[Shard]:
    """Tokenise the units that have no finished shard yet; returns the shards of all, in order.

    tokenizer_file: what load_tokenizer makes the same tokenizer of in a worker process. workers: 0 is one per core.
    """
    make_folder(folder)
    item_bytes = token_dtype(tokenizer.vocab).itemsize
    shards = {unit.key: finished(folder, unit.key, item_bytes) for unit in units}
    todo = list({unit.key: unit for unit in units if shards[unit.key] is None}.values())
    total = sum(unit.bytes for unit in todo)
    done = 0
    for key, shard, size in _work(todo, total, tokenizer, tokenizer_file, folder, signatures, workers):
        shards[key] = shard
        done += size
        if total >= 1e6:
            say(f"tokenised {done / 1e6:.1f} of {total / 1e6:.1f} MB")
    return [whole for unit in units if (whole := shards[unit.key]) is not None]


def _work(
    todo: list[Unit],
    total: int,
    tokenizer: Tokenizer,
    tokenizer_file: str,
    folder: Path,
    signatures: bool,
    workers: int,
) -> Iterator[tuple[str, Shard, int]]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    processes = min(workers or cores, len(todo))
    if processes < 2 or (not workers and total < _PARALLEL_BYTES[isinstance(tokenizer, ByteTokenizer)]):
        for unit in todo:
            yield unit.key, write_shard(unit, tokenizer, folder, signatures=signatures), unit.bytes
        return
    # spawn, not fork: the parent may hold JAX's or the tokeniser's threads
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(processes, context, _start_worker, (tokenizer_file, str(folder), signatures))
    try:
        waiting: dict[Future[Shard], Unit] = {}
        queue = iter(todo)
        while True:
            while len(waiting) < 2 * processes and (following := next(queue, None)) is not None:
                waiting[pool.submit(_run_worker, following)] = following
            if not waiting:
                return
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                unit = waiting.pop(future)
                yield unit.key, future.result(), unit.bytes
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        # the pool's own shutdown waits for running units, and for ever if it is interrupted in turn
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()
        raise
    except BrokenProcessPool:
        raise UserError(
            "data: a tokenising process was killed (out of memory?): lower data.workers; finished shards are kept"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def write_shard(unit: Unit, tokenizer: Tokenizer, folder: Path, *, signatures: bool) -> Shard:
    """Tokenise one unit and write its three files. Documents without a visible character are counted and left out."""
    dtype = token_dtype(tokenizer.vocab)
    tables = [np.zeros(0, SIGNED_DOCUMENT if signatures else DOCUMENT)]
    digest, tokens, documents = hashlib.sha256(), 0, 0
    end = np.array([tokenizer.end_id] if unit.ends_document else [], dtype)
    target = tokens_path(folder, unit.key)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with disk_errors(folder), open(temporary, "wb") as file:
            for batch in _batches(unit):
                documents += len(batch)
                batch = [entry for entry in batch if entry[2].strip()]
                if not batch:
                    continue
                ids, table = _encode(batch, tokenizer, end, tables[0].dtype)
                data = np.concatenate(ids, dtype=dtype, casting="unsafe")
                file.write(data.data)
                digest.update(data.data)
                tokens += data.size
                tables.append(table)
            file.flush()
            os.fsync(file.fileno())
        with disk_errors(folder):
            os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    records = np.concatenate(tables)
    index = io.BytesIO()
    np.save(index, records, allow_pickle=False)
    write_cached(documents_path(folder, unit.key), index.getbuffer())
    index_sha256 = hashlib.sha256(index.getbuffer()).hexdigest()
    text_bytes, empty = int(records["bytes"].sum()), documents - len(records)
    shard = Shard(unit.key, tokens, text_bytes, len(records), empty, digest.hexdigest(), index_sha256)
    write_cached(folder / f"{unit.key}.json", json.dumps(asdict(shard)).encode())
    return shard


def _encode(
    batch: list[Entry], tokenizer: Tokenizer, end: NDArray[np.integer], index_dtype: np.dtype
) -> tuple[list[NDArray[np.integer]], NDArray[np.void]]:
    """Token arrays in writing order (each document, then the end), and the documents' records."""
    texts = [text for _, _, text in batch]
    raw = [text.encode() for text in texts]
    ids = tokenizer.encode_arrays(texts)
    table = np.zeros(len(batch), index_dtype)
    table["tokens"] = [array.size + end.size for array in ids]
    table["bytes"] = [len(each) for each in raw]
    table["file"] = [number for number, _, _ in batch]
    table["row"] = [row for _, row, _ in batch]
    table["hash"] = [dedupe.content_hash(each) for each in raw]
    if "signature" in (index_dtype.names or ()):
        table["signature"] = dedupe.signatures(raw)
    return [part for array in ids for part in (array, end)], table


def _batches(unit: Unit) -> Iterator[list[Entry]]:
    """The unit's documents, as many at once as are encoded together."""
    batch: list[Entry] = []
    size = 0
    for number, file in enumerate(unit.files):
        for row, text in readers.read(file.path, file.kind, unit.text_field, name=file.name, part=unit.part):
            batch.append((number, row, text))
            size += len(text)
            if size >= _BATCH_BYTES or len(batch) >= _BATCH_DOCUMENTS:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


_worker: tuple[Tokenizer, Path, bool]


def _start_worker(tokenizer_file: str, folder: str, signatures: bool) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    _worker = (load_tokenizer(tokenizer_file), Path(folder), signatures)


def _follow(parent: multiprocessing.process.BaseProcess) -> None:
    """Leave no orphan behind when the parent is killed."""
    parent.join()
    os._exit(1)


def _run_worker(unit: Unit) -> Shard:
    tokenizer, folder, signatures = _worker
    return write_shard(unit, tokenizer, folder, signatures=signatures)
