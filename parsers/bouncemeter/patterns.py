"""Regular expressions that mean the same in every Python, in the form that `re` matches fastest.

In CPython before 3.11.5 (Debian 12 has 3.11.2), a possessive group whose next turn fails halfway stays where that turn
failed: `(?:ab)*+a` does not match `aba` (https://github.com/python/cpython/issues/106052). An atomic group with an
ordinary repetition in it means the same, and works.

`re` makes a loop of an optional group, which costs more than the choice between the group and nothing. After a fixed
number of characters it remembers where they began, as if there were fewer to try, unless they are possessive.
"""

from __future__ import annotations

import re
import sys

__all__ = ["compiled", "sound"]

_PIECE = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]"
    r"|(?P<begin>\((?:\?:)?)"
    r"|(?P<end>\))(?P<often>[*+?]|\{[0-9,]+\})?(?P<how>[+?])?"
    r"|(?P<fixed>\{[0-9]+\})(?![+?])"
    r"|.",
    re.DOTALL,
)


def sound(pattern: str, *, needed: bool = sys.version_info < (3, 11, 5)) -> str:
    """The same pattern in other words.

    Args:
        pattern: A pattern.
        needed: Whether to avoid possessive groups.
    """
    pieces, begun = list[str](), list[int]()
    for piece in _PIECE.finditer(pattern):
        text = piece[0]
        if piece["begin"]:
            begun.append(len(pieces))
        elif piece["end"]:
            start = begun.pop()
            if piece["often"] == "?" and piece["how"] != "?" and pieces[start] == "(?:":
                if piece["how"]:
                    pieces[start] = "(?>"
                text = "|)"
            elif piece["often"] and piece["how"] == "+" and needed:
                pieces.insert(start, "(?>")
                text = f"){piece['often']})"
        elif piece["fixed"]:
            text += "+"
        pieces.append(text)
    return "".join(pieces)


def compiled(pattern: str, flags: int = 0) -> re.Pattern[str]:
    """A pattern, compiled."""
    return re.compile(sound(pattern), flags)
