"""Published networks have the size their authors give; names are known in any spelling; strangers follow rules."""

from __future__ import annotations

import pytest

from gigafactory.factory.catalog import models
from gigafactory.twin.case import Cases, Machine, Network, Plan, Software, Work
from gigafactory.twin.networks import (
    UnrepresentableError,
    architectures,
    known_name,
    network_of,
    published_network,
)
from gigafactory.twin.parameters import total_parameters

MACHINE = Machine(9.0, 1e15, 1e15, 132.0, 80e9, 3e12, 8.0, 450e9, 50e9)


def billions(network: Network) -> float:
    cases = Cases(network, Plan(), Work(4096.0, 1.0, 1.0), MACHINE, Software())
    return float(sum(total_parameters(cases))) / 1e9


COLUMNS = ("layers", "hidden", "heads", "kv_heads", "ffn", "vocab", "experts", "topk")
# (name as published, billions of parameters that its authors or its checkpoint give, the table's columns)
PUBLISHED = [
    ("Grok-1 314B MoE", 316.5, (64, 6144, 48, 8, 32768, 131072, 8, 2)),
    ("DeepSeekV3", 671.03, (61, 7168, 128, None, 2048, 129280, 256, 8)),
    ("DeepSeek-V2 236B", 235.74, (60, 5120, 128, None, 1536, 102400, 160, 6)),
    ("DeepSeek-V2-Lite", 15.71, (27, 2048, 16, None, 1408, 102400, 64, 6)),
    ("Kimi_K2", 1026.4, (61, 7168, 64, None, 2048, 163840, 384, 8)),
    ("Qwen3_30B_a3B", 30.53, (48, 2048, 32, 4, 768, 151936, 128, 8)),
    ("Qwen3_235B_a22b", 235.09, (94, 4096, 64, 4, 1536, 151936, 128, 8)),
    ("GPT OSS 120B", 116.83, (36, 2880, 64, 8, 2880, 201088, 128, 4)),
    ("LLAMA3_8B", 8.03, (32, 4096, 32, 8, 14336, 128256, None, None)),
    ("Llama-3.1-405B", 405.85, (126, 16384, 128, 8, 53248, 128256, None, None)),
    ("Mixtral 8x7B", 46.70, (32, 4096, 32, 8, 14336, 32000, 8, 2)),
    ("mixtral-8x22b", 140.62, (56, 6144, 48, 8, 16384, 32000, 8, 2)),
    ("Llama4-Maverick-400B", 400.7, (48, 5120, 40, 8, 8192, 202048, 128, 1)),
    ("Llama 4 Scout", 107.8, (48, 5120, 40, 8, 8192, 202048, 16, 1)),
    ("Nemotron-4-340B", 341.0, (96, 18432, 96, 8, 73728, 256000, None, None)),
    ("PaLM 540B", 540.35, (118, 18432, 48, 1, 73728, 256000, None, None)),
    ("BLOOM-176B", 176.25, (70, 14336, 112, None, 57344, 250880, None, None)),
    ("GPT-3-175B", 174.6, (96, 12288, 96, 96, 49152, 50257, None, None)),
    ("MT-NLG 530B", 529.6, (105, 20480, 128, 128, 81920, 51200, None, None)),
]


@pytest.mark.parametrize(("model", "size", "columns"), PUBLISHED, ids=[name for name, _, _ in PUBLISHED])
def test_a_published_model_has_the_parameters_its_authors_count(
    model: str, size: float, columns: tuple[float | None, ...]
) -> None:
    given = {name: float(value) for name, value in zip(COLUMNS, columns, strict=True) if value is not None}
    assert billions(published_network(model, given).network) == pytest.approx(size, rel=2e-3)


@pytest.mark.parametrize(
    ("spellings", "name"),
    [
        (
            ("LLAMA3_70B", "Llama-3.1-70B", "Llama-3-70B truncated L=12", "llama31_70b", "Meta Llama 3 70B"),
            "llama-3 70b",
        ),
        (("Llama-3.1-405B proxy 7 layers", "LLAMA3.1_405B"), "llama-3 405b"),
        (("Grok-1 314B MoE proxy 8 layers", "grok1", "Grok 1"), "grok-1"),
        (("DeepSeekV3", "DeepSeek-V3 671B", "deepseek v3 truncated L=4"), "deepseek-v3"),
        (("GPT-175B", "GPT-3-175B", "gpt3_175b"), "gpt-3 175b"),
        (("GPT-18.4B",), "gpt-3 18.4b"),
        (("Qwen3_30B_a3B", "Qwen3-30B-A3B"), "qwen3 30ba3b"),
        (("Llama-2-70B", "llama2_70b"), "llama-2 70b"),
        (("some new model",), "some-new-model"),
    ],
)
def test_spellings_of_a_model_have_one_name(spellings: tuple[str, ...], name: str) -> None:
    assert {known_name(spelling) for spelling in spellings} == {name}


@pytest.mark.parametrize("model", ["Nemotron-H 56B", "Nemotron 3 Nano 30B-A3B", "Qwen3-Next-80B-A3B", "FLUX 12B"])
def test_what_has_no_formulas_says_so(model: str) -> None:
    with pytest.raises(UnrepresentableError, match=r"formulas|not a decoder") as refused:
        published_network(model, {"layers": 8.0, "hidden": 512.0, "heads": 8.0, "ffn": 2048.0})
    assert refused.value.field == "model"


def test_a_table_may_give_the_dense_width_of_a_mixture() -> None:
    given = {"layers": 61.0, "hidden": 7168.0, "heads": 128.0, "vocab": 129280.0}
    by_expert = published_network("DeepSeek-V3", given | {"ffn": 2048.0})
    by_dense = published_network("DeepSeek-V3", given | {"ffn": 18432.0})
    assert by_expert.network == by_dense.network
    assert by_expert.network.experts == 256


def test_strangers_follow_the_usual_rules_and_say_what_is_assumed() -> None:
    plain = published_network("x", {"layers": 4.0, "hidden": 1024.0, "heads": 8.0, "ffn": 4096.0, "vocab": 1000.0})
    assert (plain.network.gated, plain.network.head_dim, plain.network.kv_heads) == (0.0, 128.0, 8.0)
    gated = published_network("x", {"layers": 4.0, "hidden": 2880.0, "heads": 64.0, "ffn": 2880.0, "vocab": 1000.0})
    assert (gated.network.gated, gated.network.head_dim) == (1.0, 128.0)
    assert any("head_dim" in what for what in gated.assumed)
    assert any("not in the catalogue" in what for what in plain.assumed)
    with pytest.raises(UnrepresentableError, match="vocab"):
        published_network("x", {"layers": 4.0, "hidden": 1024.0, "heads": 8.0, "ffn": 4096.0})
    mixture = {"layers": 4.0, "hidden": 1024.0, "heads": 8.0, "ffn": 4096.0, "vocab": 1000.0, "experts": 8.0}
    with pytest.raises(UnrepresentableError, match="topk"):
        published_network("x", mixture)


@pytest.mark.parametrize("name", list(models()))
def test_a_model_of_the_catalogue_keeps_its_parameters(name: str) -> None:
    config = models()[name].config
    assert billions(network_of(config)) == pytest.approx(config.parameters() / 1e9, rel=1e-3)


def test_every_architecture_has_a_source() -> None:
    assert all(len(entry.source) > 4 for entry in architectures())
