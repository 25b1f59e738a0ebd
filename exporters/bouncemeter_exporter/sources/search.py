"""What a search looks for in the lines of logs: lines without it need not be parsed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["EVERYTHING", "Search", "unescaped"]

FEW = 16
"""Up to so many words, each is looked for by itself."""

_NAME = re.compile(r"[0-9A-Za-z-]+")
_UNESCAPED = re.compile(r"[0-9A-Za-z .@-]+")


@dataclass(frozen=True, slots=True)
class Search:
    """What a search looks for.

    Attributes:
        words: Words of which a line must contain one; without any, all lines are read.
        any_case: Whether upper and lower case are the same. The words are in lower case then.
        message_ids: Also read the Message-IDs in these lines, as steps of the kind `NAMED`.
    """

    words: frozenset[str] = frozenset()
    any_case: bool = False
    message_ids: bool = False

    def lines_of(self, text: str) -> str:
        """The lines of a text, each with its line feed, that contain one of the words."""
        if not self.words:
            return text
        lines, contains = text.split("\n")[:-1], self._test()
        searched = text.lower().split("\n") if self.any_case else lines
        return "".join(f"{line}\n" for line, within in zip(lines, searched, strict=False) if contains(within))

    def _test(self) -> Callable[[str], bool]:
        words = self.words
        if len(words) == 1:
            [word] = words
            return lambda line: word in line
        if len(words) > FEW and all(map(_NAME.fullmatch, words)):
            return lambda line: not words.isdisjoint(_NAME.findall(line))
        return lambda line: any(word in line for word in words)


EVERYTHING = Search()


def unescaped(text: str) -> frozenset[str]:
    """The longest part of a text that stands as it is in every line with this text, even where a collector wrote the
    line as JSON; empty if there is no such part."""
    parts = _UNESCAPED.findall(text)
    return frozenset({max(parts, key=len)}) if parts else frozenset()
