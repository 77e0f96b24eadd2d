"""Arguments that every command taking a factory file shares."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
