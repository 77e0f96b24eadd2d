"""Networks: of published models, from their name and a table's dimensions, and of a ModelConfig."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from gigafactory.model.config import ModelConfig
from gigafactory.twin.case import Network

USUAL_HEAD = (64, 256)  # a head of hidden / heads is believed in this range and if it is a multiple of 8
NEEDED = ("layers", "hidden", "heads", "ffn")


class UnrepresentableError(Exception):
    """A run that the twin has no formulas for, or that lacks what cannot be assumed."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


@dataclass(frozen=True)
class Architecture:
    """What a table's columns do not say about a model (an entry of architectures.toml); facts: by field."""

    name: str
    match: re.Pattern[str]
    source: str
    sized: bool
    unrepresentable: str | None
    facts: dict[str, float]


@dataclass(frozen=True)
class Named:
    """A network with the name it is known by (that of architectures.toml, else the text, normalised) and what was
    filled in beyond the table. mtp_layers: what the model has, trained or not. sinks: its attention has learned sinks,
    which the newest kernels do not know."""

    name: str
    network: Network
    mtp_layers: float = 0.0
    sinks: bool = False
    assumed: tuple[str, ...] = ()


@cache
def architectures() -> tuple[Architecture, ...]:
    """All that are known, in the order in which they are tried."""
    text = resources.files("gigafactory.factory").joinpath("catalog", "architectures.toml").read_text(encoding="utf-8")
    found = []
    for name, table in tomllib.loads(text).items():
        facts = {key: float(value) for key, value in table.items() if isinstance(value, int | float)}
        facts.pop("sized", None)
        found.append(
            Architecture(
                name=name,
                match=re.compile(table["match"]),
                source=table["source"],
                sized=bool(table.get("sized", False)),
                unrepresentable=table.get("unrepresentable"),
                facts=facts,
            )
        )
    return tuple(found)


def architecture(model: str) -> Architecture | None:
    """The entry for a model's name as published, in whatever spelling; None if none matches."""
    text = squashed(model)
    return next((entry for entry in architectures() if entry.match.search(text)), None)


def squashed(model: str) -> str:
    """A name in lower case without spaces, dashes and underscores: "LLAMA3_70B" -> "llama370b"."""
    return re.sub(r"[\s_\-]+", "", model.lower())


def known_name(model: str) -> str:
    """One name for all spellings and truncations of a model: "Llama-3-70B truncated L=12" -> "llama-3 70b"."""
    entry = architecture(model)
    size = re.search(
        r"(?<![\d.])(\d+x)?\d+(\.\d+)?[bt](?![a-z])(\W?a\d+(\.\d+)?b)?", re.sub(r"[_\-]+", " ", model.lower())
    )
    if entry is None:
        return re.sub(r"[\s_\-]+", "-", model.lower().strip())
    if not entry.sized:
        return entry.name
    return f"{entry.name} {re.sub(r'[^0-9a-z.]', '', size.group())}" if size else entry.name


