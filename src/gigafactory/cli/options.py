"""Arguments that every command taking a factory file shares."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gigafactory.errors import UserError

FactoryFile = Annotated[
    Path, typer.Argument(metavar="FILE", show_default=False, help="Factory file (TOML), e.g. examples/laptop.toml.")
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        show_default=False,
        help="Change a field of the file, e.g. [cyan]--set model.layers=4[/cyan]. May be given many times.",
    ),
]


def check_kept(option: str, written: Path | None, *read: Path | None) -> None:
    """UserError if an option would write over a file that the command reads."""
    for path in read:
        if written is not None and path is not None and written.resolve() == path.resolve():
            raise UserError(f"{option} {written}: is read by this command and would be written over")
