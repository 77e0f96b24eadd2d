"""The operator's page says what the code says: run this file to write its tables anew."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gigafactory.cli.main import COMMANDS
from gigafactory.factory.file import Factory
from gigafactory.supervise.decisions.codes import CODES
from gigafactory.supervise.decisions.state import PHASES
from gigafactory.supervise.goodput import LOSSES, PRODUCTIVE

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"


def codes() -> str:
    rows = [f"| `{code}` | {about.name} | {about.means} | {about.done} |" for code, about in CODES.items()]
    return "\n".join(
        ["| code | cause | what happened | what the supervisor does |", "| --- | --- | --- | --- |", *rows]
    )


def classes() -> str:
    rows = [f"| {name.replace('_', ' ')} | {text} |" for name, text in LOSSES.items()]
    return "\n".join(["| class | what it holds |", "| --- | --- |", f"| **{PRODUCTIVE}** | steps that stayed |", *rows])


TABLES = {"codes": codes, "ledger classes": classes}


def between(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {name}: begin -->\n).*?(<!-- {name}: end -->)", re.DOTALL)


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_those_of_the_code(name):
    found = between(name).search(PAGE.read_text())
    assert found is not None
    assert found[0] == f"<!-- {name}: begin -->\n{TABLES[name]()}\n<!-- {name}: end -->"


def test_phases_of_a_run_are_all_explained():
    head = PAGE.read_text().partition("## Start")[0]
    missing = [phase for phase in PHASES if f"`{phase}`" not in head]
    assert missing == []


def test_commands_and_fields_that_the_page_names_exist():
    text = PAGE.read_text()
    commands = {name.rstrip() for name in re.findall(r"gigafactory ((?:operate )?[a-z]+) ", text)}
    assert commands
    assert commands <= COMMANDS.keys()
    for field in re.findall(r"`(supervise\.[a-z_.]+|train\.[a-z_.]+|layout\.[a-z_]+)", text):
        section = Factory
        for part in field.split("."):
            assert part in section.model_fields, field
            section = section.model_fields[part].annotation


if __name__ == "__main__":
    page = PAGE.read_text()
    for table_name, table in TABLES.items():
        page = between(table_name).sub(lambda found, table=table: f"{found[1]}{table()}\n{found[2]}", page)
    PAGE.write_text(page)
