"""A pyparsing grammar compiled into one `re` pattern with the same meaning.

pyparsing never backtracks into a success: an alternative that matched is taken, an optional part that matched stays.
Atomic groups and possessive quantifiers do exactly that, so the pattern accepts what the grammar accepts, gives the
same values, and takes linear time if the grammar's own patterns do. An element that cannot be expressed this way
raises an error that names it when the module is imported.

Input: a grammar that takes white space literally (`bouncemeter.grammar.exact`). Output: a `Lowered`; for a list, such
as the fields of a row, a `LoweredList`; for lines in a block of text, a `LoweredBlock`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache, cached_property
from typing import Any

import pyparsing as pp

from bouncemeter.grammar import exact
from bouncemeter.patterns import compiled

__all__ = ["CannotLowerError", "Lowered", "LoweredBlock", "LoweredList", "lowered", "lowered_block", "lowered_list"]


class CannotLowerError(TypeError):
    """A grammar has an element that no pattern can express exactly."""


class Lowered:
    """A grammar as a pattern.

    Attributes:
        grammar: The grammar that it was made from.
    """

    def __init__(self, grammar: pp.ParserElement) -> None:
        self._maker = _Maker()
        self.grammar = grammar
        self._expression = self._maker.expression(grammar)

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """The pattern, compiled on first use: one log needs few of the formats' patterns."""
        return compiled(self._expression)

    @cached_property
    def _match(self) -> Callable[[str], re.Match[str] | None]:
        return self.pattern.match

    @cached_property
    def _names(self) -> list[str]:
        groups = {place: self._maker.groups[group] for group, place in self.pattern.groupindex.items()}
        return [groups.get(place, "") for place in range(1, self.pattern.groups + 1)]

    def values(self, line: str) -> dict[str, str] | None:
        """The named values that the grammar finds in a line from its left end; None if it does not match."""
        match = self._match(line)
        if match is None:
            return None
        return {name: text for name, text in zip(self._names, match.groups(), strict=True) if text is not None and name}

    def texts(self, line: str) -> tuple[str | None, ...] | None:
        """The values in the order of their names in the grammar, None for a value that the line lacks; None if the
        grammar does not match. Faster than `values`."""
        match = self._match(line)
        return match.groups() if match is not None else None

    def matches(self, line: str) -> bool:
        """Whether the grammar matches a line from its left end."""
        return self._match(line) is not None


class LoweredList:
    """A grammar of a list: elements that occur once, then one that repeats, with its separators suppressed.

    Attributes:
        grammar: The grammar that it was made from.
    """

    def __init__(self, grammar: pp.ParserElement) -> None:
        self.grammar = grammar
        *once, more = grammar.exprs if isinstance(grammar, pp.And) else [grammar]
        if type(more) is not pp.ZeroOrMore or more.not_ender is not None:
            raise CannotLowerError(f"a list must end in ZeroOrMore, not in {_name(more)}")
        self._once = [compiled(_Maker(capture=True).expression(part)) for part in once]
        self._more = compiled(_Maker(capture=True).expression(more.expr))

    def items(self, line: str) -> list[str]:
        """The elements of a list, from the left end of a line to the end of the list."""
        return [match[1] for match in self._matches(line)]

    def groups(self, line: str) -> list[tuple[str, ...]]:
        """The elements of a list whose elements are groups."""
        return [match.groups() for match in self._matches(line)]

    def _matches(self, line: str) -> Iterator[re.Match[str]]:
        position = 0
        for pattern in self._once:
            match = pattern.match(line, position)
            if match is None:
                return
            position = match.end()
            if pattern.groups:
                yield match
        while (match := self._more.match(line, position)) is not None and match.end() > position:
            position = match.end()
            yield match


