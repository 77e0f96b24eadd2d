"""gigafactory data check: what the text of a run is like."""

from __future__ import annotations

import typer

from gigafactory.cli.options import FactoryFile, Sets
from gigafactory.data.check import check as check_data
from gigafactory.factory.load import load_factory


def check(file: FactoryFile, sets: Sets = None) -> None:
    """Read all text as the run would and report what would ruin it.

    Finds unreadable, binary and wrongly encoded files, duplicates, held-out text that is also trained on, too little
    text for the run's steps, a tokenizer that does not fit the model, damaged shards. Exit code 1 if the run would be
    ruined, 2 for a mistake in the factory file.
    """
    factory = load_factory(file, sets or ())
    report = check_data(
        factory.data,
        file.parent,
        train=factory.train,
        vocab=factory.model.vocab,
        progress=lambda line: typer.echo(line, err=True),
    )
    for line in report.lines():
        typer.echo(line)
    raise typer.Exit(1 if report.ruinous else 0)
