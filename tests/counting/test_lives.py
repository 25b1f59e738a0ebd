"""Invented lives of messages: written as each server would log them, shuffled as real logs are, read and counted.

The counts must match the scripts of the lives. Lines are shuffled as in real logs: lines of different messages;
outcomes of one attempt; the removal and the last outcomes; a notification and the line that names it; an arrival and
the lines after it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

import pytest
from bouncemeter.plugin import BlockReader, parser
from bouncemeter_exporter.counting.counters import Counters
from bouncemeter_exporter.counting.ledger import Ledger
from bouncemeter_exporter.counting.senders import SenderGroups
from hypothesis import given, settings
from hypothesis import strategies as st

START = 1_790_000_000.0
END = START + 300_000.0

Line = tuple[float, str]
"""When a line comes, and its text."""


@dataclass
class Recipient:
    """A recipient's script: the number of deferrals, then the end (None: it waits for ever)."""

    address: str
    deferrals: int
    end: str | None


@dataclass
class Life:
    """A message's script."""

    host: str
    queue_id: str
    sender: str
    begins: float
    recipients: list[Recipient]

    def attempts(self) -> Iterator[tuple[float, list[tuple[Recipient, str]]]]:
        """The time of each attempt, and the outcome for each recipient in it."""
        for number in range(1 + max(each.deferrals for each in self.recipients)):
            got = []
            for each in self.recipients:
                if number < each.deferrals:
                    got.append((each, "deferred"))
                elif number == each.deferrals and each.end in ("delivered", "bounced"):
                    got.append((each, each.end))
            if got:
                yield self.begins + 1 + 300.0 * number, got

    @property
    def last(self) -> float:
        """The time of the last attempt."""
        return max((moment for moment, _ in self.attempts()), default=self.begins)

    @property
    def over(self) -> bool:
        """Whether every recipient ends."""
        return all(each.end for each in self.recipients)


@dataclass
class Truth:
    """The counts that follow from the scripts."""

    recipients: Counter[str] = field(default_factory=Counter)
    soft: int = 0
    hard: int = 0
    soft_messages: int = 0
    hard_messages: int = 0
    waiting: int = 0
    notifications: Counter[str] = field(default_factory=Counter)
    by_sender: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, life: Life) -> None:
        """Count a life."""
        if life.sender:
            self.soft_messages += any(each.deferrals for each in life.recipients)
            self.hard_messages += any(each.end == "bounced" for each in life.recipients)
        for each in life.recipients:
            if life.sender == "":
                if each.end:
                    self.notifications[each.end] += 1
                continue
            self.soft += each.deferrals > 0
            self.hard += each.end == "bounced"
            group = "ann" if life.sender.startswith("ann") else "other"
            for kind, bounced in (("soft", each.deferrals > 0), ("hard", each.end == "bounced")):
                if bounced:
                    self.by_sender[group, kind] += 1
            self.waiting += each.end is None
            if each.end:
                self.recipients[each.end] += 1


@st.composite
def lives(draw: st.DrawFn) -> list[Life]:
    """Some lives on two servers that use the same queue IDs. An expiry ends the message for all who still wait."""
    found = []
    for number in range(draw(st.integers(1, 8))):
        gives_up = draw(st.sampled_from(["expired", None]))
        recipients = []
        for place in range(draw(st.integers(1, 4))):
            end = draw(st.sampled_from(["delivered", "delivered", "bounced", gives_up]))
            least = 0 if end in ("delivered", "bounced") else 1
            recipients.append(Recipient(f"r{place}@d{number}.test", draw(st.integers(least, 4)), end))
        sender = draw(st.sampled_from(["ann@ann.src.test", "bob@src.test", ""]))
        begins = START + draw(st.integers(0, 5000))
        found.append(Life(f"mx{number % 2}", f"{number // 2 + 0xA0000:X}F", sender, begins, recipients))
    return found


GROUPS = SenderGroups({"ann": {"domains": ["ann.src.test"]}})
"""One sender's group; the other one is in none."""


