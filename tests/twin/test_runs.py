"""Tables of measured runs become cases: columns, words of the notes, what trainers do; nothing gets lost."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_tables import SHARED, mixture, row, write

from gigafactory.errors import UserError
from gigafactory.twin.case import Cases
from gigafactory.twin.runs import read_runs, take_runs
from gigafactory.twin.software import release_months, stack, stack_of, stacks


def case(tmp_path: Path, **cells: str) -> Cases:
    return read_runs(write(tmp_path / "runs.csv", row(**cells))).cases


def test_a_dense_run_is_read_whole(tmp_path: Path) -> None:
    runs = read_runs(write(tmp_path / "runs.csv", row(peak_memory_gib="64")))
    network, plan, work, machine, software = (runs.cases.network, *runs.cases.parts()[1:])
    assert (network.layers[0], network.gated[0], network.head_dim[0], network.experts[0]) == (80, 1, 128, 0)
    assert (plan.tensor[0], plan.pipe[0], plan.interleave[0], plan.data[0], plan.context[0]) == (4, 4, 5, 2, 2)
    assert (plan.shard[0], plan.shard_group[0], plan.tensor_overlap[0], plan.sequence_parallel[0]) == (1, 4, 1, 1)
    assert (work.sequence[0], work.micro_rows[0], work.global_rows[0], work.low[0], work.grad_bytes[0]) == (
        8192,
        1,
        128,
        0,
        2,
    )
    assert (machine.generation[0], machine.nic_bytes_per_s[0], machine.domain_chips[0]) == (9, 50e9, 8)
    assert (software.months[0], software.flash[0]) == (58, 2)
    assert (runs.ids, runs.lines, runs.source_group, runs.model) == (
        ["dgxc-v25.02-one"],
        [2],
        ["dgxc"],
        ["llama-3 70b"],
    )
    assert runs.memory_bytes[0] == 64 * 2**30
    assert runs.problems == []
    assert runs.assumed == [()]


def test_a_mixture_is_read_whole(tmp_path: Path) -> None:
    runs = read_runs(write(tmp_path / "runs.csv", mixture()))
    network, plan, work = runs.cases.network, runs.cases.plan, runs.cases.work
    assert (network.kv_rank[0], network.moe_ffn[0], network.shared_ffn[0], network.dense_layers[0]) == (
        512,
        2048,
        2048,
        3,
    )
    assert network.mtp_layers[0] == 1  # the presets of this trainer train it
    assert (plan.expert[0], plan.expert_tensor[0], plan.recompute_up[0]) == (64, 1, 1)
    assert (plan.recompute_mlp[0], plan.recompute_experts[0]) == (1, 0)  # Megatron's "mlp" is that of dense layers
    assert (work.low[0], work.block_scaled[0], work.four_bit[0], work.capacity[0]) == (1, 1, 0, 0)
    assert runs.cases.software.months[0] == 75
    assert np.isnan(runs.memory_bytes[0])


@pytest.mark.parametrize(
    ("precision", "gpu", "flags"),
    [
        ("bf16", "H100", (0, 0, 0)),
        ("fp16", "A100-SXM", (0, 0, 0)),
        ("fp8", "H100", (1, 0, 0)),
        ("fp8-cs", "B200", (1, 0, 0)),
        ("fp8-tensorwise", "H100", (1, 0, 0)),
        ("fp8-rowwise", "H100", (1, 1, 0)),
        ("FP8-MX", "GB200", (1, 1, 0)),
        ("mxfp8", "GB300", (1, 1, 0)),
        ("NVFP4", "B300", (1, 1, 1)),
    ],
)
def test_number_formats(tmp_path: Path, precision: str, gpu: str, flags: tuple[int, int, int]) -> None:
    work = case(tmp_path, precision=precision, gpu=gpu).work
    assert (work.low[0], work.block_scaled[0], work.four_bit[0]) == flags


@pytest.mark.parametrize(
    ("text", "shard", "group"),
    [
        ("none(DDP)", 0, 4),
        ("zero1(dist-opt)", 1, 4),
        ("ZeRO-2", 2, 4),
        ("fsdp(full_shard=zero3)", 3, 4),
        ("fsdp2(zero3)", 3, 4),
        ("fsdp=2", 3, 2),
        ("fsdp(shard_grad_op=zero2)", 2, 4),
        ("ZeRO stage 2", 2, 4),
    ],
)
def test_sharding(tmp_path: Path, text: str, shard: int, group: int) -> None:
    plan = case(tmp_path, sharding=text).plan
    assert (plan.shard[0], plan.shard_group[0]) == (shard, group)


@pytest.mark.parametrize(
    ("notes", "field", "value"),
    [
        ("NeMo, TP-comm-overlap OFF", "tensor_overlap", 0.0),
        ("NeMo, TP overlap (userbuffers) on", "tensor_overlap", 1.0),
        ("NeMo, no gradient-bucket overlap", "data_overlap", 0.0),
        ("NeMo, grad/param sync overlapped", "data_overlap", 1.0),
        ("NeMo, tp_comm_overlap: false", "tensor_overlap", 0.0),
        ("NeMo, userbuffers off", "tensor_overlap", 0.0),
        ("Megatron, TP comm overlap enabled", "tensor_overlap", 1.0),
        ("NeMo, overlap_grad_reduce=False", "data_overlap", 0.0),
        ("NeMo, sequence_parallel=False", "sequence_parallel", 0.0),
        ("NeMo, grad_reduce_in_fp32: true", "grad_bytes", 4.0),
        ("NeMo, grad_reduce_in_fp32=False", "grad_bytes", 2.0),
        ("power limited to 350 W", "power_share", 0.5),
        ("flash_attn=False", "flash", 0.0),
        ("MLPerf, no CUDA graphs", "graphs", 0.0),
        ("Megatron, CUDA graphs", "graphs", 1.0),
        ("NeMo; CPU offload of 40 layers activations", "offload_activations", 0.5),
        ("4xHDR200 = 800 Gb/s per node", "nic_bytes_per_s", 12.5e9),
        ("A100 nodes 1600 Gb/s RoCE", "nic_bytes_per_s", 25e9),
        ("8 x 200G per node", "nic_bytes_per_s", 25e9),
        ("8xH100, 16 x 128 sequences", "nic_bytes_per_s", 50e9),
        ("400 Gb/s RDMA per GPU", "nic_bytes_per_s", 50e9),
        ("torchtitan, eager", "compiled", 0.0),
        ("torchtitan, compile+float8", "compiled", 1.0),
        ("full recompute, no sequence parallelism", "sequence_parallel", 0.0),
        ("no recompute, SP, TP overlap on", "sequence_parallel", 1.0),
        ("MP mode DEFAULT", "grad_bytes", 4.0),
        ("grads bf16", "grad_bytes", 2.0),
    ],
)
def test_words_of_the_notes(tmp_path: Path, notes: str, field: str, value: float) -> None:
    parts = case(tmp_path, id="x-1", source="", notes=notes).parts()
    found = next(getattr(part, field) for part in parts if hasattr(part, field))
    assert found[0] == value


def test_network_cards_of_servers_with_four_chips(tmp_path: Path) -> None:
    notes = ("4x NDR400/node", "DGX H100 reference arch (8x NDR400/node)", "800 Gb/s per node", "")
    cells = [row(id="x-1", source="", gpu="GB200-NVL72", notes=words) for words in notes]
    assert list(read_runs(write(tmp_path / "runs.csv", *cells)).cases.machine.nic_bytes_per_s) == [
        50e9,
        50e9,
        25e9,
        50e9,
    ]


def test_a_token_drop_label_counts_and_a_sentence_on_other_rows_does_not(tmp_path: Path) -> None:
    general = mixture()["notes"]
    labels = ("", '; label "DeepSeekV3 (tokendrop)"', '; label "DeepSeekV3 (dropless)"')
    cells = [mixture(notes=general + label) for label in labels]
    assert list(read_runs(write(tmp_path / "runs.csv", *cells)).cases.work.capacity) == [0, 1, 0]


def test_dense_layers_of_a_truncated_mixture(tmp_path: Path) -> None:
    cut = {"layers": "4", "pp": "1", "vpp": "1", "n_gpus": "64", "dp": "64"}
    simumax = mixture(id="simumax-v3", source="MooreThreads/SimuMax", notes="", **cut)
    said = mixture(notes="truncated, 2 dense layers", **cut)
    network = read_runs(write(tmp_path / "runs.csv", mixture(**cut), simumax, said)).cases.network
    assert list(network.dense_layers) == [3, 1, 2]


@pytest.mark.parametrize(
    ("recompute", "notes", "fields"),
    [
        ("full", "", {"recompute_full": 1.0}),
        ("full (1 layer)", "", {"recompute_full": 1.0}),
        ("block 2", "", {"recompute_full": 0.5}),  # of the 4 layers in each of 20 chunks
        ("none", "", {}),
        ("selective", "", {"recompute_attention": 1.0}),
        (
            "selective",
            "recompute layernorm+moe_act from preset X",
            {"recompute_norm": 1.0, "recompute_activation": 1.0},
        ),
        ("selective", "torchtitan", {"recompute_ops": 1.0}),
        ("", "recompute mla_up_proj from preset X", {"recompute_up": 1.0}),
        ("", "recompute none from preset X", {}),
    ],
)
def test_recomputation(tmp_path: Path, recompute: str, notes: str, fields: dict[str, float]) -> None:
    plan = case(tmp_path, id="x-1", source="", recompute=recompute, notes=notes).plan
    again = {name: value[0] for name, value in vars(plan).items() if name.startswith("recompute") and value[0]}
    assert again == fields


@pytest.mark.parametrize(
    ("cells", "field", "reason"),
    [
        ({"tp": ""}, "tp", "not given"),
        ({"micro_batch": "n/a"}, "micro_batch", "not given"),
        ({"step_s": ""}, "step_s", "not given"),
        ({"tp": "3"}, "n_gpus", "no multiple of tp x pp x cp"),
        ({"global_batch_sequences": "1"}, "global_batch_sequences", "too few for 2 replicas"),
        ({"gpu": "Zeus-9000"}, "gpu", "Zeus-9000"),
        ({"model": "Nemotron-H 56B"}, "model", "Mamba"),
        ({"precision": "nvfp4"}, "gpu", "fp4"),
        ({"notes": "LoRA, rank 16"}, "model", "adapters"),
    ],
)
def test_a_row_that_cannot_be_represented_is_listed_with_the_reason(
    tmp_path: Path, cells: dict[str, str], field: str, reason: str
) -> None:
    runs = read_runs(write(tmp_path / "runs.csv", row(), row(id="bad-1", **cells)))
    assert len(runs) == 1
    (problem,) = runs.problems
    assert (problem.row, problem.id, problem.field) == (3, "bad-1", field)
    assert reason in problem.reason


def test_what_is_filled_in_is_said(tmp_path: Path) -> None:
    cells = row(vocab="", sharding="", recompute="", dp="7", precision="weird16")
    (assumed,) = read_runs(write(tmp_path / "runs.csv", cells)).assumed
    for word in ("vocab", "sharding", "recompute", "dp", "precision"):
        assert any(word in what for what in assumed)


@pytest.mark.parametrize(
    ("cells", "field", "words"),
    [
        ({"layers": "many"}, "layers", "must be a number, more than 0, got 'many'"),
        ({"step_s": "-1"}, "step_s", "must be a number, more than 0, got '-1'"),
        ({"tp": "0"}, "tp", "must be a number, more than 0, got '0'"),
        ({"tp": "1.5"}, "tp", "must be a whole number, got '1.5'"),
        ({"step_s": "inf"}, "step_s", "got 'inf'"),
        ({"peak_memory_gib": "big"}, "peak_memory_gib", "must be a number, 0 or more, got 'big'"),
        ({"heads": "66"}, "tp", "must divide heads=66, got 4; legal: 1, 2, 3, 6"),
        ({"layers": "12"}, "pp", "are more than the 12 layers"),
    ],
)
def test_nonsense_in_one_row_names_its_column_and_leaves_the_others(
    tmp_path: Path, cells: dict[str, str], field: str, words: str
) -> None:
    runs = read_runs(write(tmp_path / "runs.csv", row(id="one"), row(id="two", **cells), row(id="three")))
    assert runs.ids == ["one", "three"]
    (problem,) = runs.problems
    assert (problem.row, problem.id, problem.field) == (3, "two", field)
    assert words in problem.reason


def test_experts_that_their_groups_do_not_share_out_are_listed(tmp_path: Path) -> None:
    (problem,) = read_runs(write(tmp_path / "runs.csv", row(), mixture(experts="250"))).problems
    assert (problem.field, problem.reason[:24]) == ("ep", "must divide experts=250,")


def test_a_table_as_other_programs_write_it(tmp_path: Path) -> None:
    plain = write(tmp_path / "runs.csv", row(), mixture())
    other = tmp_path / "other.csv"
    lines = plain.read_text().splitlines()
    lines = [lines[0].upper(), *(line + ",," for line in lines[1:])]
    other.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode() + b"\r\n")
    assert read_runs(other).ids == read_runs(plain).ids
    assert list(read_runs(other).cases.plan.tensor) == list(read_runs(plain).cases.plan.tensor)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "row 1: must name the columns"),
        (b"1,2,3\n4,5,6\n", "row 1: must name the columns"),
        (b"model,layers\nx,1\n", "column gpu is missing"),
        (b"\xff\xfe\x00\x01", "row 1: is not UTF-8 text"),
        (b"model,model\n", "row 1: column"),
        (b'a,"b', "row 1: must name"),
        (b"model;gpu;precision;layers;tp\n", "row 1: columns must be separated by commas, got ';'"),
    ],
)
def test_a_file_that_is_no_such_table_is_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "runs.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words) as refused:
        read_runs(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_header_alone_too_many_cells_and_an_absent_file(tmp_path: Path) -> None:
    path = write(tmp_path / "runs.csv", row())
    header = path.read_text().splitlines()[0]
    path.write_text(header + "\n")
    with pytest.raises(UserError, match="no rows"):
        read_runs(path)
    path.write_text(header + "\n" + ",".join("1" * 60) + "\n")
    with pytest.raises(UserError, match="row 2: has 60 cells, the header 28"):
        read_runs(path)
    with pytest.raises(UserError, match="cannot read"):
        read_runs(tmp_path / "absent.csv")


def test_all_rows_unusable_is_an_error_that_names_the_first(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no row can be predicted; the first: row 2 \(dgxc-v25.02-one\): tp"):
        read_runs(write(tmp_path / "runs.csv", row(tp="")))


def test_columns_may_be_unknown_absent_or_in_another_order(tmp_path: Path) -> None:
    plain = row()
    turned = {"mood": "good", **dict(reversed(plain.items()))}
    least = {key: value for key, value in plain.items() if key not in ("kv_heads", "vpp", "ep", "dp", "notes", "id")}
    whole = read_runs(write(tmp_path / "a.csv", plain)).cases
    assert read_runs(write(tmp_path / "b.csv", turned)).cases.plan.data[0] == whole.plan.data[0]
    runs = read_runs(write(tmp_path / "c.csv", least))
    assert runs.ids == ["line 2"]
    assert any("kv_heads" in what for what in runs.assumed[0])


@settings(max_examples=60)
@given(cell=st.text(max_size=20), column=st.sampled_from(sorted(row())))
def test_any_text_in_any_cell_is_read_listed_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, cell: str, column: str
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "runs.csv"
    with path.open("w", newline="", encoding="utf-8", errors="surrogatepass") as file:
        csv.writer(file).writerows([list(row()), list(row().values()), list((row() | {column: cell}).values())])
    try:
        runs = read_runs(path)
        told = ""
    except UserError as error:
        told = str(error)
    assert len(told.splitlines()) == 1 if told else len(runs) + len(runs.problems) == 2


def test_key_heads_that_no_column_says_are_those_of_the_model(tmp_path: Path) -> None:
    runs = read_runs(write(tmp_path / "runs.csv", row(kv_heads=""), row(model="GPT-20B", kv_heads="")))
    assert list(runs.cases.network.kv_heads) == [8, 64]
    assert runs.assumed[0] == ("kv_heads 8: of llama-3",)


def test_runs_of_a_mask(tmp_path: Path) -> None:
    runs = read_runs(write(tmp_path / "runs.csv", row(), mixture(), row(id="vtrain-2")))
    taken = take_runs(runs, np.array([False, True, True]))
    assert taken.source_group == ["mbridge", "vtrain"]
    assert list(taken.cases.network.layers) == [61, 80]
    assert len(taken) == 2


def test_trainers_are_told_apart() -> None:
    names = {
        "Megatron-DeepSpeed codebase": "megatron-deepspeed",
        "SC'21 table 1, Narayanan et al., Megatron-LM": "megatron-2021",
        "Korthikanti et al. table 5 (arXiv 2205.05198)": "korthikanti",
        "mlcommons/training_results_v4.0": "mlperf",
        "JAX MaxText on GPU, NVIDIA/dgxc-benchmarking": "maxtext",
        "Megatron-LM main": "megatron",
        "BLOOM (arXiv:2211.05100)": "bloom",
        "OPT-175B, metaseq": "metaseq",
        "zero1(dist-opt), 8b": "general",
        "The Llama 3 Herd of Models": "meta-llama-3",
        "something else": "general",
    }
    assert {text: stack_of("", text, "").name for text in names} == names
    assert stack("gigafactory").software.own == 1
    with pytest.raises(UserError, match="did you mean 'megatron'"):
        stack("megatro")


@pytest.mark.parametrize(
    ("text", "months"),
    [
        ("docs/performance-summary.md, release 26.04.01", 75),
        ("NVIDIA/dgxc-benchmarking tag v24.11.1", 58),
        ("llama3_h100_202412_torchtitan.md", 59),
        ("h200_2025-06", 65),
        ("MICRO-57 2024, arXiv:2312.12391", None),
    ],
)
def test_dates_of_releases(text: str, months: float | None) -> None:
    assert release_months(text) == months


def test_a_preset_counts_for_its_model_chip_format_and_release() -> None:
    bridge = stack("megatron-bridge")
    assert bridge.as_of(77, "deepseek-v3", "GB200-NVL72", "mxfp8").software.graphs == 1
    assert bridge.as_of(73, "deepseek-v3", "GB200-NVL72", "mxfp8").software.graphs == 0.6
    assert bridge.as_of(73, "llama-3 70b", "H100-SXM5-80GB", "fp8").software.graphs == 0
    assert bridge.as_of(None, "llama-3 70b", "H100", "fp8").software.months == bridge.software.months
    assert all(len(one.source) > 10 for one in stacks().values())


def test_all_published_runs_are_cases() -> None:
    if not SHARED.exists():
        pytest.skip(f"{SHARED} is not here: the whole table of published runs")
    runs = read_runs(SHARED)
    assert runs.problems == []
    assert len(runs) == 329
    assert runs.cases.size == 329
    plan = runs.cases.plan
    chips = [float(cells["n_gpus"]) for cells in runs.rows]
    np.testing.assert_array_equal(plan.tensor * plan.pipe * plan.data * plan.context, chips)
    assert not any(runs.assumed)
