"""gigafactory sample: let a model write."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer


def sample(
    model: Annotated[
        str,
        typer.Argument(
            metavar="RUN_OR_WEIGHTS",
            show_default=False,
            help="A run directory, a Hugging Face folder, a .gguf file, or package:NAME.",
        ),
    ],
    prompt: Annotated[str, typer.Option(help="Text to go on from; with --chat, the question.")] = "",
    tokens: Annotated[int, typer.Option(min=1, help="Write at most this many tokens.")] = 200,
    temperature: Annotated[
        float, typer.Option(min=0, help="0 takes the likeliest token; higher is more surprising.")
    ] = 0.8,
    top_k: Annotated[int, typer.Option(min=0, help="Draw from the k likeliest tokens only; 0 is all.")] = 0,
    top_p: Annotated[
        float, typer.Option(min=0, max=1, help="Draw from the likeliest tokens that reach this probability.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="The same seed writes the same text.")] = 0,
    chat: Annotated[bool, typer.Option("--chat", help="Ask a model tuned for conversation, by its template.")] = False,
) -> None:
    """Let a trained model write: the text appears as it is made.

    With --chat only the answer is printed, else the prompt and what follows it.
    """
    from gigafactory.data.tokenizer import text_stream
    from gigafactory.model.serve import Generator, serving_options
    from gigafactory.train.run_weights import open_writer

    writer = open_writer(model)
    ids = writer.question(prompt) if chat else writer.prompt(prompt)
    generator = Generator(writer.weights.params, writer.weights.config, serving_options())
    push = text_stream(writer.tokenizer)
    if not chat:
        print(prompt, end="", flush=True)
    count, began = 0, time.perf_counter()
    for token in generator.generate(
        ids,
        max_tokens=tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        stop_ids=writer.stop_ids,
    ):
        count += 1
        print(push(token), end="", flush=True)
    took_s = time.perf_counter() - began
    print(flush=True)
    print(f"{count} tokens in {took_s:.1f} s ({count / took_s:.1f} tokens/s)", file=sys.stderr)
