"""Whose words a text is decides which words count: the other server's reply, a reply it passes on, our own error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bouncemeter.event import EnhancedCode, Event, Outcome
from bouncemeter.knowledge.phrases import Phrases, ReplyText
from bouncemeter.knowledge.reasons import MAX_ADDED, add_phrases, find_reason, reason_of
from bouncemeter.tables import table

from tests.conftest import LOGS, Run

SOFT, HARD = EnhancedCode(4, 0, 0), EnhancedCode(5, 0, 0)
OWN = [(row["reason"], text) for row in table("knowledge/phrases")["own"] for text in row["texts"]]
ANYBODYS = [(row["reason"], text) for row in table("knowledge/phrases")["phrases"] for text in row["texts"]]


def reply(text: str) -> str:
    """The reason of a reply without an enhanced code."""
    return find_reason(EnhancedCode(int(text[0]), 0, 0), int(text[:3]), text).reason


def own(text: str) -> str:
    """The reason of an error of our own server."""
    return find_reason(SOFT, None, text).reason


def test_each_phrase_decides_its_own_text() -> None:
    wrong = [(reason, text) for reason, text in ANYBODYS if reply(f"550 {text.replace('*', 'word')}") != reason]
    assert wrong == []


def test_each_phrase_of_our_own_server_decides_its_own_text() -> None:
    assert [(reason, text) for reason, text in OWN if own(text.replace("*", "word")) != reason] == []


def test_a_longer_phrase_wins_over_those_inside_it_and_over_no_others() -> None:
    phrases = Phrases([("route to", "dns"), ("blocked", "policy"), ("no route to host", "connection")])
    assert phrases.first(ReplyText("no route to host")) == "connection"
    assert phrases.first(ReplyText("no route to host, route to it")) == "dns"
    assert phrases.first(ReplyText("no route to host: blocked")) == "policy"
    assert phrases.all(ReplyText("no route to host")) == ["dns", "connection"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("delivery temporarily suspended: connect to mx.example.org[192.0.2.1]:25: Connection refused", "connection"),
        ("delivery temporarily suspended: lost connection with mx.example.org[192.0.2.1] while sending RCPT TO",
         "connection"),
        ("delivery temporarily suspended: Server certificate not trusted", "tls"),
        (("delivery temporarily suspended: Host or domain name not found. Name service error for name=mx.example.org"
         " type=A: Host not found, try again"), "dns"),
        ("connect to mx.example.org[192.0.2.1]:25: No route to host", "connection"),
        ("Host or domain name not found. Name service error for name=gone.test type=AAAA: Host not found",
         "domain_unknown"),
        ("conversation with spam.virus.example[192.0.2.1] timed out while receiving the initial server greeting",
         "connection"),
        ('Command died with status 127: "procmail -a x". Command output: sh: procmail: not found', "system_error"),
        ('Command died with status 67: "/usr/lib/deliver". Command output: disk quota exceeded', "user_unknown"),
        ('Command died with status 77: "/usr/bin/lists"', "policy"),
        ('Command died with signal 11: "/usr/bin/spamfilter". Command output: virus found', "system_error"),
        ("temporary failure. Command output: ERR: s_connect() failed: Connection refused virus spam", "system_error"),
        ("user unknown. Command output: mailbox full", "user_unknown"),
        ('Command time limit exceeded: "/usr/bin/clamscan"', "system_error"),
        ("unknown mail transport error", "system_error"),
        ("mail transport unavailable", "system_error"),
        ("cannot update mailbox /var/mail/u for user u. error writing message: Disk quota exceeded", "mailbox_full"),
        (("cannot update mailbox /var/mail/u for user u. unable to lock for exclusive access: Resource temporarily"
         " unavailable"), "system_error"),
        ("maildir delivery failed: create maildir file /home/u/Maildir/tmp/1: Permission denied", "system_error"),
        ("mail for example.org loops back to myself", "loop"),
        ("Domain example.org does not accept mail (nullMX)", "domain_unknown"),
        ("TLS is required, but was not offered by host mx.example.org[192.0.2.1]", "tls"),
        ("SASL authentication failed; cannot authenticate to server mx.example.org[192.0.2.1]: no mechanism available",
         "login"),
        ("message size 26214400 exceeds size limit 10485760 of server mx.example.org[192.0.2.1]", "too_large"),
        (("Child process of address_pipe transport returned 127 (could mean unable to exec or command does not exist)"
         " from command: /usr/bin/virus-filter"), "system_error"),
        ("Child process of spamcheck transport (running command \"/usr/bin/spamc\") was terminated by signal 9",
         "system_error"),
        ("Child process of lists transport returned 67 from command: /usr/bin/list", "user_unknown"),
        ('Malformed value "0MM" (expansion of "${if exists{/x}{0MM}}") in local_delivery transport', "system_error"),
        ('failed to expand "quota is full ${x" in local_delivery transport: missing }', "system_error"),
        ("failed to open /etc/virus/blacklist: Permission denied (euid=101 egid=101)", "system_error"),
        ("No route to host", "connection"),
        ("Connection refused", "connection"),
        ("Connection timed out", "connection"),
        ("SMTP timeout after initial connection", "connection"),
        ("Remote host closed connection in response to initial connection", "connection"),
        ("mailbox is full (MTA-imposed quota exceeded while writing to file /var/mail/u)", "mailbox_full"),
        ("host lookup did not complete", "dns"),
        ("all relevant MX records point to non-existent hosts", "domain_unknown"),
        ("Unrouteable address", "user_unknown"),
    ],
)  # fmt: skip
def test_what_our_own_server_says(text: str, reason: str) -> None:
    assert own(text) == reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("550 User unknown, see https://help.example.net/bounces/#filtered", "user_unknown"),
        ("550 see http://spam.blocked.example/virus", "other"),
        ("550 unknown user<a@b.test>", "user_unknown"),
        ('550 <"virus spam"@b.test>... whatever', "other"),
        ("550 <virus@quota.test>: xyzzy", "other"),
        ("550 spamfilter.virus.example says xyzzy", "other"),
        ("451 mx1.greylist.example.org: xyzzy", "system_error"),
        ("554 Blocked - see https://www.spamhaus.org/query/ip/192.0.2.9", "blocklisted"),
        ("503 AUTH is disabled", "login"),
        ("550 5.0.0 session terminated", "other"),
        ("451 spool file is locked", "system_error"),
        ("550 xyzzy is not trusted", "other"),
    ],
)
def test_links_addresses_hosts_and_single_loose_words_decide_nothing(text: str, reason: str) -> None:
    assert reply(text) == reason


@pytest.mark.parametrize(
    ("text", "code", "reason"),
    [
        ('451 4.4.0 Primary target IP address responded with: "451 5.7.3 STARTTLS is required to send mail."', "4.4.0",
         "tls"),
        (('451 4.4.0 Primary target IP address responded with: "421 4.2.1 Unable to connect." Attempted failover to'
         " alternate host, but that did not succeed."), "4.4.0", "connection"),
        (('451 4.7.0 Proxy session setup failed on Frontend with "451 4.4.0 Primary target IP address responded with:'
         ' "550 5.7.1 Client host [192.0.2.9] blocked using zen.example.net""'), "4.7.0", "blocklisted"),
        ("554 5.4.4 Remote Server returned '550 5.1.1 User unknown'", "5.4.4", "user_unknown"),
        ('554 5.4.0 said: "250 fine"', "5.4.0", "connection"),
    ],
)  # fmt: skip
def test_the_reason_is_that_of_the_reply_inside_a_reply(text: str, code: str, reason: str) -> None:
    assert find_reason(EnhancedCode.parse(code), int(text[:3]), text).reason == reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("host mx[192.0.2.1] said: 553 <s@a.test> unable to verify address (in reply to MAIL FROM command)",
         "sender_rejected"),
        ("host mx[192.0.2.1] said: 550 User unknown (in reply to MAIL FROM command)", "sender_rejected"),
        ("host mx[192.0.2.1] said: 550 User unknown (in reply to RCPT TO command)", "user_unknown"),
        ("host mx[192.0.2.1] said: 550 User unknown (in reply to MAIL FROM command) (in reply to RCPT TO command)",
         "user_unknown"),
        ("SMTP error from remote mail server after MAIL FROM:<s@a.test> SIZE=1: 550 unknown user", "sender_rejected"),
        ("SMTP error from remote mail server after pipelined MAIL FROM:<s@a.test>: 550 Domain does not exist",
         "sender_rejected"),
        ("SMTP error from remote mail server after RCPT TO:<u@b.test>: 550 unknown user", "user_unknown"),
        ("550-Verification failed for <s@a.test>\\n550-No Such User Here\\n550 Sender verify failed",
         "sender_rejected"),
    ],
)  # fmt: skip
def test_an_address_that_is_refused_after_mail_from_is_the_senders(text: str, reason: str) -> None:
    code = 553 if "553 " in text else 550
    assert reason_of(Event("postfix", Outcome.BOUNCED, HARD, reply_code=code, text=text)) == reason


@pytest.mark.parametrize("name", ["zen.spamhaus.org", "virus", "spam.example.org"])
def test_a_client_cannot_choose_the_reason_of_its_rejection_by_its_name(name: str) -> None:
    event = Event("postfix", Outcome.REJECTED, HARD, reply_code=550, text=f"<{name}>: xyzzy")
    assert reason_of(event) == "other"


def test_a_configuration_adds_phrases_to_reasons(tmp_path: Path, bouncemeter: Run) -> None:
    log, config = tmp_path / "mail.log", tmp_path / "bouncemeter.toml"
    line = next(each for each in (LOGS / "postfix" / "relay.log").read_text().splitlines() if "dsn=5.1.1" in each)
    log.write_text(f"{line.partition('(')[0]}(host mx[192.0.2.1] said: 550 5.1.1 The box of ann is Resting now)\n")
    config.write_text('[reasons]\nmailbox_full = ["box of * is  RESTING"]\n')
    assert json.loads(bouncemeter("parse", log).stdout)["reason"] == "user_unknown"
    assert json.loads(bouncemeter("parse", "--config", config, log).stdout)["reason"] == "mailbox_full"
    found = json.loads(bouncemeter("report", "--format", "json", "--config", config, log).stdout)
    assert found["codes"][0]["reason"] == "mailbox_full"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('mailbox_ful = ["x y"]', "there is no reason mailbox_ful; did you mean mailbox_full?"),
        ('zzz = ["x y"]', "there is no reason zzz; the reasons are user_unknown, "),
        ('policy = "x y"', 'reasons.policy must be a list such as ["mailbox is resting"]'),
        ("policy = [3]", "reasons.policy must be a list"),
        ('policy = ["* full"]', "reasons.policy: '* full' needs a word of two letters or more, also beside a *"),
        ('policy = [""]', "reasons.policy: '' needs a word"),
        (f'policy = [{", ".join(f"{chr(34)}word{n}{chr(34)}" for n in range(MAX_ADDED + 1))}]',
         "501 phrases are added to reasons; the limit is 500"),
    ],
)  # fmt: skip
def test_wrong_phrases_get_one_sentence(tmp_path: Path, bouncemeter: Run, text: str, sentence: str) -> None:
    config = tmp_path / "bouncemeter.toml"
    config.write_text(f"[reasons]\n{text}\n")
    done = bouncemeter("report", "--config", config, LOGS / "postfix" / "relay.log", check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"bouncemeter: {config}:1: {sentence}")
    assert done.stderr.count("\n") == 1


def test_added_phrases_replace_those_added_before() -> None:
    try:
        add_phrases({"policy": ["xyzzy plugh"]})
        assert reply("550 xyzzy plugh") == "policy"
        add_phrases({"dns": ["other words"]})
        assert reply("550 xyzzy plugh") == "other"
    finally:
        add_phrases({})


def test_parse_unparsed_prints_lines_with_file_and_number(tmp_path: Path, bouncemeter: Run) -> None:
    log = tmp_path / "mail.log"
    odd = "Nov 25 10:00:00 mx postfix/smtp[9]: 4B01A2: to=<ann@example.org>, relay=x, delay=1, status=odd (x\x1b[1m)"
    log.write_text(f"Nov 25 10:00:00 mx postfix/smtpd[9]: connect from a[192.0.2.1]\n{odd}\n")
    done = bouncemeter("parse", "--unparsed", log)
    assert done.stdout == f"{log}:2: {odd}\n".replace("\x1b", "\\x1b")
    assert done.stderr == f"bouncemeter: {log}: 1 lines look like outcomes and could not be read\n"
    assert "ann@" not in bouncemeter("parse", "--unparsed", "--redact", log).stdout


@pytest.mark.parametrize(
    "text",
    [
        'failed to expand "${lookup mysql{x}}": lookup of "quota suspended user unknown" gave DEFER: mailbox full',
        'failed to expand "unknown user ${if": missing }',
        'Malformed value "quota" (expansion of "user unknown") in the transport',
        "Permission denied: failed to open /var/lib/unknown-user/mailbox full for linear search",
        'Child process of p transport (running command "/x virus mailbox full") was terminated by signal 11',
        "Tainted '/var/mail/suspended' (file or directory name for t transport) not permitted",
        'Expansion of "/home/virus" (file or directory name for t transport) failed: unknown user',
    ],
)
def test_words_in_a_fault_of_our_own_configuration_decide_nothing(text: str) -> None:
    assert own(text) == "system_error"
    assert "Exim" in (find_reason(SOFT, None, text).source or "")


@pytest.mark.parametrize(
    "said",
    ["550 <s@src.test>: unable to verify address", "550 5.1.0 address rejected", "450 4.1.0 unable to verify address"],
)
def test_an_address_that_mail_from_named_is_the_senders(said: str) -> None:
    code = EnhancedCode.parse(said[4:9]) if said[5] == "." else HARD
    assert find_reason(code, int(said[:3]), f"{said} (in reply to MAIL FROM command)").reason == "sender_rejected"
