"""Reasons and providers: real replies get the reason that a postmaster would give."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from bouncemeter.event import EnhancedCode, Event, Outcome
from bouncemeter.grammar import code_of, exact, reply, values
from bouncemeter.knowledge import providers as providers_module
from bouncemeter.knowledge.blocklists import blocklists, blocklists_of
from bouncemeter.knowledge.phrases import MAX_TEXT, Phrases, ReplyText
from bouncemeter.knowledge.providers import MAX_OWN, add_providers, provider_of, providers
from bouncemeter.knowledge.reasons import Finding, find_reason, reason_of, reasons, words_alone
from bouncemeter.plugin import UnparsedLineError, parser
from bouncemeter.tables import table
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import LOGS, ROOT, Run
from tests.parsers.test_hostile_text import HOSTILE
from tests.servers.exporter import Exporter

REPLIES = [
    tuple(line.split("\t")) for line in (ROOT / "tests" / "replies" / "known.tsv").read_text().splitlines() if line
]
REPLY = exact(reply)


def find(provider: str, text: str, before: str = "", after: str = "") -> Finding:
    """The finding for a reply as it stands in a log, with our own server's words around it."""
    # Text that is no reply is a deferral.
    code, digits = code_of(values(REPLY, text) or {}, Outcome.DEFERRED)
    return find_reason(code, digits, f"{before}{text}{after}", provider)


def test_real_replies_have_the_reason_that_a_postmaster_would_give() -> None:
    wrong = [row for row in REPLIES if find(row[0], row[1]).reason != row[2]]
    assert len(REPLIES) >= 300
    assert wrong == []
    assert {row[2] for row in REPLIES} | {"other"} == set(reasons())


@pytest.mark.parametrize(
    "before", ["host mx.test[192.0.2.1] said: ", "host mx.test[192.0.2.1] refused to talk to me: "]
)
def test_our_own_servers_words_around_a_reply_do_not_change_the_reason(before: str) -> None:
    for provider, text, reason in REPLIES:
        if text[:3].isdigit():
            assert find(provider, text, before, " (in reply to RCPT TO command)").reason == reason


def test_there_are_at_most_29_reasons_and_each_is_explained() -> None:
    assert len(reasons()) <= 29
    for reason in reasons().values():
        assert len(reason.meaning) > 10
        assert len(reason.todo) > 10
        assert reason.kind in ("soft", "hard", "either")


def test_every_row_of_the_tables_has_its_reason_provider_and_source() -> None:
    for row in table("knowledge/phrases")["phrases"]:
        assert row["reason"] in reasons()
        assert row["source"]
        assert all(text == text.lower().strip() and len(text) > 2 for text in row["texts"])
    texts = Counter(text for row in table("knowledge/phrases")["phrases"] for text in row["texts"])
    assert [text for text, number in texts.items() if number > 1] == []
    for row in table("knowledge/provider_codes")["codes"]:
        assert row["reason"] in reasons()
        assert row["provider"] in providers()
        assert row["source"]
        assert row["meaning"].endswith(".")


@pytest.mark.parametrize(
    ("provider", "text", "basis"),
    [
        ("yahoo", "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred", "provider code"),
        ("microsoft", "550 5.7.620 Access denied", "provider code"),
        ("other", "550 5.1.1 blocked using zen.spamhaus.org", "enhanced code"),
        ("google", "550 5.7.1 likely unsolicited mail", "text"),
        ("google", "550 5.7.1 xyzzy", "provider code"),
        ("other", "550 5.7.1 xyzzy", "enhanced code"),
        ("other", "552 xyzzy", "reply code"),
        ("other", "550 xyzzy", "nothing"),
    ],
)
def test_the_reason_comes_from_the_most_reliable_part_of_a_reply(provider: str, text: str, basis: str) -> None:
    assert find(provider, text).basis == basis


