"""The catalogue of codes is complete and closed, and explains every code."""

from __future__ import annotations

from collections import Counter

import pytest
from bouncemeter.event import EnhancedCode, Event, Kind, Outcome, undefined_code
from bouncemeter.knowledge.codes import catalogue, explain, label, reply_meaning
from bouncemeter.knowledge.providers import provider_of, providers
from bouncemeter.knowledge.reasons import reason_of, reasons
from hypothesis import given
from hypothesis import strategies as st

# The IANA registry "Simple Mail Transfer Protocol (SMTP) Enhanced Status Codes": details by subject.
REGISTRY = {0: [0], 1: range(11), 2: range(5), 3: range(7), 4: range(8), 5: range(7), 6: range(11), 7: range(31)}


def test_the_whole_registry_is_explained_in_both_kinds() -> None:
    listed = {(subject, detail) for subject, details in REGISTRY.items() for detail in details}
    for kind, digit in ((Kind.SOFT, 4), (Kind.HARD, 5)):
        assert {row.code[1:] for row in catalogue() if row.kind is kind} == listed
        assert all(row.code.digit == digit for row in catalogue() if row.kind is kind)


def test_the_guide_has_41_soft_and_48_hard_codes() -> None:
    assert Counter(row.kind for row in catalogue() if row.in_guide) == {Kind.SOFT: 41, Kind.HARD: 48}


@pytest.mark.parametrize("row", catalogue(), ids=lambda row: str(row.code))
def test_every_explanation_is_complete(row: object) -> None:
    from bouncemeter.knowledge.codes import Explanation

    assert isinstance(row, Explanation)
    for text in (row.meaning, row.postmaster, row.sender, *row.causes):
        assert len(text) > 10
        assert text == text.strip()
    assert all(text.endswith(".") for text in (row.meaning, row.postmaster, row.sender))
    assert row.title
    assert row.causes
    assert row.reference.startswith(("RFC ", "IANA"))
    assert row.reason in reasons()


def test_the_guide_explains_soft_and_hard_codes_differently() -> None:
    for row in catalogue():
        if row.in_guide and row.code.digit == 5:
            assert row.meaning != explain(EnhancedCode(4, *row.code[1:])).meaning


def test_a_second_reading_of_a_code_is_noted_beside_the_registrys() -> None:
    assert "full" in (explain(EnhancedCode(5, 2, 1)).other_reading or "")
    assert "disabled" not in (explain(EnhancedCode(5, 2, 1)).other_reading or "")
    assert explain(EnhancedCode(5, 1, 1)).other_reading is None


def test_a_code_outside_the_registry_is_explained_by_its_class() -> None:
    found = explain(EnhancedCode(5, 7, 515))
    assert not found.registered
    assert found.meaning.startswith("Security or policy")


@given(st.integers(0, 999), st.integers(0, 999), st.sampled_from([2, 4, 5]))
def test_labels_come_from_a_closed_set(subject: int, detail: int, digit: int) -> None:
    code_class, code = label(EnhancedCode(digit, subject, detail))
    classes = {f"{digit}.{subject}" for subject in range(8)} | {f"{digit}.x"}
    assert code_class in classes
    known = {str(row.code) for row in catalogue()} | {f"2.{row.code.subject}.{row.code.detail}" for row in catalogue()}
    assert code in known | {f"{each}.x" for each in classes}


def test_labels_keep_registered_codes() -> None:
    assert label(EnhancedCode(5, 7, 26)) == ("5.7", "5.7.26")
    assert label(EnhancedCode(5, 7, 999)) == ("5.7", "5.7.x")
    assert label(EnhancedCode(5, 99, 1)) == ("5.x", "5.x.x")


@pytest.mark.parametrize("text", ["5.7", "6.1.1", "5.7.1.2", "5.7.1234", "5.7.\u0661", "", "5.7.1 "])
def test_text_that_is_not_a_code_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an enhanced status code"):
        EnhancedCode.parse(text)


def test_a_reply_without_an_enhanced_code_gets_the_undefined_code_of_its_kind() -> None:
    assert str(undefined_code(Outcome.BOUNCED, 550)) == "5.0.0"
    assert str(undefined_code(Outcome.DEFERRED, 421)) == "4.0.0"
    assert str(undefined_code(Outcome.DEFERRED, None)) == "4.0.0"
    assert str(undefined_code(Outcome.EXPIRED, None)) == "4.4.7"


def test_reply_codes_have_a_meaning() -> None:
    assert "unavailable" in (reply_meaning(550) or "")
    assert reply_meaning(299) is None


@pytest.mark.parametrize(
    ("relay", "recipient", "provider"),
    [
        ("gmail-smtp-in.l.google.com[192.0.2.1]:25", "a@own.example", "google"),
        ("mx.example.com [192.0.2.1]", "a@gmail.com", "google"),
        ("own-example.mail.protection.outlook.com[192.0.2.1]:25", None, "microsoft"),
        ("notgoogle.com[192.0.2.1]:25", "a@x.example", "other"),
        ("none", "a@T-Online.de", "tonline"),
        (None, None, "other"),
        (None, "gmail.com", "other"),  # a mailbox of this host
        ("x" * 5000 + ".google.com", "a@" + "x." * 5000 + "gmail.com", "other"),
    ],
)
def test_the_provider_comes_from_the_relay_then_from_the_domain(
    relay: str | None, recipient: str | None, provider: str
) -> None:
    assert provider_of(relay, recipient) == provider
    assert provider in providers()


def test_a_reason_follows_from_the_code() -> None:
    bounced = Event(mta="postfix", outcome=Outcome.BOUNCED, code=EnhancedCode(5, 1, 1))
    assert reason_of(bounced) == "user_unknown"
    assert reason_of(Event(mta="postfix", outcome=Outcome.EXPIRED, code=EnhancedCode(4, 2, 2))) == "expired"
    assert reason_of(Event(mta="postfix", outcome=Outcome.DELIVERED, code=EnhancedCode(2, 0, 0))) is None
