"""Folders for serving engines: names, shapes and fields that their Grok loaders ask for, and the way back.

The names are those that the loaders build, written out here from SGLang `python/sglang/srt/models/grok.py`
(parameters of Grok1ForCausalLM; load_weights and FusedMoE.make_expert_params_mapping with w1, w3, w2) and vLLM
`vllm/model_executor/models/grok1.py` (Grok1ForCausalLM: linear, linear_v, linear_1; Grok2ForCausalLM: renames).
"""

import json
import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny import our_logits, random_params

from gigafactory.errors import UserError
from gigafactory.model.config import ModelConfig, grok_config
from gigafactory.model.grok_export import grok_config_json, load_grok, write_grok

TOKENS = np.array([[4, 9, 2, 7, 7, 1, 30, 12], [3, 8, 1, 0, 2, 5, 0, 0]], np.int32)


def small(**changes: object) -> tuple[ModelConfig, dict]:
    sizes = {"layers": 2, "width": 16, "heads": 4, "kv_heads": 2, "head_dim": 4, "vocab": 33, "experts": 3}
    cfg = grok_config(**{**sizes, "ffn_width": 24, "context": 64, **changes})
    return cfg, random_params(cfg)


def engine_parameters(config: dict, dialect: str) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that the engine's load_weights wants, from config.json alone."""
    width, vocab, ffn = config["hidden_size"], config["vocab_size"], config["intermediate_size"]
    query = config["num_attention_heads"] * config["head_dim"]
    kv = config["num_key_value_heads"] * config["head_dim"]
    attention, moe, (gate, up, down) = {
        "sglang": ("self_attn", "block_sparse_moe", ("w1", "w3", "w2")),
        "vllm": ("attn", "moe_block", ("linear", "linear_v", "linear_1")),
    }[dialect]
    wanted = {
        "model.embed_tokens.weight": (vocab, width),
        "model.norm.weight": (width,),
        "lm_head.weight": (vocab, width),
    }
    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}"
        wanted |= {
            f"{at}.{attention}.q_proj.weight": (query, width),
            f"{at}.{attention}.k_proj.weight": (kv, width),
            f"{at}.{attention}.v_proj.weight": (kv, width),
            f"{at}.{attention}.o_proj.weight": (width, query),
            f"{at}.{moe}.gate.weight": (config["num_local_experts"], width),
        }
        for norm in ("pre_attn_norm", "post_attn_norm", "pre_moe_norm", "post_moe_norm"):
            wanted[f"{at}.{norm}.weight"] = (width,)
        for e in range(config["num_local_experts"]):
            wanted |= {
                f"{at}.{moe}.experts.{e}.{gate}.weight": (ffn, width),
                f"{at}.{moe}.experts.{e}.{up}.weight": (ffn, width),
                f"{at}.{moe}.experts.{e}.{down}.weight": (width, ffn),
            }
    return wanted


@pytest.mark.parametrize("dialect", ["sglang", "vllm"])
def test_every_tensor_that_the_loader_wants_and_no_other(tmp_path, dialect):
    cfg, params = small()
    write_grok(tmp_path / "out", cfg, params, dialect=dialect)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert {name: tensor.shape for name, tensor in tensors.items()} == engine_parameters(config, dialect)
    assert all(tensor.dtype == ml_dtypes.bfloat16 for tensor in tensors.values())
    gate, up, down = ("w1", "w3", "w2") if dialect == "sglang" else ("linear", "linear_v", "linear_1")
    for leaf, ours in ((gate, "w_gate"), (up, "w_up"), (down, "w_down")):
        (name,) = [name for name in tensors if re.search(rf"layers\.1\..*experts\.2\.{leaf}\.weight$", name)]
        expert = np.asarray(params["layers"][ours][1, 2]).T
        np.testing.assert_array_equal(tensors[name], expert.astype(ml_dtypes.bfloat16))


def test_vllm_s_grok_2_class_reads_the_sglang_folder():
    """It is chosen by moe_intermediate_size, and renames two parts of each name."""
    config = grok_config_json(small()[0], "sglang")
    assert "moe_intermediate_size" in config
    assert "moe_intermediate_size" not in grok_config_json(small()[0], "vllm")
    own_modules = engine_parameters(config, "vllm")
    for name in engine_parameters(config, "sglang"):
        renamed = name.replace(".self_attn.", ".attn.").replace(".block_sparse_moe.", ".moe_block.")
        parts = re.sub(r"\.w1\.", ".linear.", re.sub(r"\.w3\.", ".linear_v.", re.sub(r"\.w2\.", ".linear_1.", renamed)))
        assert parts in own_modules


