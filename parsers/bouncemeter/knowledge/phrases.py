"""Finds known phrases in a reply, in one pass however many phrases are known.

Each phrase is filed under the one of its words that the fewest other phrases have. A text is split into words once,
and is compared only with phrases filed under one of its words. So the cost depends on the length of the text, which is
bounded, and not on the size of the table.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

__all__ = ["MAX_TEXT", "Phrases", "ReplyText"]

MAX_TEXT = 1000
"""How many characters of a reply are searched: what matters comes first."""

T = TypeVar("T")

_WORD = re.compile(r"[^\W_]+")
_ADDRESS = re.compile(r"<[^<>\s]{0,320}+>|[^\s@]{1,64}+@[^\s@]{1,255}+")
_NEXT_LINE = re.compile(r"(?:^| )[245][0-9]{2}[ -](?:#?[245]\.[0-9]{1,3}\.[0-9]{1,3}[ :])?")
_IN_REPLY_TO = re.compile(r"\(in reply to [A-Za-z ]{1,40}\)?$")


class ReplyText:
    """A reply, ready to be searched: in lower case, without addresses and the codes of further lines.

    Attributes:
        text: The words of the reply.
        words: The set of its words.
    """

    __slots__ = ("text", "words")

    def __init__(self, text: str) -> None:
        text = _IN_REPLY_TO.sub("", text[:MAX_TEXT]).replace("\u2019", "'").replace("\\n", " ")
        text = _NEXT_LINE.sub(" ", " ".join(text.split()))
        if "@" in text or "<" in text:
            text = _ADDRESS.sub(" ", text)
        self.text = " ".join(text.split()).lower()
        self.words = frozenset(_WORD.findall(self.text))


class Phrases(Generic[T]):
    """Phrases, each with a value, the most trusted first.

    Args:
        rows: Phrases in lower case, with `*` for anything between two parts, and their values.
    """

    def __init__(self, rows: Iterable[tuple[str, T]]) -> None:
        listed = list(rows)
        counts = Counter(word for phrase, _ in listed for word in set(_WORD.findall(phrase)))
        self._filed: dict[str, list[tuple[int, list[str], T]]] = {}
        for rank, (phrase, value) in enumerate(listed):
            key = min(_WORD.findall(phrase), key=lambda word: (counts[word], -len(word)))
            parts = [part.strip() for part in phrase.split("*")]
            self._filed.setdefault(key, []).append((rank, parts, value))

    def first(self, reply: ReplyText) -> T | None:
        """The value of the most trusted phrase in a text; None if it has none."""
        found = min(self._all(reply), default=None, key=lambda each: each[0])
        return None if found is None else found[1]

    def all(self, reply: ReplyText) -> list[T]:
        """The values of all phrases in a text, the most trusted first."""
        return [value for _, value in sorted(self._all(reply), key=lambda each: each[0])]

    def _all(self, reply: ReplyText) -> Iterator[tuple[int, T]]:
        for word in self._filed.keys() & reply.words:
            for rank, parts, value in self._filed[word]:
                if _occur_in(parts, reply.text):
                    yield rank, value


def _occur_in(parts: list[str], text: str) -> bool:
    """Whether parts occur in a text in this order, none of them beginning or ending inside a word."""
    position = 0
    for part in parts:
        position = _end_of(part, text, position)
        if position < 0:
            return False
    return True


def _end_of(part: str, text: str, start: int) -> int:
    """Where a part ends in a text; -1 if it does not occur there in whole words."""
    while True:
        found = text.find(part, start)
        if found < 0:
            return -1
        end = found + len(part)
        cut = (found and part[0].isalnum() and text[found - 1].isalnum()) or (
            end < len(text) and part[-1].isalnum() and text[end].isalnum()
        )
        if not cut:
            return end
        start = found + 1
