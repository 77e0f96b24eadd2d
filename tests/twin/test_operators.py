"""The list of operators against arithmetic of others: the model's own count, published formulas, messages by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from made_cases import NETWORKS, made, powers
from random_cases import random_cases

from gigafactory.model.config import ModelConfig
from gigafactory.twin.case import Array, Cases, take
from gigafactory.twin.networks import network_of
from gigafactory.twin.operator import Attention, Matmul, Message, Operator, Traffic
from gigafactory.twin.operators import operators

Only = Callable[[Operator], bool]


def job_flops(cases: Cases, only: Only = lambda op: True) -> Array:
    """FLOPs of one step of the whole job: what one chip computes, over all that compute something else."""
    network, plan = cases.network, cases.plan
    total = network.layers + network.mtp_layers
    mixed = np.where(network.experts > 0, total - network.dense_layers, 0.0)
    runs = {"layer": total, "dense": total - mixed, "mixture": mixed, "first": 1.0, "last": 1.0}
    once = sum(
        (op.flops * runs[op.where] for op in operators(cases) if isinstance(op, (Matmul, Attention)) and only(op)), 0.0
    )
    return once * cases.micro_batches * plan.tensor * plan.data * plan.context


def forward(op: Operator) -> bool:
    return op.phase == "forward"


def of_experts(op: Operator) -> bool:
    return op.where == "mixture" and op.name.startswith("expert")


def sent_bytes(cases: Cases, axis: str, phase: str) -> Array:
    """What one chip sends over an axis in one layer and micro-batch, that need not hide."""
    found = [op for op in operators(cases) if isinstance(op, Message) and (op.axis, op.phase) == (axis, phase)]
    return sum((op.wire_bytes * op.count for op in found if op.where != "last" and np.all(op.hidden == 0)), 0.0)


@st.composite
def models(draw: st.DrawFn) -> ModelConfig:
    """Dense models and mixtures, grouped key heads, tied or not."""
    head_dim, kv_heads = draw(st.sampled_from([64, 128])), draw(st.sampled_from([8, 16]))
    experts = draw(st.sampled_from([0, 8, 64]))
    return ModelConfig(
        layers=draw(st.integers(1, 90)),
        width=draw(st.sampled_from([1024, 4096, 6144])),
        heads=kv_heads * draw(st.sampled_from([1, 2, 6])),
        kv_heads=kv_heads,
        head_dim=head_dim,
        ffn_width=draw(st.sampled_from([2048, 14336])),
        vocab=draw(st.sampled_from([32000, 131072])),
        context=8192,
        experts=experts,
        experts_per_token=draw(st.sampled_from([1, 2, 8])) if experts else 1,
        tie_embeddings=draw(st.booleans()),
    )


@st.composite
def cuts(draw: st.DrawFn, mixture: bool) -> dict[str, float]:
    """Any way to share out 64 sequences of 8,192 tokens, a mixture's experts and their matrices."""
    tensor, context, data = draw(powers(8)), draw(powers(4)), draw(powers(16))
    return {
        "tensor": tensor,
        "context": context,
        "data": data,
        "pipe": draw(powers(8)),
        "expert": draw(powers(int(min(data * context, 8)))) if mixture else 1.0,
        "expert_tensor": draw(st.sampled_from([1.0, tensor])) if mixture else 1.0,
        "ring": draw(st.sampled_from([0.0, 1.0])),
        "micro_rows": draw(powers(4)),
        # with each chip of a tensor group routing all tokens, the router's product is done by all of them
        "sequence_parallel": 1.0 if mixture else draw(st.sampled_from([0.0, 1.0])),
    }


@settings(max_examples=150)
@given(st.data(), models(), st.booleans(), st.booleans())
def test_however_it_is_cut_a_job_computes_what_the_model_counts(
    data: st.DataObject, model: ModelConfig, causal: bool, flash: bool
) -> None:
    """Matmuls: 2 FLOPs per weight and token forward, 4 backward; attention over all pairs, half of them where the
    kernel skips what the mask hides; its backward computes the scores again (5 products for 2)."""
    cut = data.draw(cuts(model.experts > 0))
    assume(model.heads % (cut["tensor"] * cut["context"]) == 0)
    case = made(network_of(model), sequence=8192.0, causal=float(causal), flash=2.0 * flash, **cut)
    tokens = 64 * 8192
    weights = 2.0 * tokens * model.matmul_parameters()
    pairs = model.forward_flops_per_token(8192, causal=False) * tokens - weights
    skipped = 0.5 if causal and flash else 1.0
    assert job_flops(case, forward) == pytest.approx(weights + skipped * pairs, rel=1e-12)
    backward = 2.0 * weights + (2.5 if flash else 2.0) * skipped * pairs
    assert job_flops(case) == pytest.approx(weights + skipped * pairs + backward, rel=1e-12)
    # The whole of each layer once more, not the logits.
    again = job_flops(case.replace(recompute_full=1.0), lambda op: op.phase == "recompute")
    logits = 2.0 * tokens * model.vocab * model.width
    assert again == pytest.approx(weights + skipped * pairs - logits, rel=1e-12)


