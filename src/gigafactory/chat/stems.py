"""Word stems for comparing English words: endings off, irregular forms mapped, words of one family made equal."""

from __future__ import annotations

import re
from functools import lru_cache

from gigafactory.chat.english import table

IRREGULAR = {form: head for head, forms in table("stems").items() for form in (head, *forms.split())}
VOWEL = re.compile("[aeiouy]")
SUFFIXES = (
    ("ational", "at"),
    ("ization", "iz"),
    ("isation", "iz"),
    ("fulness", "ful"),
    ("iveness", "iv"),
    ("ously", ""),
    ("ically", "ic"),
    ("ingly", ""),
    ("ation", "at"),
    ("ition", "it"),
    ("ments", ""),
    ("ement", ""),
    ("ment", ""),
    ("ness", ""),
    ("ible", ""),
    ("able", ""),
    ("ance", ""),
    ("ence", ""),
    ("tion", "t"),
    ("sion", "s"),
    ("ings", ""),
    ("ying", "y"),
    ("ing", ""),
    ("ies", "y"),
    ("ied", "y"),
    ("ers", ""),
    ("ors", ""),
    ("ate", "at"),
    ("ise", "iz"),
    ("ize", "iz"),
    ("ous", ""),
    ("ive", "iv"),
    ("ial", ""),
    ("ial", ""),
    ("ian", ""),
    ("ed", ""),
    ("er", ""),
    ("or", ""),
    ("es", ""),
    ("ly", ""),
    ("al", ""),
    ("s", ""),
    ("e", ""),
)


INFLECTIONS = ("ings", "ing", "ed", "es", "s", "e")  # may leave three letters
REGULAR = (("s", ""), ("es", ""), ("ed", ""), ("d", ""), ("ing", ""), ("ing", "e"), ("ies", "y"), ("ied", "y"))


@lru_cache(maxsize=50_000)
def stem(word: str) -> str:
    """The stem of a folded word. Short words and words of other alphabets stay as they are."""
    if head := IRREGULAR.get(word):
        return head
    for suffix, instead in REGULAR:
        if word.endswith(suffix) and (head := IRREGULAR.get(word[: -len(suffix)] + instead)):
            return head
    if len(word) <= 3 or not word.isascii():
        return word[:-1] if len(word) == 3 and word.endswith("s") and word[1] not in "aius" else word
    if word.endswith(("'t", "ss")):
        return word
    root = word
    for _ in range(3):  # "performances": s, ance
        shorter = _cut(root)
        if shorter == root:
            break
        root = shorter
        if root in IRREGULAR:
            return IRREGULAR[root]
    if root.endswith("y") and len(root) > 3:
        root = root[:-1] + "i"
    if len(root) > 3 and root[-1] == root[-2] and root[-1] not in "lsz":
        root = root[:-1]
    return root


def _cut(word: str) -> str:
    for suffix, instead in SUFFIXES:
        if word.endswith(suffix) and not (suffix == "s" and word.endswith(("ss", "us", "is"))):
            root = word[: -len(suffix)] + instead
            if VOWEL.search(root) and (len(root) >= 4 or (len(root) == 3 and suffix in INFLECTIONS)):
                return root
    return word
