"""The page: nothing of it comes from elsewhere, and nothing that a post says becomes part of it."""

from __future__ import annotations

import asyncio
import re
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from browser import opened
from chat_store import NOW, make_service, post, quoting
from serving import served

from gigafactory.chat.answer import Answer, Citation, Claim, Superseded, Verdict
from gigafactory.chat.server import PAGE
from gigafactory.chat.service import Service
from gigafactory.feed.post import Delete

SCRIPT = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"


def test_all_of_the_page_is_here_and_builds_no_markup_from_text() -> None:
    folder = files("gigafactory.chat") / "page"
    assert {name for name, _ in PAGE.values()} == {file.name for file in folder.iterdir()}
    for name, _ in PAGE.values():
        text = (folder / name).read_text("utf-8")
        outside = [url for url in re.findall(r"https?://[^\s\"'>]+", text) if url != "http://www.w3.org/2000/svg"]
        assert not outside, name
        for unsafe in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "style=",
        ):
            assert unsafe not in text, (name, unsafe)
        assert not re.search(r"\son\w+=|<script>|<style", text), name  # what the policy would refuse anyway


def hostile(store: Any) -> Answer:
    """An answer in which everything that a stranger wrote tries to become markup."""
    one = post("1", SCRIPT, author=SCRIPT, url="javascript:document.title='taken'")
    two = post("2", "older \u202e words", author="old", url="https://posts.example/2")
    store.apply([one, two])
    cite = Citation.of(one, SCRIPT)
    claims = (
        Claim(f"It says {SCRIPT}", Verdict.SUPPORTED, 1.0, (cite,)),
        Claim("Half of it", Verdict.PARTLY, 0.6, (cite,), (f"missing {SCRIPT}",)),
        Claim("The opposite", Verdict.CONTRADICTED, 0.1, (cite,), ("says another number",)),
    )
    pair = Superseded(Citation.of(two, two.text), cite)
    return Answer("q", "t", claims, True, NOW, 4.0, superseded=(pair,), removed=(claims[2],))


def service_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Service:
    service = make_service(tmp_path, monkeypatch)
    answer = hostile(service.store)

    def ask(question: str, *rest: Any) -> Answer:
        return answer if "hostile" in question else quoting(question, *rest)

    monkeypatch.setattr("gigafactory.chat.service.ask", ask)
    return service


@pytest.mark.slow
@pytest.mark.alone
def test_what_a_person_sees_in_chromium(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium: apt install chromium")
    service = service_for(tmp_path, monkeypatch)

    async def look(address: str) -> None:
        async with opened(chromium) as tab:
            await tab.size(1280, 900)
            await tab.go(address)
            await tab.until("document.getElementById('state').textContent.includes('posts')")
            await tab.ask(f"hostile {SCRIPT}")
            verdicts = await tab.run("[...document.querySelectorAll('.claims>li')].map(e => e.className)")
            assert verdicts == ["supported", "partly", "contradicted"]
            text = await tab.run("document.querySelector('.answer').textContent")
            assert "2026-03-02 10:59:00 UTC" in text
            assert "newest post 4.0 s old" in text
            assert "Taken out by the check: 1" in text
            links = await tab.run("[...document.querySelectorAll('.answer a')].map(a => a.href)")
            assert links == ["https://posts.example/2"]
            assert await tab.run("document.title") == "Ask what is happening"
            assert await tab.run("document.querySelectorAll('main img, main script').length") == 0
            # an honest one, whose post is deleted while it is looked at
            await tab.run("document.getElementById('new').click()")
            await tab.ask("harbour closed?")
            assert "closed until Friday" in await tab.run("document.querySelector('.answer').textContent")
            service.store.apply([Delete("wire", "p1", NOW, "deleted by its author")])
            await tab.until("document.querySelector('.changed')")
            gone = await tab.run("document.querySelector('main').textContent")
            assert "was deleted (deleted by its author) at 2026-03-02 11:00:00 UTC" in gone
            assert "closed until Friday" not in gone
            # nothing found
            await tab.ask("volcano")
            assert "Nearest posts" in await tab.run("document.querySelector('.turn:last-child').textContent")
            for width in (1280, 390, 320):
                await tab.size(width, 800, dark=width == 390)
                assert await tab.run("document.documentElement.scrollWidth") <= width
            assert tab.errors == []

    with served(service) as address:
        asyncio.run(look(address))


@pytest.mark.slow
@pytest.mark.alone
def test_the_page_asks_for_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium: apt install chromium")
    service = make_service(tmp_path, monkeypatch)

    async def look(address: str) -> None:
        async with opened(chromium) as tab:
            await tab.go(address)
            await tab.until("document.getElementById('key').open")
            await tab.run("document.getElementById('secret').value = 'sk-right'")
            await tab.run("document.querySelector('#key button').click()")
            await tab.until("document.getElementById('state').textContent.includes('posts')")
            await tab.ask("harbour closed?")
            assert "closed until Friday" in await tab.run("document.querySelector('.answer').textContent")

    with served(service, ("sk-right",)) as address:
        asyncio.run(look(address))
