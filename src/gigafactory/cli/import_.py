"""`gigafactory import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gigafactory.errors import UserError


def import_(
    where: Annotated[
        str,
        typer.Argument(
            help="A Hugging Face folder, a .gguf file, package:NAME of an installed package that holds one,"
            " or Grok-1's own tensor names in .npz or .safetensors."
        ),
    ],
    folder: Annotated[Path, typer.Argument(help="New folder to write.")],
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            show_default=False,
            help="For Grok-1's own names: what shapes do not tell, e.g. [cyan]--set head_dim=64[/cyan].",
        ),
    ] = None,
) -> None:
    """Take in weights: write them, float32, as a folder that train.init_from, sample and export start from."""
    from gigafactory.model.weights import load_weights, save_weights

    weights = load_weights(where, **_overrides(sets or []))
    save_weights(folder, weights)
    config = weights.config
    kind = f"mixture of {config.experts} experts" if config.experts else "dense"
    print(f"{folder}: {config.parameters() / 1e6:,.1f} M parameters, {config.layers} layers, {kind}")
    tokenizer = ', with data.tokenizer = "weights"' if weights.tokenizer is not None else ""
    print(f'next: train.init_from = "{folder}" in a factory file{tokenizer}')


def _overrides(sets: list[str]) -> dict[str, object]:
    """FIELD=VALUE as ModelConfig takes them; pydantic reads numbers and switches out of text."""
    overrides: dict[str, object] = {}
    for item in sets:
        field, separator, value = item.partition("=")
        if not separator:
            raise UserError(f"--set {item}: must be FIELD=VALUE")
        overrides[field.strip()] = None if value.strip().lower() == "none" else value.strip()
    return overrides