class Writer(Protocol):
    """Writes a life as a server would log it."""

    def __call__(self, life: Life, chance: random.Random) -> Iterator[Line]: ...


REPLY = {"deferred": "450 4.2.1 not now", "bounced": "550 5.1.1 unknown", "delivered": "250 2.0.0 ok"}


def postfix(life: Life, chance: random.Random) -> Iterator[Line]:
    """Short queue IDs; syslog."""

    def line(moment: float, late: float, agent: str, text: str) -> Line:
        stamp = datetime.fromtimestamp(moment, UTC).strftime("%b %e %H:%M:%S")
        return moment + late, f"{stamp} {life.host} postfix/{agent}[7]: {text}"

    status = {"deferred": "deferred", "bounced": "bounced", "delivered": "sent"}
    name = life.queue_id
    if life.sender:
        yield line(life.begins, chance.choice([0.0, 2.0]), "smtpd", f"{name}: client=mail.src.test[192.0.2.9]")
    else:
        about = f"F0F0F0F: sender non-delivery notification: {name}"
        yield line(life.begins, chance.choice([0.0, 0.7, 2.0]), "bounce", about)
    head = f"{name}: from=<{life.sender}>, size=400, nrcpt={len(life.recipients)} (queue active)"
    for moment, got in life.attempts():
        yield line(moment, -0.9, "qmgr", head)
        for each, outcome in got:
            code = REPLY[outcome][4:9]
            yield line(
                moment,
                chance.uniform(0, 2),
                "smtp",
                f"{name}: to=<{each.address}>, relay=mx[192.0.2.1]:25, delay={moment - life.begins:g}, delays=0/0/0/1,"
                f" dsn={code}, status={status[outcome]} (host mx[192.0.2.1] said: {REPLY[outcome]})",
            )
    if any(each.end == "expired" for each in life.recipients):
        yield line(life.last, 2.5, "qmgr", f"{name}: from=<{life.sender}>, status=expired, returned to sender")
    if life.over:
        yield line(life.last, chance.uniform(1, 3), "qmgr", f"{name}: removed")


def exim(life: Life, chance: random.Random) -> Iterator[Line]:
    """The main log through syslog, with its own time stamp."""

    def line(moment: float, late: float, text: str) -> Line:
        stamp = datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S")
        return (
            moment + late,
            f"{datetime.fromtimestamp(moment, UTC):%b %e %H:%M:%S} {life.host} exim[7]: {stamp} {name} {text}",
        )

    name = f"1x{life.queue_id[:4]}-{life.queue_id}-2n"
    yield line(life.begins, 0.0, f"<= {life.sender or '<>'} H=mail.src.test [192.0.2.9] P=esmtp S=400")
    where = "R=dns T=smtp H=mx.test [192.0.2.1]"
    for moment, got in life.attempts():
        for each, outcome in got:
            late = chance.uniform(0, 2)
            if outcome == "delivered":
                yield line(moment, late, f'=> {each.address} {where} C="{REPLY[outcome]}"')
            else:
                flag, errno = ("==", " defer (-44)") if outcome == "deferred" else ("**", "")
                answer = f"SMTP error from remote mail server after RCPT TO:<{each.address}>: {REPLY[outcome]}"
                yield line(moment, late, f"{flag} {each.address} R=dns T=smtp{errno} H=mx.test [192.0.2.1]: {answer}")
    for each in life.recipients:
        if each.end == "expired":
            yield line(life.last, 2.5, f"** {each.address}: retry timeout exceeded")
        elif each.end is None:
            yield line(life.last + 60, 0.0, f"== {each.address} routing defer (-52): retry time not reached")
    if life.over:
        yield line(life.last, chance.uniform(2.5, 4), "Completed")


COLUMNS = (
    "date-time,client-ip,client-hostname,server-ip,server-hostname,source-context,connector-id,source,event-id,"
    "internal-message-id,message-id,recipient-address,recipient-status,total-bytes,recipient-count,"
    "related-recipient-address,reference,message-subject,sender-address,return-path,message-info"
)


