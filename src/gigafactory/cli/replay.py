"""`gigafactory replay RUN`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def replay(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", show_default=False, help="Run directory, or its events.jsonl itself.")
    ],
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy",
            metavar="FIELD=VALUE",
            show_default=False,
            help="Decide with another setting, e.g. [cyan]supervise.retry.per_cause=1[/cyan]. May be given many times.",
        ),
    ] = None,
) -> None:
    """Make every decision of a recorded run again and show that it is the same; with --policy, what would differ.

    Exit code 1 when a decision is not the one that was recorded.
    """
    from gigafactory.supervise.eventlog import read_log
    from gigafactory.supervise.replay import MOST_SHOWN, changed, told
    from gigafactory.supervise.replay import replay as again

    path = run / "events.jsonl" if run.is_dir() else run
    record = read_log(path)
    config = changed(record.config, policy) if policy else None
    outcome = again(record, config)
    print(f"{path}: {outcome.events} events, {outcome.actions} actions")
    if outcome.decisions:
        print("decisions: " + ", ".join(f"{code} x {number}" for code, number in outcome.decisions.items()))
    differences = outcome.differences
    if not differences:
        print("the same was decided on every event")
        return
    print(f"{len(differences)} of {outcome.events} events are decided otherwise")
    for difference in differences[: MOST_SHOWN if policy else 1]:
        print("\n".join(told(difference, record.config.at_s)))
    if policy and len(differences) > MOST_SHOWN:
        print(f"... and {len(differences) - MOST_SHOWN} more")
    if policy:
        print("after the first difference the events are still those of the recorded run")
    else:
        raise typer.Exit(1)
