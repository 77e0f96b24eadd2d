"""Llama and Mixtral folders against transformers, both ways, and every mistake a folder can hold."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from tiny import our_logits, random_params
from tokenizers import Tokenizer, models
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

from gigafactory.errors import UserError
from gigafactory.model.config import ModelConfig, grok_config
from gigafactory.model.huggingface import (
    config_from_huggingface,
    config_to_huggingface,
    load_huggingface,
    read_end_ids,
    read_tokenizer,
    write_huggingface,
)
from gigafactory.model.tensor_files import INDEX_NAME, new_folder, write_shards

TOKENS = np.random.default_rng(0).integers(0, 67, (2, 40)).astype(np.int32)
SMALL = {
    "vocab_size": 67,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
ROPES = {
    "default": {"rope_type": "default", "rope_theta": 500.0},
    "linear": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "rope_theta": 1e4,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    },
    "yarn": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16},
}


def their_logits(model: torch.nn.Module) -> np.ndarray:
    with torch.no_grad():
        return model.eval()(torch.from_numpy(TOKENS).long()).logits.numpy()


def loaded_logits(folder: Path) -> np.ndarray:
    cfg, params = load_huggingface(folder)
    return our_logits(params, TOKENS, cfg)


def random_llama(**changes: object) -> LlamaForCausalLM:
    torch.manual_seed(0)
    # transformers starts norms at one and weights tiny; larger ones make differences visible
    model = LlamaForCausalLM(LlamaConfig(**{**SMALL, "num_key_value_heads": 2, "initializer_range": 0.2, **changes}))
    return spread(model)


def random_mixtral(**changes: object) -> MixtralForCausalLM:
    torch.manual_seed(0)
    sizes = {**SMALL, "num_key_value_heads": 2, "num_local_experts": 4, "initializer_range": 0.2}
    return spread(MixtralForCausalLM(MixtralConfig(**{**sizes, **changes})))


def spread(model):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
    return model


@pytest.fixture(scope="module")
def llama_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    random_llama().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("rope", ROPES)
def test_llama_equals_transformers_with_each_rope(tmp_path, rope):
    model = random_llama(rope_parameters=ROPES[rope])
    model.save_pretrained(tmp_path)
    np.testing.assert_allclose(loaded_logits(tmp_path), their_logits(model), atol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"tie_word_embeddings": True},
        {"num_key_value_heads": 1},
        {"num_key_value_heads": 4, "rms_norm_eps": 1e-3},
        {"head_dim": 16},
        {"hidden_act": "gelu_pytorch_tanh"},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_llama_equals_transformers_in_its_variants(tmp_path, changes):
    model = random_llama(**changes)
    model.save_pretrained(tmp_path)
    np.testing.assert_allclose(loaded_logits(tmp_path), their_logits(model), atol=1e-4)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("per_token", [1, 2])
def test_mixtral_equals_transformers(tmp_path, tied, per_token):
    model = random_mixtral(tie_word_embeddings=tied, num_experts_per_tok=per_token)
    model.save_pretrained(tmp_path)
    np.testing.assert_allclose(loaded_logits(tmp_path), their_logits(model), atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_shards_with_an_index(tmp_path, dtype):
    random_llama().to(dtype).save_pretrained(tmp_path, max_shard_size="10KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    model = LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    np.testing.assert_allclose(loaded_logits(tmp_path), their_logits(model), atol=1e-4)


def our_model(**changes: object) -> tuple[ModelConfig, dict]:
    fields = {
        "layers": 2,
        "width": 32,
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 8,
        "ffn_width": 48,
        "vocab": 67,
        "context": 64,
        **changes,
    }
    cfg = ModelConfig.model_validate(fields)
    return cfg, random_params(cfg)


@pytest.mark.parametrize(
    "changes",
    [
        {"tie_embeddings": True},
        {"tie_embeddings": False, "norm_eps": 1e-6},
        {"experts": 4, "router_renormalize": True, "tie_embeddings": False},
        {"experts": 4, "experts_per_token": 1, "router_renormalize": True},
        {"activation": "gelu"},
        {"rope_scaling": {"kind": "linear", "factor": 2.0}},
        {"rope_scaling": {"kind": "llama3", "factor": 4.0, "original_context": 16, "low_freq_factor": 2.0}},
        {"rope_scaling": {"kind": "yarn", "factor": 4.0, "original_context": 16, "beta_fast": 16.0}},
    ],
    ids=str,
)
def test_what_we_write_transformers_reads(tmp_path, changes):
    cfg, params = our_model(**changes)
    write_huggingface(tmp_path / "out", cfg, params)
    model, told = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True, dtype=torch.float32)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    np.testing.assert_allclose(our_logits(params, TOKENS, cfg), their_logits(model), atol=1e-4)
    again, loaded = load_huggingface(tmp_path / "out")
    assert again == cfg
    for name, value in params["layers"].items():
        np.testing.assert_array_equal(loaded["layers"][name], value)


@pytest.mark.parametrize("rope", ROPES)
def test_older_spelling_of_rope_means_the_same(llama_folder, rope):
    new = json.loads((llama_folder / "config.json").read_text())
    scaling = {key: value for key, value in ROPES[rope].items() if key != "rope_theta"}
    old = {key: value for key, value in new.items() if key != "rope_parameters"}
    old |= {"rope_theta": ROPES[rope]["rope_theta"], "rope_scaling": None if rope == "default" else scaling}
    older = {**old, "rope_scaling": {("type" if key == "rope_type" else key): v for key, v in scaling.items()}}
    wanted = config_from_huggingface({**new, "rope_parameters": ROPES[rope]}, "test")
    assert config_from_huggingface(old, "test") == wanted
    assert config_from_huggingface(older, "test") == wanted


def test_shards_hold_transposed_matrices_in_order(tmp_path):
    tensors = {f"t{i}": np.random.default_rng(i).standard_normal((6, 4)).astype(np.float32).T for i in range(5)}
    with new_folder(tmp_path / "out") as partial:
        write_shards(partial, tensors.items(), shard_bytes=200)
    index = json.loads((tmp_path / "out" / INDEX_NAME).read_text())
    assert index["metadata"]["total_size"] == 5 * 96
    assert len(set(index["weight_map"].values())) == 2
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()} == {0o644}
    for name, file in index["weight_map"].items():
        np.testing.assert_array_equal(load_file(tmp_path / "out" / file)[name], tensors[name])


def test_a_failed_write_leaves_nothing(tmp_path):
    def tensors():
        yield "a", np.zeros(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "out") as partial:
        write_shards(partial, tensors())
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_not_touched(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    cfg, params = our_model()
    with pytest.raises(UserError, match="must be a new or an empty folder"):
        write_huggingface(tmp_path, cfg, params)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_tokenizer_template_and_end_ids_travel(tmp_path):
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "<end>": 2}, unk_token="a"))
    cfg, params = our_model()
    template = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"
    write_huggingface(tmp_path / "out", cfg, params, tokenizer=tokenizer, chat_template=template, end_ids=(2, 1))
    loaded, read_template = read_tokenizer(tmp_path / "out")
    assert loaded is not None
    assert loaded.encode("b").ids == [1]
    assert read_template == template
    assert read_end_ids(tmp_path / "out") == (2, 1)
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert theirs.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "<|im_start|>hi<|im_end|>"
    (tmp_path / "out" / "generation_config.json").write_text('{"eos_token_id": 0}')
    assert read_end_ids(tmp_path / "out") == (0,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "architectures: must be one of .*Mixtral.*, got GPT2LMHeadModel"),
        ({"hidden_size": None}, "hidden_size: must be given"),
        ({"hidden_act": "relu"}, "hidden_act: must be one of silu.*, got relu"),
        ({"attention_bias": True}, "attention_bias: only False is supported, got True"),
        ({"sliding_window": 4096}, "sliding_window: only None is supported, got 4096"),
        ({"num_attention_heads": 3}, "heads=3 must be a multiple of kv_heads=2"),
        ({"num_hidden_layers": 0}, "layers: .*greater than or equal to 1, got 0"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "rope_type: must be one of .*got dynamic"),
        ({"rope_parameters": {"rope_type": "linear"}}, "factor: must be given"),
        (
            {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.0}},
            "attention_factor: only 1.13863 is supported with yarn, got 1",
        ),
        ({"intermediate_size": 40}, r"gate_proj.weight must be \[40, 32\], got \[48, 32\]"),
        ({"num_hidden_layers": 3}, "missing tensors: model.layers.2.* and 3 more$"),
        ({"num_hidden_layers": 1}, "unexpected tensors: model.layers.1.* and 3 more$"),
    ],
)
def test_configs_that_do_not_fit_are_told_in_one_line(tmp_path, llama_folder, change, message):
    config = json.loads((llama_folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    (tmp_path / "model.safetensors").symlink_to(llama_folder / "model.safetensors")
    with pytest.raises(UserError, match=message) as told:
        load_huggingface(tmp_path)
    assert "\n" not in str(told.value)


def test_damaged_files_are_told_in_one_line(tmp_path, llama_folder):
    with pytest.raises(UserError, match=r"config\.json: there is no such file"):
        load_huggingface(tmp_path)
    (tmp_path / "config.json").write_text("{not json")
    with pytest.raises(UserError, match="not readable as JSON"):
        load_huggingface(tmp_path)
    (tmp_path / "config.json").write_text((llama_folder / "config.json").read_text())
    with pytest.raises(UserError, match=r"holds no \*\.safetensors"):
        load_huggingface(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((llama_folder / "model.safetensors").read_bytes()[:-100])
    with pytest.raises(UserError, match="not a readable safetensors file"):
        load_huggingface(tmp_path)
    (tmp_path / INDEX_NAME).write_text('{"weight_map": {"a": "absent.safetensors"}}')
    with pytest.raises(UserError, match=r"absent\.safetensors: there is no such file"):
        load_huggingface(tmp_path)
    (tmp_path / INDEX_NAME).unlink()
    save_file({"x": np.zeros(2)}, tmp_path / "model.safetensors")
    save_file({"x": np.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="tensor x is also in"):
        load_huggingface(tmp_path)


@pytest.mark.parametrize(
    ("cfg", "field"),
    [
        (grok_config(layers=1, width=16, heads=2, kv_heads=1, head_dim=8, vocab=9), "sandwich_norm"),
        (our_model(logit_softcap=30.0)[0], "logit_softcap"),
        (our_model(experts=4)[0], "router_renormalize"),
        (our_model(attention_multiplier=0.1)[0], "attention_multiplier"),
        (our_model(pad_token=0)[0], "pad_token"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_models_that_the_format_cannot_express_are_refused(cfg, field):
    with pytest.raises(UserError, match=rf"model\.{field}: .* cannot be said"):
        config_to_huggingface(cfg)