class LoweredBlock:
    """Patterns that find the lines of usual forms in a block, and the lines that need a closer look.

    There is one pattern for each start that lines may have: the lines of a log start alike.
    Each line found gives a row: one text for each name, empty if the line lacks it. The last text, named `CLOSER`, is
    what needs a closer look: the text after the start, or the whole line if it does not have this start. (A line
    without a colon has no start of any kind, and is skipped.)

    Attributes:
        starts, forms, candidates: The grammars that the patterns were made from.
        names: The names of a row's texts, in their order.
    """

    def __init__(
        self, starts: Sequence[pp.ParserElement], forms: pp.ParserElement, candidates: pp.ParserElement
    ) -> None:
        self.starts, self.forms, self.candidates = starts, forms, candidates
        makers = [_Maker(unrolled=True) for _ in starts]
        begins = [maker.expression(start) for maker, start in zip(makers, starts, strict=True)]
        if any(maker.groups != makers[0].groups for maker in makers):
            raise CannotLowerError("the starts of a block's lines have different names, or in different orders")
        start_group = next(reversed(makers[0].groups))
        form, candidate = makers[0].expression(forms), _Maker(named=False).expression(candidates)
        self.names = [*makers[0].groups.values(), CLOSER]
        if len(set(self.names)) < len(self.names):
            raise CannotLowerError("a name occurs twice in the forms of a block's lines")
        self._begins = [rf"\n{begin}" for begin in begins]
        self._expressions = [
            rf"\n(?:{begin})?+(?:(?({start_group})(?:{form})|(?!))"
            rf"|(?({start_group})(?={candidate})|(?=[^:\n]*+:))(?P<{CLOSER}>[^\n]++))"
            for begin in begins
        ]
        self._patterns: dict[str, re.Pattern[str]] = {}

    def start_of(self, text: str) -> int:
        """The index of the start that the first of a text's lines with any of them has; 0 if there is none. Only few
        lines are examined. Each of them begins with a line feed."""
        place = 0
        for _ in range(EXAMINED):
            for number, begin in enumerate(self._begins):
                if self._pattern(begin).match(text, place):
                    return number
            if (place := text.find("\n", place + 1)) < 0:
                break
        return 0

    def rows(self, text: str, start: int = 0) -> list[tuple[str, ...]]:
        """The rows of a text, whose usual lines have one start. Each of its lines begins with a line feed."""
        return self._pattern(self._expressions[start]).findall(text)

    def _pattern(self, expression: str) -> re.Pattern[str]:
        """A pattern, compiled on first use."""
        if expression not in self._patterns:
            self._patterns[expression] = compiled(expression)
        return self._patterns[expression]


EXAMINED = 10
"""Lines of a block at most from which its start is known."""

CLOSER = "closer"


def lowered(grammar: pp.ParserElement) -> Lowered:
    """Compile a grammar.

    Raises:
        CannotLowerError: An element cannot be expressed exactly.
    """
    return Lowered(exact(grammar))


def lowered_list(grammar: pp.ParserElement) -> LoweredList:
    """Compile a grammar of a list.

    Raises:
        CannotLowerError: An element cannot be expressed exactly, or the grammar is not of a list.
    """
    return LoweredList(exact(grammar))


def lowered_block(
    *, starts: Sequence[pp.ParserElement], forms: pp.ParserElement, candidates: pp.ParserElement
) -> LoweredBlock:
    """Compile the grammars of a block's lines. None of them may match a line feed.

    Args:
        starts: How usual lines start, the most usual way first. All have the same names, and always give them.
        forms: What follows the start in lines of usual forms.
        candidates: What follows the start in other lines that may matter.

    Raises:
        CannotLowerError: An element cannot be expressed exactly, a name occurs twice, or the starts' names differ.
    """
    return LoweredBlock([exact(start) for start in starts], exact(forms), exact(candidates))


_NO_DEFAULT = pp.Opt(pp.Empty()).defaultValue
_SINGLE = (pp.Regex, pp.Literal, pp.Word, pp.Combine)
_NAMED_GROUP = re.compile(r"\(\?P(?:<(\w+)>|=(\w+)\))")


