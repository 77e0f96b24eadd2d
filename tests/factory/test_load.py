"""The factory file in: values, overrides, and the one line that says what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from gigafactory.errors import UserError
from gigafactory.factory.file import Factory
from gigafactory.factory.load import load_factory, parse_factory
from gigafactory.model.config import grok_config

CHIPS = '[[cluster.chips]]\nname = "h100-sxm"\ncount = 16\n'


def complaint(text: str, *sets: str) -> str:
    with pytest.raises(UserError) as caught:
        parse_factory(text, "factory.toml", sets)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_an_empty_file_is_a_whole_factory() -> None:
    assert parse_factory("", "factory.toml") == Factory()


def test_values_arrive_in_their_sections() -> None:
    factory = parse_factory(
        CHIPS + '[train]\nsteps = 7\nsample_prompts = ["a", "b"]\n[site]\nstart = 2024-05-03\npue = 1.2\n',
        "factory.toml",
    )
    assert factory.cluster.chip_count == 16
    assert factory.cluster.node_count == 2
    assert factory.train.sample_prompts == ("a", "b")
    assert str(factory.site.start) == "2024-05-03"
    assert factory.site.pue is not None
    assert (factory.site.pue.p10, factory.site.pue.p90) == (1.2, 1.2)


def test_a_base_gives_the_fields_and_the_section_changes_them() -> None:
    factory = parse_factory('[model]\nbase = "grok-1"\nlayers = 2\nwidth = 768\n', "factory.toml")
    assert factory.model == grok_config(layers=2, width=768)
    llama = parse_factory('[model]\nbase = "llama-8b"\n', "factory.toml").model
    assert llama.rope_scaling is not None
    assert llama.rope_scaling.factor == 8.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[cluster.chips]]\nname = "h100-sxm"\ncount = -5', "cluster.chips[0].count: must be at least 1, got -5"),
        (
            '[[cluster.chips]]\nname = "h100"\ncount = 8',
            "cluster.chips[0].name: no entry 'h100' among the chips; did you mean 'h100-sxm' or 'h100-pcie'?",
        ),
        (
            '[[cluster.chips]]\nname = "h100-sxm"\ncount = 12',
            "cluster.chips[0].count: must be whole servers of node.chips=8, got 12",
        ),
        (
            CHIPS + "facts = { price_us = 3 }",
            "cluster.chips[0].facts.price_us: unknown fact; did you mean 'price_usd'?",
        ),
        ("[train]\nstep = 3", "train.step: unknown field; did you mean 'steps'?"),
        ('[train]\nsteps = "many"', "train.steps: must be a whole number, got 'many'"),
        ("[train]\nsteps = true", "train.steps: must be a whole number, got true"),
        ("[train]\nsteps = 1.5", "train.steps: must be a whole number, got 1.5"),
        ('[train]\nseed = "1"', "train.seed: must be a whole number, got '1'"),
        (
            "[train.optimizer]\nlearning_rate = nan",
            "train.optimizer.learning_rate: must be finite and fit 64 bits, got nan",
        ),
        ("[train.optimizer]\nlearning_rate = -1", "train.optimizer.learning_rate: must be greater than 0, got -1"),
        (
            '[train.optimizer]\nname = "adam"',
            "train.optimizer.name: must be one of adamw, muon, got 'adam'; did you mean 'adamw'?",
        ),
        ("train = 3", "train: must be a table, got 3"),
        ("[train]\nsample_prompts = 'x'", "train.sample_prompts: must be a list ([...]), got 'x'"),
        ("[train]\nsample_prompts = [1]", 'train.sample_prompts[0]: must be text in quotes ("..."), got 1'),
        ("[model]\nlayers = 2", "model.width: is missing: size of the residual stream (and 6 more)"),
        ('[model]\nbase = "grok"', "model.base: no entry 'grok' among the models; did you mean 'grok-1'?"),
        ('[model]\nbase = "grok-1"\nbasis = 1', "model.basis: unknown field; did you mean 'base'?"),
        ('[model]\nbase = "grok-1"\nwidth = "x"', "model.width: must be a whole number, got 'x'"),
        ('[site]\nstart = "soon"', "site.start: must be a date like 2024-09-02, got 'soon'"),
        ("[site]\nstart = 2024-05-03\ntarget = 2024-05-03", "site: target=2024-05-03 must be after start=2024-05-03"),
        ('[site]\npue = "low"', "site.pue: must be a number or a table of p10, p50, p90, got 'low'"),
        ("[site]\npue = 0.9", "site.pue: must be at least 1, got p10=0.9"),
        ("[chat.server]\nport = 70000", "chat.server.port: must be at most 65535, got 70000"),
    ],
)
def test_what_is_wrong_is_one_line_with_the_path(text: str, message: str) -> None:
    assert complaint(text) == f"factory.toml: {message}"


def test_a_syntax_error_names_line_and_column() -> None:
    assert "line 2, column 5" in complaint("[train]\nstep\x00 = 1")


@pytest.mark.parametrize("text", ["a = " + "[" * 5000, "x = 1\nx = 2", "=", "[", "\ufeff\ufeff"])
def test_what_is_no_toml_is_said_so(text: str) -> None:
    assert complaint(text).startswith("factory.toml: not valid TOML: ")


@pytest.mark.parametrize(
    ("sets", "steps", "name"),
    [
        (("train.steps=5",), 5, "run"),
        (("train.steps=5", "train.steps=6"), 6, "run"),
        (("train.name=first",), 9, "first"),
        (('train.name="first"', " train.steps = 7 "), 7, "first"),
        (("train.name=2nd",), 9, "2nd"),
    ],
)
def test_overrides_are_typed_as_in_toml_and_bare_text_is_text(sets: tuple[str, ...], steps: int, name: str) -> None:
    train = parse_factory("[train]\nsteps = 9\n", "factory.toml", sets).train
    assert (train.steps, train.name) == (steps, name)


def test_overrides_reach_into_lists_and_may_append() -> None:
    sets = ("cluster.chips[0].count=8", "cluster.chips[1].name=h200-sxm", "cluster.chips[1].count=24")
    chips = parse_factory(CHIPS, "factory.toml", sets).cluster.chips
    assert [(group.name, group.count) for group in chips] == [("h100-sxm", 8), ("h200-sxm", 24)]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.steps=0", "--set train.steps=0: train.steps: must be at least 1, got 0"),
        ("train=3", "--set train=3: train: must be a table, got 3"),
        ("train", "--set train: must be FIELD=VALUE, as in --set train.steps=100"),
        ("a..b=1", "--set a..b=1: 'a..b' is not a field path like cluster.chips[0].count"),
        ("name.x=1", "--set name.x=1: name is not a table"),
        ("name[0]=1", "--set name[0]=1: name is not a list"),
        (
            "cluster.chips[7].count=1",
            "--set cluster.chips[7].count=1: cluster.chips has 1 entries, so [7] is out of reach",
        ),
        ("train.stepz=1", "--set train.stepz=1: train.stepz: unknown field; did you mean 'steps'?"),
        ("train.steps=1\nname='x'", "--set train.steps=1\nname='x': train.steps: must be a whole number"),
    ],
)
def test_a_wrong_override_is_blamed_and_not_the_file(override: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_factory('name = "a"\n' + CHIPS, "factory.toml", (override,))
    assert str(caught.value).startswith(message)


def test_an_error_of_the_file_is_not_blamed_on_an_override_beside_it() -> None:
    assert complaint("[train]\nsteps = 0", "train.seed=1").startswith("factory.toml: train.steps")


def test_files_that_are_none(tmp_path: Path) -> None:
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"a = 1\n\xff\xfe\x00")
    for path, words in [
        (tmp_path / "nope.toml", "no such file"),
        (tmp_path, "is a folder"),
        (binary, "not a text file (byte 6 is not UTF-8)"),
        (Path("a\0b"), "not a file name"),
        (Path("/dev/zero"), "not a factory file"),
        (binary / "x", "cannot be read"),
    ]:
        with pytest.raises(UserError, match=words.replace("(", r"\(").replace(")", r"\)")):
            load_factory(path)


def test_a_byte_order_mark_is_no_matter(tmp_path: Path) -> None:
    path = tmp_path / "factory.toml"
    path.write_bytes(b'\xef\xbb\xbfname = "x"\n')
    assert load_factory(path).name == "x"
