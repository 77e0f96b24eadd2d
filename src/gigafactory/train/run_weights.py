"""The model of a run directory, or of weights from anywhere, ready to be written out or to write text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gigafactory.data.tokenizer import Tokenizer, load_tokenizer, wrap
from gigafactory.errors import UserError
from gigafactory.factory.file import Factory
from gigafactory.factory.load import load_factory
from gigafactory.model.chat_template import chat_parts
from gigafactory.model.huggingface import read_end_ids, read_tokenizer
from gigafactory.model.tensor_files import read_json
from gigafactory.model.weights import Weights, load_weights
from gigafactory.train.checkpoint import newest_verified, restore_numpy
from gigafactory.train.lora import merge
from gigafactory.train.step import in_order, inverse

Say = Callable[[str], None]


@dataclass(frozen=True)
class RunWeights:
    """What a run has made: its factory file as resolved, the step of the checkpoint, and the weights."""

    factory: Factory
    step: int
    weights: Weights


@dataclass(frozen=True)
class Writer:
    """A model with what turns text into its tokens and back. stop_ids: tokens that end what it writes."""

    weights: Weights
    tokenizer: Tokenizer
    stop_ids: tuple[int, ...]

    def prompt(self, text: str) -> list[int]:
        """Ids to go on from; without text, the token that stands between documents."""
        return self.tokenizer.encode(text) or [self.tokenizer.end_id]

    def question(self, text: str) -> list[int]:
        """Ids of one question in the model's chat template. UserError when it has none."""
        return self.conversation([{"role": "user", "content": text}])

    def conversation(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Ids of messages of {"role", "content"} in the model's chat template, up to where the answer starts.

        Names of special tokens in a message are plain text. UserError when the model has no template.
        """
        if self.weights.chat_template is None:
            raise UserError("chat: this model has no chat template; it was not tuned for conversation")
        parts = chat_parts(messages, self.weights.chat_template)
        return [token for text, mark in parts for token in self.tokenizer.encode(text, special=mark)]


def is_run(path: Path) -> bool:
    return (path / "factory.toml").is_file()


def load_run(run: Path, say: Say = print) -> RunWeights:
    """The parameters in use (averaged ones if the run keeps them, adapters merged) of the newest sound checkpoint.

    Raises UserError when `run` is no run directory or has no checkpoint yet. say: told of damaged checkpoints.
    """
    if not is_run(run):
        raise UserError(f"{run}: not a run directory (it has no factory.toml)")
    factory = load_factory(run / "factory.toml")
    newest = newest_verified(run / "checkpoints", say) if (run / "checkpoints").is_dir() else None
    if newest is None:
        raise UserError(f"{run}: has no checkpoint yet; train it first")
    trained_root = "ema" if factory.train.optimizer.ema_decay > 0 else "params"
    trained, meta = restore_numpy(newest, trained_root)
    params: Any = trained[trained_root]
    if factory.train.lora.rank > 0:
        base, _ = restore_numpy(newest, "base")
        params = merge(base["base"], params, factory.train.lora)
    params = jax.tree.map(np.asarray, in_order(params, inverse(meta["order"])))
    if "gigafactory_tokenizer" in read_json(run / "tokenizer.json"):
        return RunWeights(factory, int(meta["step"]), Weights(factory.model, params))
    weights = Weights(factory.model, params, *read_tokenizer(run), read_end_ids(run))
    return RunWeights(factory, int(meta["step"]), weights)


def load_any(where: str, say: Say = print, **overrides: object) -> Weights:
    """The weights of a run directory, or whatever `load_weights` reads."""
    path = Path(where).expanduser()
    return load_run(path, say).weights if is_run(path) and not overrides else load_weights(where, **overrides)


def open_writer(where: str, say: Say = print) -> Writer:
    """A model of a run directory, or of weights that bring a tokenizer, to write text with."""
    path = Path(where).expanduser()
    weights = load_any(where, say)
    if is_run(path):
        tokenizer = load_tokenizer(str((path / "tokenizer.json").resolve()))
    elif weights.tokenizer is None:
        raise UserError(f"{where}: holds no tokenizer that can be read")
    else:
        end_id = next(iter(weights.end_ids), 0)
        tokenizer = wrap(weights.tokenizer, end_id=end_id, pad_id=end_id)
    return Writer(weights, tokenizer, tuple(dict.fromkeys((tokenizer.end_id, *weights.end_ids))))