def test_a_providers_own_codes_count_only_in_its_own_replies() -> None:
    assert find("google", "550 5.7.1 (S3150) xyzzy").provider_code is not None
    assert find("google", "550 5.7.1 (S3150) xyzzy").reason == "spam_content"
    assert find("other", "550 5.7.1 (S3150) xyzzy").reason == "blocklisted"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("554 5.7.1 Client host [192.0.2.1] blocked using zen.spamhaus.org; https://www.spamhaus.org/q", ["spamhaus"]),
        ("550 listed at bl.spamcop.net and b.barracudacentral.org", ["spamcop", "barracuda"]),
        ("550 5.7.1 part of their network is on our block list (S3150)", ["microsoft"]),
        ("550 5.1.1 <spamhaus@sorbs.net>: User unknown", []),
        (None, []),
    ],
)
def test_blocklists_are_named(text: str | None, named: list[str]) -> None:
    event = Event(mta="postfix", outcome=Outcome.BOUNCED, code=EnhancedCode(5, 7, 1), reply_code=550, text=text)
    assert sorted(blocklists_of(event)) == sorted(named)
    assert set(named) <= set(blocklists())


def test_blocklist_hits_are_counted_at_every_attempt(tmp_path: Path) -> None:
    log = tmp_path / "mail.log"
    line = (
        "Nov  4 03:00:0{n} mx1 postfix/smtp[1]: 4A1B2C3D41: to=<a@dest.example>, relay=mx.google.com[192.0.2.1]:25,"
        " delay=1, delays=0/0/0/1, dsn=4.7.1, status=deferred (host mx.google.com[192.0.2.1] said: 451 4.7.1 blocked"
        " using zen.spamhaus.org)\n"
    )
    log.write_text("".join(line.format(n=n) for n in range(3)))
    with Exporter("--from-start", log) as exporter:
        labels = 'blocklist="spamhaus",mta="postfix",provider="google"'
        assert exporter.value(f"mail_blocklist_hits_total{{{labels}}}") == 3
        kind = 'class="4.7",code="4.7.1",kind="soft",mta="postfix",provider="google",reason="blocklisted"'
        assert exporter.value(f"mail_bounces_total{{{kind}}}") == 1


def test_our_own_rejections_have_a_reason_and_a_stage() -> None:
    found: dict[str, Event] = {}
    for mta in ("postfix", "exim"):
        read = parser(mta).reader(lambda: 1_795_600_000.0)
        for line in (LOGS / mta / "forms.log").read_text().splitlines():
            with contextlib.suppress(UnparsedLineError):
                for entry in read(line):
                    if isinstance(entry, Event) and entry.outcome is Outcome.REJECTED:
                        found[line] = entry
    assert len(found) >= 30
    assert all(event.stage for event in found.values())
    words = {
        "blocked using zen": "blocklisted",
        "Spam message rejected": "spam_content",
        "need fully-qualified": "protocol",
        "too many connections": "rate_limited",
        "message too big": "too_large",
        "Sender verify failed": "sender_rejected",
        "unqualified recipient": "user_unknown",
        "unqualified sender": "sender_rejected",
        "no HELO/EHLO": "protocol",
        "too many recipients": "too_many_recipients",
        "temporarily rejected RCPT": "greylisted",
        "load average": "system_error",
        "synchronization error (input": "protocol",
    }
    for word, reason in words.items():
        assert {reason_of(event) for line, event in found.items() if word in line} == {reason}, word
    vague = [line for line, event in found.items() if reason_of(event) == "other"]
    assert len(vague) <= len(found) * 0.15, vague


@pytest.fixture
def _own_providers() -> Iterator[None]:
    yield
    add_providers({})


@pytest.mark.usefixtures("_own_providers")
def test_a_configuration_adds_providers(tmp_path: Path, bouncemeter: Run) -> None:
    add_providers({"partner": {"hosts": ["mx.partner.example"], "domains": ["partner.example"]}})
    assert provider_of("a.mx.partner.example[192.0.2.1]:25", None) == "partner"
    assert provider_of(None, "a@Partner.example") == "partner"
    assert "partner" in providers()
    add_providers({"google": {"hosts": ["gateway.example"]}})
    assert provider_of("mx.partner.example[192.0.2.1]:25", None) == "other"
    assert provider_of("gateway.example[192.0.2.1]:25", None) == "google"
    assert provider_of("mx.google.com[192.0.2.1]:25", None) == "google"
    config = tmp_path / "bouncemeter.toml"
    config.write_text('[providers.us]\ndomains = ["dest.test"]\n')
    log = LOGS / "postfix" / "relay.log"
    found = json.loads(bouncemeter("report", "--config", config, "--format", "json", log).stdout)
    assert [row["provider"] for row in found["providers"]] == ["us"]
    assert {row["provider"] for row in found["reasons"]} == {"us"}
    printed = bouncemeter("parse", "--config", config, log).stdout
    assert '"provider": "us"' in printed
    with Exporter("--config", config, "--from-start", log) as exporter:
        assert 'provider="us"' in exporter.page()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[providers]\nus = 1", "providers must be tables of hosts and domains, which us is not"),
        ("[providers.Us]\n", "'Us' is not a valid provider name"),
        ("[providers.us]\nhost = []", "provider us: host is not a setting; use hosts or domains"),
        ("[providers.us]\nhosts = 'x'", "provider us: hosts must be a list"),
        ("".join(f"[providers.p{n}]\n" for n in range(MAX_OWN + 1)), "51 providers are added; the limit is 50"),
    ],
)
def test_wrong_provider_settings_are_answered_by_one_sentence(
    bouncemeter: Run, tmp_path: Path, text: str, sentence: str
) -> None:
    config = tmp_path / "bouncemeter.toml"
    config.write_text(text)
    done = bouncemeter("report", "--config", config, LOGS / "postfix" / "relay.log", check=False)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert providers_module._own == {}


