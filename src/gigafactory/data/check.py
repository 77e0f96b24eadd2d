"""`gigafactory data check`: reads all text as a run would and reports what would ruin that run."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gigafactory.data import dedupe, inspect, shards, split
from gigafactory.data.batches import Corpus, Split
from gigafactory.data.corpus import cache_folder, check_vocab, prepare, read_manifest
from gigafactory.data.shards import Say, Shard
from gigafactory.data.sources import documents, list_files
from gigafactory.errors import UserError
from gigafactory.factory.training import DataSection, TrainSection

Level = Literal["ruinous", "warning", "note"]

_SHOWN = 5
_LEAK_WORDS = 13  # the n-gram that GPT-3's authors removed test text by (Brown et al. 2020, appendix C)
_LEAK_HELD_BYTES, _LEAK_TRAIN_BYTES = 4 << 20, 256 << 20
# Muennighoff et al. 2023, "Scaling Data-Constrained Language Models": up to 4 epochs are nearly as good as new text,
# and more than about 40 bring nothing
_EPOCHS_WARNING, _EPOCHS_RUINOUS = 4.0, 40.0


@dataclass(frozen=True)
class Finding:
    """One thing found: how bad it is, what, where (the first places of how many), and what to do."""

    level: Level
    what: str
    advice: str
    places: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        shown = [f"    {place}" for place in self.places[:_SHOWN]]
        more = [f"    and {len(self.places) - _SHOWN} more"] if len(self.places) > _SHOWN else []
        return [f"{self.level}: {self.what}: {self.advice}", *shown, *more]


@dataclass(frozen=True)
class Report:
    """What was read and what was found, the worst first."""

    summary: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def ruinous(self) -> bool:
        return any(finding.level == "ruinous" for finding in self.findings)

    def lines(self) -> list[str]:
        """The report as text."""
        verdict = "this data would ruin the run" if self.ruinous else "nothing found that would ruin the run"
        return [*self.summary, *(line for finding in self.findings for line in finding.lines()), verdict]


@dataclass
class _Read:
    """All that one pass over the sources gathers."""

    files: int = 0
    documents: int = 0
    characters: int = 0
    names: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    hashes: list[tuple[int, int]] = field(default_factory=list)
    signatures: list[NDArray[np.uint16]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    flaws: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))


def check(
    section: DataSection, base_dir: Path, *, train: TrainSection, vocab: int, progress: Say | None = None
) -> Report:
    """Read everything and report. train: for the tokens that the run will draw. vocab: the model's.

    Raises UserError when the sources, the tokenizer or the cache cannot be used at all.
    """
    found = _read_all(section, base_dir, progress or (lambda _: None))
    findings = [*_text_findings(found), *_duplicate_findings(found, section.deduplicate)]
    summary = [
        f"{_count(found.files, 'file')}, {_count(found.documents, 'document')},"
        f" {found.characters / 1e6:.2f} million characters"
    ]
    if not found.errors and found.documents:
        corpus = prepare(section, base_dir, progress=progress)
        for part in (corpus.train, corpus.validation):
            summary.append(
                f"{part.name}: {part.tokens} tokens of {_count(part.documents, 'document')},"
                f" {part.bytes_per_token:.3f} bytes per token"
            )
        findings += _corpus_findings(corpus, cache_folder(section, base_dir), train, vocab)
    order: list[Level] = ["ruinous", "warning", "note"]
    return Report(tuple(summary), tuple(sorted(findings, key=lambda finding: order.index(finding.level))))


def _read_all(section: DataSection, base_dir: Path, say: Say) -> _Read:
    found = _Read()
    for number, source in enumerate(section.sources):
        listing = list_files(source, base_dir, f"data.sources[{number}]")
        found.skipped += listing.skipped
        for file in listing.files:
            found.files += 1
            try:
                for document in documents(file, source.text_field):
                    _read_one(found, document.name, file.name, document.text)
            except UserError as error:
                found.errors.append(str(error))
            if found.files % 100 == 0:
                say(f"read {found.files} files, {found.characters / 1e6:.0f} million characters")
    return found


def _read_one(found: _Read, name: str, file: str, text: str) -> None:
    for flaw, count in inspect.flaws(text).items():
        found.flaws[flaw][file] += count
    if text.strip():
        raw = text.encode()
        found.documents += 1
        found.characters += len(text)
        found.names.append(name)
        found.sizes.append(len(raw))
        found.hashes.append(dedupe.content_hash(raw))
        found.signatures.append(dedupe.signatures([raw])[0])


def _text_findings(found: _Read) -> Iterator[Finding]:
    if found.errors:
        yield Finding(
            "ruinous",
            f"{_count(len(found.errors), 'file')} cannot be read",
            "put right or leave out with exclude",
            tuple(found.errors),
        )
    if not found.documents and not found.errors:
        yield Finding("ruinous", "no text at all", "the files that were found are empty")
    if found.skipped:
        what = f"{_count(len(found.skipped), 'file')} of no known text format not read"
        yield Finding("note", what, "name them with include if they are text", tuple(found.skipped))
    often = found.characters / 1000  # more than one in a thousand characters is what a model learns to write
    for flaw, what, advice in (
        ("control", "control character", "binary data or terminal logs: clean them or leave them out with exclude"),
        (
            "mojibake",
            "doubly encoded character",
            "as in cafÃ©; decode once more: text.encode('cp1252').decode('utf-8')",
        ),
        (
            "replacement",
            "replacement character",
            "the text was decoded wrongly before: take it from its source again",
        ),
    ):
        count = found.flaws[flaw].total()
        if count:
            level: Level = "ruinous" if count > often else "warning"
            yield Finding(
                level,
                f"{_count(count, what)} in {_count(len(found.flaws[flaw]), 'file')}",
                advice,
                _places(found.flaws[flaw]),
            )
    for flaw, what, advice in (
        ("empty", "empty document", "left out"),
        (
            "long_line",
            "overlong line",
            f"over {inspect.LONG_LINE} characters: tables, minified code or data? leave them out with exclude",
        ),
        ("blob", "run of encoded data", "a model learns nothing from base64: take it out"),
    ):
        count = found.flaws[flaw].total()
        if count:
            level = "note" if flaw == "empty" else "warning"
            yield Finding(
                level,
                f"{_count(count, what)} in {_count(len(found.flaws[flaw]), 'file')}",
                advice,
                _places(found.flaws[flaw]),
            )


def _count(number: int, what: str) -> str:
    """1 file, 2 files."""
    return f"{number} {what}" + ("" if number == 1 else "s")


def _places(counts: Counter[str]) -> tuple[str, ...]:
    return tuple(f"{name}: {count}" for name, count in counts.most_common())


def _duplicate_findings(found: _Read, deduplicate: bool) -> Iterator[Finding]:
    if not found.sizes:
        return
    records = np.zeros(len(found.sizes), shards.SIGNED_DOCUMENT)
    records["bytes"], records["hash"], records["signature"] = found.sizes, found.hashes, found.signatures
    duplicates = split.find_duplicates(records)
    for kind, original in (("exact", duplicates.exact), ("near", duplicates.near)):
        again = np.flatnonzero(original >= 0)
        if not again.size:
            continue
        share = records["bytes"][again].sum() / records["bytes"].sum()
        level: Level = "note" if deduplicate else "ruinous" if share > 0.1 else "warning"
        advice = "left out" if deduplicate else "set data.deduplicate = true"
        places = tuple(f"{found.names[i]} repeats {found.names[original[i]]}" for i in again)
        yield Finding(
            level, f"{_count(again.size, kind + ' duplicate')}, {100 * share:.1f} % of the text", advice, places
        )


def _corpus_findings(corpus: Corpus, cache: Path, train: TrainSection, vocab: int) -> Iterator[Finding]:
    manifest = read_manifest(corpus.folder)
    kept = [Shard(**entry) for entry in manifest["shards"]] if manifest else []
    bad = [str(shards.tokens_path(cache / "shards", s.key)) for s in kept if shards.damaged(cache / "shards", s)]
    if bad:
        yield Finding(
            "ruinous", f"{_count(len(bad), 'token shard')} damaged", "delete, they are made again", tuple(bad)
        )
    try:
        check_vocab(corpus, vocab)
    except UserError as error:
        yield Finding("ruinous", "the tokenizer does not fit the model", str(error))
    for part in (corpus.train, corpus.validation):
        if part is corpus.validation and not part.tokens:
            yield Finding("warning", "no text is held out", "set data.validation_fraction above 0 to see overfitting")
            continue
        try:
            corpus.check_length(part.name, train.sequence)
        except UserError as error:
            yield Finding("ruinous", f"too little {part.name} text", str(error))
    yield from _epoch_findings(corpus, train)
    if bad:
        return
    leaked, looked_at = leaked_share(corpus)
    if leaked > 0.01:
        level: Level = "ruinous" if leaked > 0.1 else "warning"
        what = f"{100 * leaked:.1f} % of the held-out text ({_LEAK_WORDS}-word runs) is in the training text too"
        if looked_at < 1:
            what += f" (of which {100 * looked_at:.0f} % was looked at)"
        yield Finding(level, what, "evaluation would flatter the model: remove repeated passages")


def _epoch_findings(corpus: Corpus, train: TrainSection) -> Iterator[Finding]:
    epochs = corpus.train.epochs(train.steps * train.batch_rows * train.sequence)
    often = {name: count for name, count in zip(corpus.source_names, epochs, strict=True) if count > _EPOCHS_WARNING}
    if often:
        # a run that ends by the clock may draw far less than train.steps allows
        ruinous = max(often.values()) > _EPOCHS_RUINOUS and not train.max_seconds
        places = tuple(f"{name}: {count:.1f} times" for name, count in often.items())
        what = f"train.steps = {train.steps} reads sources more than {_EPOCHS_WARNING:.0f} times"
        yield Finding("ruinous" if ruinous else "warning", what, "add text, lower train.steps or their weight", places)


def leaked_share(corpus: Corpus) -> tuple[float, float]:
    """Share of the held-out runs of 13 words that the training text has too, and share of that text looked at."""
    held = [_marks(text) for text in _texts(corpus, corpus.validation, _LEAK_HELD_BYTES)]
    marks = np.unique(np.concatenate(held)) if held else np.empty(0, np.uint64)
    if not marks.size:
        return 0.0, 1.0
    seen = np.zeros(marks.size, bool)
    looked = 0
    for text in _texts(corpus, corpus.train, _LEAK_TRAIN_BYTES):
        seen |= np.isin(marks, _marks(text))
        looked += len(text)
    return float(seen.mean()), min(1.0, looked / max(corpus.train.bytes, 1))


def _marks(text: bytes) -> dedupe.U64:
    words = dedupe.word_hashes(text)
    return dedupe.shingles(words, _LEAK_WORDS) if words.size >= _LEAK_WORDS else np.empty(0, np.uint64)


def _texts(corpus: Corpus, part: Split, limit_bytes: int) -> Iterator[bytes]:
    """Text of a split, a few hundred thousand tokens at a time, an equal share of each source."""
    streams: Sequence = [stream for stream in part.streams if stream.tokens]
    for stream in streams:
        left = limit_bytes // len(streams)
        for tokens in stream.stretches():
            if left <= 0:
                break
            text = corpus.tokenizer.decode(tokens).encode("utf-8", "replace")
            left -= len(text)
            yield text
