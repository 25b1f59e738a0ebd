"""Finding known words in what a server said, in one pass whatever the number of words known.

Every phrase is filed under the one of its words that the fewest other phrases have. A text is cut into words once;
only phrases filed under a word that the text has are compared with it. So the cost is that of the text's length, which
is bounded, and not of the table's.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

__all__ = ["MAX_TEXT", "Phrases", "ReplyText"]

MAX_TEXT = 1000
"""Characters of a reply that are looked at: what matters stands at its beginning."""

T = TypeVar("T")

_WORD = re.compile(r"[^\W_]+")
_ADDRESS = re.compile(r"<[^<>\s]{0,320}+>|[^\s@]{1,64}+@[^\s@]{1,255}+")
_NEXT_LINE = re.compile(r"(?:^| )[245][0-9]{2}[ -](?:#?[245]\.[0-9]{1,3}\.[0-9]{1,3}[ :])?")
_IN_REPLY_TO = re.compile(r"\(in reply to [A-Za-z ]{1,40}\)?$")


class ReplyText:
    """What a server said, ready to be searched: in lower case, without addresses and the codes of further lines.

    Attributes:
        text: The words of the reply.
        words: The same, each once.
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
        rows: Phrases in lower case, `*` standing for anything between two parts, and their values.
    """

    def __init__(self, rows: Iterable[tuple[str, T]]) -> None:
        listed = list(rows)
        often = Counter(word for phrase, _ in listed for word in set(_WORD.findall(phrase)))
        self._filed: dict[str, list[tuple[int, list[str], T]]] = {}
        for rank, (phrase, value) in enumerate(listed):
            key = min(_WORD.findall(phrase), key=lambda word: (often[word], -len(word)))
            parts = [part.strip() for part in phrase.split("*")]
            self._filed.setdefault(key, []).append((rank, parts, value))

    def first(self, said: ReplyText) -> T | None:
        """The value of the most trusted phrase that stands in a text; None if none does."""
        found = min(self._all(said), default=None, key=lambda each: each[0])
        return None if found is None else found[1]

    def all(self, said: ReplyText) -> list[T]:
        """The values of all phrases that stand in a text, the most trusted first."""
        return [value for _, value in sorted(self._all(said), key=lambda each: each[0])]

    def _all(self, said: ReplyText) -> Iterator[tuple[int, T]]:
        for word in self._filed.keys() & said.words:
            for rank, parts, value in self._filed[word]:
                if _stands(parts, said.text):
                    yield rank, value


def _stands(parts: list[str], text: str) -> bool:
    """Whether parts follow each other in a text, none of them beginning or ending within a word."""
    position = 0
    for part in parts:
        position = _after(part, text, position)
        if position < 0:
            return False
    return True


def _after(part: str, text: str, start: int) -> int:
    """Where a part ends in a text; -1 if it does not stand there as a whole."""
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
