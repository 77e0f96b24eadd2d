"""How the network is computed, as opposed to what it computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Options:
    """Choices that change speed and memory, and results only by rounding (except dropped tokens with `capacity`)."""

    compute_dtype: str = "float32"
    attention: str = "auto"
    moe: Literal["capacity", "dropless"] = "dropless"
    capacity_factor: float = 1.25
    remat: Literal["none", "selective", "full"] = "none"
    scan_layers: bool = False
