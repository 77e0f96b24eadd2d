"""Grok-1 transcribed from the formulae of github.com/xai-org/grok-1 (model.py), one number at a time, in float64.

Independent of the package: reads the release's own names, knows nothing of our parameters, and loops wherever the
original vectorises. Small models only.
"""

import math
from collections.abc import Mapping

import numpy as np


def random_tensors(
    seed: int, *, layers: int, width: int, heads: int, kv_heads: int, head_dim: int, ffn: int, experts: int, vocab: int
) -> dict[str, np.ndarray]:
    """Random weights under the release's names and in its shapes."""
    rng = np.random.default_rng(seed)

    def matrix(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) / math.sqrt(shape[-2])).astype(np.float32)

    def scale() -> np.ndarray:
        return (1.0 + 0.3 * rng.standard_normal(width)).astype(np.float32)

    tensors = {
        "language_model/in_out_embed/embeddings": (0.4 * rng.standard_normal((vocab, width))).astype(np.float32),
        "language_model/rms_norm/scale": scale(),
    }
    for layer in range(layers):
        at = f"transformer/decoder_layer_{layer}"
        tensors |= {
            f"{at}/multi_head_attention/query/w": 3 * matrix(width, heads * head_dim),
            f"{at}/multi_head_attention/key/w": 3 * matrix(width, kv_heads * head_dim),
            f"{at}/multi_head_attention/value/w": matrix(width, kv_heads * head_dim),
            f"{at}/multi_head_attention/linear/w": matrix(heads * head_dim, width),
            f"{at}/router/w": matrix(width, experts),
            f"{at}/moe/linear/w": matrix(experts, width, ffn),
            f"{at}/moe/linear_v/w": matrix(experts, width, ffn),
            f"{at}/moe/linear_1/w": matrix(experts, ffn, width),
            f"{at}/rms_norm/scale": scale(),
            f"{at}/rms_norm_1/scale": scale(),
            f"{at}/rms_norm_2/scale": scale(),
            f"{at}/rms_norm_3/scale": scale(),
        }
    return tensors


def logits(
    tensors: Mapping[str, np.ndarray],
    tokens: np.ndarray,
    *,
    head_dim: int,
    selected_experts: int,
    embedding_multiplier: float,
    output_multiplier: float,
    attention_multiplier: float,
    pad_token: int = 0,
    softcap: float = 30.0,
) -> np.ndarray:
    """tokens [B, T] -> logits [B, T, vocab]."""
    weights = {name: np.asarray(value, np.float64) for name, value in tensors.items()}
    embedding = weights["language_model/in_out_embed/embeddings"]
    layers = sum(name.endswith("/router/w") for name in weights)
    rows = []
    for row in tokens:
        visible = [int(token) != pad_token for token in row]
        stream = [embedding[int(token)] * embedding_multiplier for token in row]
        for layer in range(layers):
            at = f"transformer/decoder_layer_{layer}"
            normed = [_rms_norm(h, weights[f"{at}/rms_norm/scale"]) for h in stream]
            attention = (weights, f"{at}/multi_head_attention", head_dim, attention_multiplier, softcap)
            mixed = _attention(normed, visible, *attention)
            stream = [h + _rms_norm(m, weights[f"{at}/rms_norm_1/scale"]) for h, m in zip(stream, mixed, strict=True)]
            for position, h in enumerate(stream):
                x = _rms_norm(h, weights[f"{at}/rms_norm_2/scale"])
                y = _mixture(x, weights, at, selected_experts)
                stream[position] = h + _rms_norm(y, weights[f"{at}/rms_norm_3/scale"])
        final = [_rms_norm(h, weights["language_model/rms_norm/scale"]) for h in stream]
        rows.append([embedding @ h * output_multiplier for h in final])
    return np.array(rows)


def _rms_norm(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    mean_square = sum(float(number) ** 2 for number in x) / len(x)
    return scale * (x / math.sqrt(mean_square + 1e-5))


def _rotate(head: np.ndarray, position: int) -> np.ndarray:
    """Pairs (i, i + half) turn by position * 10000^(-2i/size)."""
    half = len(head) // 2
    turned = np.empty_like(head)
    for i in range(half):
        angle = position / 10000 ** (2 * i / len(head))
        turned[i] = head[i] * math.cos(angle) - head[i + half] * math.sin(angle)
        turned[i + half] = head[i + half] * math.cos(angle) + head[i] * math.sin(angle)
    return turned


def _attention(
    xs: list[np.ndarray],
    visible: list[bool],
    weights: Mapping[str, np.ndarray],
    at: str,
    head_dim: int,
    multiplier: float,
    softcap: float,
) -> list[np.ndarray]:
    query, key, value = ([x @ weights[f"{at}/{name}/w"] for x in xs] for name in ("query", "key", "value"))
    heads, kv_heads = len(query[0]) // head_dim, len(key[0]) // head_dim
    outputs = []
    for position in range(len(xs)):
        mixed = np.zeros(heads * head_dim)
        for head in range(heads):
            of_head = slice(head * head_dim, (head + 1) * head_dim)
            kv = head // (heads // kv_heads)
            of_kv = slice(kv * head_dim, (kv + 1) * head_dim)
            q = _rotate(query[position][of_head], position)
            scores = []
            for other in range(len(xs)):
                score = float(q @ _rotate(key[other][of_kv], other)) * multiplier
                score = softcap * math.tanh(score / softcap)
                scores.append(score if visible[other] and other <= position else -1e30)
            largest = max(scores)
            powers = [math.exp(score - largest) for score in scores]
            for other, power in enumerate(powers):
                mixed[of_head] += power / sum(powers) * value[other][of_kv]
        outputs.append(mixed @ weights[f"{at}/linear/w"])
    return outputs


def _gelu(x: float) -> float:
    return 0.5 * x * (1.0 + math.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def _mixture(x: np.ndarray, weights: Mapping[str, np.ndarray], at: str, selected: int) -> np.ndarray:
    """The kept probabilities are of a softmax over all experts and do not sum to one."""
    scores = x @ weights[f"{at}/router/w"]
    powers = [math.exp(score - max(scores)) for score in scores]
    probabilities = [power / sum(powers) for power in powers]
    chosen = sorted(range(len(scores)), key=lambda expert: -probabilities[expert])[:selected]
    out = np.zeros(len(x))
    for expert in chosen:
        gate = np.array([_gelu(number) for number in x @ weights[f"{at}/moe/linear/w"][expert]])
        hidden = gate * (x @ weights[f"{at}/moe/linear_v/w"][expert])
        out += probabilities[expert] * (hidden @ weights[f"{at}/moe/linear_1/w"][expert])
    return out
