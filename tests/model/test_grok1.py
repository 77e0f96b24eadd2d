"""Grok-1 under its own names: against an independent transcription, and every way that tensors may arrive."""

from dataclasses import dataclass

import ml_dtypes
import numpy as np
import pytest
from grok1_numpy import logits, random_tensors
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import our_logits, random_params

from gigafactory.errors import UserError
from gigafactory.model import grok1
from gigafactory.model.config import grok_config

SIZES = {"layers": 2, "width": 24, "heads": 6, "kv_heads": 2, "head_dim": 8, "ffn": 40, "experts": 4, "vocab": 50}
QUERY = "transformer/decoder_layer_0/multi_head_attention/query/w"


@dataclass
class QuantizedWeight8bit:
    """As in the release's checkpoint: int8 numbers and their scales."""

    weight: np.ndarray
    scales: np.ndarray


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    return random_tensors(0, **SIZES)


def loaded_logits(tensors, tokens, **overrides) -> np.ndarray:
    cfg, params = grok1.load(tensors, **overrides)
    return our_logits(params, tokens, cfg)


@pytest.mark.parametrize(
    "tokens",
    [
        np.random.default_rng(1).integers(1, 50, (2, 8)),
        np.array([[5, 7, 9, 2, 3, 0, 0, 0], [3, 0, 0, 8, 4, 0, 6, 1]]),  # padding at the end and in the middle
        np.array([[0, 0, 0, 11, 12, 13, 3, 4], [0, 3, 0, 0, 0, 0, 0, 2]]),  # at the start
    ],
    ids=["full", "padded", "left-padded"],
)
def test_equals_the_transcription(tensors, tokens):
    multipliers = {"embedding_multiplier": 4.9, "attention_multiplier": 1.5}
    ours = loaded_logits(tensors, tokens, head_dim=8, logit_multiplier=0.5, **multipliers)
    same = {"head_dim": 8, "output_multiplier": 0.5, **multipliers}
    theirs = logits(tensors, tokens, selected_experts=2, **same)
    # a padding position that sees no key at all has no defined result, and nothing looks at it
    seen = np.cumsum(tokens != 0, axis=1) > 0
    assert np.abs(theirs[seen]).max() > 1.0
    np.testing.assert_allclose(ours[seen], theirs[seen], atol=1e-4)
    # the comparison would notice a cap that is missing and an expert too few
    assert np.abs(logits(tensors, tokens, selected_experts=2, softcap=1e9, **same) - theirs)[seen].max() > 1e-3
    assert np.abs(logits(tensors, tokens, selected_experts=1, **same) - theirs)[seen].max() > 1e-3


def test_release_multipliers_are_the_default(tensors):
    tokens = np.array([[4, 1, 2, 3]], np.int32)
    release = {
        "embedding_multiplier": 78.38367176906169,
        "output_multiplier": 0.5773502691896257,
        "attention_multiplier": 0.08838834764831845,
    }
    theirs = logits(tensors, tokens, head_dim=8, selected_experts=2, **release)
    np.testing.assert_allclose(loaded_logits(tensors, tokens, head_dim=8), theirs, atol=1e-4)


