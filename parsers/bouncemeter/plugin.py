"""Log formats are plugins: what a parser must provide, how parsers are found, how a file's format is detected.

A parser is an object with the attributes of `Parser`, registered under the entry-point group
`bouncemeter.parsers`. The built-in ones are registered the same way.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol, runtime_checkable

from bouncemeter.blocks import Block
from bouncemeter.event import Entry, Step
from bouncemeter.stamps import Clock

__all__ = [
    "GROUP",
    "BlockReader",
    "Clock",
    "LineReader",
    "MessageIDReader",
    "Parser",
    "ParserNotFoundError",
    "Remembering",
    "UnparsedLineError",
    "detect",
    "parser",
    "parsers",
]

GROUP = "bouncemeter.parsers"

LineReader = Callable[[str], Sequence[Entry]]
"""Reads one line, without its line end, and returns its entries; none for a line of no interest.

Raises `UnparsedLineError` for a line that should have been understood."""


@runtime_checkable
class BlockReader(Protocol):
    """A line reader that can also read many lines at once; see `bouncemeter.blocks.UsualReader`."""

    def __call__(self, line: str, /) -> Sequence[Entry]: ...

    def block(self, text: str) -> Block:
        """Read whole lines, each with its line feed."""
        ...


@runtime_checkable
class Remembering(Protocol):
    """A line reader that needs earlier lines to understand a line. What it remembers survives a restart."""

    def __call__(self, line: str, /) -> Sequence[Entry]: ...

    def memory(self) -> str:
        """What it remembers, as text."""
        ...

    def recall(self, memory: str) -> None:
        """Take over what another reader of the same file remembered.

        Raises:
            ValueError: The text did not come from `memory`.
        """
        ...


@runtime_checkable
class MessageIDReader(Protocol):
    """A line reader that can also find the Message-ID of a message. A search asks for it, and nothing else does."""

    def __call__(self, line: str, /) -> Sequence[Entry]: ...

    def message_id(self, line: str, /) -> Step | None:
        """The step `NAMED` in a line that was just read; None if it gives no message a Message-ID.

        What another person wrote into the line (a subject, a reply) must not be taken for a Message-ID.
        """
        ...


class UnparsedLineError(ValueError):
    """A line looks as if it matters, but could not be read."""


class ParserNotFoundError(LookupError):
    """No parser has that name."""


@runtime_checkable
class Parser(Protocol):
    """A log format.

    A parser may set `each_line_alone = True` if it understands every line without the lines before it. A search may
    then skip lines.

    Attributes:
        name: The value of the label `mta`: one lower-case word.
    """

    @property
    def name(self) -> str: ...

    def recognises(self, line: str) -> bool:
        """Whether a line is in this format. Called on a file's first lines, to detect its format."""
        ...

    def reader(self, clock: Clock = time.time) -> LineReader:
        """A reader for one file. It may remember the file's header and open sessions (then it is `Remembering`), but
        nothing else."""
        ...


BUILT_IN = ("postfix", "exim", "exchange")
"""The formats of this project, the most usual first."""

_LIKELY = {"exim": re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2} "), "exchange": re.compile("\ufeff?#")}
"""How lines usually begin that are of no more usual format."""


@cache
def _entries() -> dict[str, EntryPoint]:
    """All entry points by name: those of plugins, then the built-in ones, whose names no plugin can take."""
    found = {each.name: each for each in entry_points(group=GROUP) if each.value.startswith("bouncemeter.")}
    built_in = {name: found[name] for name in BUILT_IN}
    return {each.name: each for each in entry_points(group=GROUP) if each.name not in built_in} | built_in


@cache
def _loaded(name: str) -> Parser:
    """The parser of an entry point. A built-in one takes some time to load: most runs need but one."""
    entry = _entries()[name]
    found = entry.load()
    if not isinstance(found, Parser):
        raise TypeError(f"the entry point {entry.name} = {entry.value} of group {GROUP} is not a parser")
    return found


@cache
def parsers() -> dict[str, Parser]:
    """All registered parsers by name. If two have the same name, the built-in one wins: no plugin can replace it."""
    found = [_loaded(name) for name in _entries()]
    return {each.name: each for each in found}


def parser(name: str) -> Parser:
    """The parser called `name`.

    Raises:
        ParserNotFoundError: No such parser is installed.
    """
    if name in BUILT_IN:
        return _loaded(name)
    try:
        return parsers()[name]
    except KeyError:
        raise ParserNotFoundError(f"unknown log format {name!r}; installed: {', '.join(sorted(parsers()))}") from None


SAMPLE = 500
"""Lines at the beginning of a file that tell its format if more than half of them are of one."""


def detect(lines: Sequence[str]) -> Parser | None:
    """The parser that recognises most of a file's `lines`; None if no parser recognises any. No line is of two built-in
    formats: if one of them recognises more than half of the lines, the others are not asked, nor loaded."""
    best, number = None, 0
    likely = [name for name, begin in _LIKELY.items() if lines and begin.match(lines[0])]
    names = sorted(_entries(), key=lambda name: (name in BUILT_IN, name not in likely))
    for some in (lines[:SAMPLE], lines):
        for name in names:
            each = _loaded(name)
            if each.name in BUILT_IN and name not in BUILT_IN:
                continue
            score = sum(map(each.recognises, some))
            equal = best is not None and best.name not in BUILT_IN and score == number
            if score > number or equal:
                best, number = each, score
            if name in BUILT_IN and 2 * score > len(some):
                return best
        if 2 * number > len(some):
            break
    return best
