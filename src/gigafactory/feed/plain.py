"""Text of strangers made plain: no markup, no control signs, no halves of signs, one size."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from gigafactory.feed.intake import clean

LONGEST_TEXT = 100_000  # characters of a post that are kept

_BLOCKS = frozenset(
    ("p", "div", "li", "ul", "ol", "br", "blockquote", "pre", "tr", "table", "section", "article", "hr", "figure")
) | frozenset(("h1", "h2", "h3", "h4", "h5", "h6"))
_SILENT = frozenset(("script", "style", "template", "iframe", "object", "noscript", "svg", "math", "head", "title"))
# controls except tab and newline, and what turns the direction of text round (a "quote" must read as it is stored)
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff]")
_SPACES = re.compile(r"[ \t]+")
_LINES = re.compile(r" ?\n ?")
_MANY_LINES = re.compile(r"\n{3,}")


def plain(text: str, limit: int = LONGEST_TEXT) -> str:
    """Without control signs and unpaired surrogates (which no database takes), cut to `limit` characters."""
    text = clean(text[:limit]).replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROLS.sub("", text).strip()


def web_address(text: object) -> str:
    """An address that a page may link to; "" for what is none, such as javascript:."""
    address = plain(text, 2000) if isinstance(text, str) else ""
    return address if address.lower().startswith(("https://", "http://")) and " " not in address else ""


def strip_html(html: str, limit: int = LONGEST_TEXT) -> str:
    """The text that a reader of this HTML sees: entities resolved, paragraphs and breaks as line ends, no scripts."""
    parser = _Text()
    parser.feed(html[: 4 * limit])
    parser.close()
    text = _LINES.sub("\n", _SPACES.sub(" ", plain("".join(parser.parts), limit)))
    return _MANY_LINES.sub("\n\n", text).strip()


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._silent = ""  # the tag whose content is left out
        self._depth = 0  # of tags of that name

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._silent:
            self._depth += tag == self._silent
        elif tag in _SILENT:
            self._silent, self._depth = tag, 1
        elif tag in _BLOCKS:
            self.parts.append("\n")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _BLOCKS and not self._silent:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag == self._silent:
            self._depth -= 1
            if not self._depth:
                self._silent = ""
        elif not self._silent and tag in _BLOCKS:
            self.parts.append("\n\n" if tag == "p" else "\n")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.parts.append(data)