def test_number_of_selected_experts_and_the_release_s_names_of_overrides(tensors):
    tokens = np.array([[4, 1, 2, 3]], np.int32)
    ours = loaded_logits(
        tensors,
        tokens,
        key_size=8,
        num_selected_experts=3,
        embedding_multiplier_scale=2.0,
        output_multiplier_scale=0.5,
        attn_output_multiplier=0.3,
    )
    theirs = logits(
        tensors,
        tokens,
        head_dim=8,
        selected_experts=3,
        embedding_multiplier=2.0,
        output_multiplier=0.5,
        attention_multiplier=0.3,
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_dimensions_of_the_real_model_come_from_shapes():
    """True widths, two layers, arrays that take no memory."""

    def shaped(*shape: int) -> np.ndarray:
        return np.broadcast_to(np.zeros((), np.int8), shape)

    tensors = {
        QUERY: shaped(6144, 6144),
        QUERY.replace("query", "key"): shaped(6144, 1024),
        "transformer/decoder_layer_0/router/w": shaped(6144, 8),
        "transformer/decoder_layer_0/moe/linear/w": shaped(8, 6144, 32768),
        "transformer/decoder_layer_63/moe/linear/w": shaped(8, 6144, 32768),
        "language_model/in_out_embed/embeddings": shaped(131072, 6144),
    }
    cfg = grok1._infer(grok1._Release(tensors, "test"), {}, "test")
    assert cfg == grok_config()


def nested(tensors: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Haiku's own form: {module: {parameter: array}}."""
    tree: dict[str, dict[str, np.ndarray]] = {}
    for name, value in tensors.items():
        module, _, parameter = name.rpartition("/")
        tree.setdefault(module, {})[parameter] = value
    return tree


@pytest.mark.parametrize(
    "rename",
    [
        lambda tensors: {name.replace("transformer/", "language_model/transformer/"): v for name, v in tensors.items()},
        lambda tensors: {f"params/{name}": value for name, value in tensors.items()},
        lambda tensors: {name.replace("/decoder", "/~/decoder"): value for name, value in tensors.items()},
        nested,
    ],
    ids=["prefixed", "under-params", "tilde", "nested"],
)
def test_names_may_carry_prefixes(tensors, rename):
    cfg, params = grok1.load(tensors, head_dim=8)
    other_cfg, other = grok1.load(rename(tensors), head_dim=8)
    assert cfg == other_cfg
    np.testing.assert_array_equal(params["layers"]["wq"], other["layers"]["wq"])
    np.testing.assert_array_equal(params["final_norm"], other["final_norm"])


@pytest.mark.parametrize("form", ["object", "pair"])
def test_quantised_weights_are_dequantised(tensors, form):
    """Scales per column, and per shard of rows as the release has them for matrices cut over eight devices."""
    rng = np.random.default_rng(2)
    given, wanted = dict(tensors), dict(tensors)
    for name, scale_shape in ((QUERY, (1, 48)), ("transformer/decoder_layer_1/moe/linear_1/w", (4, 8, 24))):
        weight = rng.integers(-127, 128, tensors[name].shape, dtype=np.int8)
        scales = (rng.random(scale_shape) / 100).astype(ml_dtypes.bfloat16)
        repeats = [w // s for w, s in zip(weight.shape, scale_shape, strict=True)]
        spread = scales.astype(np.float32)
        for axis, count in enumerate(repeats):
            spread = np.repeat(spread, count, axis)
        wanted[name] = weight * spread
        if form == "object":
            given[name] = QuantizedWeight8bit(weight, scales)
        else:
            del given[name]
            given |= {f"{name}/weight": weight, f"{name}/scales": scales}
    params, reference = (grok1.load(values, head_dim=8)[1]["layers"] for values in (given, wanted))
    np.testing.assert_array_equal(params["wq"], reference["wq"])
    np.testing.assert_array_equal(params["w_down"], reference["w_down"])


def test_scales_that_do_not_divide_are_refused():
    with pytest.raises(UserError, match=r"scales \[3, 4\] do not divide a weight of \[8, 4\]"):
        grok1.dequantize(np.zeros((8, 4), np.int8), np.ones((3, 4)))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), experts=st.integers(1, 4), tied_width=st.sampled_from([16, 24]))
def test_export_is_the_inverse_of_load(seed, experts, tied_width):
    sizes = {"layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 4, "ffn": 8, "vocab": 11}
    tensors = random_tensors(seed, width=tied_width, experts=experts, **sizes)
    cfg, params = grok1.load(tensors, head_dim=4, experts_per_token=1)
    back = grok1.export(params, cfg)
    assert back.keys() == tensors.keys()
    for name, value in tensors.items():
        np.testing.assert_array_equal(back[name], value)
    again, _ = grok1.load(back, **grok1.not_inferred(cfg))
    assert again == cfg


def test_dense_models_of_the_release_s_code_load():
    cfg = grok_config(layers=1, width=16, heads=2, kv_heads=1, head_dim=8, ffn_width=24, vocab=9, experts=0)
    params = random_params(cfg)
    tensors = grok1.export(params, cfg)
    assert "transformer/decoder_layer_0/linear_v/w" in tensors
    again, loaded = grok1.load(tensors, **grok1.not_inferred(cfg))
    assert again == cfg
    np.testing.assert_array_equal(loaded["layers"]["w_up"], params["layers"]["w_up"])


@pytest.mark.parametrize(
    ("change", "overrides", "message"),
    [
        (
            lambda t: t.pop(QUERY.replace("layer_0", "layer_1")),
            {"head_dim": 8},
            r"missing tensors: .*layer_1.*query/w$",
        ),
        (lambda t: t.update({"transformer/x/w": t[QUERY]}), {"head_dim": 8}, r"unexpected tensors: transformer/x/w$"),
        (lambda t: t.update({QUERY: t[QUERY][:-1]}), {"head_dim": 8}, r"query/w must be \[24, 48\], got \[23, 48\]"),
        (lambda t: t.pop("language_model/in_out_embed/embeddings"), {}, "missing tensors: language_model/in_out_embed"),
        (lambda t: None, {}, "head_dim: 128 does not fit query 48 and key 16 columns; override it with head_dim="),
        (lambda t: None, {"layers": 3}, "layers: follows from the shapes"),
        (lambda t: None, {"haed_dim": 8}, "haed_dim: not a field of the model"),
        (lambda t: None, {"head_dim": 8, "experts_per_token": 9}, "experts_per_token=9 must be at most experts=4"),
        (lambda t: None, {"head_dim": 8, "norm_eps": -1.0}, "norm_eps: .*greater than 0, got -1.0"),
    ],
)
def test_mistakes_are_told_in_one_line(tensors, change, overrides, message):
    broken = dict(tensors)
    change(broken)
    with pytest.raises(UserError, match=message) as told:
        grok1.load(broken, **overrides)
    assert "\n" not in str(told.value)


def test_only_models_of_its_kind_are_exported(tensors):
    cfg, params = grok1.load(tensors, head_dim=8)
    with pytest.raises(UserError, match=r"model\.activation: must be gelu"):
        grok1.export(params, cfg.model_copy(update={"activation": "silu"}))
