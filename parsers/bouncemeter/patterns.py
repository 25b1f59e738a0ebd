"""Regular expressions that mean the same in every Python.

In CPython before 3.11.5 (Debian 12 has 3.11.2), a possessive group whose next turn fails halfway stays where that turn
failed: `(?:ab)*+a` does not match `aba` (https://github.com/python/cpython/issues/106052). An atomic group with an
ordinary repetition in it means the same, and works.
"""

from __future__ import annotations

import re
import sys

__all__ = ["compiled", "sound"]

_PIECE = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\)(?P<repeated>[*+?]|\{[0-9,]+\})\+|.", re.DOTALL)


def sound(pattern: str, *, needed: bool = sys.version_info < (3, 11, 5)) -> str:
    """A pattern with atomic groups in place of possessive ones, where those do not work."""
    if not needed:
        return pattern
    pieces, begun = list[str](), list[int]()
    for piece in _PIECE.finditer(pattern):
        text = piece[0]
        if text == "(":
            begun.append(len(pieces))
        elif text.startswith(")"):
            start = begun.pop()
            if piece["repeated"]:
                pieces.insert(start, "(?>")
                text = f"){piece['repeated']})"
        pieces.append(text)
    return "".join(pieces)


def compiled(pattern: str, flags: int = 0) -> re.Pattern[str]:
    """A pattern, compiled."""
    return re.compile(sound(pattern), flags)
