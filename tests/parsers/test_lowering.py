"""A lowered grammar matches the same lines as pyparsing, with the same values, in linear time."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pyparsing as pp
import pytest
from bouncemeter import exchange, exchange_export, exchange_protocol, exchange_tracking, exim, postfix
from bouncemeter.lowering import CannotLowerError, Lowered, LoweredList, lowered, lowered_block, lowered_list
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import LOGS
from tests.parsers.test_hostile_text import ADVERSARIAL, PIECE_TEXTS

MODULES = {"postfix": postfix, "exim": exim, "exchange": exchange}
WITH_GRAMMARS = {
    **MODULES,
    "exchange_tracking": exchange_tracking,
    "exchange_protocol": exchange_protocol,
    "exchange_export": exchange_export,
}


def members(module: ModuleType, kind: type) -> dict[str, Any]:
    return {name: each for name, each in vars(module).items() if isinstance(each, kind)}


GRAMMARS = [
    (f"{name}.{what}", each)
    for name, module in WITH_GRAMMARS.items()
    for what, each in members(module, Lowered).items()
]
LISTS = [
    (f"{name}.{what}", each)
    for name, module in WITH_GRAMMARS.items()
    for what, each in members(module, LoweredList).items()
]


def by_pyparsing(grammar: pp.ParserElement, line: str) -> dict[str, Any] | None:
    try:
        return grammar.parse_string(line).as_dict()
    except pp.ParseException:
        return None


def list_by_pyparsing(grammar: pp.ParserElement, line: str) -> list[Any]:
    try:
        return [tuple(each) if isinstance(each, list) else each for each in grammar.parse_string(line).as_list()]
    except pp.ParseException:
        return []


def check(grammar: Lowered, line: str) -> bool:
    """Compare with pyparsing, and return whether the grammar matched."""
    found = grammar.values(line)
    assert found == by_pyparsing(grammar.grammar, line), line
    assert grammar.matches(line) is (found is not None)
    return found is not None


def check_list(grammar: LoweredList, line: str) -> None:
    wanted = list_by_pyparsing(grammar.grammar, line)
    grouped = any(isinstance(each, pp.Group) for each in elements(grammar.grammar))
    # pyparsing finds no list at all if the first elements break off, so there is nothing to compare groups with.
    if wanted or not grouped:
        assert (grammar.groups(line) if grouped else grammar.items(line)) == wanted, line


def elements(element: pp.ParserElement) -> list[pp.ParserElement]:
    inner = getattr(element, "exprs", None) or [each for each in [getattr(element, "expr", None)] if each is not None]
    return [element, *(each for part in inner for each in elements(part))]


def lines(mta: str) -> list[str]:
    return [
        line
        for log in sorted(LOGS.glob(f"{mta}/*"))
        if log.suffix.lower() == ".log"
        for line in log.read_text("utf-8-sig").splitlines()
    ]


def parts(mta: str) -> list[str]:
    """Lines, and the parts of lines that grammars match: messages, replies, columns."""
    found = lines(mta)
    if mta == "exchange":
        return found + [column for line in found for column in exchange.row.items(line) if column]
    module = MODULES[mta]
    messages = [prefix["message"] for line in found if (prefix := module.any_line.values(line)) is not None]
    replies = [text for message in messages for text in re.findall(r"(?:said: |\(|: |C=\")([245]\d\d.*)", message)]
    texts = [named["text"] for line in messages if (named := module.queue_line.values(line)) and "text" in named]
    return list(dict.fromkeys([*found, *messages, *replies, *texts]))


PARTS = {mta: parts(mta) for mta in MODULES}


def everything_agrees(mta: str, line: str, *, chance: random.Random | None = None) -> int:
    """Compare every grammar of a parser on a line, or two random ones. Return how many matched."""
    grammars = [each for name, each in GRAMMARS if name.startswith(mta)]
    listed = [each for name, each in LISTS if name.startswith(mta)]
    if chance is not None:
        grammars, listed = chance.sample(grammars, 2), chance.sample(listed, min(1, len(listed)))
    for each in listed:
        check_list(each, line)
    return sum(check(grammar, line) for grammar in grammars)


@pytest.mark.parametrize("mta", MODULES)
def test_every_line_of_every_fixture_gives_what_pyparsing_gives(mta: str) -> None:
    matched = sum(everything_agrees(mta, line) for line in PARTS[mta])
    assert matched > len(lines(mta)) / 2


def mutated(line: str, others: list[str], chance: random.Random) -> str:
    """A randomly changed line: cut, doubled, joined with another, or with pieces of hostile text in it."""
    for _ in range(chance.randint(1, 4)):
        at, to = sorted((chance.randint(0, len(line)), chance.randint(0, len(line))))
        other = chance.choice(others)
        middle = chance.choice(
            [
                "",
                chance.choice(PIECE_TEXTS),
                chance.choice('\t\n ",:<>\\\0é\u2028'),
                other[chance.randint(0, len(other)) :],
            ]
        )
        rest = chance.choice([at, at, min(len(line), at + chance.randint(0, 3)), to])
        line = (line[:at] + middle + line[rest:])[:3000]
    return line


@pytest.mark.slow
@pytest.mark.parametrize("mta", MODULES)
@settings(max_examples=350, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**64))
def test_a_hundred_thousand_mutated_lines_give_what_pyparsing_gives(mta: str, seed: int) -> None:
    """350 times 100 lines for each of the three parsers."""
    chance = random.Random(seed)
    for _ in range(100):
        everything_agrees(mta, mutated(chance.choice(PARTS[mta]), PARTS[mta], chance), chance=chance)


def generated(element: pp.ParserElement) -> st.SearchStrategy[str]:
    """Texts that a grammar may match, joined from texts that each element matches by itself."""
    parts_of = getattr(element, "exprs", [])
    match element:
        case pp.Regex() | pp.Word():
            found = _of_pattern(str(element.pattern if isinstance(element, pp.Regex) else element.reString))
        case pp.Literal():
            found = st.just(element.match)
        case pp.And():
            found = st.tuples(*map(generated, parts_of)).map("".join)
        case pp.MatchFirst():
            found = st.one_of(*map(generated, parts_of))
        case pp.ZeroOrMore() | pp.OneOrMore():
            found = st.lists(generated(element.expr), max_size=3).map("".join)
        case pp.Opt():
            found = st.just("") | generated(element.expr)
        case pp.Suppress() | pp.Combine() | pp.Group():
            found = generated(element.expr)
        case _:
            found = st.just("")
    return found


def _of_pattern(pattern: str) -> st.SearchStrategy[str]:
    # Hypothesis does not know possessive quantifiers; without them, a nested loop would take for ever.
    plain = re.sub(r"(?<!\\)([*+?}])\+", r"\1", pattern.replace("]++|", "]|"))
    plain = re.sub(r"\(\?[=!<][^()]*\)", "", plain)
    try:
        strategy = st.from_regex(plain, fullmatch=True, alphabet=st.characters(codec="latin-1"))
        strategy.validate()
    except (re.error, NotImplementedError):
        return st.text(max_size=10)
    return strategy


@pytest.mark.slow
@pytest.mark.parametrize("grammar", [each for _, each in GRAMMARS], ids=[name for name, _ in GRAMMARS])
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_lines_made_from_the_grammar_give_what_pyparsing_gives(grammar: Lowered, data: st.DataObject) -> None:
    check(grammar, data.draw(generated(grammar.grammar)))


@pytest.mark.parametrize("line", ADVERSARIAL, ids=range(len(ADVERSARIAL)))
def test_a_line_of_a_megabyte_takes_linear_time(line: str) -> None:
    """A line fifteen times as long takes fifteen times the time; with a quadratic pattern, 200 times."""
    long = line + line[len(line) // 2 :] * 28
    assert len(long) > 800_000

    def seconds(text: str) -> float:
        start = time.process_time()
        for _, grammar in GRAMMARS:
            grammar.values(text)
        for _, each in LISTS:
            each.items(text) if each is not exchange_tracking.status else each.groups(text)
        return time.process_time() - start

    assert seconds(long) < max(60 * seconds(line), 4.0)


@pytest.mark.parametrize("line", ADVERSARIAL, ids=range(len(ADVERSARIAL)))
def test_a_block_of_a_megabyte_takes_linear_time(line: str) -> None:
    def seconds(text: str) -> float:
        start = time.process_time()
        for module in (postfix, exim):
            for start in range(len(module.usual_lines.starts)):
                module.usual_lines.rows(text, start)
        return time.process_time() - start

    short = f"\n{line}"
    seconds(short)  # the pattern is compiled once
    bound = max(80 * seconds(short), 4.0)
    assert seconds(short + line[len(line) // 2 :] * 28) < bound
    assert seconds(short * 28) < bound


def test_no_part_of_a_block_pattern_matches_a_line_feed() -> None:
    """All texts of a row come from one line, whatever the next line is."""
    for module in (postfix, exim):
        for log in sorted(LOGS.glob(f"{module.PARSER.name}/*.log")):
            text = "\n" + log.read_text("utf-8").rstrip("\n")
            for cut in range(7):  # break lines off at different places
                broken = "\n".join(f"{part[: len(part) * cut // 7]}\n{part}" for part in text.split("\n"))
                for start in range(len(module.usual_lines.starts)):
                    assert not any(
                        "\n" in each for row in module.usual_lines.rows(f"\n{broken}", start) for each in row
                    )


def test_all_grammars_are_lowered() -> None:
    """The modules match only by lowered grammars, not by patterns of their own."""
    assert {name for name, _ in GRAMMARS} >= {"postfix.queue_line", "exim.queue_line", "exchange_protocol.command"}
    for module in WITH_GRAMMARS.values():
        assert "re" not in vars(module)


X = pp.Regex("x")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: pp.CaselessLiteral("x"), "CaselessLiteral .* cannot be lowered"),
        (lambda: pp.SkipTo("x"), "SkipTo .* cannot be lowered"),
        (lambda: X.copy().set_parse_action(lambda: None), "Regex .* has a parse action"),
        (lambda: (X + X)("both"), "is named both, but may give more than one value"),
        (lambda: pp.Opt(X, default="y"), "has a default value"),
        (lambda: pp.ZeroOrMore(X, stop_on="y"), "has a stop_on"),
        (lambda: pp.Combine(X + X, join_string="-", adjacent=False), "puts text between its parts"),
        (lambda: pp.Suppress(X("x")), "has named values where only its text counts"),
        (lambda: pp.Group(X), "is a group outside a list"),
        (lambda: pp.Regex("x", re.IGNORECASE), "has flags outside its pattern"),
    ],
)
def test_a_grammar_that_cannot_be_lowered_is_refused(make: Callable[[], pp.ParserElement], sentence: str) -> None:
    with pytest.raises(CannotLowerError, match=sentence):
        lowered(make())


def test_a_name_may_not_occur_twice_in_a_block() -> None:
    with pytest.raises(CannotLowerError, match="a name occurs twice"):
        lowered_block(starts=[X("x")], forms=X("y") + "-" + X("y"), candidates=X)


def test_all_starts_of_a_block_s_lines_have_the_same_names() -> None:
    with pytest.raises(CannotLowerError, match="have different names"):
        lowered_block(starts=[X("x"), X("y")], forms=X("z"), candidates=X)


def test_a_list_must_end_in_a_repetition() -> None:
    with pytest.raises(CannotLowerError, match="a list must end in ZeroOrMore, not in Regex"):
        lowered_list(X + X)


def test_a_lowered_grammar_does_not_backtrack_into_what_matched() -> None:
    for grammar, line in (
        (pp.Opt(pp.Literal("ab")("x")) + "abc", "abc"),
        ((pp.Literal("a") | "ab")("x") + "c", "abc"),
        (pp.ZeroOrMore(pp.Regex("a")) + "ab", "aab"),
        (pp.Regex("a*")("x") + "ab", "aab"),
        (~pp.Literal("b") + pp.Regex(".")("x") + pp.OneOrMore(pp.Literal("b")), "abb"),
    ):
        made = lowered(grammar)
        assert made.values(line) == by_pyparsing(made.grammar, line)