@pytest.mark.parametrize(("full", "factor", "vocabulary"), [(0.0, 72, 12), (1.0, 96, 16)])
def test_gpt3_computes_what_megatron_publishes(full: float, factor: int, vocabulary: int) -> None:
    """72 B s l h^2 (1 + s/6h + V/12lh); with full recomputation 96 and V/16lh (Narayanan et al., arXiv 2104.04473)."""
    case = made("gpt3-175b", sequence=2048.0, flash=0.0, recompute_full=full, tensor=8.0, pipe=4.0, data=2.0)
    rows, s, layers, h, vocab = 64, 2048, 96, 12288, 51200
    published = factor * rows * s * layers * h**2 * (1 + s / (6 * h) + vocab / (vocabulary * layers * h))
    assert job_flops(case) == pytest.approx(published, rel=1e-12)


def test_published_counts_of_grok_1_and_llama_405b() -> None:
    """Grok-1: 4.27e15 per sequence of 8,192 tokens, causal (NVIDIA/dgxc-benchmarking, vocabulary 128,256). Llama-3
    405B: 3.8e25 over 15.6e12 tokens (arXiv 2407.21783, section 3: 6 x parameters x tokens, sequences of 8,192)."""
    grok = made(dataclasses.replace(NETWORKS["grok-1"], vocab=128256.0), sequence=8192.0, global_rows=1.0)
    assert 3 * job_flops(grok, forward) == pytest.approx(4.27e15, rel=0.005)
    llama = made("llama-405b", sequence=8192.0)
    assert 3 * job_flops(llama, forward) / (64 * 8192) * 15.6e12 == pytest.approx(3.8e25, rel=0.05)


def test_latent_attention_computes_its_low_rank_products() -> None:
    """DeepSeek-V3: 37e9 active parameters, embedding left out 36.6e9 (arXiv 2412.19437), without the scores' pairs."""
    case = made("deepseek-v3", tensor=8.0, data=8.0, expert=8.0)
    matmuls = job_flops(case, lambda op: forward(op) and isinstance(op, Matmul))
    assert matmuls / (2 * 64 * 4096) == pytest.approx(36.6e9, rel=0.01)


@pytest.mark.parametrize("parallel", [0.0, 1.0])
@pytest.mark.parametrize("tensor", [2.0, 8.0])
def test_tensor_parallel_layers_send_four_all_reduces(tensor: float, parallel: float) -> None:
    """Two forward, two backward of all tokens x hidden; gathers and scatters send the same (arXiv 2205.05198)."""
    case = made("llama-8b", tensor=tensor, micro_rows=2.0, sequence_parallel=parallel)
    all_reduce = 2 * (tensor - 1) / tensor * 2 * 4096 * 4096 * 2
    # What is gathered once more for the weight gradient hides behind the input gradient.
    assert sent_bytes(case, "tensor", "forward") == pytest.approx(2 * all_reduce)
    assert sent_bytes(case, "tensor", "backward") == pytest.approx(2 * all_reduce)
    assert sent_bytes(case.replace(recompute_full=1.0), "tensor", "recompute") == pytest.approx(2 * all_reduce)


def test_context_parallel_attention_sends_keys_and_values_round_or_changes_heads_for_positions() -> None:
    rows, positions = 2, 32768 / 4
    case = made("llama-8b", sequence=32768.0, context=4.0, tensor=2.0, micro_rows=float(rows))
    ring = [op for op in operators(case) if isinstance(op, Message) and op.axis == "context"]
    sent = {op.phase: op.wire_bytes * op.count for op in ring}
    kept = rows * positions * 2 * (8 / 2) * 128 * 2  # keys and values of 4 heads on a chip, in 16 bits
    assert sent == {"forward": pytest.approx(3 * kept), "backward": pytest.approx(6 * kept)}
    queries = rows * positions * 2 * (32 / 2) * 128 * 2  # queries and results
    found = sent_bytes(case.replace(ring=0.0), "context", "forward")
    assert found == pytest.approx(3 / 4 * (kept + queries))


