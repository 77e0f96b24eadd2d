"""The command line as its user meets it: exit codes, one line for a mistake, help that teaches, quick to start."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from gigafactory.cli import main as cli
from gigafactory.errors import UserError

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def mistake(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line of a user's mistake."""
    assert run(*words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("gigafactory: error: ")
    return line.removeprefix("gigafactory: error: ")


@pytest.mark.parametrize("name", ["laptop", "shakespeare", "grok-1", "llama-8b", "smollm2", "colossus"])
def test_check_says_what_an_example_describes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", str(EXAMPLES / f"{name}.toml")) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{name}: ok\n")
    assert "parameters" in captured.out
    assert captured.err == ""


def test_check_names_the_file_and_the_field(capsys: pytest.CaptureFixture[str]) -> None:
    laptop = str(EXAMPLES / "laptop.toml")
    message = "layout.data: with fsdp must divide model.width=128, got 3"
    sets = ("--set", "layout.data=3", "--set", "layout.fsdp=true", "--set", "train.batch_rows=18")
    assert mistake(capsys, "check", laptop, *sets) == f"{laptop}: {message}"
    assert mistake(capsys, "check", laptop, "--set", "train.steps=0").endswith("must be at least 1, got 0")
    assert mistake(capsys, "check", "no.toml") == "no.toml: no such file"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("check",), "Missing argument 'FILE'; see gigafactory check --help"),
        (("chek", "x"), "No such command 'chek'"),
        (("check", "--nope", "x"), "No such option"),
        (("catalog", "show", "h100"), "did you mean 'h100-sxm' or 'h100-pcie'?"),
        (("catalog", "list", "chip"), "did you mean 'chips'?"),
    ],
)
def test_a_wrong_call_is_one_line(words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in mistake(capsys, *words)


@pytest.mark.parametrize("words", [(), ("catalog",)])
def test_a_call_without_a_command_shows_help(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words) == 2
    captured = capsys.readouterr()
    assert "Usage: gigafactory" in captured.out + captured.err
    assert "error" not in captured.err


def test_init_writes_a_file_that_checks_and_never_over_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("init", "--name", "mine") == 0
    written = (tmp_path / "factory.toml").read_text(encoding="utf-8")
    assert run("check", "factory.toml") == 0
    capsys.readouterr()
    assert "is there already" in mistake(capsys, "init")
    assert (tmp_path / "factory.toml").read_text(encoding="utf-8") == written
    assert run("init", "--force") == 0
    capsys.readouterr()
    assert run("init", "-") == 0
    assert 'name = "first"' in capsys.readouterr().out
    assert "cannot write" in mistake(capsys, "init", "nowhere/factory.toml")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["factory.toml"]


def test_the_catalogue_shows_sources_and_ranges(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("catalog", "show", "h100-sxm") == 0
    shown = capsys.readouterr().out
    assert "22,000 to 35,000" in shown
    assert "[1] Epoch AI ML Hardware" in shown
    assert run("catalog", "show", "grok-1") == 0
    assert "315,684,820,992 parameters" in capsys.readouterr().out
    assert run("catalog", "list") == 0
    assert "h200-sxm" in capsys.readouterr().out


def test_other_exceptions_are_bugs_and_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(word: str) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(cli, "_function", lambda target: broken)
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main(["check", "x"])


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (KeyboardInterrupt(), 130, ""),
        (UserError("a: two\nlines"), 2, "gigafactory: error: a: two lines"),
    ],
)
def test_an_interrupt_and_a_mistake_have_their_codes(
    error: BaseException, code: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped() -> None:
        raise error

    monkeypatch.setattr(cli, "_function", lambda target: stopped)
    assert run("check") == code
    assert capsys.readouterr().err.strip() == line


def test_a_full_disk_behind_the_output_is_a_line() -> None:
    full = Path("/dev/full")
    if not full.is_char_device():
        pytest.skip("no /dev/full here")
    program = "from gigafactory.cli.main import main; main(['catalog', 'list'])"
    with full.open("w") as out:
        done = subprocess.run([sys.executable, "-c", program], stdout=out, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (
        2,
        "gigafactory: error: standard output: cannot write: the disk is full\n",
    )


def test_a_command_sees_its_own_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_function", lambda target: lambda: 3)
    assert run("check") == 3


@pytest.mark.parametrize("name", [name for name in cli.COMMANDS if name != "import"])
def test_help_teaches_by_examples_that_begin_with_the_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = cli.COMMANDS[name]
    assert command.examples
    assert all(example.startswith(f"gigafactory {name}") for example in command.examples)
    if importlib.util.find_spec(command.target.partition(":")[0]) is None:
        pytest.skip(f"{name} is not built yet")
    assert run(*name.split(), "--help") == 0
    shown = capsys.readouterr().out
    assert f"$ {command.examples[0]}"[:60] in shown


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out.startswith("gigafactory 0.")
    assert run("--help") == 0
    shown = capsys.readouterr().out
    assert "First steps" in shown
    for name in ("check", "init", "catalog"):
        assert name in shown


@pytest.mark.parametrize("words", [["--help"], ["check", str(EXAMPLES / "laptop.toml")], ["catalog", "list"]])
def test_the_light_commands_do_not_import_jax(words: list[str]) -> None:
    program = (
        "import sys\nfrom gigafactory.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as stopped:\n"
        "    heavy = {'jax', 'numpy', 'matplotlib', 'torch', 'tokenizers'} & set(sys.modules)\n"
        "    sys.exit(f'imported {heavy}' if heavy else stopped.code)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_closed_pipe_is_no_traceback() -> None:
    command = f"{sys.executable} -m gigafactory.cli.main catalog list | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "chips"
    assert done.stderr == ""
