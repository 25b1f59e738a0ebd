"""Hostile logs: memory and series stay bounded, and no line causes the loss of another."""

from __future__ import annotations

import gzip
import random
import time
from pathlib import Path

import pytest
from bouncemeter.event import EnhancedCode, Event, Outcome
from bouncemeter.knowledge.codes import catalogue
from bouncemeter_exporter.counting import counters as counters_module
from bouncemeter_exporter.counting import memory as memory_module
from bouncemeter_exporter.counting.counters import Counters
from bouncemeter_exporter.counting.ledger import Ledger

from tests.conftest import Run
from tests.servers.exporter import Exporter

GOOD = (
    "Nov  4 03:00:00 mx1 postfix/smtp[1]: 4A1B2C{number:04X}: to=<a@dest.example>, relay=mx.google.com[192.0.2.1]:25,"
    " delay=1, delays=0/0/0/1, dsn=5.1.1, status=bounced (host mx.google.com[192.0.2.1] said: 550 5.1.1 no)\n"
)
REASON_TEXTS = [
    "spam", "blocked using zen.spamhaus.org", "mailbox full", "user unknown", "rate limit", "must issue STARTTLS",
    "policy", "greylisted", "relay access denied", "message too large", "account disabled", "virus", "xyzzy",
]  # fmt: skip
BOUNCES = 'mail_bounces_by_class_total{class="5.1",kind="hard",mta="postfix"}'

MEMORY = 130_000
"""The most memory the exporter may take, in kilobytes, whatever it reads."""


def good(number: int) -> bytes:
    return GOOD.format(number=number).encode()


