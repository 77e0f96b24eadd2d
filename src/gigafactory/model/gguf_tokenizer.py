"""The tokenizer inside a GGUF file, as a `tokenizers.Tokenizer`: byte-level BPE with the file's own split of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Digits, PreTokenizer, Sequence, Split

from gigafactory.errors import UserError

# How text is cut before merging, by `tokenizer.ggml.pre` (llama.cpp, src/llama-vocab.cpp, regex_exprs)
_GPT2 = ("gpt-2", "mpt", "olmo", "jais")
_DIGITS_THEN_GPT2 = ("smollm", "starcoder", "refact", "command-r", "codeshell")
_LLAMA3 = ("llama3", "llama-v3", "llama-bpe")
_LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CONTROL, _USER_DEFINED = 3, 4


def tokenizer_from_metadata(metadata: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that the metadata of a GGUF file describes.

    Raises UserError for a kind other than byte-level BPE ("gpt2") or an unknown way of splitting text.
    """
    model = metadata.get("tokenizer.ggml.model")
    if model != "gpt2":
        raise UserError(f"tokenizer.ggml.model: must be gpt2 (byte-level BPE), got {model}")
    pre = metadata.get("tokenizer.ggml.pre", "gpt-2")
    splitter = _splitter(pre, bool(metadata.get("tokenizer.ggml.add_space_prefix", False)))
    tokens = metadata.get("tokenizer.ggml.tokens", [])
    merges = [tuple(pair.split(" ", 1)) for pair in metadata.get("tokenizer.ggml.merges", [])]
    ids = {token: number for number, token in enumerate(tokens)}
    try:
        tokenizer = Tokenizer(BPE(vocab=ids, merges=merges, ignore_merges=pre in _LLAMA3))
    except Exception as error:  # the library raises bare Exception
        raise UserError(f"tokenizer.ggml.merges: do not fit tokenizer.ggml.tokens ({error})") from error
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = ByteLevelDecoder()
    kinds = metadata.get("tokenizer.ggml.token_type", [])
    tokenizer.add_special_tokens(_added(tokens, kinds, _CONTROL))
    tokenizer.add_tokens(_added(tokens, kinds, _USER_DEFINED))
    return tokenizer


def end_ids_from_metadata(metadata: Mapping[str, Any]) -> tuple[int, ...]:
    """Ids of the tokens that end an answer: end of text and, where there is one, end of turn."""
    names = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id")
    return tuple(dict.fromkeys(int(metadata[name]) for name in names if name in metadata))


def _added(tokens: list[str], kinds: list[int], kind: int) -> list[AddedToken]:
    special = kind == _CONTROL
    return [
        AddedToken(token, special=special, normalized=False)
        for token, given in zip(tokens, kinds, strict=False)
        if given == kind
    ]


def _splitter(pre: str, prefix_space: bool) -> PreTokenizer:
    if pre in _GPT2:
        return ByteLevel(add_prefix_space=prefix_space)
    if pre in _DIGITS_THEN_GPT2:
        return Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=prefix_space)])
    if pre in _LLAMA3:
        split = Split(Regex(_LLAMA3_SPLIT), behavior="isolated")
        return Sequence([split, ByteLevel(add_prefix_space=prefix_space, use_regex=False)])
    known = ", ".join((*_GPT2, *_DIGITS_THEN_GPT2, *_LLAMA3))
    raise UserError(f"tokenizer.ggml.pre: must be one of {known}, got {pre}")
