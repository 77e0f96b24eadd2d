"""Counts of parameters and FLOPs: against the release, a count by hand, other people's models, and XLA's own count."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from gigafactory.model.config import ModelConfig, grok_config, grok_ffn_width
from gigafactory.model.grok import forward, parameter_spec
from gigafactory.model.options import Options
from gigafactory.model.spec import is_param

SMALL = ModelConfig(layers=3, width=16, heads=4, kv_heads=2, head_dim=8, ffn_width=24, vocab=40, context=32)


def stored(cfg: ModelConfig) -> int:
    return sum(math.prod(param.shape) for param in jax.tree.leaves(parameter_spec(cfg), is_leaf=is_param))


def test_grok_1_has_the_published_size() -> None:
    cfg = grok_config()
    layer = 2 * 6144 * 128 * (48 + 8) + 8 * 3 * 6144 * 32768 + 6144 * 8 + 4 * 6144
    assert cfg.used_parameters() == 64 * layer + 2 * 131072 * 6144 + 6144
    assert cfg.used_parameters() == pytest.approx(316.5e9, rel=1e-3)
    assert cfg.active_parameters() == pytest.approx(84.56e9, rel=1e-3)
    assert cfg.parameters() == pytest.approx(315.7e9, rel=1e-3)
    assert cfg.used_parameters() - cfg.parameters() == 131072 * 6144
    assert cfg.ffn_width == 32768
    assert cfg.attention_scale == 0.08838834764831845


@pytest.mark.parametrize(("width", "expected"), [(6144, 32768), (64, 344), (128, 688), (100, 536), (96, 512)])
def test_grok_expert_width_is_two_thirds_of_the_widening_rounded_up(width: int, expected: int) -> None:
    assert grok_ffn_width(width) == expected
    assert grok_config(width=width).ffn_width == expected


def test_grok_embedding_multiplier_follows_the_width_unless_given() -> None:
    assert grok_config().embedding_multiplier == pytest.approx(math.sqrt(6144), rel=1e-9)
    assert grok_config(width=256).embedding_multiplier == 16.0
    assert grok_config(width=256, embedding_multiplier=3.0).embedding_multiplier == 3.0


@settings(deadline=None, max_examples=50)
@given(
    st.builds(
        lambda layers, width, kv, group, dim, ffn, vocab, experts, sandwich, tied: ModelConfig(
            layers=layers,
            width=width,
            heads=kv * group,
            kv_heads=kv,
            head_dim=2 * dim,
            ffn_width=ffn,
            vocab=vocab,
            context=8,
            experts=experts,
            experts_per_token=min(2, max(experts, 1)),
            sandwich_norm=sandwich,
            tie_embeddings=tied,
        ),
        *(st.integers(1, n) for n in (9, 40, 4, 4, 9, 70)),
        st.integers(2, 99),
        st.integers(0, 9),
        st.booleans(),
        st.booleans(),
    )
)
def test_counts_are_those_of_the_parameter_tree(cfg: ModelConfig) -> None:
    tree = parameter_spec(cfg)
    assert cfg.parameters() == stored(cfg)
    assert cfg.used_parameters() == stored(cfg) + (cfg.vocab * cfg.width if cfg.tie_embeddings else 0)
    idle = stored(cfg) - stored(cfg.model_copy(update={"experts": cfg.experts_per_token})) if cfg.experts else 0
    # the router of the idle experts is active: every token is compared with every expert
    idle -= cfg.layers * cfg.width * max(cfg.experts - cfg.experts_per_token, 0)
    assert cfg.active_parameters() == cfg.used_parameters() - idle
    names = ("attn_norm", "mlp_norm") + (("attn_post_norm", "mlp_post_norm") if cfg.sandwich_norm else ())
    norms = sum(math.prod(tree["layers"][name].shape) for name in names) + cfg.width
    assert cfg.matmul_parameters() == cfg.active_parameters() - norms - cfg.vocab * cfg.width


FAMILIES: dict[str, dict[str, Any]] = {
    "llama, tied": {"tie_embeddings": True},
    "llama, grouped and untied": {"tie_embeddings": False},
    "mixtral": {"tie_embeddings": False, "experts": 4},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_counts_are_those_of_hugging_face(family: str) -> None:
    import torch
    import transformers

    cfg = SMALL.model_copy(update=FAMILIES[family])
    fields: dict[str, Any] = {
        "num_hidden_layers": cfg.layers,
        "hidden_size": cfg.width,
        "num_attention_heads": cfg.heads,
        "num_key_value_heads": cfg.kv_heads,
        "head_dim": cfg.head_dim,
        "intermediate_size": cfg.ffn_width,
        "vocab_size": cfg.vocab,
        "tie_word_embeddings": cfg.tie_embeddings,
    }
    with torch.device("meta"):
        model: Any
        if cfg.experts:
            experts = {"num_local_experts": cfg.experts, "num_experts_per_tok": cfg.experts_per_token}
            model = transformers.MixtralForCausalLM(transformers.MixtralConfig(**fields, **experts))
        else:
            model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**fields))
    assert cfg.parameters() == model.num_parameters()


def test_llama_3_8b_has_its_published_size() -> None:
    cfg = ModelConfig(
        layers=32,
        width=4096,
        heads=32,
        kv_heads=8,
        head_dim=128,
        ffn_width=14336,
        vocab=128256,
        context=8192,
        tie_embeddings=False,
    )
    assert cfg.parameters() == cfg.used_parameters() == cfg.active_parameters() == 8_030_261_248
    assert cfg.kv_bytes_per_token() == 2 * 32 * 8 * 128 * 2


def test_flops_by_hand() -> None:
    cfg = SMALL.model_copy(update={"experts": 4})
    # one layer, per token: query, key, value, output; router; two of four experts of three matrices
    weights = 16 * 32 + 2 * 16 * 16 + 32 * 16 + 16 * 4 + 2 * 3 * 16 * 24
    # scores and mixing over all keys of the sequence: 4 heads of 8, one multiply-add each
    scores = 2 * 4 * 8 * 10
    by_hand = 2 * (3 * (weights + scores) + 40 * 16)
    assert cfg.forward_flops_per_token(10, causal=False) == by_hand
    # causal: token i has i keys, (1 + ... + 10) / 10 = 5.5 on average
    assert cfg.forward_flops_per_token(10) == by_hand - 2 * 3 * (scores - 2 * 4 * 8 * 5.5)
    assert cfg.train_flops_per_token(10) == 3 * cfg.forward_flops_per_token(10)


@pytest.mark.parametrize("experts", [0, 4])
def test_flops_are_those_that_xla_counts(experts: int) -> None:
    cfg = ModelConfig(
        layers=2,
        width=128,
        heads=4,
        kv_heads=2,
        head_dim=32,
        ffn_width=256,
        vocab=512,
        context=64,
        experts=experts,
        experts_per_token=1,
    )
    # every token has a place with every expert when capacity_factor is experts / experts_per_token: all are computed
    options = Options(attention="reference", moe="capacity", capacity_factor=4.0)
    params = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, jnp.float32), parameter_spec(cfg), is_leaf=is_param)

    def unrolled(params: Any, tokens: jax.Array) -> jax.Array:
        layers = [jax.tree.map(lambda leaf, i=i: leaf[i], params["layers"]) for i in range(cfg.layers)]
        return forward(params | {"layers": layers}, tokens, cfg, options)

    rows, length = 2, 64
    lowered = jax.jit(unrolled).lower(params, jax.ShapeDtypeStruct((rows, length), jnp.int32))
    counted = lowered.compile().cost_analysis()["flops"] / (rows * length)
    computed = cfg.model_copy(update={"experts_per_token": max(experts, 1)})
    # what is not a matmul (norms, softmax, rotation, dispatch) is counted by XLA as well
    assert computed.forward_flops_per_token(length, causal=False) <= counted
    assert counted == pytest.approx(computed.forward_flops_per_token(length, causal=False), rel=0.08)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"heads": 5}, "heads=5 must be a multiple of kv_heads=2"),
        ({"head_dim": 7}, "head_dim=7 must be even"),
        ({"experts": 2, "experts_per_token": 3}, "experts_per_token=3 must be at most experts=2"),
        ({"pad_token": 40}, "pad_token=40 must be below vocab=40"),
        ({"layers": 0}, "greater than or equal to 1"),
        ({"depth": 3}, "Extra inputs"),
    ],
)
def test_inconsistent_dimensions_are_refused(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ModelConfig.model_validate(SMALL.model_dump() | wrong)
