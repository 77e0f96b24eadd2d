"""The page of all fields is made from the models and is not stale."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from gigafactory.factory.describe import factory_page
from gigafactory.factory.explain import model_at
from gigafactory.factory.file import Factory

PAGE = Path(__file__).parents[2] / "docs" / "factory-file.md"


def test_the_page_is_what_the_models_say() -> None:
    told = "stale: python -m gigafactory.factory.describe > docs/factory-file.md"
    assert PAGE.read_text(encoding="utf-8") == factory_page(), told


def test_every_field_is_on_the_page_with_its_meaning() -> None:
    page = factory_page()

    def walk(kind: type[BaseModel], path: tuple[str | int, ...]) -> None:
        for name, field in kind.model_fields.items():
            assert f"`{name}`" in page
            assert field.description, f"{path} {name} has no description"
            inner = model_at(Factory, (*path, name)) or model_at(Factory, (*path, name, 0))
            if inner is not None and inner.__name__ != "Spread":
                here = (*path, name) if model_at(Factory, (*path, name)) else (*path, name, 0)
                title = ".".join(str(part) for part in here if isinstance(part, str))
                assert f"[{title}]" in page
                walk(inner, here)

    walk(Factory, ())


def test_types_limits_and_defaults_are_told() -> None:
    page = factory_page()
    assert "| `steps` | whole number ≥ 1 | `1000` |" in page
    assert "| `name` | `adamw`, `muon` | `adamw` |" in page
    assert "| `lead_weeks` | *spread* | needed |" in page
    assert "| `validation_fraction` | number ≥ 0, < 1 | `0.05` |" in page
