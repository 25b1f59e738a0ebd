"""`--redact` hides every local part, in every command, and with a key nobody finds one by trying."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.conftest import Run

LOG = """\
2026-11-24T01:00:00+00:00 mx1 postfix/smtpd[1]: AAAA1: client=pc.src.test[192.0.2.9], sasl_method=PLAIN,\
 sasl_username=heinrich@src.test
2026-11-24T01:00:00+00:00 mx1 postfix/qmgr[1]: AAAA1: from=<Gottfried@src.test>, size=1, nrcpt=2 (queue active)
2026-11-24T01:00:01+00:00 mx1 postfix/smtp[1]: AAAA1: to=<annegret@dest.test>, orig_to=<friederike@src.test>,\
 relay=mx.dest.test[192.0.2.1]:25, delay=1, delays=0/0/0/1, dsn=5.1.1, status=bounced (host mx.dest.test[192.0.2.1]\
 said: 550 5.1.1 <annegret@dest.test>: no mailbox ANNEGRET here (in reply to RCPT TO command))
2026-11-24T01:00:02+00:00 mx1 postfix/qmgr[1]: AAAA1: removed
2026-11-24T01:00:03+00:00 mx1 postfix/smtpd[1]: BBBB1: client=pc.src.test[192.0.2.9]
2026-11-24T01:00:03+00:00 mx1 postfix/qmgr[1]: BBBB1: from=<gottfried@src.test>, size=1, nrcpt=2 (queue active)
2026-11-24T01:00:04+00:00 mx1 postfix/smtp[1]: BBBB1: to=<annegret@dest.test>, relay=mx.dest.test[192.0.2.1]:25,\
 delay=1, delays=0/0/0/1, dsn=4.2.2, status=deferred (host mx.dest.test[192.0.2.1] said: 452 4.2.2 annegret is full)
2026-11-24T01:00:05+00:00 mx1 postfix/smtpd[1]: NOQUEUE: reject: RCPT from bad.test[198.51.100.7]: 554 5.7.1\
 <waltraud@src.test>: Recipient address rejected: Access denied; from=<adalbert@bad.test> to=<waltraud@src.test>\
 proto=ESMTP helo=<bad.test>
"""
NAMES = ("heinrich", "gottfried", "annegret", "friederike", "waltraud", "adalbert")
COMMANDS = (
    ("parse",),
    ("report",),
    ("report", "--format", "json"),
    ("report", "--format", "html"),
    ("trace", "AAAA1"),
    ("trace", "AAAA1", "--format", "json"),
    ("trace", "annegret@dest.test"),
    ("trace", "annegret@dest.test", "--format", "json"),
    ("trace", "--by", "sender", "adalbert@bad.test"),
    ("trace", "--by", "sender", "adalbert@bad.test", "--format", "json"),
    ("suppress",),
    ("suppress", "--format", "csv"),
    ("suppress", "--format", "json"),
)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    found = tmp_path / "mail.log"
    found.write_text(LOG)
    return found


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_no_name_is_printed(words: tuple[str, ...], bouncemeter: Run, log: Path) -> None:
    shown = bouncemeter(*words, log).stdout.lower()
    assert any(name in shown for name in NAMES)  # or this test could not fail
    hidden = bouncemeter(*words, "--redact", log)
    assert not [name for name in NAMES if name in (hidden.stdout + hidden.stderr).lower()]
    assert "dest.test" in hidden.stdout or "bad.test" in hidden.stdout


def test_an_address_in_a_link_is_hidden(bouncemeter: Run, tmp_path: Path) -> None:
    log = tmp_path / "mail.log"
    link = "see http://spf.test/Why?s=mfrom;id=annegret.mueller%40src.test;ip=x or /bert%2Eprivat%40dest.test or"
    log.write_text(LOG.replace("no mailbox ANNEGRET here", f"{link} u=3Ddetlef=40dest.test"))
    for words in (("parse",), ("report", "--by", "reply"), ("trace", "AAAA1"), ("suppress", "--format", "csv")):
        shown = bouncemeter(*words, "--redact", log).stdout
        assert not [name for name in ("mueller", "bert", "privat", "detlef") if name in shown], words


def test_what_is_not_found_is_not_named(bouncemeter: Run, log: Path) -> None:
    done = bouncemeter("trace", "--redact", "kunigunde@dest.test", log, check=False)
    assert done.returncode == 1
    assert "kunigunde" not in done.stderr


def test_the_same_address_has_the_same_hash_with_the_same_key(bouncemeter: Run, log: Path, tmp_path: Path) -> None:
    keys = [tmp_path / "one", tmp_path / "other"]
    for place, key in enumerate(keys):
        key.write_bytes(bytes([place]) * 32)

    def recipients(*words: str | Path) -> list[str]:
        lines = bouncemeter("parse", *words, log).stdout.splitlines()
        return [json.loads(line)["recipient"] for line in lines]

    plain, one, other = recipients("--redact"), recipients("--redact-key", keys[0]), recipients("--redact-key", keys[1])
    assert plain[0] == f"{hashlib.sha256(b'annegret').hexdigest()[:16]}@dest.test"
    assert len({plain[0], one[0], other[0]}) == 3
    assert one[0] == one[1] == recipients("--redact-key", keys[0])[0]
    (row, *_) = json.loads(bouncemeter("suppress", "--format", "json", "--redact-key", keys[0], log).stdout)
    assert {row["address"]} <= {*one, *recipients_before_aliases(bouncemeter, log, keys[0])}


def recipients_before_aliases(bouncemeter: Run, log: Path, key: Path) -> list[str]:
    lines = bouncemeter("parse", "--redact-key", key, log).stdout.splitlines()
    return [json.loads(line)["original_recipient"] for line in lines]


def test_reasons_are_of_what_was_said(bouncemeter: Run, log: Path) -> None:
    found = [
        [
            (row["reason"], row["provider"])
            for row in map(json.loads, bouncemeter("parse", *words, log).stdout.splitlines())
        ]
        for words in ((), ("--redact",))
    ]
    assert found[0] == found[1]


def test_a_key_that_is_no_key_is_told(bouncemeter: Run, log: Path, tmp_path: Path) -> None:
    short = tmp_path / "short"
    short.write_bytes(b"secret")
    for key, sentence in ((short, "has 6 bytes; a key needs 16 or more"), (tmp_path / "gone", "cannot read")):
        done = bouncemeter("parse", "--redact-key", key, log, check=False)
        assert (done.returncode, sentence in done.stderr) == (2, True)
