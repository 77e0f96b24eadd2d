"""A finished or running run, measured on its held-out text: newest checkpoint, one device."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from gigafactory.data.corpus import prepare
from gigafactory.errors import UserError
from gigafactory.factory.load import load_factory
from gigafactory.layout import Layout
from gigafactory.train.batch import device_batch
from gigafactory.train.checkpoint import newest_verified, restore
from gigafactory.train.step import build_program, in_order, inverse

Record = dict[str, Any]


def loss_fields(loss: float, bytes_per_token: float) -> Record:
    """loss in nats per token, and per byte of text in nats and bits."""
    nats = loss / bytes_per_token
    return {"loss": loss, "nats_per_byte": nats, "bits_per_byte": nats / math.log(2)}


def evaluate_run(run: Path, batches: int, say: Callable[[str], None]) -> Record:
    """Loss of a run's newest checkpoint on `batches` batches of its held-out text (0: all of it, once).

    Returns step, tokens, loss (nats/token), nats_per_byte, bits_per_byte. Raises UserError when there is no run.
    """
    kept = run / "factory.toml"
    if not kept.exists():
        raise UserError(f"{run}: not a run directory (no factory.toml)")
    factory = load_factory(kept)
    newest = newest_verified(run / "checkpoints", say)
    if newest is None:
        raise UserError(f"{run}: no checkpoint to evaluate")
    tokenizer = str(run / "tokenizer.json") if factory.data.tokenizer == "weights" else factory.data.tokenizer
    corpus = prepare(factory.data.model_copy(update={"tokenizer": tokenizer}), Path.cwd(), progress=say)
    corpus.check_length("validation", factory.train.sequence)
    train = factory.train.model_copy(update={"accumulate": 1})
    program = build_program(factory.model, train, Layout(), jax.devices()[:1], document_mask=factory.data.document_mask)
    state: Record = dict.fromkeys(("params", "base", "ema"))
    for root in state:
        if program.state[root] is not None:
            tree, meta = restore(newest, {root: program.state[root]}, root)
            state |= in_order(tree, inverse(meta["order"]))
    per_batch = train.batch_rows * train.sequence
    count = batches or max(corpus.validation.tokens // per_batch, 1)
    nll = tokens = 0.0
    for index in range(count):
        totals = program.evaluate(state, device_batch(program, corpus, train, 0, index, "validation"))
        nll, tokens = nll + float(totals["nll"]), tokens + float(totals["tokens"])
    record = {"step": int(meta["step"]), "tokens": int(tokens)}
    return record | loss_fields(nll / max(tokens, 1.0), corpus.validation.bytes_per_token)
