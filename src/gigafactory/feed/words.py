"""What a search for words goes by, the same in every store: case and accents folded, text without spaces cut in pairs.

A store indexes `terms(post)`: the words of its text, and marks (hashes) that say who wrote it and where. A mark begins
with a control character, so that no word equals it.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

from gigafactory.feed.intake import clean
from gigafactory.feed.post import Post
from gigafactory.feed.store import Query

# Accents (also of Arabic and Hebrew, where they are mostly left out); vowel signs of Indic scripts are letters.
_ACCENT = re.compile("[\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670]")
_WORD = re.compile("(?:[^\\W_]|[\u0900-\u0963\u0966-\u0dff])+")
_IDEOGRAPH = "\u3005\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_UNSPACED = f"{_IDEOGRAPH}\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3041-\u30ff\uac00-\ud7a3"
_RUN = re.compile(f"[{_UNSPACED}]+|(?:(?![{_UNSPACED}])(?:[^\\W_]|[\u0900-\u0963\u0966-\u0dff]))+")
_UNSPACED_TEXT = re.compile(f"[{_UNSPACED}]")
_ONE_IDEOGRAPH = re.compile(f"[{_IDEOGRAPH}]")
_AUTHOR, _AUTHOR_ID, _SOURCE = "\x80", "\x81", "\x82"


def fold(text: str) -> str:
    """Text with neither case nor accents nor widths: "ＣＡＦÉ" is "cafe"."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", _ACCENT.sub("", unicodedata.normalize("NFKD", text).casefold()))


def words(text: str) -> list[str]:
    """The words of a text in their order, as the stores index them.

    A word is a run of letters and digits, folded. Runs of scripts that put no spaces between words (Chinese, Japanese,
    Thai, Lao, Khmer, Burmese; Korean joins its particles) give every pair of neighbours, and every ideograph.
    """
    folded = fold(text)
    if folded.isascii() or not _UNSPACED_TEXT.search(folded):
        return _WORD.findall(folded)
    found: list[str] = []
    for run in _RUN.findall(folded):
        if not _UNSPACED_TEXT.match(run):
            found.append(run)
            continue
        found += _pairs(run)
        if len(run) > 1:
            found += _ONE_IDEOGRAPH.findall(run)
    return found


def asked(word: str) -> tuple[str, ...]:
    """The words that a post must hold, all of them, to match one word of a query: its parts, its pairs."""
    runs = _RUN.findall(fold(word))
    return tuple(dict.fromkeys(part for run in runs for part in (_pairs(run) if _UNSPACED_TEXT.match(run) else [run])))


def _pairs(run: str) -> list[str]:
    return [run[i : i + 2] for i in range(len(run) - 1)] or [run]


def author_mark(handle: str) -> str:
    return _mark(_AUTHOR, fold(clean(handle).removeprefix("@")))


def author_id_mark(source: str, author_id: str) -> str:
    return _mark(_AUTHOR_ID, f"{source}\0{author_id}")


def source_mark(source: str) -> str:
    return _mark(_SOURCE, clean(source))


def _mark(kind: str, name: str) -> str:
    return kind + blake2b(name.encode(), digest_size=8).hexdigest()


def terms(post: Post) -> list[str]:
    """All that a store indexes of a post."""
    return [*words(post.text), *_marks(post.source, post.author, post.author_id).split()]


def term_text(post: Post) -> str:
    """The same for an index that itself cuts ASCII into words and folds its case, which is far faster there."""
    text = post.text if post.text.isascii() else " ".join(words(post.text))
    return f"{text} {_marks(post.source, post.author, post.author_id)}"


@lru_cache(maxsize=65_536)  # the same authors write again and again
def _marks(source: str, author: str, author_id: str) -> str:
    return f"{author_mark(author)} {author_id_mark(source, author_id)} {source_mark(source)}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A query in terms: a post has all of one group at least, one of each `one_of`, none of `none_of`."""

    groups: tuple[tuple[str, ...], ...]
    one_of: tuple[tuple[str, ...], ...]
    none_of: tuple[str, ...]

    @property
    def positive(self) -> bool:
        """There is something that a post must have, so that an index can find it."""
        return bool(self.groups or self.one_of)


def wanted(query: Query) -> Wanted | None:
    """None: the words of the query hold nothing to look for, so that no post is found."""
    groups = tuple(dict.fromkeys(parts for word in query.words if (parts := asked(word))))
    if query.words and not groups:
        return None
    if query.match == "all" and groups:
        groups = (tuple(dict.fromkeys(part for group in groups for part in group)),)
    one_of = [
        tuple(author_mark(handle) for handle in query.authors),
        tuple(source_mark(name) for name in query.sources),
    ]
    return Wanted(groups, tuple(marks for marks in one_of if marks), tuple(author_mark(a) for a in query.not_authors))