def test_fields_that_the_engines_read():
    cfg = grok_config()
    config = grok_config_json(cfg, "sglang")
    assert config["architectures"] == ["Grok1ForCausalLM"]
    assert (config["hidden_size"], config["intermediate_size"], config["vocab_size"]) == (6144, 32768, 131072)
    assert (config["num_local_experts"], config["num_experts_per_tok"]) == (8, 2)
    assert config["embedding_multiplier_scale"] == 78.38367176906169
    assert config["output_multiplier_scale"] == 0.5773502691896257
    assert config["attn_logit_softcapping"] == 30.0
    assert config["rope_parameters"] == {"rope_type": "default", "rope_theta": 10000.0}
    assert config["load_presharded_moe"] is False
    # vLLM multiplies the attention's output by this one if it is there
    assert "attn_output_multiplier" not in config
    assert grok_config_json(cfg, "vllm")["architectures"] == ["Grok1ModelForCausalLM"]


@pytest.mark.parametrize("dialect", ["sglang", "vllm"])
@pytest.mark.parametrize("tied", [True, False])
def test_round_trip_gives_the_same_logits(tmp_path, dialect, tied):
    """The release's attention multiplier is not 1/sqrt(4): it moves into the query weights."""
    cfg, params = small(tie_embeddings=tied, attention_multiplier=0.3, logit_softcap=20.0)
    write_grok(tmp_path / "out", cfg, params, dialect=dialect, dtype="float32")
    again, loaded = load_grok(tmp_path / "out")
    assert again == cfg.model_copy(update={"attention_multiplier": None})
    before, after = (our_logits(p, TOKENS, c) for p, c in ((params, cfg), (loaded, again)))
    np.testing.assert_allclose(before, after, atol=1e-5)


def test_round_trip_of_the_release_s_head_size_is_bitwise(tmp_path):
    cfg, params = small(width=256, heads=2, kv_heads=1, head_dim=128)
    write_grok(tmp_path / "out", cfg, params, dtype="float32")
    again, loaded = load_grok(tmp_path / "out")
    assert again.attention_scale == pytest.approx(cfg.attention_scale, rel=1e-12)
    for name, value in params["layers"].items():
        np.testing.assert_array_equal(loaded["layers"][name], value)


def test_the_published_port_loads(tmp_path):
    """hpcai-tech/grok-1: norms end in .scale, and config.json holds the multiplier of the attention logits."""
    cfg, params = small(attention_multiplier=None)
    write_grok(tmp_path, cfg, params, dialect="vllm", dtype="float32")
    path: Path = tmp_path / "model.safetensors"
    tensors = {re.sub(r"norm\.weight$", "norm.scale", name): tensor for name, tensor in load_file(path).items()}
    save_file(tensors, path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"attn_output_multiplier": 0.25}
    (tmp_path / "config.json").write_text(json.dumps(config))
    again, loaded = load_grok(tmp_path)
    assert again == cfg.model_copy(update={"attention_multiplier": 0.25})
    np.testing.assert_array_equal(loaded["layers"]["mlp_post_norm"], params["layers"]["mlp_post_norm"])


@pytest.mark.parametrize(
    ("changes", "dialect", "field"),
    [
        ({"experts": 0}, "sglang", "experts"),
        ({"sandwich_norm": False}, "sglang", "sandwich_norm"),
        ({"activation": "silu"}, "vllm", "activation"),
        ({"rope_scaling": {"kind": "linear", "factor": 2.0}}, "sglang", "rope_scaling"),
        ({"head_dim": 8}, "vllm", "head_dim"),
    ],
)
def test_models_that_the_loaders_cannot_run_are_refused(tmp_path, changes, dialect, field):
    cfg, params = small(**changes)
    with pytest.raises(UserError, match=rf"model\.{field}: .* cannot be served by the {dialect} Grok loader"):
        write_grok(tmp_path / "out", cfg, params, dialect=dialect)
    assert list(tmp_path.iterdir()) == []


def test_grok_2_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"residual_moe": true}')
    with pytest.raises(UserError, match="residual_moe: Grok-2's parallel dense MLP is not supported"):
        load_grok(tmp_path)
