"""gigafactory check: what a factory file describes, and what is wrong with it."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from gigafactory.cli.options import FactoryFile, Sets
from gigafactory.factory.summary import describe_factory, load_checked


def check(file: FactoryFile, sets: Sets = None) -> None:
    """Say what a factory file describes: parameters, FLOPs per token, layout, memory of the state.

    What is wrong is said in one line that names the field, what is allowed and what was given; exit code 2.
    """
    factory = load_checked(file, sets or ())
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for subject, sentence in describe_factory(factory):
        table.add_row(subject, sentence)
    console = Console(highlight=False)
    console.print(f"{factory.name}: [green]ok[/green]", markup=True)
    console.print(table)
