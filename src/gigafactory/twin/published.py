"""One row of a table of measured runs as a case: columns, words of the notes, and what the trainer usually does."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from gigafactory.twin.case import Cases, Network, Plan, Work
from gigafactory.twin.machines import chip_by_name, machine_by_name
from gigafactory.twin.networks import UnrepresentableError, published_network
from gigafactory.twin.software import Stack, release_months, stack_of

DIMENSIONS = ("layers", "hidden", "heads", "kv_heads", "ffn", "vocab", "experts", "topk")
LAYOUT = ("n_gpus", "tp", "pp", "seq_len", "micro_batch", "global_batch_sequences", "step_s")
OFF = r"\s*[:=]?\s*\b(off|false|disabled)\b"
ON = r"\s*[:=]?\s*\b(on|true|enabled)\b"
"""How notes and configurations switch what stands before."""

BY_MODULE = {
    "core_attn": "recompute_attention",
    "attn": "recompute_attention",
    "attention": "recompute_attention",
    "layernorm": "recompute_norm",
    "norm": "recompute_norm",
    "moe_act": "recompute_activation",
    "act": "recompute_activation",
    "mla_up_proj": "recompute_up",
    "moe": "recompute_experts",
    "mlp": "recompute_mlp",
}
"""Megatron's recompute modules as fields of Plan."""


def published_case(row: Mapping[str, str], numbers: Mapping[str, float]) -> tuple[Cases, tuple[str, ...]]:
    """(case, what was assumed) of a row (column -> text) with the numbers that are given.

    Raises UnrepresentableError (what cannot be assumed is missing or does not fit), UserError for an unknown chip.
    """
    for field in LAYOUT:
        if field not in numbers:
            raise UnrepresentableError(field, "is not given")
    notes = row.get("notes", "")
    told = Words(notes)
    if Words(f"{row['model']} {row.get('id', '')} {notes}").has(r"\b(q?lora|peft)\b"):
        raise UnrepresentableError("model", "trains adapters alone, which has no formulas here")
    named = published_network(row["model"], {key: numbers[key] for key in DIMENSIONS if key in numbers})
    assumed = list(named.assumed)
    months = release_months(row.get("source", ""), row.get("id", ""))
    trainer = stack_of(row.get("id", ""), row.get("source", ""), notes)
    trainer = trainer.as_of(months, named.name, row["gpu"], row["precision"])
    mtp = named.mtp_layers if told.mtp(trainer.mtp) else 0.0
    network = dataclasses.replace(
        named.network,
        mtp_layers=mtp,
        dense_layers=Words(f"{row['model']}; {notes}").number(
            r"(\d+) dense layers?", min(named.network.dense_layers, trainer.dense_layers)
        ),
    )
    low, block_scaled, four_bit, number_bytes, low_format = _format(row["precision"], assumed)
    machine = machine_by_name(
        row["gpu"],
        low_format,
        nic_bits_per_s=told.nic_bits_per_s(trainer, float(chip_by_name(row["gpu"]).node_chips)),
        power_cap_w=told.power_cap_w(),
    )
    plan = _plan(row, numbers, network, trainer, told, assumed)
    usual = trainer.software
    flash = told.said(
        r"(?<!no )(?<!without )flash",
        r"(no|without) flash|flash( att(ention|n))?" + OFF,
        usual.flash,
        max(usual.flash, 1),
    )
    software = dataclasses.replace(
        usual,
        graphs=told.said(
            r"cuda ?graphs?", r"\b(no|without|w/o) cuda ?graphs?|cuda ?graphs?" + OFF, usual.graphs, usual.graphs or 1.0
        ),
        compiled=told.said(r"\bcompile|\binductor", r"\beager\b", usual.compiled),
        flash=min(flash, 1.0) if named.sinks else flash,
    )
    work = Work(
        sequence=numbers["seq_len"],
        micro_rows=numbers["micro_batch"],
        global_rows=numbers["global_batch_sequences"],
        number_bytes=number_bytes,
        low=low,
        block_scaled=block_scaled,
        four_bit=four_bit,
        low_weights=trainer.low_weights if low and not four_bit and "row" not in row["precision"].lower() else 0.0,
        grad_bytes=_grad_bytes(trainer, told),
        capacity=told.capacity(trainer) if network.experts else 0.0,
    )
    return Cases(network, plan, work, machine, software), tuple(assumed)


