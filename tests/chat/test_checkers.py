"""Loaders of outside checkers, against stand-ins for their packages."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gigafactory.chat.answer import Verdict
from gigafactory.chat.checkers import open_checker
from gigafactory.chat.verify import verify
from gigafactory.errors import UserError
from gigafactory.feed.post import Post

POST = Post("test", "1", 1, "scores", "scores", 0.0, 0.0, "FINAL: Lakers beat Celtics 110-102 before 18,000 fans.")


@pytest.fixture(autouse=True)
def _afresh() -> Iterator[None]:
    open_checker.cache_clear()
    yield
    open_checker.cache_clear()


class NoGrad:
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


def install(monkeypatch: pytest.MonkeyPatch, **modules: dict[str, Any]) -> None:
    for name, content in modules.items():
        module = ModuleType(name.replace("__", "."))
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, module.__name__, module)


class Tokenizer:
    """Remembers what it was given."""

    seen: list[str]

    def __call__(self, texts: list[str], **_: object) -> dict[str, Any]:
        Tokenizer.seen = texts
        return {"input_ids": np.zeros((len(texts), 3), dtype=int)}


def t5(**inputs: Any) -> SimpleNamespace:
    """Logits over a vocabulary of 300: "1" where the row's number is even."""
    logits = np.zeros((len(inputs["decoder_input_ids"]), 1, 300))
    logits[::2, 0, 209] = 5.0
    logits[1::2, 0, 3] = 5.0
    return SimpleNamespace(logits=logits)


def loader(model: Any) -> SimpleNamespace:
    def load(where: str, **options: Any) -> Any:
        assert options["local_files_only"]
        return model

    return SimpleNamespace(from_pretrained=load)


TORCH = {"no_grad": NoGrad, "zeros": lambda shape, dtype: np.zeros(shape, dtype), "long": int}


def test_own_needs_nothing() -> None:
    assert open_checker("own") is None


def test_minicheck(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Model:
        def eval(self) -> None: ...
        def __call__(self, **inputs: Any) -> SimpleNamespace:
            return t5(**inputs)

    transformers = {"AutoTokenizer": loader(Tokenizer()), "AutoModelForSeq2SeqLM": loader(Model())}
    install(monkeypatch, torch=TORCH, transformers=transformers)
    check = open_checker(f"minicheck:{tmp_path}")
    assert check is not None
    yes, no = check([("the post", "the claim"), ("another", "one")])
    assert yes > 0.99
    assert no < 0.01
    assert Tokenizer.seen[0] == "predict: the post</s>the claim"


def test_hhem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = SimpleNamespace(predict=lambda pairs: np.array([0.9 if "Lakers" in claim else 0.2 for _, claim in pairs]))
    install(monkeypatch, torch=TORCH, transformers={"AutoModelForSequenceClassification": loader(model)})
    check = open_checker(f"hhem:{tmp_path}")
    assert check is not None
    claim = verify("Lakers beat Celtics 110-102.", [POST], 0.0, checker=check)
    assert (claim.verdict, claim.support) == (Verdict.SUPPORTED, pytest.approx(0.9))
    assert verify("Lakers beat Celtics 110-103.", [POST], 0.0, checker=check).verdict is Verdict.CONTRADICTED


def test_lettucedetect(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Detector:
        def __init__(self, method: str, model_path: str) -> None:
            assert (method, model_path) == ("transformer", str(tmp_path))

        def predict(self, context: list[str], answer: str, output_format: str) -> list[dict[str, Any]]:
            return [{"confidence": 0.7}, {"confidence": 0.4}] if "overtime" in answer else []

    install(monkeypatch, lettucedetect={}, lettucedetect__models={}, lettucedetect__models__inference={"HallucinationDetector": Detector})  # fmt: skip  # noqa: E501
    check = open_checker(f"lettucedetect:{tmp_path}")
    assert check is not None
    assert check([("", "in overtime"), ("", "won")]) == pytest.approx([0.3, 1.0])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nli", "chat.answer.checker: \"own\" or one of hhem, minicheck, lettucedetect with :FOLDER, got 'nli'"),
        ("hhem:", "with :FOLDER"),
        ("hhem:/no/such", "chat.answer.checker: /no/such: no such folder"),
    ],
)
def test_mistakes(name: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        open_checker(name)
    assert message in str(error.value)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "lettucedetect", None)
    monkeypatch.setitem(sys.modules, "lettucedetect.models.inference", None)
    with pytest.raises(UserError, match="pip install lettucedetect"):
        open_checker(f"lettucedetect:{tmp_path}")