def published_network(model: str, dimensions: Mapping[str, float]) -> Named:
    """Network of a published model. dimensions: those of the columns layers, hidden, heads, kv_heads, ffn, vocab,
    experts, topk that are known; they win over the catalogue. Raises UnrepresentableError."""
    entry = architecture(model)
    if entry is not None and entry.unrepresentable:
        raise UnrepresentableError("model", f"{model}: {entry.unrepresentable}")
    facts = entry.facts if entry is not None else {}
    assumed: list[str] = []
    known = dict(dimensions)
    for field in (*NEEDED, "vocab"):
        if field not in known and field in facts:
            known[field] = facts[field]
            assumed.append(f"{field} {facts[field]:g}: of {entry.name if entry else model}")
        if field not in known:
            raise UnrepresentableError(field, "is not given and does not follow from the model's name")
    layers, hidden, heads, ffn = (known[field] for field in NEEDED)
    experts = known.get("experts", facts.get("experts", 0.0) if "moe_ffn" in facts else 0.0)
    if experts and "topk" not in known and "topk" not in facts:
        raise UnrepresentableError("topk", "is not given for a mixture of experts")
    if entry is None:
        assumed.append("model: not in the catalogue; MLP, heads and ties follow the usual rules")
    gated = facts.get("gated", 0.0 if not experts and ffn == 4 * hidden else 1.0)
    latent = "kv_rank" in facts
    head_dim = facts.get("head_dim") or _usual_head(hidden, heads, assumed)
    if not latent and "kv_heads" not in known:
        known["kv_heads"] = facts.get("kv_heads", heads)
        assumed.append(
            f"kv_heads {known['kv_heads']:g}: "
            + (f"of {entry.name}" if entry and "kv_heads" in facts else "as many as heads")
        )
    moe_ffn, dense_ffn = _widths(ffn, facts) if experts else (0.0, ffn)
    return Named(
        name=known_name(model),
        network=Network(
            layers=layers,
            hidden=hidden,
            heads=heads,
            kv_heads=heads if latent else known["kv_heads"],
            head_dim=head_dim,
            ffn=dense_ffn,
            vocab=known["vocab"],
            gated=gated,
            tied=facts.get("tied", 0.0),
            experts=experts,
            topk=known.get("topk", facts.get("topk", 0.0)) if experts else 0.0,
            moe_ffn=moe_ffn,
            shared_ffn=facts.get("shared_ffn", 0.0) if experts else 0.0,
            dense_layers=_dense_layers(layers, facts) if experts else 0.0,
            q_rank=facts.get("q_rank", 0.0),
            kv_rank=facts.get("kv_rank", 0.0),
            rope_dim=facts.get("rope_dim", 0.0),
            value_dim=facts.get("value_dim", 0.0),
            window=facts.get("window", 0.0),
            windowed_share=facts.get("windowed_share", 0.0),
            norms=facts.get("norms", 2.0),
            expert_biases=facts.get("expert_biases", 0.0) if experts else 0.0,
            route_groups=facts.get("route_groups", 0.0) if experts else 0.0,
        ),
        mtp_layers=facts.get("mtp_layers", 0.0),
        sinks=facts.get("sinks", 0.0) > 0,
        assumed=tuple(assumed),
    )


def _usual_head(hidden: float, heads: float, assumed: list[str]) -> float:
    head = hidden / heads
    if USUAL_HEAD[0] <= head <= USUAL_HEAD[1] and head % 8 == 0:
        return head
    assumed.append("head_dim 128: hidden / heads is no usual size")
    return 128.0


def _widths(ffn: float, facts: Mapping[str, float]) -> tuple[float, float]:
    """(width of an expert, of a dense layer) of a mixture whose column ffn may hold either."""
    dense = facts.get("dense_ffn", ffn)
    return (facts["moe_ffn"] if ffn == dense and "moe_ffn" in facts else ffn), dense


def _dense_layers(layers: float, facts: Mapping[str, float]) -> float:
    if "dense_layers_share" in facts:
        return round(facts["dense_layers_share"] * layers)
    return min(facts.get("dense_layers", 0.0), layers - 1)


def network_of(model: ModelConfig) -> Network:
    """The network of a factory file's model."""
    mixture = model.experts > 0
    return Network(
        layers=float(model.layers),
        hidden=float(model.width),
        heads=float(model.heads),
        kv_heads=float(model.kv_heads),
        head_dim=float(model.head_dim),
        ffn=float(model.ffn_width),
        vocab=float(model.vocab),
        gated=1.0,
        tied=float(model.tie_embeddings),
        experts=float(model.experts),
        topk=float(model.experts_per_token) if mixture else 0.0,
        moe_ffn=float(model.ffn_width) if mixture else 0.0,
        norms=4.0 if model.sandwich_norm else 2.0,
    )