def _format(precision: str, assumed: list[str]) -> tuple[float, float, float, float, str]:
    """(low, block_scaled, four_bit, number_bytes, low_format) of a number format as published."""
    text = precision.lower().replace("float", "fp").replace("_", "-")
    four_bit = "fp4" in text
    low = four_bit or "fp8" in text or "f8" in text or "int8" in text
    blocks = four_bit or bool(re.search(r"mx|\bsc\b|block|row|sub-?channel", text))
    whole = bool(re.search(r"tf?32|fp32", text)) and not low
    if not low and not whole and not re.search(r"bf16|fp16|mixed|amp|half", text):
        assumed.append(f"precision: {precision!r} is taken as bf16")
    name = "nvfp4" if four_bit else "mxfp8" if low and "mx" in text else "fp8" if low else "fp32" if whole else "bf16"
    return float(low), float(blocks and low), float(four_bit), 4.0 if whole else 2.0, name


def _grad_bytes(trainer: Stack, told: Words) -> float:
    if told.has(
        r"(fp32|float32) (grad|reduc)|grads?( reduce| reduction)? (in )?(fp32|float32)(?!" + OFF + ")|mp mode default"
    ):
        return 4.0
    if told.has(r"(bf16|fp16) grad|grads? (in )?(bf16|fp16)|mp mode pure"):
        return 2.0
    return trainer.grad_bytes


def _plan(
    row: Mapping[str, str],
    numbers: Mapping[str, float],
    network: Network,
    trainer: Stack,
    told: Words,
    assumed: list[str],
) -> Plan:
    chips, tensor, pipe = numbers["n_gpus"], numbers["tp"], numbers["pp"]
    interleave, context = (max(numbers.get(name, 1.0), 1.0) for name in ("vpp", "cp"))
    data = chips / (tensor * pipe * context)
    if data != round(data) or data < 1:
        raise UnrepresentableError("n_gpus", f"{chips:g} is no multiple of tp x pp x cp = {tensor * pipe * context:g}")
    expert = max(numbers.get("ep", 1.0), 1.0) if network.experts else 1.0
    given = numbers.get("dp")
    if given and given not in (data, data / expert):
        assumed.append(f"data {data:g}: what n_gpus / (tp x pp x cp) leaves; the column dp says {given:g}")
    if numbers["global_batch_sequences"] < data * numbers["micro_batch"]:
        raise UnrepresentableError(
            "global_batch_sequences",
            f"{numbers['global_batch_sequences']:g} sequences are too few for {data:g} replicas with micro-batches of "
            f"{numbers['micro_batch']:g}",
        )
    if network.experts and "ep" not in numbers:
        assumed.append("expert 1: no column or cell ep")
    shard, group = _shard(row.get("sharding", ""), data * context, trainer, assumed)
    return Plan(
        tensor=tensor,
        pipe=pipe,
        interleave=interleave,
        data=data,
        context=context,
        expert=expert,
        expert_tensor=_expert_tensor(network, trainer, tensor, expert, chips / pipe),
        shard=shard,
        shard_group=group,
        sequence_parallel=told.said(
            r"\bsp( on)?\b|sequence.parallel",
            r"\b(no|without|w/o) (sp\b|sequence.parallel)|\b(sp|sequence.parallel(ism)?)" + OFF,
            trainer.sequence_parallel,
        ),
        ring=0.0 if told.has(r"a2a cp|cp a2a|ulysses") else trainer.ring,
        tensor_overlap=_tensor_overlap(network, trainer, told),
        data_overlap=told.said(
            r"(grad/param sync|dp sync|gradients?|dp)( is| are)? overlap(ped)?|overlap grad reduce" + ON,
            r"no (gradient-bucket|grad|dp|comm|data)[^;,]{0,12} ?overlap|without overlap|dp overlap"
            + OFF
            + "|overlap grad reduce"
            + OFF,
            trainer.data_overlap,
        ),
        expert_overlap=trainer.expert_overlap if network.experts else 0.0,
        offload_activations=told.number(r"offload(?:ing)? (?:of )?(\d+) layers?", 0.0) / network.layers,
        **_recompute(row.get("recompute", ""), network, pipe * interleave, trainer, told, assumed),
    )


def _expert_tensor(network: Network, trainer: Stack, tensor: float, expert: float, chips_per_stage: float) -> float:
    """Tensor parallelism inside experts: the trainer's custom, as far as it fits on a stage."""
    if not network.experts or trainer.expert_tensor == 1 or chips_per_stage % (tensor * expert):
        return 1.0
    return tensor


def _tensor_overlap(network: Network, trainer: Stack, told: Words) -> float:
    usual = 0.0 if network.experts else trainer.tensor_overlap
    return told.said(
        r"tp[- ](comm[- ])?overlap[^;,.]{0,16}\b(on|true|enabled)\b|async ?tp|userbuffers",
        r"tp[- ](comm[- ])?overlap[^;,.]{0,16}\b(off|false|disabled)\b|no (tp|comm)[^;,]{0,12} ?overlap|vanilla tp"
        r"|userbuffers" + OFF,
        usual,
    )


