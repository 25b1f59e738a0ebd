"""The meaning of colours and words, the same on all dashboards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bouncemeter.event import Kind
from bouncemeter.knowledge.codes import Explanation, catalogue
from bouncemeter.knowledge.reasons import reasons

__all__ = [
    "CODES",
    "DELIVERED",
    "HARD",
    "KINDS",
    "NEUTRAL",
    "NUMBERS",
    "OUTCOMES",
    "POLICY",
    "PROVIDERS",
    "REASONS",
    "REASON_NUMBERS",
    "SERVERS",
    "SEVERITIES",
    "SOFT",
    "WAITING",
    "categories",
    "colours",
    "meanings",
    "numbered",
    "reason_meanings",
    "reason_remedies",
    "remedies",
    "shades",
    "titles",
    "values",
]

DELIVERED, HARD, SOFT, POLICY, WAITING = "green", "red", "orange", "purple", "dark-yellow"
"""Colours of mail: delivered, refused for good, deferred, refused with 5.7, waiting."""

NEUTRAL = "blue"
"""The colour of numbers that are neither good nor bad."""


def values(**texts: tuple[str, str] | str) -> dict[str, Any]:
    """A mapping from values to texts, or to texts with colours."""
    options = {}
    for index, (value, text) in enumerate(texts.items()):
        shown = {"text": text} if isinstance(text, str) else {"text": text[0], "color": text[1]}
        options[value] = {"index": index, **shown}
    return {"type": "value", "options": options}


SEVERITIES = values(critical=("critical", "red"), warning=("warning", "orange"), none=("none", "text"))
"""Alert severities, with their colours."""

KINDS = values(soft=("soft", SOFT), hard=("hard", HARD), none=("none", "text"))
"""Kinds of bounces, with their colours."""


def colours(**names: str) -> list[dict[str, Any]]:
    """Overrides that give series their colours."""
    return [
        {
            "matcher": {"id": "byName", "options": name},
            "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}],
        }
        for name, colour in names.items()
    ]


OUTCOMES = colours(delivered=DELIVERED, hard=HARD, bounced=HARD, soft=SOFT, expired="dark-red") + colours(
    **{"hard 5.7": POLICY}
)
"""Colours of series named after outcomes and kinds."""


_CATEGORIES = (
    "#3D9BE9",
    "#12A5A5",
    "#D9659B",
    "#A57C52",
    "#7C8DB5",
    "#4FC3DC",
    "#C08BC9",
    "#8FA31E",
    "#5B6EE1",
    "#9C6B6B",
)
"""Colours without a meaning, to tell names apart."""


def categories(*names: str) -> list[dict[str, Any]]:
    """Colours for names. A name has the same colour on all dashboards."""
    return colours(**{name: _CATEGORIES[index % len(_CATEGORIES)] for index, name in enumerate(names)}) + _REST


_REST = colours(**{"all others": "gray", "none": "gray"})

PROVIDERS = categories(
    "google", "microsoft", "yahoo", "apple", "gmx", "proofpoint", "mimecast", "comcast", "ovh", "other"
)
REASONS = categories(*reasons())
"""The colours of providers and of reasons."""


def shades(colour: str, names: str = ".+") -> dict[str, Any]:
    """An override that gives shades of a colour to series whose names match a regular expression."""
    return {
        "matcher": {"id": "byRegexp", "options": f"/^{names}$/"},
        "properties": [{"id": "color", "value": {"mode": "shades", "fixedColor": colour}}],
    }


CODES = [shades(SOFT, r"4\..+"), shades(HARD, r"5\.[0-6].*"), shades(POLICY, r"5\.7.*"), *_REST]
"""Codes and classes, in the colour of their kind."""

SERVERS = [shades(NEUTRAL), *_REST]
"""Servers and sources, whose names have no meaning of their own."""


def _by_code(text: Callable[[Explanation], str]) -> dict[str, str]:
    found = {str(each.code): text(each) for each in catalogue()}
    for kind, digit in ((Kind.SOFT, 4), (Kind.HARD, 5)):
        for subject in range(8):
            found[f"{digit}.{subject}.x"] = f"A {kind} code of class {digit}.{subject} that nobody registered."
    return found


NUMBERS = {r"(\\d)\\.(\\d)\\.(\\d+)": "$1$2$3", r"(\\d)\\.(\\d)\\.x": "${1}${2}999", "none": "0"}
"""Patterns that turn the label `code` into a number that stands for a text. A Grafana table makes room
for several lines only if it knows the text, and it does not look up the text that a string stands for."""


def _by_number(text: Callable[[Explanation], str]) -> dict[str, Any]:
    found = {code.replace(".", "").replace("x", "999"): shown for code, shown in _by_code(text).items()}
    return values(**found, **{"0": "Nothing bounced in this time."})


def numbered(query: str, column: str) -> str:
    """A query whose label `code` has its number in another label (see `NUMBERS`)."""
    for pattern, number in NUMBERS.items():
        query = f'label_replace({query}, "{column}", "{number}", "code", "{pattern}")'
    return query


def titles() -> dict[str, Any]:
    """Titles of codes, by number (see `NUMBERS`)."""
    return _by_number(lambda each: each.title)


def meanings() -> dict[str, Any]:
    """Meanings of codes, by number."""
    return _by_number(lambda each: each.meaning)


def remedies() -> dict[str, Any]:
    """What to do about codes, by number."""
    return _by_number(lambda each: each.postmaster)


REASON_NUMBERS = {name: number for number, name in enumerate(["none", *reasons()])}
"""Numbers that stand for the texts of reasons, as `NUMBERS` do for those of codes."""


def reason_meanings() -> dict[str, Any]:
    """Meanings of reasons, by number (see `REASON_NUMBERS`)."""
    found = {str(REASON_NUMBERS[each.name]): each.meaning for each in reasons().values()}
    return values(**found, **{"0": "Nothing bounced in this time."})


def reason_remedies() -> dict[str, Any]:
    """What to do about reasons, by number."""
    return values(**{str(REASON_NUMBERS[each.name]): each.todo for each in reasons().values()}, **{"0": ""})
