"""Outside models that check support, for those who have their packages and weights: HHEM, MiniCheck, LettuceDetect.

Each is a `Checker` of verify.py: it takes the classifier's place, and the hard rules still have the last word. None is
downloaded here: `where` is a folder that holds the model.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from gigafactory.chat.verify import Checker
from gigafactory.errors import UserError

KINDS = ("hhem", "minicheck", "lettucedetect")
MINICHECK_PROMPT = "predict: {evidence}</s>{claim}"
NO, YES = 3, 209  # token ids of "0" and "1" of the T5 vocabulary that MiniCheck answers with


@cache
def open_checker(name: str) -> Checker | None:
    """The checker that `chat.answer.checker` names: "own" is None (the classifier of this program), else KIND:FOLDER.

    Opened once. Raises UserError where the kind is unknown, the folder is not there or a package is missing.
    """
    if name == "own":
        return None
    kind, _, where = name.partition(":")
    if kind not in KINDS or not where:
        raise UserError(f'chat.answer.checker: "own" or one of {", ".join(KINDS)} with :FOLDER, got {name!r}')
    if not Path(where).is_dir():
        raise UserError(f"chat.answer.checker: {where}: no such folder")
    return {"hhem": hhem, "minicheck": minicheck, "lettucedetect": lettucedetect}[kind](where)


def hhem(where: str) -> Checker:
    """Vectara's HHEM 2.1 open, by the code in its own folder: it runs that code, as its makers document."""
    transformers = _package("transformers")
    _package("torch")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        where, trust_remote_code=True, local_files_only=True
    )

    def check(pairs: Sequence[tuple[str, str]]) -> list[float]:
        return [float(score) for score in model.predict(list(pairs))]

    return check


def minicheck(where: str) -> Checker:
    """MiniCheck (flan-t5): the first token it writes is "1" (supported) or "0"."""
    torch, transformers = _package("torch"), _package("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(where, local_files_only=True)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(where, local_files_only=True)
    model.eval()

    def check(pairs: Sequence[tuple[str, str]]) -> list[float]:
        texts = [MINICHECK_PROMPT.format(evidence=evidence, claim=claim) for evidence, claim in pairs]
        batch = tokenizer(texts, return_tensors="pt", padding=True, truncation=True)
        begin = torch.zeros((len(texts), 1), dtype=torch.long)
        with torch.no_grad():
            logits = model(**batch, decoder_input_ids=begin).logits[:, 0, :]
        return [_share(float(row[YES]), float(row[NO])) for row in logits]

    return check


def lettucedetect(where: str) -> Checker:
    """LettuceDetect: the words of a claim that the evidence does not carry; support is one less the surest of them."""
    detector = _package("lettucedetect.models.inference").HallucinationDetector(method="transformer", model_path=where)

    def check(pairs: Sequence[tuple[str, str]]) -> list[float]:
        found: list[float] = []
        for evidence, claim in pairs:
            spans = detector.predict(context=[evidence], answer=claim, output_format="spans")
            found.append(1.0 - max((float(span["confidence"]) for span in spans), default=0.0))
        return found

    return check


def _share(yes: float, no: float) -> float:
    """Probability of yes, of two logits."""
    return 1.0 / (1.0 + math.exp(max(-60.0, min(60.0, no - yes))))


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise UserError(f"chat.answer.checker: needs the package {package}: pip install {package}") from None
