"""Small tables of measured runs for the tests."""

from __future__ import annotations

import csv
from pathlib import Path

SHARED = Path(__file__).parents[3] / "shared" / "data" / "published_runs.csv"

ROW = {
    "id": "dgxc-v25.02-one",
    "source": "NVIDIA/dgxc-benchmarking tag v24.11.1, README",
    "model": "Llama-3.1-70B",
    "layers": "80",
    "hidden": "8192",
    "heads": "64",
    "kv_heads": "8",
    "ffn": "28672",
    "vocab": "128256",
    "seq_len": "8192",
    "experts": "",
    "topk": "",
    "gpu": "H100-SXM5-80GB",
    "n_gpus": "64",
    "tp": "4",
    "pp": "4",
    "vpp": "5",
    "dp": "2",
    "ep": "1",
    "cp": "2",
    "micro_batch": "1",
    "global_batch_sequences": "128",
    "precision": "bf16",
    "recompute": "none",
    "sharding": "zero1(dist-opt)",
    "step_s": "14.72",
    "peak_memory_gib": "",
    "notes": "NeMo 1 yaml: no recompute, SP, TP overlap on; DGX H100 (8x NDR400/node), dist-opt, grads bf16",
}
MIXTURE = {
    "id": "mbridge-26.04-deepseek",
    "source": "NVIDIA-NeMo/Megatron-Bridge docs/performance-summary.md, release 26.04",
    "model": "DeepSeekV3",
    "layers": "61",
    "hidden": "7168",
    "heads": "128",
    "kv_heads": "MLA",
    "ffn": "2048",
    "vocab": "129280",
    "seq_len": "4096",
    "experts": "256",
    "topk": "8",
    "gpu": "GB200-NVL72",
    "n_gpus": "256",
    "tp": "1",
    "pp": "4",
    "vpp": "4",
    "dp": "64",
    "ep": "64",
    "cp": "1",
    "global_batch_sequences": "4096",
    "precision": "mxfp8",
    "recompute": "selective",
    "step_s": "16.5",
    "notes": "MoE tokens force-balanced, dropless (25.09: tokendrop where labelled); "
    "recompute mla_up_proj+mlp from preset X",
}


def row(**cells: str) -> dict[str, str]:
    """A dense run of 64 H100 with some cells changed."""
    return ROW | cells


def mixture(**cells: str) -> dict[str, str]:
    """A mixture on 256 GB200 with some cells changed."""
    return ROW | MIXTURE | cells


def write(path: Path, *rows: dict[str, str]) -> Path:
    """The rows as a CSV with the columns of the first."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path
