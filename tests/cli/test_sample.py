"""gigafactory sample: text from a run directory and from weights, and what is said when there is none to be had."""

from pathlib import Path

import jax
import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from gigafactory.cli.main import build_app
from gigafactory.data.tokenizer import ByteTokenizer, load_tokenizer, train_bpe
from gigafactory.errors import UserError
from gigafactory.factory.load import dump_factory, parse_factory
from gigafactory.model.config import ModelConfig
from gigafactory.model.grok import parameter_spec
from gigafactory.model.serve import generate
from gigafactory.model.spec import initialize
from gigafactory.model.weights import Weights, save_weights
from gigafactory.train.checkpoint import Checkpointer

TEMPLATE = "{% for m in messages %}{{'<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n'}}{% endfor %}"
CFG = ModelConfig(
    layers=2, width=16, heads=2, kv_heads=2, head_dim=8, ffn_width=24, vocab=300, context=64, tie_embeddings=False
)


def params(seed: int) -> dict:
    return jax.tree.map(np.asarray, jax.jit(lambda: initialize(parameter_spec(CFG), seed))())


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of the byte tokenizer whose averaged parameters are those of seed 7."""
    path = tmp_path / "run"
    path.mkdir()
    model = "\n".join(f"{key} = {str(value).lower()}" for key, value in CFG.model_dump(exclude_none=True).items())
    model = model.replace("silu", '"silu"')
    factory = parse_factory(f"[model]\n{model}\n[train.optimizer]\nema_decay = 0.5\n", "test")
    (path / "factory.toml").write_text(dump_factory(factory))
    ByteTokenizer().save(path / "tokenizer.json")
    saver = Checkpointer(path / "checkpoints", keep_last=1)
    saver.save(3, {"step": np.int32(3), "params": params(1), "ema": params(7)}, {"step": 3, "order": [0, 1]})
    saver.close()
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tokenizer = train_bpe(290, ["to be or not to be, that is the question"] * 3, tmp_path / "tokenizer.json")
    path = tmp_path / "weights"
    save_weights(path, Weights(CFG, params(7), tokenizer.inner, TEMPLATE, (1,)))  # type: ignore[attr-defined]
    return path


def called(*words: str) -> Result:
    return CliRunner().invoke(build_app(words), list(words))


def test_a_run_goes_on_from_the_prompt_with_its_averaged_parameters(run: Path) -> None:
    words = ("sample", str(run), "--prompt", "To be", "--tokens", "12", "--seed", "5", "--temperature", "1")
    first = called(*words)
    assert first.exit_code == 0, first.output
    ids = list(generate(params(7), CFG, [byte + 2 for byte in b"To be"], max_tokens=12, seed=5, stop_ids=(1,)))
    # a character that the last bytes only began is not printed
    assert first.stdout.startswith("To be")
    assert ("To be" + ByteTokenizer().decode(ids)).startswith(first.stdout.rstrip("\n"))
    assert f"{len(ids)} tokens in" in first.stderr
    assert called(*words).stdout == first.stdout
    assert called("sample", str(run), "--tokens", "4").exit_code == 0  # without a prompt


def test_chat_prints_the_answer_alone(folder: Path) -> None:
    asked = "<|im_start|>user\nto be?<|im_end|>\n<|im_start|>assistant\n"
    tokenizer = load_tokenizer(str(folder))
    ids = tokenizer.encode(asked, special=True)
    want = list(generate(params(7), CFG, ids, max_tokens=5, temperature=0, stop_ids=(1,)))
    got = called("sample", str(folder), "--chat", "--prompt", "to be?", "--tokens", "5", "--temperature", "0")
    assert got.exit_code == 0, got.output
    assert got.stdout.rstrip("\n")
    assert tokenizer.decode(want).startswith(got.stdout.rstrip("\n"))


def test_says_what_is_missing(run: Path, tmp_path: Path) -> None:
    save_weights(tmp_path / "bare", Weights(CFG, params(0)))
    for words, message in (
        (["nowhere"], "nowhere: there is no such file or folder"),
        ([str(run), "--chat", "--prompt", "hello"], "no chat template"),
        ([str(tmp_path / "bare"), "--prompt", "hello"], "no tokenizer that can be read"),
        ([str(run), "--prompt", "x" * 65], "prompt: must fit the model's context of 64 tokens, got 65"),
    ):
        error = called("sample", *words).exception
        assert isinstance(error, UserError)
        assert message in str(error)
