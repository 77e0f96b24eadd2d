"""`gigafactory export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def export(
    where: Annotated[str, typer.Argument(help="A run directory, or weights as `gigafactory import` takes them.")],
    folder: Annotated[Path, typer.Argument(help="New folder to write.")],
    form: Annotated[
        Literal["auto", "huggingface", "grok", "grok-vllm", "grok-1"],
        typer.Option(
            "--format",
            help="huggingface: Llama and Mixtral. grok: Grok-type for SGLang and newer vLLM; grok-vllm: for every vLLM"
            " with Grok-1. grok-1: the open release's own names. auto: what fits the model.",
        ),
    ] = "auto",
    dtype: Annotated[
        Literal["float32", "float16", "bfloat16"], typer.Option(help="Type of the numbers written.")
    ] = "bfloat16",
) -> None:
    """Write the weights of a run, or of a model from elsewhere, as a folder that other programs read."""
    from gigafactory.model.weights import save_weights
    from gigafactory.train.run_weights import load_any

    weights = load_any(where)
    save_weights(folder, weights, form, dtype=dtype)
    size_bytes = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder}: {weights.config.parameters() / 1e6:,.1f} M parameters, {size_bytes / 1e6:,.1f} MB in {dtype}")
    if weights.tokenizer is None:
        print("without a tokenizer: text as bytes (id = byte + 2, 1 ends a document) is known to gigafactory only")
