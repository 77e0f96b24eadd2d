"""Text to token ids and back: bytes, a byte-level BPE trained on the sources, or any tokenizer.json.

The `tokenizers` library is imported only when a BPE is asked for.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gigafactory.errors import UserError
from gigafactory.files import write_atomic

BYTES_FILE = {"gigafactory_tokenizer": "bytes"}
_CONFIG = "tokenizer_config.json"
_BYTE_OFFSET = 2
_END_NAMES = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|end|>", "<|im_end|>", "[EOS]", "<|separator|>")
_PAD_NAMES = ("<|pad|>", "<pad>", "[PAD]", "<|finetune_right_pad_id|>")


class Tokenizer(Protocol):
    """What the rest of the house needs of a tokenizer."""

    @property
    def vocab(self) -> int:
        """Ids are below this."""

    @property
    def end_id(self) -> int:
        """Stands after each document; also the natural first token of a sample without a prompt."""

    @property
    def pad_id(self) -> int:
        """Fills unused places; never inside a document."""

    @property
    def fingerprint(self) -> str:
        """Hex digest that changes whenever any text could be encoded differently."""

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Token ids, without an end token. Names of special tokens in the text are plain text unless ``special``."""

    def encode_arrays(self, texts: Sequence[str]) -> list[NDArray[np.integer]]:
        """Many documents at once, as encode."""

    def decode(self, ids: Iterable[int]) -> str:
        """Text; what is no valid UTF-8 becomes U+FFFD, end and padding vanish."""

    def byte_length(self, ids: NDArray[np.integer]) -> int:
        """Bytes of UTF-8 text that the ids stand for; end and padding are none."""

    def save(self, path: Path) -> None:
        """Write a tokenizer.json that load_tokenizer reads back to the same fingerprint.

        Unless it is the byte tokenizer, the ids that end and pad are named in a tokenizer_config.json beside it, and
        the two are what Hugging Face's libraries read.
        """


class ByteTokenizer:
    """0 pads, 1 ends a document, byte b is b + 2."""

    vocab = 256 + _BYTE_OFFSET
    pad_id = 0
    end_id = 1
    fingerprint = hashlib.sha256(b"gigafactory bytes 1").hexdigest()

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        return [byte + _BYTE_OFFSET for byte in text.encode("utf-8", "replace")]

    def encode_arrays(self, texts: Sequence[str]) -> list[NDArray[np.integer]]:
        raw = (np.frombuffer(text.encode(), np.uint8) for text in texts)
        return [data.astype(np.uint16) + np.uint16(_BYTE_OFFSET) for data in raw]

    def decode(self, ids: Iterable[int]) -> str:
        return self.raw(ids).decode("utf-8", "replace")

    def raw(self, ids: Iterable[int]) -> bytes:
        """The bytes that the ids stand for, valid UTF-8 or not."""
        array = ids if isinstance(ids, np.ndarray) else np.fromiter(ids, np.int64)
        return (array[(array >= _BYTE_OFFSET) & (array < self.vocab)] - _BYTE_OFFSET).astype(np.uint8).tobytes()

    def byte_length(self, ids: NDArray[np.integer]) -> int:
        return int(np.count_nonzero(ids >= _BYTE_OFFSET))

    def save(self, path: Path) -> None:
        write_atomic(path, json.dumps(BYTES_FILE).encode())


class WrappedTokenizer:
    """A tokenizers.Tokenizer with the ids that end and pad."""

    def __init__(self, inner: Any, end_id: int, pad_id: int) -> None:
        self.inner = inner
        self.end_id = end_id
        self.pad_id = pad_id
        self.vocab = max(inner.get_vocab(with_added_tokens=True).values()) + 1
        inner.no_padding()
        inner.no_truncation()
        text = json.dumps(json.loads(inner.to_str()), sort_keys=True)
        self.fingerprint = hashlib.sha256(f"{end_id} {pad_id} {text}".encode()).hexdigest()

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        self.inner.encode_special_tokens = not special
        return list(self.inner.encode(text, add_special_tokens=False).ids)

    def encode_arrays(self, texts: Sequence[str]) -> list[NDArray[np.integer]]:
        self.inner.encode_special_tokens = True
        encodings = self.inner.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, np.uint32) for encoding in encodings]

    def decode(self, ids: Iterable[int]) -> str:
        kept = [int(i) for i in ids if i not in (self.end_id, self.pad_id)]
        return str(self.inner.decode(kept, skip_special_tokens=False))

    def byte_length(self, ids: NDArray[np.integer]) -> int:
        return len(self.decode(ids.tolist()).encode("utf-8", "replace"))

    def save(self, path: Path) -> None:
        names = {"eos_token": self.inner.id_to_token(self.end_id), "pad_token": self.inner.id_to_token(self.pad_id)}
        write_atomic(path.with_name(_CONFIG), json.dumps(names, ensure_ascii=False).encode())
        write_atomic(path, self.inner.to_str().encode())


