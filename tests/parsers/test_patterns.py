"""Regular expressions mean the same in every Python."""

from __future__ import annotations

import re
from itertools import chain, product

import pytest
from bouncemeter.patterns import compiled, sound


@pytest.mark.parametrize(
    ("pattern", "text", "value"),
    [
        (r"(?:ab)*+(?P<x>a.*)", "ababac", "ac"),
        (r"(?:b|a(?!x))*+(?P<x>ax)", "abax", "ax"),
        (r'(?:[^"\n]++|"(?!x))*+(?P<x>"x)', 'aa"b"x', '"x'),
        (r"(?:\.[0-9]+)?+(?P<x>\.x)", ".x", ".x"),
        (r"(?:(?:\.[0-9]){2}){1,3}+(?P<x>\.1)", ".1.2.1", ".1"),
        (r"[)(]\)?(?:\)a|[])]b)++(?P<x>\)c)", "())b)b)c", ")c"),
    ],
)
def test_a_possessive_group_that_fails_halfway_gives_back_what_it_took(pattern: str, text: str, value: str) -> None:
    for each in (compiled(pattern), re.compile(sound(pattern, needed=True))):
        found = each.fullmatch(text)
        assert found is not None
        assert found["x"] == value


def test_what_is_no_possessive_group_stays_as_it_is() -> None:
    for pattern in (r"(?P<a>x)+(?:y)*z++[^)]*+\)*+", r"[)*+]++(\(a\))?", r"(?>(?:ab)*)"):
        assert sound(pattern, needed=True) == pattern
    assert sound(r"(a(?:b)*+)*+c", needed=True) == r"(?>(a(?>(?:b)*))*)c"


def test_what_re_would_make_a_loop_of_has_a_faster_form() -> None:
    assert sound(r"(?:a|b)?c(?:d)?+(?:e)??(f)?(?>g)?", needed=False) == r"(?:a|b|)c(?>d|)(?:e)??(f)?(?>g)?"
    assert sound(r"[a{2}]{3}b{2}?\{4}c{5}+(?:d){2}", needed=False) == r"[a{2}]{3}+b{2}?\{4}c{5}+(?:d){2}"


@pytest.mark.parametrize("pattern", [r"(?:a|b)?", r"(?:a|b)?+a", r"((?:ab?)?b)?+(?P<x>a)?", r"(?:(?:a)?+b)*c?"])
def test_the_faster_form_means_the_same(pattern: str) -> None:
    plain = re.compile(sound(pattern.replace("?+", "?"), needed=False)), re.compile(pattern.replace("?+", "?"))
    kept = compiled(pattern), re.compile(re.sub(r"\((?:\?:)?[^()]*\)\?\+", r"(?>\g<0>)", pattern).replace("?+", "?"))
    for text in map("".join, chain.from_iterable(product("abc", repeat=length) for length in range(6))):
        for new, old in (plain, kept):
            assert [m and m.span() for m in (new.match(text), new.fullmatch(text))] == [
                m and m.span() for m in (old.match(text), old.fullmatch(text))
            ]