class _Maker:
    """Makes one pattern.

    Args:
        capture: Whether unnamed parts that are not suppressed are captured, for a list.
        named: Whether names become groups.
        unrolled: Whether the first turns of a loop stand before it, which costs less time, but longer to compile.

    Attributes:
        groups: The name of each group in the pattern, with the name of its value.
        loops: How many loops contain the current element.
    """

    def __init__(self, *, capture: bool = False, named: bool = True, unrolled: bool = False) -> None:
        self.capture, self.named, self.unrolled = capture, named, unrolled
        self.groups: dict[str, str] = {}
        self.loops = 0

    def expression(self, element: pp.ParserElement) -> str:
        """The pattern of an element."""
        if element.skipWhitespace:
            raise CannotLowerError(f"{_name(element)} skips white space: wrap the grammar in exact()")
        if element.parseAction:
            raise CannotLowerError(f"{_name(element)} has a parse action")
        name = element.resultsName
        if name and not _single(element):
            raise CannotLowerError(f"{_name(element)} is named {name}, but may give more than one value")
        if not name:
            if self.capture and _single(element):
                return f"({self._unnamed_text(element)})"
            return self._unnamed(element)
        if not self.named:
            return self._unnamed(element)
        group = f"{name}_{len(self.groups)}"
        self.groups[group] = name
        return f"(?P<{group}>{self._unnamed(element)})"

    def _unnamed(self, element: pp.ParserElement) -> str:
        try:
            translate = _TRANSLATIONS[type(element)]
        except KeyError:
            raise CannotLowerError(f"{_name(element)} cannot be lowered into a pattern") from None
        return translate(self, element)

    def _and(self, element: pp.And) -> str:
        return "".join(map(self.expression, element.exprs))

    def _match_first(self, element: pp.MatchFirst) -> str:
        return f"(?>{'|'.join(map(self._alternative, _alternatives(element)))})"

    def _alternative(self, element: pp.ParserElement) -> str:
        """One alternative. In a loop, if an earlier turn set a group, and an alternative sets it again and then fails,
        CPython's `re` does not restore it. So an alternative with groups is first tried without them."""
        before = len(self.groups)
        made = self.expression(element)
        if not self.loops or len(self.groups) == before:
            return made
        return f"(?={_Maker(named=False).expression(element)}){made}"

    def _combine(self, element: pp.Combine) -> str:
        if element.joinString:
            raise CannotLowerError(f"{_name(element)} puts text between its parts")
        return f"(?:{self._unnamed_text(element.expr)})"

    def _group(self, element: pp.Group) -> str:
        if not self.capture:
            raise CannotLowerError(f"{_name(element)} is a group outside a list")
        return self.expression(element.expr)

    def _opt(self, element: pp.Opt) -> str:
        if element.defaultValue is not _NO_DEFAULT:
            raise CannotLowerError(f"{_name(element)} has a default value")
        return f"(?>{self._alternative(element.expr)}|)"

    def _repeated(self, element: pp.ZeroOrMore | pp.OneOrMore) -> str:
        if element.not_ender is not None:
            raise CannotLowerError(f"{_name(element)} has a stop_on")
        self.loops += 1
        before = len(self.groups)
        made = self.expression(element.expr)
        self.loops -= 1
        if self.unrolled and not self.loops and len(self.groups) == before and type(element) is pp.ZeroOrMore:
            return f"(?>{made}(?>{made}(?>(?:{made})+|)|)|)"
        return f"(?:{made}){'*+' if type(element) is pp.ZeroOrMore else '++'}"

    def _unnamed_text(self, element: pp.ParserElement) -> str:
        """The pattern of an element that counts only as one whole text, or not at all."""
        inner = _Maker()
        made = inner.expression(element)
        if inner.groups:
            raise CannotLowerError(f"{_name(element)} has named values where only its text counts")
        return made

    def _regex(self, element: pp.Regex) -> str:
        """A regular expression in the grammar. Its named groups are values too, and get unique names here."""
        if element.flags:
            raise CannotLowerError(f"{_name(element)} has flags outside its pattern")
        pattern, own = str(element.pattern), f"own{len(self.groups)}"
        inner = re.compile(pattern).groupindex if "(?P<" in pattern else ()
        if inner and (self.loops or not self.named):
            raise CannotLowerError(f"{_name(element)} has named groups inside a loop")
        self.groups |= {f"{own}_{name}": name for name in inner}
        plain = _NAMED_GROUP.sub(lambda m: f"(?P<{own}_{m[1]}>" if m[1] else f"(?P={own}_{m[2]})", pattern)
        return _atomic(plain)


