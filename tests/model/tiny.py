"""Small models for the tests of weights: random parameters without JAX's compiler, and a compiled forward pass."""

from functools import partial
from typing import Any

import jax
import numpy as np

from gigafactory.model.config import ModelConfig
from gigafactory.model.grok import forward, parameter_spec
from gigafactory.model.options import Options


def random_params(cfg: ModelConfig, seed: int = 0) -> dict[str, Any]:
    """The tree of parameter_spec, norms spread around one."""
    rng = np.random.default_rng(seed)

    def draw(param: Any) -> np.ndarray:
        noise = rng.standard_normal(param.shape).astype(np.float32)
        return 1 + np.float32(0.3) * noise if param.init == "constant" else np.float32(param.scale) * noise

    spec = parameter_spec(cfg)
    return {key: {name: draw(p) for name, p in v.items()} if key == "layers" else draw(v) for key, v in spec.items()}


@partial(jax.jit, static_argnums=2)
def _logits(params: Any, tokens: jax.Array, cfg: ModelConfig) -> jax.Array:
    return forward(params, tokens, cfg, Options(scan_layers=True))


def our_logits(params: Any, tokens: np.ndarray, cfg: ModelConfig) -> np.ndarray:
    """[B, T, vocab] float32."""
    return np.asarray(_logits(params, tokens.astype(np.int32), cfg))
