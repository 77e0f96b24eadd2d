"""Low-rank fine-tuning (Hu et al., 2021, arXiv 2106.09685): weights stay frozen, small adapters beside them learn.

An adapter of a weight [in, out] is the pair a [in, rank], b [rank, out]; the weight in use is
w + alpha / rank * a b. b starts at zero, so training starts from the frozen model exactly.
"""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp

from gigafactory.errors import UserError
from gigafactory.factory.training import LoraSection
from gigafactory.model.config import ModelConfig
from gigafactory.model.grok import parameter_spec
from gigafactory.model.spec import Param

Tree = Any


def lora_spec(cfg: ModelConfig, section: LoraSection) -> Tree:
    """The adapters, {"layers": {name: {"a": [L, in, rank], "b": [L, rank, out]}}}; experts are stacked as in weights.

    Each side is cut over the mesh as the weight is. Raises UserError for a target that is no matrix of a layer and
    for a rank above the smaller side of one.
    """
    layers: dict[str, Param] = parameter_spec(cfg)["layers"]
    allowed = sorted(name for name, param in layers.items() if len(param.shape) > 2)
    adapters: dict[str, dict[str, Param]] = {}
    for name in section.targets:
        if name not in allowed:
            raise UserError(f"train.lora.targets: must be among {', '.join(allowed)}, got {name!r}")
        *stack, fan_in, fan_out = layers[name].shape
        *stack_axes, in_axis, out_axis = layers[name].axes
        if section.rank > min(fan_in, fan_out):
            raise UserError(
                f"train.lora.rank: must be at most {min(fan_in, fan_out)}, the smaller side of {name},"
                f" got {section.rank}"
            )
        adapters[name] = {
            "a": Param((*stack, fan_in, section.rank), (*stack_axes, in_axis, None), "normal", 1 / math.sqrt(fan_in)),
            "b": Param((*stack, section.rank, fan_out), (*stack_axes, None, out_axis), "constant", 0.0),
        }
    return {"layers": adapters}


def merge(params: Tree, adapters: Tree, section: LoraSection) -> Tree:
    """params with every adapter added to its weight; differentiable in both.

    Inside shard_map, a device's piece of the merged weight needs its pieces of a and b only: nothing is communicated.
    """
    layers = dict(params["layers"])
    for name, pair in adapters["layers"].items():
        update = (section.alpha / section.rank) * jnp.matmul(pair["a"], pair["b"])
        layers[name] = layers[name] + update.astype(layers[name].dtype)
    return {**params, "layers": layers}
