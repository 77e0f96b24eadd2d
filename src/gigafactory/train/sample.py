"""Samples of a run in training: its parameters as one device's tree, and what they write."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from gigafactory.model.serve import Generator
from gigafactory.train.lora import merge
from gigafactory.train.session import Session
from gigafactory.train.step import in_order, inverse

Tree = Any
TEMPERATURE = 0.8


def whole_parameters(session: Session, state: Tree) -> Tree:
    """The parameters in use (averaged ones if kept, adapters merged), layers in their own order, on one device."""
    program = session.program
    tree = state["params"] if state["ema"] is None else state["ema"]
    trained = in_order(jax.tree.map(np.asarray, tree), inverse(program.order))
    if state["base"] is None:
        return trained
    base = in_order(jax.tree.map(np.asarray, state["base"]), inverse(program.order))
    return merge(base, trained, session.factory.train.lora)


def sample_texts(session: Session, state: Tree) -> Iterator[tuple[str, str]]:
    """(prompt, what follows) for each of train.sample_prompts; the same seed at every step."""
    train, tokenizer = session.factory.train, session.corpus.tokenizer
    generator = Generator(whole_parameters(session, state), session.factory.model)
    for number, prompt in enumerate(train.sample_prompts):
        ids = tokenizer.encode(prompt) or [tokenizer.end_id]
        written = generator.generate(
            ids, max_tokens=train.sample_tokens, temperature=TEMPERATURE, seed=number, stop_ids=(tokenizer.end_id,)
        )
        yield prompt, tokenizer.decode(list(written))
