"""Regular expressions mean the same in every Python."""

from __future__ import annotations

import re

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
    assert sound(r"(a(?:b)?+)*+c", needed=True) == r"(?>(a(?>(?:b)?))*)c"
