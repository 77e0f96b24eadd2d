"""From a run directory to weights: what was saved comes back in its own order, averaged or merged as the run says."""

from pathlib import Path

import jax
import numpy as np
import pytest
from tokenizers import Tokenizer, models

from gigafactory.cli.main import main
from gigafactory.data.tokenizer import ByteTokenizer, load_tokenizer
from gigafactory.errors import UserError
from gigafactory.factory.load import dump_factory, parse_factory
from gigafactory.model.config import grok_config
from gigafactory.model.grok import parameter_spec
from gigafactory.model.huggingface import write_tokenizer
from gigafactory.model.spec import is_param
from gigafactory.model.weights import Weights, load_weights, save_weights
from gigafactory.train.checkpoint import Checkpointer
from gigafactory.train.lora import lora_spec
from gigafactory.train.run_weights import load_any, load_run, open_writer

FILE = """
name = "tiny"
[model]
layers = 4
width = 16
heads = 2
kv_heads = 1
head_dim = 8
ffn_width = 24
vocab = 258
context = 32
[train]
name = "tiny"
"""


def random_tree(spec: object, seed: int) -> dict:
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: rng.standard_normal(p.shape).astype(np.float32), spec, is_leaf=is_param)


def write_run(path: Path, state: dict, *sets: str, order: tuple[int, ...] = (0, 1, 2, 3)) -> Path:
    path.mkdir()
    (path / "factory.toml").write_text(dump_factory(parse_factory(FILE, "test", sets)))
    ByteTokenizer().save(path / "tokenizer.json")
    checkpointer = Checkpointer(path / "checkpoints", 2)
    checkpointer.save(7, jax.tree.map(jax.numpy.asarray, state), {"step": 7, "order": order})
    checkpointer.close()
    return path


@pytest.fixture(scope="module")
def spec() -> dict:
    return parameter_spec(parse_factory(FILE, "test").model)


def test_parameters_come_back(tmp_path, spec):
    params = random_tree(spec, 0)
    run = load_run(write_run(tmp_path / "run", {"step": np.int32(7), "params": params}))
    assert run.step == 7
    assert run.weights.config == run.factory.model
    assert run.weights.tokenizer is None
    jax.tree.map(np.testing.assert_array_equal, run.weights.params, params)


def test_layers_of_a_circular_pipeline_come_back_in_their_order(tmp_path, spec):
    params, order = random_tree(spec, 0), (0, 2, 1, 3)
    laid = {**params, "layers": {name: value[list(order)] for name, value in params["layers"].items()}}
    run = load_run(write_run(tmp_path / "run", {"params": laid}, order=order))
    jax.tree.map(np.testing.assert_array_equal, run.weights.params, params)


def test_the_average_is_taken_where_the_run_keeps_one(tmp_path, spec):
    state = {"params": random_tree(spec, 0), "ema": random_tree(spec, 1)}
    run = load_run(write_run(tmp_path / "run", state, "train.optimizer.ema_decay=0.99"))
    jax.tree.map(np.testing.assert_array_equal, run.weights.params, state["ema"])


def test_adapters_are_merged(tmp_path, spec):
    sets = ("train.lora.rank=2", "train.lora.alpha=6")
    factory = parse_factory(FILE, "test", sets)
    adapters = random_tree(lora_spec(factory.model, factory.train.lora), 1)
    base = random_tree(spec, 0)
    run = load_run(write_run(tmp_path / "run", {"params": adapters, "base": base}, *sets))
    pair = adapters["layers"]["wq"]
    wanted = base["layers"]["wq"] + 3.0 * pair["a"] @ pair["b"]
    np.testing.assert_allclose(run.weights.params["layers"]["wq"], wanted, atol=1e-5)
    np.testing.assert_array_equal(run.weights.params["layers"]["w_up"], base["layers"]["w_up"])


def test_folders_that_are_no_run(tmp_path):
    with pytest.raises(UserError, match="not a run directory"):
        load_run(tmp_path)
    (tmp_path / "factory.toml").write_text(FILE)
    with pytest.raises(UserError, match="has no checkpoint yet"):
        load_run(tmp_path)


def test_a_run_exports_and_the_folder_imports(tmp_path, spec, capsys):
    params = random_tree(spec, 0)
    run = write_run(tmp_path / "run", {"params": params})
    for command in (
        ["export", str(run), str(tmp_path / "out"), "--dtype", "float32"],
        ["import", str(tmp_path / "out"), str(tmp_path / "again")],
    ):
        with pytest.raises(SystemExit) as ended:
            main(command)
        assert ended.value.code == 0
    assert "text as bytes" in capsys.readouterr().out
    jax.tree.map(np.testing.assert_array_equal, load_any(str(tmp_path / "again")).params, params)
    with pytest.raises(SystemExit) as ended:
        main(["export", str(run), str(tmp_path / "out")])
    assert ended.value.code == 2
    assert "must be a new or an empty folder" in capsys.readouterr().err


def test_import_takes_what_shapes_do_not_tell(tmp_path):
    cfg = grok_config(layers=1, width=16, heads=2, kv_heads=1, head_dim=8, ffn_width=24, vocab=9, experts=2)
    save_weights(tmp_path / "release", Weights(cfg, random_tree(parameter_spec(cfg), 0)), "grok-1")
    sets = ["--set", "context=99", "--set", "attention_softcap=none"]
    with pytest.raises(SystemExit) as ended:
        main(["import", str(tmp_path / "release"), str(tmp_path / "out"), *sets])
    assert ended.value.code == 0
    config = load_weights(str(tmp_path / "out")).config
    assert (config.context, config.attention_softcap) == (99, None)
    assert config.experts == 2


def test_a_run_writes_text(tmp_path, spec):
    writer = open_writer(str(write_run(tmp_path / "run", {"params": random_tree(spec, 0)})))
    assert writer.prompt("ab") == [99, 100]
    assert writer.prompt("") == [1]
    assert writer.stop_ids == (1,)
    with pytest.raises(UserError, match="has no chat template"):
        writer.question("hello?")


def test_a_fine_tuned_run_keeps_the_tokenizer_template_and_end(tmp_path, spec):
    run = write_run(tmp_path / "run", {"params": random_tree(spec, 0)})
    words = {"<|im_start|>": 0, "<|im_end|>": 1, "hi": 2, "?": 3}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="?"))
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    write_tokenizer(run, tokenizer, "<|im_start|>{{ x }}<|im_end|>", (1, 3))
    writer = open_writer(str(run))
    assert writer.stop_ids == (1, 3)
    assert writer.question("hi")[0] == 0
    assert load_tokenizer(str(run / "tokenizer.json")).end_id == 1