def peak(exporter: Exporter) -> int:
    """The peak memory of an exporter, in kilobytes."""
    status = Path(f"/proc/{exporter.process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


def write_long_line(path: Path) -> None:
    with path.open("wb") as file:
        file.write(good(1) + good(2)[:-1])
        for _ in range(100):
            file.write(b"x" * 1_000_000)
        file.write(b"\n" + good(3))


def test_a_line_of_a_hundred_megabytes_takes_bounded_memory(tmp_path: Path) -> None:
    log = tmp_path / "mail.log"
    write_long_line(log)
    with Exporter("--from-start", log) as exporter:
        exporter.wait_for_value(BOUNCES, 3)
        assert peak(exporter) < MEMORY


def test_a_long_unfinished_line_over_a_restart_loses_no_other_line(tmp_path: Path) -> None:
    log, state = tmp_path / "mail.log", tmp_path / "state.db"
    log.write_bytes(good(1) + b"Nov  4 03:00:00 mx1 " + b"x" * 300_000)
    with Exporter("--state", state, "--from-start", log) as exporter:
        exporter.wait_for_value(BOUNCES, 1)
    with log.open("ab") as writer:
        writer.write(b" postfix/smtp[1]: " + good(9)[35:-1] + b"y" * 200_000)
    with Exporter("--state", state, log) as exporter:
        with log.open("ab") as writer:
            writer.write(good(8)[35:] + good(2))
        exporter.wait_for_value(BOUNCES, 2)


@pytest.mark.parametrize(
    "noise", [b"\0" * 5000, b"\xff\xfe\x80" * 2000, bytes(range(256)).replace(b"\n", b""), b"\r\r\r"]
)
def test_bytes_of_any_kind_lose_no_line(tmp_path: Path, bouncemeter: Run, noise: bytes) -> None:
    log = tmp_path / "mail.log"
    log.write_bytes(b"".join(good(number) + noise + b"\n" for number in range(50)))
    with Exporter("--from-start", log) as exporter:
        exporter.wait_for_value(BOUNCES, 50)
    bouncemeter("report", log)


@pytest.mark.slow
@pytest.mark.parametrize("line_feeds", [True, False])
def test_a_compression_bomb_takes_bounded_memory(tmp_path: Path, line_feeds: bool) -> None:
    """Two hundred megabytes in two hundred kilobytes, or four million lines in nothing."""
    log = tmp_path / "mail.log.gz"
    with gzip.open(log, "wb") as file:
        file.write(good(1) * 5)
        for _ in range(4 if line_feeds else 200):
            file.write((b"\n" if line_feeds else b"x") * 1_000_000)
        file.write(b"\n" + good(2))
    with Exporter("--from-start", log) as exporter:
        exporter.wait_for_value(BOUNCES, 2, seconds=120)
        assert peak(exporter) < MEMORY


def test_a_broken_compressed_log_is_reported(tmp_path: Path, bouncemeter: Run) -> None:
    log = tmp_path / "mail.log.gz"
    packed = gzip.compress(b"".join(map(good, range(2000))))
    log.write_bytes(packed[: len(packed) // 2] + b"damage" * 100 + packed[len(packed) // 2 :])
    done = bouncemeter("report", log, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"bouncemeter: cannot read the rest of {log}: ")


@pytest.mark.slow
def test_invented_codes_hosts_and_domains_make_no_series(tmp_path: Path) -> None:
    chance = random.Random(1)
    log = tmp_path / "mail.log"
    words = ["spam", "blocked by zen.spamhaus.org", "mailbox full", "unknown user", "rate limited", "tls", "", "policy"]
    with log.open("w") as file:
        for number in range(40_000):
            code = f"{chance.choice([4, 5])}.{chance.randrange(1000)}.{chance.randrange(1000)}"
            host = f"mx{number}.nowhere{chance.randrange(10_000)}.test"
            status = "deferred" if code[0] == "4" else "bounced"
            file.write(
                f"Nov  4 03:00:00 host{number} postfix/smtp[1]: {number + 0x10000:X}F: to=<a@d{number}.test>,"
                f" relay={host}[192.0.2.1]:25,"
                f" delay=1, dsn={code}, status={status} (host {host}[192.0.2.1] said: {code[0]}50 {code}"
                f" {chance.choice(words)} {number})\n"
            )
    with Exporter("--from-start", log) as exporter:
        page = exporter.page()
        assert peak(exporter) < MEMORY
    assert len(page.splitlines()) < 2000
    assert "nowhere" not in page
    assert len(page) < 300_000
    counted = sum(
        float(each.rpartition(" ")[2]) for each in page.splitlines() if each.startswith("mail_bounces_total{")
    )
    assert counted == 40_000


def test_one_hostile_server_takes_no_series_from_known_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server crosses all codes with all reasons; then Gmail refuses something for the first time."""
    monkeypatch.setattr(counters_module, "MAX_SERIES", 1000)
    monkeypatch.setattr(counters_module, "MAX_OTHER", 500)
    counters, ledger, number = Counters(), Ledger(), 0

    def refuse(code: str, text: str, relay: str) -> None:
        nonlocal number
        number += 1
        event = Event(
            mta="postfix",
            outcome=Outcome.BOUNCED,
            code=EnhancedCode.parse(code),
            queue_id=f"A{number}",
            recipient="a@b.test",
            relay=relay,
            text=text,
        )
        counters.count(event, ledger.facts(event))

    codes = [code for each in catalogue() if (code := str(each.code)).startswith("5.")]
    for code in codes:
        for reason in REASON_TEXTS:
            refuse(code, f"550 {code} {reason}", "mx.evil.test")
    refuse("5.7.26", "550 5.7.26 not authenticated: SPF and DKIM", "gmail-smtp-in.l.google.com")
    refuse("5.1.1", "550 5.1.1 user unknown", "mx.small.test")
    values = counters.bounces.values
    assert len(values) < 1000
    assert sum(values.values()) == number
    assert values["postfix", "hard", "5.7", "5.7.26", "authentication", "google"] == 1
    assert {labels[3] for labels in values} == {*codes, "5.7.26"}  # codes are always told apart
    assert counters.bounces.folded.keys() == {"other"}
    again = Counters()
    again.restore(counters.numbers())
    assert again.bounces.folded == counters.bounces.folded
    assert again.numbers() == counters.numbers()
    for each in (counters, again):
        each.bounces.add(("postfix", "hard", "5.7", "5.7.1", "new", "other"), None)
    assert again.numbers()["bounces"] == counters.numbers()["bounces"]


def test_the_number_of_remembered_servers_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_module, "MAX_SERVERS", 10)
    ledger = Ledger()
    for number in range(100):
        event = Event(
            mta="postfix",
            outcome=Outcome.DEFERRED,
            code=EnhancedCode(4, 2, 2),
            host=f"host{number}",
            queue_id=f"A{number}",
            recipient="a@b.test",
        )
        assert len(ledger.facts(event)) == 1
    assert len(ledger.memory.servers()) <= 11
    assert ledger.memory.waiting.total() == 100


def test_time_stamps_that_go_backwards_lose_no_line(tmp_path: Path) -> None:
    log = tmp_path / "mail.log"
    months = ["Nov", "Jan", "Jun", "Dec", "Feb"]
    with log.open("wb") as file:
        for number in range(500):
            file.write(good(number).replace(b"Nov", months[number % 5].encode(), 1))
    with Exporter("--from-start", log) as exporter:
        exporter.wait_for_value(BOUNCES, 500)
        last = exporter.value('bouncemeter_last_event_timestamp_seconds{mta="postfix"}')
        assert last is not None
        assert last < time.time() + 2 * 86_400


@pytest.mark.slow
def test_nothing_is_dropped_when_lines_come_faster_than_they_can_be_read(tmp_path: Path) -> None:
    log = tmp_path / "mail.log"
    log.touch()
    with Exporter(log) as exporter:
        name = f'{{source="{log}"}}'
        with log.open("wb") as writer:
            for number in range(0, 60_000, 1000):
                writer.writelines(map(good, range(number, number + 1000)))
        size = exporter.value(f"bouncemeter_source_size_bytes{name}")
        assert size is not None
        assert (exporter.value(f"bouncemeter_source_offset_bytes{name}") or 0) < size
        exporter.wait_for_value(f'bouncemeter_lines_total{{mta="postfix",result="event",source="{log}"}}', 60_000, 300)
        assert exporter.value(f"bouncemeter_source_offset_bytes{name}") == log.stat().st_size
