"""`gigafactory eval RUN`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def eval(
    run: Annotated[Path, typer.Argument(metavar="RUN", show_default=False, help="Run directory, e.g. runs/first.")],
    batches: Annotated[int, typer.Option(min=0, help="Batches of held-out text; 0 is all of it.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a line.")] = False,
) -> None:
    """Measure a run's newest checkpoint on its held-out text."""
    from gigafactory.train.evaluation import evaluate_run

    record = evaluate_run(run, batches, lambda text: typer.echo(text, err=True))
    if as_json:
        typer.echo(json.dumps(record))
    else:
        typer.echo(
            f"step {record['step']:,}: held-out loss {record['loss']:.4f} nats/token,"
            f" {record['nats_per_byte']:.4f} nats/byte, {record['bits_per_byte']:.4f} bits/byte"
            f" over {record['tokens']:,} tokens"
        )
