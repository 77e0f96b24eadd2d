"""Writing with a cache against the whole forward pass, and what the sampling settings promise."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gigafactory.errors import UserError
from gigafactory.model import serve
from gigafactory.model.config import ModelConfig, grok_config
from gigafactory.model.grok import forward, parameter_spec
from gigafactory.model.options import Options
from gigafactory.model.serve import Generator, choose, generate, programs
from gigafactory.model.spec import initialize

SIZES: dict[str, Any] = {"layers": 2, "width": 32, "heads": 4, "kv_heads": 2, "head_dim": 8, "vocab": 61, "context": 64}
FAMILIES = {
    "grok": grok_config(**SIZES, ffn_width=40, experts=4, attention_multiplier=0.5, attention_softcap=2.0),
    "llama": ModelConfig(**SIZES, ffn_width=48, tie_embeddings=False, rope_base=500.0),
    "mixtral": ModelConfig(
        **SIZES, ffn_width=40, experts=4, experts_per_token=2, router_renormalize=True, tie_embeddings=False
    ),
}
PROMPT = [5, 17, 3, 60, 8, 8, 22]


FORWARD = jax.jit(forward, static_argnums=(2, 3))


@functools.cache
def weights(cfg: ModelConfig, seed: int = 0) -> Any:
    return jax.jit(lambda: initialize(parameter_spec(cfg), seed))()


def whole(params: Any, cfg: ModelConfig, ids: list[int]) -> np.ndarray:
    """Logits after the last of ids, without any cache."""
    padded = np.zeros((1, 64), np.int32)
    padded[0, : len(ids)] = ids
    return np.asarray(FORWARD(params, padded, cfg, Options(attention="reference")))[0, len(ids) - 1]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_step_equals_the_whole_forward_pass(family: str) -> None:
    cfg = FAMILIES[family]
    params, generator = weights(cfg), Generator(weights(cfg), cfg)
    ids = [*PROMPT, 40, 1, 2, 59, 17, 17, 33]
    logits, cache = generator.extend(None, PROMPT, 0)
    np.testing.assert_allclose(logits, whole(params, cfg, PROMPT), atol=5e-6)
    for length in range(len(PROMPT), len(ids)):
        logits, cache = generator.extend(cache, ids[length : length + 1], length)
        np.testing.assert_allclose(logits, whole(params, cfg, ids[: length + 1]), atol=5e-6)


@pytest.mark.parametrize("family", ["grok", "llama"])
def test_reading_in_pieces_and_growing_the_cache_change_nothing(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = FAMILIES[family]
    params = weights(cfg)
    monkeypatch.setattr(serve, "READ_AT_ONCE", 16)
    monkeypatch.setattr(serve, "SMALLEST_CACHE", 16)
    ids = np.random.default_rng(0).integers(1, cfg.vocab, 45).tolist()
    generator = Generator(params, cfg)
    logits, cache = generator.extend(None, ids[:3], 0)
    assert cache.seen.shape == (1, 16)
    logits, cache = generator.extend(cache, ids[3:40], 3)
    assert cache.seen.shape == (1, 64)
    np.testing.assert_allclose(logits, whole(params, cfg, ids[:40]), atol=5e-6)
    logits, _ = generator.extend(cache, ids[40:], 40)
    np.testing.assert_allclose(logits, whole(params, cfg, ids), atol=5e-6)


def test_padding_tokens_are_not_seen() -> None:
    """Rotary positions are relative: with the padding unseen, the shift that it makes changes nothing."""
    cfg = FAMILIES["grok"]
    generator = Generator(weights(cfg), cfg)
    plain, cache = generator.extend(None, PROMPT, 0)
    padded, padded_cache = generator.extend(None, [0, 0, 0, *PROMPT], 0)
    np.testing.assert_allclose(padded, plain, atol=5e-6)
    # padding that comes later, between cached tokens
    _, cache = generator.extend(cache, [0], len(PROMPT))
    _, padded_cache = generator.extend(padded_cache, [0], len(PROMPT) + 3)
    later, _ = generator.extend(cache, [9], len(PROMPT) + 1)
    padded_later, _ = generator.extend(padded_cache, [9], len(PROMPT) + 4)
    np.testing.assert_allclose(padded_later, later, atol=5e-6)
    np.testing.assert_allclose(later, whole(weights(cfg), cfg, [*PROMPT, 0, 9]), atol=5e-6)

    ordinary = cfg.model_copy(update={"pad_token": None})
    seen, _ = Generator(weights(cfg), ordinary).extend(None, [0, 0, 0, *PROMPT], 0)
    assert np.abs(np.asarray(seen) - np.asarray(plain)).max() > 1e-2


@pytest.mark.parametrize("family", FAMILIES)
def test_temperature_zero_writes_the_likeliest(family: str) -> None:
    cfg = FAMILIES[family]
    params = weights(cfg)
    ids = list(PROMPT)
    for _ in range(6):
        ids.append(int(np.argmax(whole(params, cfg, ids))))
    assert list(generate(params, cfg, PROMPT, max_tokens=6, temperature=0)) == ids[len(PROMPT) :]


def test_same_seed_same_text_other_seed_other_text() -> None:
    generator = Generator(weights(FAMILIES["llama"]), FAMILIES["llama"])
    texts = [list(generator.generate(PROMPT, max_tokens=20, seed=seed)) for seed in (3, 3, 4)]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]
    assert len(texts[0]) == 20


def test_ends_before_a_stop_id() -> None:
    generator = Generator(weights(FAMILIES["llama"]), FAMILIES["llama"])
    free = list(generator.generate(PROMPT, max_tokens=12, seed=1))
    stop = free[7]
    assert list(generator.generate(PROMPT, max_tokens=12, seed=1, stop_ids={stop})) == free[: free.index(stop)]
    assert list(generator.generate(PROMPT, max_tokens=0)) == []


def test_goes_on_past_the_context_from_its_later_half() -> None:
    cfg = FAMILIES["llama"].model_copy(update={"context": 16})
    params = weights(cfg)
    ids = list(PROMPT)
    ids += generate(params, cfg, PROMPT, max_tokens=30, temperature=0)
    assert len(ids) == len(PROMPT) + 30
    # the 16th token fills the context; the one after the 17th comes from the last 8 read again, with room for 8 more
    for length, start in ((16, 0), (17, 9), (25, 9), (26, 18), (34, 18)):
        assert ids[length] == int(np.argmax(whole(params, cfg, ids[start:length])))


def test_programs_are_compiled_once_per_shape() -> None:
    cfg = FAMILIES["llama"].model_copy(update={"rope_base": 501.0})
    generator = Generator(weights(cfg), cfg)
    list(generator.generate(PROMPT, max_tokens=3))
    compiled = programs(generator.net).layer._cache_size()
    assert compiled == 2  # 16 tokens at once, and one
    list(generator.generate([*PROMPT, *PROMPT], max_tokens=9, seed=2, temperature=0.5))
    list(Generator(weights(cfg, seed=1), cfg).generate(PROMPT, max_tokens=3))
    assert programs(generator.net).layer._cache_size() == compiled


def test_weights_may_be_numpy_or_on_many_devices() -> None:
    cfg = FAMILIES["mixtral"]
    params = weights(cfg)
    want = list(generate(params, cfg, PROMPT, max_tokens=5, temperature=0))
    mesh = jax.make_mesh((2,), ("data",))
    spread = jax.device_put(params, jax.NamedSharding(mesh, jax.P()))
    for other in (jax.tree.map(np.asarray, params), spread):
        assert list(generate(other, cfg, PROMPT, max_tokens=5, temperature=0)) == want


def test_bfloat16_is_close() -> None:
    cfg = FAMILIES["grok"]
    exact, _ = Generator(weights(cfg), cfg).extend(None, PROMPT, 0)
    half = Generator(weights(cfg), cfg, Options(compute_dtype="bfloat16"))
    assert half.layers[0]["wq"].dtype == jnp.bfloat16
    assert half.layers[0]["router"].dtype == jnp.float32
    rough, _ = half.extend(None, PROMPT, 0)
    assert np.corrcoef(rough, exact)[0, 1] > 0.99


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([], "prompt: must have at least one token"),
        ([3] * 65, "must fit the model's context of 64 tokens, got 65"),
        ([3, 61], r"token ids must be in 0\.\.60, got 61"),
        ([-1, 3], r"token ids must be in 0\.\.60, got -1"),
    ],
)
def test_says_what_is_wrong_with_a_prompt(prompt: list[int], message: str) -> None:
    generator = Generator(weights(FAMILIES["llama"]), FAMILIES["llama"])
    with pytest.raises(UserError, match=message):
        next(generator.generate(prompt, max_tokens=1))


# in steps of 1/16, so that unequal logits have unequal probabilities
LOGITS = st.lists(st.integers(-128, 128), min_size=1, max_size=40).map(lambda values: np.array(values, np.float32) / 16)


@settings(max_examples=200)
@given(LOGITS, st.integers(0, 50), st.floats(0.01, 1), st.floats(0.1, 3), st.integers(0, 5))
def test_draws_from_the_smallest_likely_set(
    logits: np.ndarray, top_k: int, top_p: float, temperature: float, seed: int
) -> None:
    token = choose(logits, np.random.default_rng(seed), temperature=temperature, top_k=top_k, top_p=top_p)
    likelier = logits > logits[token]
    if top_k:
        assert likelier.sum() < top_k
    # those strictly likelier do not reach top_p among the kept, or this one would have been left out
    scaled = np.sort(logits.astype(np.float64) / temperature)[::-1][: top_k or None]
    shares = np.exp(scaled - scaled[0])
    shares /= shares.sum()
    assert shares[: int(likelier.sum())].sum() < top_p + 1e-9


@settings(max_examples=200)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.floats(0.01, 0.999), st.integers(1, 50))
def test_the_likeliest_are_those_of_a_whole_sort(parts: list[int], share: float, first: int) -> None:
    """However few are sorted at first, and with many that are equally likely."""
    probabilities = (np.array(parts) + 0.5) / (np.array(parts) + 0.5).sum()
    order = np.argsort(-probabilities, kind="stable")
    count = int(np.searchsorted(np.cumsum(probabilities[order]), share)) + 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serve, "SORTED_FIRST", first)
        np.testing.assert_array_equal(serve._likeliest(probabilities, share), order[:count])


@given(LOGITS)
def test_temperature_zero_top_k_one_and_a_tiny_top_p_all_take_the_likeliest(logits: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    for how in ({"temperature": 0.0}, {"temperature": 1.0, "top_k": 1}, {"temperature": 1.0, "top_p": 1e-9}):
        assert logits[choose(logits, rng, **how)] == logits.max()


def test_frequencies_are_the_softmax() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05])).astype(np.float32)
    rng = np.random.default_rng(0)
    drawn = np.bincount([choose(logits, rng, temperature=1.0) for _ in range(20_000)], minlength=4) / 20_000
    np.testing.assert_allclose(drawn, [0.5, 0.3, 0.15, 0.05], atol=0.01)
    cut = np.bincount([choose(logits, rng, temperature=1.0, top_p=0.8) for _ in range(5_000)], minlength=4) / 5_000
    np.testing.assert_allclose(cut, [0.625, 0.375, 0, 0], atol=0.02)