def wrap(tokenizer: Any, *, end_id: int, pad_id: int) -> Tokenizer:
    """Use a tokenizers.Tokenizer (from a GGUF file or a Hugging Face folder) as ours."""
    return WrappedTokenizer(tokenizer, end_id, pad_id)


def text_stream(tokenizer: Tokenizer) -> Callable[[int], str]:
    """A function that takes one id after another and returns the text that became certain with it.

    A character whose bytes are not all there yet comes with its last byte; nothing is ever printed twice.
    """
    if isinstance(tokenizer, ByteTokenizer):
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        return lambda token: decoder.decode(tokenizer.raw((token,)))

    ids: list[int] = []
    sent = ""  # text of the ids in hand that was given out

    def push(token: int) -> str:
        nonlocal sent
        ids.append(token)
        text = tokenizer.decode(ids)
        if text.endswith("\ufffd") and len(ids) < 64:
            return ""
        new, sent = text[len(sent) :], text
        if len(ids) >= 64:  # keep a few ids as context: some tokenizers strip the space of a first word
            del ids[:-4]
            sent = tokenizer.decode(ids)
        return new

    return push


def load_tokenizer(spec: str, base_dir: Path = Path()) -> Tokenizer:
    """The tokenizer that "bytes" or the path of a tokenizer.json (or of its folder) stands for.

    Raises UserError for "bpe:SIZE", which needs the sources: see trained_bpe.
    """
    if spec == "bytes":
        return ByteTokenizer()
    if spec.startswith("bpe:"):
        raise UserError(
            f'data.tokenizer: "{spec}" is trained from the sources by `gigafactory train`; give its tokenizer.json here'
        )
    return _read(tokenizer_file(spec, base_dir))


def tokenizer_file(spec: str, base_dir: Path) -> Path:
    """The tokenizer.json that a path (of it or of its folder) names. Raises UserError when there is none."""
    path = base_dir / Path(spec).expanduser()
    if path.is_dir():
        path = path / "tokenizer.json"
    if not path.is_file():
        raise UserError(
            f'data.tokenizer: must be "bytes", "bpe:SIZE" or the path of a tokenizer.json, got "{spec}" (no file)'
        )
    return path


def bpe_size(spec: str) -> int | None:
    """SIZE of "bpe:SIZE", or None for another kind of tokenizer. Raises UserError when SIZE is none."""
    if not spec.startswith("bpe:"):
        return None
    try:
        size = int(spec[4:])
    except ValueError:
        size = 0
    if not 258 <= size <= 1 << 20:
        raise UserError(f'data.tokenizer: SIZE of "bpe:SIZE" must be 258..1048576, got "{spec[4:]}"')
    return size


def train_bpe(size: int, texts: Iterable[str], path: Path) -> Tokenizer:
    """Train a byte-level BPE of ``size`` ids (0 pads, 1 ends a document) on the texts and save it at ``path``."""
    tokenizers = _library()
    inner = tokenizers.Tokenizer(tokenizers.models.BPE())
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<|pad|>", "<|end|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer=trainer)
    WrappedTokenizer(inner, end_id=1, pad_id=0).save(path)
    return _read(path)


def _library() -> Any:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    try:
        import tokenizers
        import tokenizers.decoders
        import tokenizers.models
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ImportError:
        raise UserError('data.tokenizer: needs the package "tokenizers": pip install tokenizers') from None
    return tokenizers


def _read(path: Path) -> Tokenizer:
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path}: not a tokenizer.json: {error}") from None
    if contents == BYTES_FILE:
        return ByteTokenizer()
    library = _library()
    try:
        inner = library.Tokenizer.from_str(json.dumps(contents, ensure_ascii=False))
    except Exception as error:  # the library raises bare Exception
        raise UserError(f"{path}: not a tokenizer.json: {str(error).splitlines()[0]}") from None
    end, pad = _declared(path, "eos_token"), _declared(path, "pad_token")
    end_id = _first_id(inner, (end, *_END_NAMES) if end else _END_NAMES)
    if end_id is None:
        raise UserError(f"{path}: no token that ends a document: name it as eos_token in {path.with_name(_CONFIG)}")
    pad_id = _first_id(inner, (pad, *_PAD_NAMES) if pad else _PAD_NAMES)
    return WrappedTokenizer(inner, end_id, end_id if pad_id is None else pad_id)


def _declared(path: Path, name: str) -> str | None:
    """A special token as the tokenizer_config.json beside the file names it."""
    try:
        value = json.loads(path.with_name(_CONFIG).read_text(encoding="utf-8")).get(name)
    except (OSError, ValueError, AttributeError):
        return None
    return value.get("content") if isinstance(value, dict) else value


def _first_id(inner: Any, names: Iterable[str]) -> int | None:
    ids = (inner.token_to_id(name) for name in names)
    return next((i for i in ids if i is not None), None)