_PART = re.compile(
    r"(?:\\[^\W_bBAZ0-9]|\\\W|\[\^?(?:\\.|[^\]\\])+\]|[^\\\[\](){}|*+?.^$])"  # one character
    r"(?:(?P<choice>[*+?]|\{[0-9]*,[0-9]*\})|\{[0-9]+\})?(?P<kept>\+)?"  # how often
)
_TOKEN = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|.", re.DOTALL)
_OFTEN = re.compile(r"(?:[*+?]|\{[0-9,]+\})(?P<kept>\+)?")


@cache
def _atomic(pattern: str) -> str:
    """A pattern that `re` never backtracks into. It needs no group if it has no choice, or if the only choice is how
    far its last part goes: a group costs as much as matching a few characters."""
    place, choices = 0, list[bool]()
    while place < len(pattern):
        if (part := _PART.match(pattern, place)) is not None:
            place = part.end()
            choices.append(part["choice"] is not None and part["kept"] is None)
        elif (end := _end_of_group(pattern, place)) is not None:
            place = end
            choices.append(False)
        else:
            return f"(?>{pattern})"
    if any(choices[:-1]):
        return f"(?>{pattern})"
    return f"{pattern}+" if choices and choices[-1] else pattern


def _end_of_group(pattern: str, start: int) -> int | None:
    """Where a group ends that `re` never backtracks into; None if there is none."""
    depth, end = 0, start
    for token in _TOKEN.finditer(pattern, start):
        depth += (token[0] == "(") - (token[0] == ")")
        if not depth:
            end = token.end()
            break
    often = _OFTEN.match(pattern, end)
    if pattern.startswith(("(?=", "(?!", "(?<=", "(?<!", "(?>"), start) and often is None:
        return end
    is_kept = pattern.startswith(("(?:", "(?>"), start) and often is not None and often["kept"]
    return often.end() if often is not None and is_kept else None


def _alternatives(element: pp.MatchFirst) -> Iterator[pp.ParserElement]:
    """The alternatives of an element, with unnamed nested alternatives flattened."""
    for each in element.exprs:
        if type(each) is pp.MatchFirst and not each.resultsName:
            yield from _alternatives(each)
        else:
            yield each


_TRANSLATIONS: dict[type, Callable[[_Maker, Any], str]] = {
    pp.Regex: _Maker._regex,
    pp.Literal: lambda _, element: re.escape(element.match),
    type(pp.Literal("x")): lambda _, element: re.escape(element.match),  # pyparsing has a class for single characters
    pp.Word: lambda _, element: _atomic(element.reString),
    pp.StringEnd: lambda _, __: r"\Z",
    pp.And: _Maker._and,
    pp.MatchFirst: _Maker._match_first,
    pp.Suppress: lambda maker, element: maker._unnamed_text(element.expr),
    pp.Combine: _Maker._combine,
    pp.Group: _Maker._group,
    pp.FollowedBy: lambda maker, element: f"(?={maker.expression(element.expr)})",
    pp.NotAny: lambda maker, element: f"(?!{maker._unnamed_text(element.expr)})",
    pp.Opt: _Maker._opt,
    pp.ZeroOrMore: _Maker._repeated,
    pp.OneOrMore: _Maker._repeated,
}
"""How to translate each element into a pattern; all others are refused."""


def _single(element: pp.ParserElement) -> bool:
    """Whether an element gives exactly one value."""
    if isinstance(element, pp.MatchFirst):
        return all(_single(each) for each in element.exprs)
    return isinstance(element, _SINGLE)


def _name(element: pp.ParserElement) -> str:
    return f"{type(element).__name__} {str(element)[:80]!r}"