def exchange(life: Life, chance: random.Random) -> Iterator[Line]:
    """Message tracking of Exchange 2010; one row may hold several recipients of an attempt."""
    known = str(int(life.queue_id[:5], 16))
    sender = life.sender or "<>"

    def row(moment: float, late: float, event: str, recipients: list[str], answer: str) -> Line:
        stamp = datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        to, status = ";".join(recipients), ";".join([answer] * len(recipients))
        ours = f",,{life.host.upper()}.corp.test,,mx.test" if event in ("SEND", "DELIVER") else f",,,,{life.host}"
        fields = f'{ours},,Internet,SMTP,{event},{known},<m@x>,{to},"{status}",400,{len(recipients)},,,a,'
        return moment + late, f"{stamp}{fields}{sender},{sender},"

    yield row(life.begins, 0.0, "RECEIVE", [each.address for each in life.recipients], "")
    for moment, got in life.attempts():
        for outcome, event in (("deferred", "DEFER"), ("delivered", "SEND"), ("bounced", "FAIL")):
            names = [each.address for each, found in got if found == outcome]
            answer = f"[{{LED={REPLY[outcome]}}};{{FQDN=mx.test}};{{IP=192.0.2.1}}]" if event != "SEND" else "250 ok"
            if names and chance.random() < 0.5:
                yield row(moment, chance.uniform(0, 2), event, names, answer)
            else:
                for each in names:
                    yield row(moment, chance.uniform(0, 2), event, [each], answer)
    gone = [each.address for each in life.recipients if each.end == "expired"]
    if gone:
        yield row(life.last, 2.5, "FAIL", gone, "550 4.4.7 QUEUE.Expired; message expired")


WRITERS: dict[str, Writer] = {"postfix": postfix, "exim": exim, "exchange": exchange}


@pytest.mark.parametrize("mta", WRITERS)
@settings(max_examples=150)
@given(scripts=lives(), seed=st.integers())
def test_the_counts_match_the_scripts(mta: str, scripts: list[Life], seed: int) -> None:
    chance = random.Random(seed)
    lines = sorted(line for life in scripts for line in WRITERS[mta](life, chance))
    truth = Truth()
    for life in scripts:
        truth.add(life)
    read, ledger, counters = parser(mta).reader(lambda: END), Ledger(senders=True), Counters()
    counters.name_senders(GROUPS)
    if mta == "exchange":
        read(f"#Fields: {COLUMNS}")
    if isinstance(read, BlockReader) and chance.random() < 0.5:
        while lines:
            size = chance.randint(1, len(lines))
            ledger.count(read.block("".join(f"{line}\n" for _, line in lines[:size])), counters)
            del lines[:size]
    for _, line in lines:
        for entry in read(line):
            counters.count(entry, ledger.facts(entry))

    def by(position: int, found: dict[tuple[str, ...], int]) -> dict[str, int]:
        sums = Counter[str]()
        for labels, number in found.items():
            sums[labels[position]] += number
        return dict(+sums)

    assert by(1, counters.recipients.values) == dict(truth.recipients)
    assert by(1, counters.bounces.values) == +Counter({"soft": truth.soft, "hard": truth.hard})
    assert {labels: number for labels, number in counters.bounces_by_sender.values.items() if number} == {
        (mta, group, kind, code_class): number
        for (group, kind), number in truth.by_sender.items()
        for code_class in ("4.2" if kind == "soft" else "5.1",)
    }
    messages = Counter({"soft": truth.soft_messages, "hard": truth.hard_messages})
    assert by(1, counters.bounced_messages.values) == +messages
    assert by(1, counters.notifications.values) == dict(+truth.notifications)
    assert ledger.memory.waiting.total() == truth.waiting
    assert {mta: sum(each.counts) for (_, mta), each in counters.delays.items()} == dict(truth.recipients)
    assert ledger.memory.evicted == 0
    assert len(ledger.memory) == sum(not life.over for life in scripts)