@given(HOSTILE | st.text(), st.sampled_from(providers()), st.integers(400, 599) | st.none())
def test_any_text_gets_a_known_reason(text: str, provider: str, reply_code: int | None) -> None:
    assert find_reason(EnhancedCode(5, 0, 0), reply_code, text, provider).reason in reasons()


@pytest.mark.parametrize("piece", ["spam ", "user ", "<", "a@", "550 ", "\\n", " ", "@", "blocked using ", "ip ", "é"])
def test_no_text_takes_long(piece: str) -> None:
    """Only the first thousand characters of a text are searched, and in linear time."""
    text = piece * (1_000_000 // len(piece))
    start = time.process_time()
    for _ in range(20):
        find_reason(EnhancedCode(5, 7, 1), 550, text)
    assert time.process_time() - start < 2
    assert len(ReplyText(text).text) <= MAX_TEXT


def test_phrases_are_found_as_whole_words_in_order() -> None:
    table = Phrases([("user unknown", 1), ("mailbox * full", 2), ("spam", 3)])
    assert table.first(ReplyText("550 User Unknown")) == 1
    assert table.first(ReplyText("550 superuser unknown user unknowns")) is None
    assert table.first(ReplyText("550 user\\n550 unknown")) == 1
    assert table.first(ReplyText("550 mailbox of a@x is full; spam")) == 2
    assert table.first(ReplyText("550 full mailbox")) is None
    assert table.all(ReplyText("550 spam: user unknown")) == [1, 3]
    assert table.first(ReplyText("550 antispam see http://spamhaus")) is None


def test_explain_gives_reason_provider_remedy_and_source(bouncemeter: Run) -> None:
    text = "550 5.7.606 Access denied, banned sending IP [192.0.2.1] [x.prod.protection.outlook.com]"
    printed = bouncemeter("explain", text).stdout
    for words in ("blocklisted", "microsoft", "banned", "sender.office.com", "Exchange Online", "provider code"):
        assert words in printed
    found = json.loads(bouncemeter("explain", "--format", "json", text).stdout)
    assert (found["reason"], found["provider"], found["basis"]) == ("blocklisted", "microsoft", "provider code")
    assert "sender.office.com" in found["todo"]
    assert found["source"]
    assert found["provider_meaning"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("host mx1.dest.test[192.0.2.1] said: 552 5.2.2 <a@dest.test>: mailbox full", "552 5.2.2 <>: mailbox full"),
        ("host mx2.dest.test[192.0.2.2] said: 552 5.2.2 <a@dest.test>: mailbox full", "552 5.2.2 <>: mailbox full"),
        ("host a b said: 550 it said: no", "host a b said: 550 it said: no"),
        ("550 host mx1.dest.test said: no", "550 host mx1.dest.test said: no"),
        ("host mx1.dest.test[192.0.2.1] refused to talk to me: 421 no", None),
    ],
)
def test_a_reply_is_the_same_whichever_host_and_recipient_it_names(text: str, expected: str | None) -> None:
    code = EnhancedCode(5, 0, 0)
    event = Event("postfix", Outcome.BOUNCED, code, reply_code=552, recipient="a@dest.test", text=text)
    assert words_alone(event) == (expected or text)
    assert words_alone(replace(event, reply_code=None)) == text.replace("<a@dest.test>", "<>")