def _shard(text: str, replicas: float, trainer: Stack, assumed: list[str]) -> tuple[float, float]:
    """(stage, chips over which) of a sharding column."""
    words = text.lower()
    stage = re.search(r"(?:zero|stage)[-_ ]*(?:stage[-_ ]*)?([0-3])", words)
    if stage:
        shard = float(stage.group(1))
    elif "fsdp" in words or "full_shard" in words or "hsdp" in words:
        shard = trainer.fsdp_shard
    elif "dist" in words and "opt" in words:
        shard = 1.0
    elif "ddp" in words or "none" in words or words in ("no", "0"):
        shard = 0.0
    else:
        shard = trainer.shard
        assumed.append(f"sharding stage {shard:g}: {text!r} says nothing; usual for {trainer.name}")
    group = re.search(r"(?:fsdp|shard|group)\s*=\s*(\d+)", words)
    return shard, min(float(group.group(1)), replicas) if group else replicas


def _recompute(
    text: str, network: Network, chunks: float, trainer: Stack, told: Words, assumed: list[str]
) -> dict[str, float]:
    """recompute_* fields of Plan from the column and the modules that the notes name. chunks: of the whole network."""
    words = text.lower()
    if re.search(r"\bfull\b|\byes\b|true|uniform|block", words):
        said = re.search(r"block\D{0,3}(\d+)", words)  # Megatron's method "block" counts the layers of a chunk
        layers = chunks * float(said[1]) if said else told.number(r"recompute (\d+) layers", network.layers)
        return {"recompute_full": min(layers / network.layers, 1.0)}
    if "selec" in words or re.search(r"attn|mlp|norm|act|up_proj|moe", words) or (not words and told.modules()):
        modules = re.findall(r"[a-z_]+", words.replace("selective", "")) + told.modules()
        fields = _module_fields(modules)
        return fields or (dict(trainer.selective) if words else {})
    if words not in ("none", "no", "false", "0", "off"):
        assumed.append("recompute: taken as none")
    return {}


def _module_fields(modules: list[str]) -> dict[str, float]:
    return {BY_MODULE[module]: 1.0 for module in modules if module in BY_MODULE}


class Words:
    """The notes of a run, searched with regular expressions in lower case."""

    def __init__(self, notes: str) -> None:
        # A sentence about other rows of a table says nothing about this one.
        self.text = re.sub(r"dropless \(25\.09: tokendrop where labelled\)|dropless\? not stated", "", notes.lower())

    def has(self, pattern: str) -> bool:
        return re.search(pattern, self.text.replace("_", " ")) is not None

    def said(self, on: str, off: str, usual: float, most: float = 1.0) -> float:
        """`most` or 0 where the notes say so, else what is usual."""
        return 0.0 if self.has(off) else most if self.has(on) else usual

    def number(self, pattern: str, usual: float) -> float:
        found = re.search(pattern, self.text)
        return float(found.group(1)) if found else usual

    def mtp(self, usual: float) -> bool:
        return bool(self.said(r"w/ mtp|with mtp|\bmtp on", r"w/o mtp|without mtp|no mtp|mtp" + OFF, usual))

    def capacity(self, trainer: Stack) -> float:
        return self.said(r"token-? ?drop", r"dropless", trainer.token_drop)

    def modules(self) -> list[str]:
        found = re.search(r"recompute ([a-z_]+(?:\+[a-z_]+)*) (?:from|in) ", self.text)
        return found.group(1).split("+") if found else []

    def power_cap_w(self) -> float | None:
        found = re.search(r"\b(\d{3,4}) ?w (?:cap|limit|power)", self.text)
        found = found or re.search(r"\b(?:capped|cap|limited|limit)(?: to| at| of|:)? (\d{3,4}) ?w\b", self.text)
        return float(found.group(1)) if found else None

    def nic_bits_per_s(self, trainer: Stack, node_chips: float) -> float | None:
        """Per chip; None if neither the notes nor the trainer's entry says it. node_chips: per server."""
        text = self.text
        per_chip = re.search(r"(\d+) ?gb(?:it|ps)?(?:/s)?[^;,.]{0,24} per (?:gpu|chip)", text)
        if per_chip:
            return float(per_chip.group(1)) * 1e9
        several = re.search(r"(\d+) ?x ?(?:(?:ndr|hdr|edr|xdr)-?(?=\d)|(?=\d{3} ?g))(\d{3})(?!\d)", text)
        per_node = re.search(r"(\d{3,4}) ?gb(?:it|ps)?/s (?:per node|roce|ib\b|infiniband)", text)
        if several:
            cards = float(several.group(1))  # never more than one per chip, whatever server the notes speak of
            return cards * float(several.group(2)) * 1e9 / max(cards, node_chips)
        if per_node:
            return float(per_node.group(1)) * 1e9 / node_chips
        return trainer.nic_bits_per_s_per_node / node_chips if trainer.nic_bits_per_s_per_node else None
