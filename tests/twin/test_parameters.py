"""Parameters and layers per stage against published counts, and that nothing is lost between stages."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from made_cases import layouts, made

from gigafactory.twin.case import Cases
from gigafactory.twin.parameters import stage_layers, stage_parameters, total_parameters


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("llama-8b", 8.030e9),
        ("llama-70b", 70.554e9),
        ("llama-405b", 405.85e9),
        ("mixtral-8x7b", 46.703e9),
        ("deepseek-v3", 671.026e9),
        ("deepseek-v2", 235.741e9),
        ("grok-1", 316.49e9),
        ("gpt3-175b", 174.6e9),
    ],
)
def test_published_networks_have_their_published_size(name: str, published: float) -> None:
    assert sum(total_parameters(made(name))) == pytest.approx(published, rel=1e-3)


def test_a_predictor_of_further_tokens_is_a_layer_on_the_last_stage() -> None:
    """DeepSeek-V3: 11.5 B parameters in the MTP module beside its copies of embedding and output head."""
    without, with_mtp = made("deepseek-v3"), made("deepseek-v3", mtp_layers=1.0)
    assert sum(total_parameters(with_mtp)) - sum(total_parameters(without)) == pytest.approx(11.5e9, rel=0.01)
    cut = made("deepseek-v3", mtp_layers=1.0, pipe=8.0)
    stages = stage_parameters(cut)
    assert stages.last.vocabulary == pytest.approx(2 * float(stages.first.vocabulary))


def test_embedding_lies_on_the_first_stage_and_logits_on_the_last() -> None:
    stages = stage_parameters(made("llama-8b", pipe=4.0))
    assert stages.first.vocabulary == stages.last.vocabulary == 128256 * 4096
    assert stages.inner.vocabulary == 0
    alone = stage_parameters(made("llama-8b"))
    assert alone.first.vocabulary == alone.last.vocabulary == 2 * 128256 * 4096
    assert stages.dense == stages.first.dense > stages.inner.dense


def test_vocabulary_is_padded_as_megatron_pads_it() -> None:
    table = stage_parameters(made("llama-8b", tensor=8.0)).first.vocabulary
    assert table == 2 * 129024 / 8 * 4096


def test_few_key_heads_are_copied() -> None:
    eight, sixteen = (stage_parameters(made("llama-70b", tensor=tensor)).layer.attention for tensor in (8.0, 16.0))
    own_head = 8192 * 128 * 2  # one key and one value head
    assert eight - 16384 == pytest.approx(2 * (sixteen - 16384) - own_head)


@pytest.mark.parametrize(
    ("network", "plan", "expected"),
    [
        ("llama-70b", {"pipe": 4.0, "interleave": 5.0}, (20, 20, 20)),
        ("llama-405b", {"pipe": 8.0, "interleave": 8.0, "balanced": 1.0}, (15, 16, 15)),
        ("deepseek-v3", {"pipe": 16.0}, (3, 4, 2)),
        ("llama-8b", {}, (32, 32, 32)),
        ("llama-8b", {"balanced": 1.0}, (32, 32, 32)),
    ],
)
def test_layers_of_stages(network: str, plan: dict[str, float], expected: tuple[int, int, int]) -> None:
    assert tuple(float(layers) for layers in stage_layers(made(network, **plan))) == expected


def test_first_layers_without_experts_are_on_the_first_stage() -> None:
    stages = stage_parameters(made("deepseek-v3", pipe=8.0, expert=8.0, data=64.0))
    assert float(stages.first.layers - stages.first.mixtures) == 3
    assert float(stages.inner.layers - stages.inner.mixtures) == 0
    assert stages.expert == stages.inner.expert == pytest.approx(8 * 256 / 8 * 3 * 7168 * 2048)


@settings(max_examples=60, deadline=None)
@given(layouts())
def test_all_chips_together_hold_at_least_the_network(cases: Cases) -> None:
    """Padding, copies of norms and of key heads only add."""
    stages = stage_parameters(cases)
    pipe = float(cases.plan.pipe)
    inner = max(pipe - 2, 0)
    dense, expert = total_parameters(cases)
    ends = stages.first.dense + (stages.last.dense if pipe > 1 else 0)
    assert (ends + inner * stages.inner.dense) * cases.plan.tensor >= dense * (1 - 1e-9)
    ends = stages.first.expert + (stages.last.expert if pipe > 1 else 0)
    held = (ends + inner * stages.inner.expert) * cases.plan.expert * cases.plan.expert_tensor
    assert held >= expert * (1 - 1e-9)
    assert stages.dense >= dense / (pipe * cases.plan.tensor) * (1 - 1e-9)


def test_arrays_and_grids_give_what_single_cases_give() -> None:
    tensor, pipe = np.array([1.0, 2.0, 8.0])[:, None], np.array([1.0, 4.0])[None, :]
    grid = stage_parameters(made("deepseek-v3", tensor=tensor, pipe=pipe)).dense
    assert np.shape(grid) == (3, 2)
    assert grid[2, 1] == stage_parameters(made("deepseek-v3", tensor=8.0, pipe=4.0)).dense
