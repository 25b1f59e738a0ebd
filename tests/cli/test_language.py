"""`explain` and `codes` in Swedish, as a user or the environment asks for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bouncemeter_exporter.cli.options import language_of

from tests.conftest import LOGS, Run

SWEDISH, ENGLISH = "Brevlådan är full", "Mailbox full"
REPLY = "550 5.7.606 Access denied, banned sending IP [192.0.2.1]. To request removal visit sender.office.com"
NO_LOCALE = {"LC_ALL": "", "LC_MESSAGES": "", "LANG": ""}


def run(*words: object, stdin: str = "", encoding: str = "utf-8", **environment: str) -> str:
    """What a command prints in an environment that says nothing else of languages."""
    done = subprocess.run(
        [sys.executable, "-m", "bouncemeter_exporter", *map(str, words)],
        input=stdin.encode(),
        capture_output=True,
        env={**os.environ, **NO_LOCALE, **environment},
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode(encoding)


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ("", "en"),
        ("LANG=sv", "sv"),
        ("LANG=sv_SE.UTF-8", "sv"),
        ("LANG=sv_FI", "sv"),
        ("LANG=sv_SE@euro", "sv"),
        ("LANG=sv.UTF-8", "sv"),
        ("LANG=sw_KE.UTF-8", "en"),
        ("LANG=svx", "en"),
        ("LANG=C", "en"),
        ("LANG=POSIX", "en"),
        ("LANG=de_SE.UTF-8", "en"),
        ("LC_ALL=C LANG=sv_SE.UTF-8", "en"),
        ("LC_ALL= LANG=sv_SE.UTF-8", "sv"),
        ("LC_ALL= LC_MESSAGES= LANG=sv_SE.UTF-8", "sv"),
        ("LC_MESSAGES=en_GB.UTF-8 LANG=sv_SE.UTF-8", "en"),
        ("LC_MESSAGES=sv_SE.UTF-8 LANG=en_GB.UTF-8", "sv"),
        ("LC_ALL=sv_SE.UTF-8 LC_MESSAGES=C LANG=C", "sv"),
        ("LC_ALL=en_GB.UTF-8 LC_MESSAGES=sv_SE.UTF-8 LANG=sv_SE.UTF-8", "en"),
        ("LC_CTYPE=sv_SE.UTF-8 LANGUAGE=sv", "en"),
    ],
)
def test_the_first_variable_that_is_set_decides(environment: str, language: str) -> None:
    assert language_of(dict(each.split("=") for each in environment.split())) == language


@pytest.mark.parametrize("command", [("explain", "5.2.2"), ("codes",)])
def test_the_option_comes_before_the_environment(command: tuple[str, ...]) -> None:
    assert ENGLISH in run(*command)
    assert SWEDISH in run(*command, LANG="sv_SE.UTF-8")
    assert SWEDISH in run(*command, "--language", "sv")
    assert ENGLISH in run(*command, "--language", "en", LC_ALL="sv_SE.UTF-8")


@pytest.mark.parametrize("command", [("explain", "5.2.2"), ("codes",)])
def test_another_language_is_a_usage_error_that_names_both(bouncemeter: Run, command: tuple[str, ...]) -> None:
    done = bouncemeter(*command, "--language", "de", check=False)
    assert done.returncode == 2
    assert "'en', 'sv'" in done.stderr


def test_a_code_is_explained_in_swedish(bouncemeter: Run) -> None:
    printed = bouncemeter("explain", "5.7.1", "--language", "sv").stdout
    for words in (
        "5.7.1  Leveransen tillåts inte, meddelandet avvisat\nhård: ett permanent fel\n",
        "Skäl: policy. Avvisat av en lokal regel som inte säger mer.",
        *("Troliga orsaker", "Vad postmaster gör", "Vad avsändaren gör"),
        "Källa: RFC 3463. En av guidens 89 studskoder.",
    ):
        assert words in printed


def test_a_reply_a_class_and_a_line_are_explained_in_swedish(bouncemeter: Run) -> None:
    printed = bouncemeter("explain", REPLY, "--language", "sv").stdout
    for words in (
        "Svarskoden 550 betyder: Brevlådan är inte tillgänglig",
        *("Skäl ", "blocklisted: Vår adress", "Framgår av ", "leverantörens kod", "Leverantör ", "microsoft"),
        *("Leverantören menar  Din adress är bannlyst", "Att göra ", "Dokumenterat i ", "Exchange Online, Email"),
    ):
        assert words in printed
    theirs = bouncemeter("explain", "5.7.606", "--language", "sv").stdout
    assert "Från            microsoft\nBetydelse       Din adress är bannlyst" in theirs
    assert bouncemeter("explain", "4.7", "--language", "sv").stdout.startswith(
        "4.7.x  31 registrerade koder\nmjuk: ett tillfälligt fel, nya försök görs\n\nSäkerhet eller policy:"
    )
    log = (LOGS / "postfix" / "relay.log").read_text().splitlines()
    line = next(each for each in log if "status=bounced" in each)
    printed = bouncemeter("explain", line, "--language", "sv").stdout
    assert printed.startswith("utfall      studsat\nmottagare   unknown-1@dest.test\nkö-ID ")
    assert "5.1.1  Mottagarens brevlåda finns inte" in printed
    assert "lyckat" in bouncemeter("explain", "2.1.5", "--language", "sv").stdout


def test_no_fixed_word_stays_english_in_any_kind_of_output(bouncemeter: Run) -> None:
    english = {"Likely", "Reason", "Meaning", "What", "Found", "Documented", "Reference", "outcome", "kind", "yes"}
    log = (LOGS / "postfix" / "relay.log").read_text().splitlines()
    deferred = next(each for each in log if "status=deferred" in each)
    for words in (["explain", "5.7.606"], ["explain", "550 5.1.1 no"], ["explain", deferred], ["codes"]):
        assert english & set(bouncemeter(*words, "--language", "sv").stdout.split()) == set(), words


TEXTS = {"title", "meaning", "causes", "remedy", "other_reading", "reason_meaning", "provider_meaning", "todo"}
"""The keys of texts in JSON."""


def _is_translated(english: Any, swedish: Any, key: str = "") -> bool:
    """Whether nothing but texts differs, and every text does."""
    if key in TEXTS:
        return bool(english != swedish or english is swedish is None)
    if isinstance(english, dict):
        return list(english) == list(swedish) and all(
            _is_translated(english[name], swedish[name], name) for name in english
        )
    if isinstance(english, list):
        return all(_is_translated(*pair) for pair in zip(english, swedish, strict=True))
    return bool(english == swedish)


@pytest.mark.parametrize(
    "words", [["codes"], ["explain", "5.7.606"], ["explain", "4.7"], ["explain", "5.2.1"], ["explain", REPLY]]
)
def test_json_differs_in_texts_alone(bouncemeter: Run, words: list[str]) -> None:
    english, swedish = (
        json.loads(bouncemeter(*words, "--format", "json", "--language", each).stdout) for each in ("en", "sv")
    )
    assert _is_translated(english, swedish)


@pytest.mark.parametrize("environment", ["LANG=C", "LC_ALL=C", "LC_ALL=POSIX"])
def test_letters_are_printed_without_a_locale(environment: str) -> None:
    name, value = environment.split("=")
    assert run("explain", "5.2.2", "--language", "sv", **{name: value}).startswith(f"5.2.2  {SWEDISH}\n")


@pytest.mark.parametrize(
    ("encoding", "title"), [("ascii", "Brevl?dan ?r full"), ("latin-1", SWEDISH), ("utf-8", SWEDISH)]
)
def test_letters_that_an_encoding_lacks_are_replaced(encoding: str, title: str) -> None:
    words = ("--language", "sv")
    printed = run("explain", "5.2.2", *words, encoding=encoding, PYTHONIOENCODING=encoding)
    assert printed.startswith(f"5.2.2  {title}\n")
    assert title in run("codes", *words, encoding=encoding, PYTHONIOENCODING=encoding)
    found = run("explain", "5.2.2", "--format", "json", *words, encoding=encoding, PYTHONIOENCODING=encoding)
    assert json.loads(found)["title"] == SWEDISH


def test_all_other_commands_are_in_english_everywhere() -> None:
    log = LOGS / "postfix" / "relay.log"
    for words in (["report", log], ["report", "--format", "json", log], ["trace", "CAFE721229B", log], ["parse", log]):
        assert run(*words, LANG="sv_SE.UTF-8") == run(*words)


@pytest.mark.parametrize("command", ["explain", "codes"])
def test_a_shell_completes_both_languages(command: str) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("bouncemeter")],
        env={
            **os.environ,
            "_BOUNCEMETER_COMPLETE": "complete_bash",
            "COMP_WORDS": f"bouncemeter {command} --language ",
            "COMP_CWORD": "3",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["en", "sv"]
