"""What a start needs: the same run as before, weights that fit, checkpoints that are whole, paths that stay."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_run import Runs, assert_bitwise_equal, stop_after, tiny_factory, write_text

from gigafactory.errors import UserError
from gigafactory.factory.load import dump_factory, load_factory
from gigafactory.model.weights import save_weights
from gigafactory.train.run_weights import load_run
from gigafactory.train.session import absolute_paths, check_same_run

STAYS = {
    "model": "model.norm_eps=1e-6",
    "data.tokenizer": "data.tokenizer='bpe:260'",
    "data.seed": "data.seed=1",
    "data.validation_fraction": "data.validation_fraction=0.1",
    "data.document_mask": "data.document_mask=true",
    "train.seed": "train.seed=1",
    "train.sequence": "train.sequence=8",
    "train.batch_rows": "train.batch_rows=2",
    "train.lora": "train.lora.rank=2",
    "train.optimizer.name": "train.optimizer.name='muon'",
}
MAY_CHANGE = (
    "name='other'",
    "layout.data=2",
    "train.steps=99",
    "train.max_seconds=5",
    "train.accumulate=2",
    "train.eval_every_steps=1",
    "train.optimizer.learning_rate=1e-5",
    "train.checkpoint.keep_last=9",
    "data.workers=2",
)


def a_run(folder: Path, *sets: str) -> Path:
    run = folder / "run"
    (run / "checkpoints" / "step-00000001").mkdir(parents=True)
    (run / "factory.toml").write_text(dump_factory(tiny_factory(folder, *sets)))
    return run


@pytest.mark.parametrize("field", STAYS)
def test_what_must_stay_is_named_when_it_changes(tmp_path: Path, field: str) -> None:
    run = a_run(tmp_path)
    with pytest.raises(UserError) as refused:
        check_same_run(run, tiny_factory(tmp_path, STAYS[field]))
    assert str(refused.value) == (
        f"{field}: differs from that of the run in {run}; give this one another train.name, or delete the old"
    )


def test_what_may_change_passes(tmp_path: Path) -> None:
    check_same_run(a_run(tmp_path), tiny_factory(tmp_path, *MAY_CHANGE))
    check_same_run(tmp_path / "new", tiny_factory(tmp_path))


def test_a_run_that_saved_nothing_binds_nothing(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    (run / "checkpoints" / "step-00000001").rmdir()
    check_same_run(run, tiny_factory(tmp_path, *STAYS.values()))


def test_paths_do_not_depend_on_where_the_command_is_called(tmp_path: Path) -> None:
    names = (
        "data.cache=cache",
        "data.tokenizer=../tok.json",
        "train.init_from=weights",
        "data.sources[0].path=a/b.txt",
    )
    factory = absolute_paths(tiny_factory(tmp_path, *names), tmp_path)
    assert factory.data.cache == str(tmp_path / "cache")
    assert factory.data.tokenizer == str(tmp_path.parent / "tok.json")
    assert factory.data.sources[0].path == str(tmp_path / "a" / "b.txt")
    assert factory.train.init_from == str(tmp_path / "weights")
    assert absolute_paths(factory, Path("/elsewhere")) == factory
    for names in (("data.tokenizer=bytes", "train.init_from=package:x"), ("data.tokenizer=bpe:300",)):
        same = absolute_paths(tiny_factory(tmp_path, *names), tmp_path)
        assert same.data.tokenizer == names[0].partition("=")[2]
    assert absolute_paths(tiny_factory(tmp_path, "data.cache='~/c'"), tmp_path).data.cache == str(Path.home() / "c")


def damage(checkpoint: Path) -> None:
    (shards,) = checkpoint.glob("*.safetensors")
    shards.write_bytes(shards.read_bytes()[:-100])


def test_damaged_checkpoints_are_passed_over_and_never_forgotten(runs: Runs) -> None:
    runs.start("whole")
    runs.start(stop=stop_after(4))
    older, newer = sorted((runs.folder / "run" / "checkpoints").iterdir())
    damage(newer)
    runs.start(stop=stop_after(2))
    assert f"{newer}: passed over: " in runs.said
    assert "going on from step 3" in runs.said
    runs.start()
    assert runs.losses() == runs.losses("whole")
    assert_bitwise_equal(runs.state(), runs.state("whole"))

    for checkpoint in (runs.folder / "run" / "checkpoints").iterdir():
        damage(checkpoint)
    metrics = (runs.folder / "run" / "metrics.jsonl").read_bytes()
    with pytest.raises(
        UserError, match="checkpoints: none of the 2 checkpoints is whole; put good copies back, or del"
    ):
        runs.start("run", "train.steps=12")
    assert (runs.folder / "run" / "metrics.jsonl").read_bytes() == metrics
    assert not older.exists()


def test_another_text_is_refused(runs: Runs) -> None:
    runs.start(stop=stop_after(2))
    write_text(runs.folder / "text.txt", seed=1)
    with pytest.raises(UserError) as refused:
        runs.start()
    assert str(refused.value).startswith(
        f"data: the text is not what {runs.folder / 'run'} was trained on until step 2,"
    )
    write_text(runs.folder / "text.txt")
    assert runs.start().complete


def test_allowed_changes_go_on_and_are_kept(runs: Runs) -> None:
    runs.start(stop=stop_after(2))
    outcome = runs.start("run", "train.steps=4", "layout.data=2", "train.eval_every_steps=3", "train.accumulate=2")
    assert (outcome.complete, outcome.step) == (True, 4)
    assert [record["step"] for record in runs.records(kind="eval")] == [1, 3, 4]
    assert load_factory(runs.folder / "run" / "factory.toml").layout.data == 2


def test_imported_weights_are_where_training_starts(runs: Runs) -> None:
    runs.start("base", "train.steps=1")
    weights = load_run(runs.folder / "base").weights
    save_weights(runs.folder / "weights", weights)
    for where in ("base", "weights"):
        runs.start(
            f"on-{where}", f"train.init_from={runs.folder / where}", "train.steps=1", "train.optimizer.ema_decay=0.5"
        )
    assert runs.losses("on-base") == runs.losses("on-weights")
    assert runs.losses("on-base") != runs.losses("base")

    with pytest.raises(UserError, match=r"^model\.norm_eps: the weights of .*base have 1e-05, got 1e-06"):
        runs.start("wrong", f"train.init_from={runs.folder / 'base'}", "model.norm_eps=1e-6")
    with pytest.raises(UserError, match="nowhere: there is no such file or folder"):
        runs.start("wrong", "train.init_from=nowhere")
    with pytest.raises(
        UserError, match=r'^data\.tokenizer: "weights" needs train.init_from with a tokenizer, got none'
    ):
        runs.start("wrong", "data.tokenizer=weights")
    assert not (runs.folder / "wrong" / "factory.toml").exists()


def test_tokens_beyond_the_vocabulary_are_refused_before_anything_is_written(runs: Runs) -> None:
    with pytest.raises(UserError, match=r"^model\.vocab: must be at least the tokenizer's 258, got 128"):
        runs.start("run", "model.vocab=128")
    assert [path.name for path in (runs.folder / "run").iterdir()] == ["lock"]
