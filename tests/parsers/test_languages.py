"""The texts in Swedish: as many as in English, with what must not be translated in them."""

from __future__ import annotations

import re
import string
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from typing import Any

from bouncemeter.event import EnhancedCode
from bouncemeter.knowledge.codes import catalogue, explain, explain_class, reply_meaning
from bouncemeter.knowledge.languages import Language, texts
from bouncemeter.knowledge.reasons import find_reason, reasons, todo, translated
from bouncemeter.tables import table
from bouncemeter_exporter.reporting.words import words_in

NO_TEXTS = {
    "address",
    "suffix",
    "reason",
    "reference",
    "guide",
    "kind",
    "provider",
    "codes",
    "words",
    "vague",
    "general",
    "source",
}
"""What the rows of the English tables have besides texts."""


def _texts(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in NO_TEXTS}


def _english() -> dict[str, Any]:
    """The English texts, by the keys of the Swedish tables."""
    codes = table("knowledge/codes")
    provider_codes: dict[str, dict[str, Any]] = {}
    for row in table("knowledge/provider_codes")["codes"]:
        name = next(chain(row.get("codes", ()), row.get("words", ())))
        named = provider_codes.setdefault(row["provider"], {})
        assert name not in named, f"two rows of {row['provider']} begin with {name}"
        named[name] = _texts(row)
    return {
        "codes": {**codes, "codes": {row["suffix"]: _texts(row) for row in codes["codes"]}},
        "reasons": {"reasons": {name: _texts(row) for name, row in table("knowledge/reasons")["reasons"].items()}},
        "provider_codes": provider_codes,
        "words": words_in(Language.EN),
    }


def _flat(tree: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every text of nested tables and lists, with the path to it."""
    if isinstance(tree, str):
        yield path, tree
        return
    for name, each in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield from _flat(each, f"{path}/{name}")


def _swedish() -> dict[str, Any]:
    found: dict[str, Any] = {name: texts(name, Language.SV) for name in ("codes", "reasons", "provider_codes")}
    return {**found, "words": words_in(Language.SV)}


ENGLISH, SWEDISH = dict(_flat(_english())), dict(_flat(_swedish()))


def test_no_text_is_missing_in_swedish_and_none_is_left_over() -> None:
    assert sorted(SWEDISH.keys() ^ ENGLISH.keys()) == []
    assert len(ENGLISH) > 700


def test_every_text_is_a_translation() -> None:
    for path, text in SWEDISH.items():
        assert text.strip() == text != "", path
        assert text != ENGLISH[path], path


def test_a_text_ends_in_a_stop_where_the_english_one_does() -> None:
    assert [path for path, text in SWEDISH.items() if text.endswith(".") is not ENGLISH[path].endswith(".")] == []


NAMES = (
    "Gmail|(?<!Authentication )Exchange|Exchange Online|Outlook|Postfix|Exim|Microsoft|Spamhaus|Cloudmark|Cox|Zoho"
    "|T-Online|iCloud|Kerberos|Invaluement|SenderScore|Return Path|Postmaster Tools|Received|Authentication-Results"
    "|Require-Recipient-Valid-Since|OAuth|IPv6|quoted-printable|base64"
)
UNTRANSLATED = re.compile(
    r"`[^`]+`"  # a command
    r"|[\w.-]+@[\w.]+|\b(?:[\w-]+\.)+(?:com|de)\b"  # an address, a domain
    r"|\b[X0-9]+(?:\.[0-9]+)*\b"  # a code, a number
    r"|\b[A-Z]*[a-z]*[A-Z][A-Z0-9]+\b"  # an abbreviation
    r"|\b[a-z]+(?:_[a-z]+)+\b"  # a setting
    rf"|\b(?:{NAMES})\b"
)
"""Codes, numbers, commands, settings and names."""


def test_codes_and_names_are_the_same_in_both_languages() -> None:
    for path, english in ENGLISH.items():
        swedish = SWEDISH[path]
        assert [each for each in UNTRANSLATED.findall(english) if each not in swedish] == [], path
        assert [each for each in UNTRANSLATED.findall(swedish) if each not in english] == [], path


def test_fields_of_a_text_are_those_of_the_english_one() -> None:
    def fields(text: str) -> set[str | None]:
        return {field for _, field, _, _ in string.Formatter().parse(text)} - {None}

    assert all(fields(text) == fields(ENGLISH[path]) for path, text in SWEDISH.items())


def test_an_explanation_differs_in_its_texts_alone() -> None:
    for english, swedish in zip(catalogue(), catalogue(Language.SV), strict=True):
        for name in ("code", "kind", "reason", "reference", "registered", "in_guide"):
            assert getattr(swedish, name) == getattr(english, name)
        for name in ("title", "meaning", "causes", "postmaster", "sender", "remedy"):
            assert getattr(swedish, name) != getattr(english, name)
        assert (swedish.other_reading is None) is (english.other_reading is None)


def test_codes_classes_replies_and_reasons_are_explained_in_swedish() -> None:
    assert explain(EnhancedCode(5, 2, 2), Language.SV).title == "Brevlådan är full"
    assert explain(EnhancedCode(2, 1, 5), Language.SV).meaning.endswith("Här betyder den att allt gick bra.")
    unknown = explain(EnhancedCode(4, 7, 999), Language.SV)
    assert unknown.meaning.startswith("Säkerhet eller policy:")
    assert unknown.meaning.endswith("försöker igen. Det sista talet är den andra serverns eget.")
    assert explain(EnhancedCode(5, 99, 1), Language.SV).meaning.startswith("Ett område")
    assert explain_class(5, 2, Language.SV).codes[2].title == "Brevlådan är full"
    assert reply_meaning(552, Language.SV) == "Över lagringsgränsen"
    assert reply_meaning(299, Language.SV) is None
    assert reasons(Language.SV)["loop"].kind == reasons()["loop"].kind
    assert reasons(Language.SV)["loop"].meaning == "Mejlet gick i en rundgång."


def test_what_a_provider_means_is_said_in_swedish() -> None:
    found = find_reason(EnhancedCode(5, 7, 606), 550, "550 5.7.606 Access denied, banned sending IP", "microsoft")
    assert found.provider_code is not None
    swedish = translated(found.provider_code, Language.SV)
    assert swedish.meaning == "Din adress är bannlyst, av Microsoft eller av mottagarens organisation."
    assert (swedish.name, swedish.source) == (found.provider_code.name, found.provider_code.source)
    assert translated(found.provider_code, Language.EN) is found.provider_code
    plain = find_reason(EnhancedCode(5, 2, 2), 552, "552 5.2.2 Mailbox full")
    assert todo(plain, Language.SV) == reasons(Language.SV)["mailbox_full"].todo


def test_the_swedish_tables_are_read_only_when_they_are_asked_for() -> None:
    program = """
import pathlib, sys
opened = []
sys.addaudithook(lambda name, values: opened.append(str(values[0])) if name == "open" else None)
from bouncemeter.knowledge.languages import Language
from bouncemeter_exporter.reporting.explain import understand
understand("550 5.7.606 Access denied, banned sending IP").as_json()
def swedish():
    return [each for each in opened if "words_sv" in each or pathlib.Path(each).parent.name == "sv"]
assert any(each.endswith("codes.toml") for each in opened)
assert not swedish(), swedish()
understand("550 5.7.606 Access denied, banned sending IP", Language.SV)
assert swedish()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)
