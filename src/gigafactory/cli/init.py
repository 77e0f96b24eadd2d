"""gigafactory init: a commented factory file for the machine at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gigafactory.errors import UserError
from gigafactory.factory.load import parse_factory
from gigafactory.factory.machine import find_machine, init_text
from gigafactory.files import write_atomic


def init(
    file: Annotated[Path, typer.Argument(metavar="[FILE]", help="Where to write; - prints it.")] = Path("factory.toml"),
    name: Annotated[str, typer.Option(help="Name of the run; its directory under runs/.")] = "first",
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Look at this machine's cores, memory and GPUs, and write a factory file that trains a small Grok on it."""
    machine = find_machine()
    text = init_text(machine, name)
    parse_factory(text, f"--name {name}")
    if str(file) == "-":
        print(text, end="")
        return
    if file.exists() and not force:
        raise UserError(f"{file}: is there already; --force writes over it")
    write_atomic(file, text)
    print(f"{file} written for {machine.described}\nnext: gigafactory check {file}, then gigafactory train {file}")
