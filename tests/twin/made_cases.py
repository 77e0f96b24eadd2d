"""Cases of published networks for the tests of the twin, and a strategy for layouts."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from gigafactory.twin.case import Cases, Machine, Network, Plan, Software, Work

NETWORKS = {
    "gpt3-175b": Network(96, 12288, 96, 96, 128, 49152, 51200, gated=0, tied=1),
    "megatron-22b": Network(48, 6144, 64, 64, 96, 24576, 51200, gated=0, tied=1),
    "llama-8b": Network(32, 4096, 32, 8, 128, 14336, 128256),
    "llama-70b": Network(80, 8192, 64, 8, 128, 28672, 128256),
    "llama-405b": Network(126, 16384, 128, 8, 128, 53248, 128256),
    "mixtral-8x7b": Network(32, 4096, 32, 8, 128, 0, 32000, experts=8, topk=2, moe_ffn=14336),
    "grok-1": Network(64, 6144, 48, 8, 128, 0, 131072, experts=8, topk=2, moe_ffn=32768, norms=4),
    "deepseek-v3": Network(
        61, 7168, 128, 128, 128, 18432, 129280, experts=256, topk=8, moe_ffn=2048, shared_ffn=2048, dense_layers=3,
        q_rank=1536, kv_rank=512, rope_dim=64, value_dim=128,
    ),
    "deepseek-v2": Network(
        60, 5120, 128, 128, 128, 12288, 102400, experts=160, topk=6, moe_ffn=1536, shared_ffn=3072, dense_layers=1,
        q_rank=1536, kv_rank=512, rope_dim=64, value_dim=128,
    ),
}  # fmt: skip
H100 = Machine(
    generation=9,
    flops=989e12,
    low_flops=1979e12,
    units=132,
    hbm_bytes=80e9,
    hbm_bytes_per_s=3.35e12,
    domain_chips=8,
    domain_bytes_per_s=450e9,
    nic_bytes_per_s=50e9,
)


def made(network: str | Network, **fields: Any) -> Cases:
    """One case on H100 with a few fields set; two rows of 4,096 tokens per replica if nothing is said."""
    chosen = NETWORKS[network] if isinstance(network, str) else network
    work = Work(sequence=4096.0, micro_rows=1.0, global_rows=fields.pop("global_rows", 64.0))
    return Cases(chosen, Plan(), work, H100, Software()).replace(**fields)


def powers(most: int) -> st.SearchStrategy[float]:
    return st.sampled_from([float(2**exponent) for exponent in range(most.bit_length()) if 2**exponent <= most])


@st.composite
def layouts(draw: st.DrawFn) -> Cases:
    """Any legal-looking layout of a published network, with any recomputation."""
    name = draw(st.sampled_from(sorted(NETWORKS)))
    pipe = draw(powers(16))
    data, context, tensor = draw(powers(64)), draw(powers(4)), draw(powers(8))
    shares = st.sampled_from([0.0, 0.3, 1.0])
    return made(
        name,
        tensor=tensor,
        pipe=pipe,
        interleave=draw(powers(4)) if pipe > 1 else 1.0,
        data=data,
        context=context,
        expert=draw(powers(int(min(data * context, 8)))),
        shard=draw(st.sampled_from([0.0, 1.0, 2.0, 3.0])),
        shard_group=data * context,
        balanced=draw(st.sampled_from([0.0, 1.0])),
        sequence_parallel=draw(st.sampled_from([0.0, 1.0])),
        ring=draw(st.sampled_from([0.0, 1.0])),
        recompute_full=draw(shares),
        recompute_attention=draw(shares),
        recompute_norm=draw(shares),
        recompute_mlp=draw(shares),
        recompute_activation=draw(shares),
        recompute_up=draw(shares),
        recompute_experts=draw(shares),
        recompute_ops=draw(shares),
        micro_rows=draw(powers(4)),
        global_rows=data * draw(powers(64)) * 4,
        low=draw(st.sampled_from([0.0, 1.0])),
        grad_bytes=draw(st.sampled_from([2.0, 4.0])),
        imbalance=draw(st.sampled_from([1.0, 1.5])),
        flash=draw(st.sampled_from([0.0, 1.0, 2.0])),
        fused=draw(st.sampled_from([0.0, 1.0])),
        compiled=draw(st.sampled_from([0.0, 1.0])),
        months=draw(st.sampled_from([24.0, 59.0, 76.0])),
    )