@pytest.mark.parametrize("field", ["capacity", "imbalance"])
@pytest.mark.parametrize("spread", [0.5, 1.0, 1.3])
def test_experts_get_and_compute_what_they_have_places_for_or_what_the_busiest_is_chosen_for(
    field: str, spread: float
) -> None:
    even = made("mixtral-8x7b", data=8.0, expert=8.0)
    case = even.replace(**{field: spread})
    there_and_back = 2 * 7 / 8 * spread * 4096 * 2 * 4096 * 2  # top 2 of 4,096 tokens
    for phase in ("forward", "backward"):
        assert sent_bytes(case, "expert", phase) == pytest.approx(there_and_back)
    assert job_flops(case, of_experts) / job_flops(even, of_experts) == pytest.approx(spread)


@pytest.mark.parametrize("data", [1.0, 8.0])
def test_experts_cut_over_tensor_compute_no_more_without_sequence_parallelism(data: float) -> None:
    cut = made("grok-1", tensor=8.0, expert_tensor=8.0, data=data, sequence_parallel=np.array([0.0, 1.0]))
    computed = job_flops(cut, of_experts)
    assert computed[0] == pytest.approx(computed[1])
    sent = [sent_bytes(cut.replace(sequence_parallel=one), "tensor", "forward") for one in (0.0, 1.0)]
    assert sent[0] == pytest.approx(sent[1])


@given(st.sampled_from([8.0, 32.0, 64.0]), st.integers(1, 8), st.sampled_from([1.0, 4.0, 8.0, 72.0]), powers(8))
def test_tokens_sent_once_are_fewer_than_one_copy_per_expert(
    expert: float, topk: int, domain: float, cut: float
) -> None:
    network = dataclasses.replace(NETWORKS["deepseek-v3"], topk=float(topk))
    case = made(network, data=64.0, expert=expert, tensor=cut, expert_tensor=cut, domain_chips=domain)

    def copies(dedup: float) -> tuple[float, float]:
        """(bytes between domains of chips, bytes within one) that a chip sends to experts."""
        found = [op for op in operators(case.replace(dedup=dedup)) if isinstance(op, Message) and op.axis == "expert"]
        across = [op.payload_bytes * op.count for op in found if "inside" not in op.name]
        return float(sum(across)), float(sum(op.payload_bytes * op.count for op in found if "inside" in op.name))

    once, twice = copies(1.0), copies(0.0)
    assert once[0] <= twice[0] * (1 + 1e-12)
    assert once[1] <= twice[0] * (1 + 1e-12)
    if topk == 1:
        assert once[0] == pytest.approx(twice[0])


def test_unfused_software_moves_and_launches_more() -> None:
    case = made("gpt3-175b")

    def traffic(cases: Cases) -> tuple[float, float]:
        found = [op for op in operators(cases) if isinstance(op, Traffic)]
        return float(sum(op.bytes * op.count for op in found)), float(sum(op.kernels * op.count for op in found))

    fused, apart, scores = traffic(case), traffic(case.replace(fused=0.0)), traffic(case.replace(flash=0.0))
    assert apart[0] > 1.3 * fused[0]
    assert apart[1] > 1.3 * fused[1]
    # Softmax reads and writes 96 x 4,096^2 scores several times, dropout as well.
    assert scores[0] - fused[0] > 6 * 2 * 96 * 4096**2


def amounts(cases: Cases) -> dict[tuple[str, str, str], Array]:
    """(operator, phase, where) -> what it computes, moves or sends."""
    found: dict[tuple[str, str, str], Array] = {}
    for op in operators(cases):
        match op:
            case Matmul() | Attention():
                much = op.flops
            case Traffic():
                much = op.bytes * op.count
            case Message():
                much = op.wire_bytes * op.count
        key = (op.name, op.phase, op.where)
        found[key] = found.get(key, 0.0) + much
    return found


def test_many_cases_at_once_have_the_operators_of_each() -> None:
    """In one array or a grid; what a case lacks has no amount."""
    count = 120
    cases = random_cases(count, seed=5)
    whole = amounts(cases)
    grid = amounts(take(cases, np.arange(count).reshape(20, 3, 2)))
    for i in range(count):
        single = amounts(take(cases, i))
        for key, much in whole.items():
            value = np.broadcast_to(much, count)[i]
            mine = np.broadcast_to(grid[key], (20, 3, 2)).ravel()[i]
            assert value == pytest.approx(mine, rel=1e-12)
            dense_only = key[2] == "dense" and cases.network.experts[i] > 0 and cases.network.dense_layers[i] == 0
            mixture_only = key[2] == "mixture" and cases.network.experts[i] == 0
            if not dense_only and not mixture_only:  # those run in no layer
                assert single.get(key, 0.0) == pytest.approx(value, rel=1e-12), key
        assert single.keys() <= whole.keys()
