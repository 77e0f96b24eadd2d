from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gigafactory.data.tokenizer import (
    ByteTokenizer,
    Tokenizer,
    bpe_size,
    load_tokenizer,
    text_stream,
    train_bpe,
    wrap,
)
from gigafactory.errors import UserError

TEXTS = ["The quick brown fox jumps over the lazy dog. " * 20, "naïve café, 日本語, 🎉 " * 20]


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return train_bpe(320, TEXTS, tmp_path_factory.mktemp("bpe") / "tokenizer.json")


@pytest.fixture(params=["bytes", "bpe"])
def tokenizer(request: pytest.FixtureRequest, bpe: Tokenizer) -> Tokenizer:
    return ByteTokenizer() if request.param == "bytes" else bpe


@pytest.mark.parametrize("text", ["", "a", "naïve 🎉\n\n  x\t\0", "<|end|><|pad|>", " leading", "trailing "])
def test_any_text_comes_back_and_ids_are_below_vocab(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(0 <= i < tokenizer.vocab for i in ids)
    assert not {tokenizer.end_id, tokenizer.pad_id} & set(ids)
    assert tokenizer.byte_length(np.array(ids, np.int64)) == len(text.encode())
    assert [array.tolist() for array in tokenizer.encode_arrays([text, "b"])] == [ids, tokenizer.encode("b")]


@given(st.text())
def test_bytes_are_two_above_their_value(text: str) -> None:
    tokenizer = ByteTokenizer()
    assert tokenizer.encode(text) == [byte + 2 for byte in text.encode()]
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_end_and_padding_are_no_text(tokenizer: Tokenizer) -> None:
    ids = [tokenizer.pad_id, *tokenizer.encode("ab"), tokenizer.end_id]
    assert tokenizer.decode(ids) == "ab"
    assert tokenizer.byte_length(np.array(ids)) == 2


def test_invalid_utf8_becomes_the_replacement_character() -> None:
    assert ByteTokenizer().decode([0xC3 + 2, ord("a") + 2, 0xFF + 2]) == "�a�"


@settings(max_examples=40, deadline=None)
@given(text=st.text(alphabet="ab é日🎉\n", max_size=200))
def test_a_stream_gives_the_text_of_all_ids_and_never_half_a_character(bpe: Tokenizer, text: str) -> None:
    for tokenizer in (ByteTokenizer(), bpe):
        push = text_stream(tokenizer)
        said = [push(i) for i in tokenizer.encode(text)]
        assert "".join(said) == text
        assert not any("�" in part for part in said)


def test_special_tokens_are_parsed_only_when_asked(bpe: Tokenizer) -> None:
    assert bpe.encode("<|end|>", special=True) == [bpe.end_id]
    assert bpe.end_id not in bpe.encode("<|end|>")


def test_saved_and_loaded_it_is_the_same(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "tokenizer.json")
    again = load_tokenizer("tokenizer.json", tmp_path)
    assert again.fingerprint == tokenizer.fingerprint
    assert (again.vocab, again.end_id, again.pad_id) == (tokenizer.vocab, tokenizer.end_id, tokenizer.pad_id)
    assert again.encode("dog ü") == tokenizer.encode("dog ü")


def test_what_is_saved_is_what_hugging_face_reads(bpe: Tokenizer, tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    bpe.save(tmp_path / "tokenizer.json")
    theirs = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert theirs.encode("dog ü", add_special_tokens=False) == bpe.encode("dog ü")
    assert (theirs.eos_token_id, theirs.pad_token_id) == (bpe.end_id, bpe.pad_id)


def test_training_is_deterministic_and_other_text_gives_another_fingerprint(bpe: Tokenizer, tmp_path: Path) -> None:
    assert train_bpe(320, TEXTS, tmp_path / "a.json").fingerprint == bpe.fingerprint
    assert train_bpe(320, TEXTS[:1], tmp_path / "b.json").fingerprint != bpe.fingerprint


def test_a_bpe_is_shorter_than_bytes_on_its_text(bpe: Tokenizer) -> None:
    assert 258 < bpe.vocab <= 320
    assert len(bpe.encode(TEXTS[0])) < len(TEXTS[0]) / 3


def test_a_hugging_face_folder_names_its_end_token(tmp_path: Path) -> None:
    import tokenizers

    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 1, "STOP": 2, "FILL": 3}, unk_token="a"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    inner.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match="eos_token"):
        load_tokenizer(str(tmp_path))
    config = {"eos_token": {"content": "STOP"}, "pad_token": "FILL"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    loaded = load_tokenizer(str(tmp_path))
    assert (loaded.end_id, loaded.pad_id) == (2, 3)
    assert wrap(inner, end_id=2, pad_id=3).fingerprint == loaded.fingerprint
    assert wrap(inner, end_id=1, pad_id=3).fingerprint != loaded.fingerprint


@pytest.mark.parametrize(
    ("spec", "message"),
    [("byte", 'got "byte"'), ("nowhere.json", "no file"), ("bpe:4096", "trained from the sources")],
)
def test_wrong_names_are_answered_in_one_line(spec: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        load_tokenizer(spec, tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"model": 3}', "�"])
def test_a_file_that_is_no_tokenizer_is_answered_in_one_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UserError, match=r"tokenizer\.json: not a tokenizer\.json") as caught:
        load_tokenizer(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["bpe:", "bpe:x", "bpe:100", "bpe:-5"])
def test_a_bpe_size_must_be_a_number_that_holds_all_bytes(spec: str) -> None:
    with pytest.raises(UserError, match=r"258\.\.1048576"):
        bpe_size(spec)
