"""Work grows with the lines alone, not with their square: counted in calls of functions, which no busy machine changes.

An axis is what a stranger or a busy day can stretch: twice as far must not be more than about twice the work.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from bouncemeter.blocks import read_lines
from bouncemeter.event import EnhancedCode
from bouncemeter.knowledge.providers import OTHER
from bouncemeter.plugin import BlockReader, parser
from bouncemeter_exporter.counting.counters import Counters
from bouncemeter_exporter.counting.ledger import Ledger
from bouncemeter_exporter.counting.message import Message
from bouncemeter_exporter.serving.metrics import take_snapshot
from bouncemeter_exporter.serving.state import State

START = "Nov  4 10:00:{:02} {} postfix/{}[1]: "
EXCHANGE = (
    "#Software: Microsoft Exchange Server\n#Version: 15.02.1118.020\n#Log-type: Message Tracking Log\n"
    "#Fields: date-time,client-ip,client-hostname,server-ip,server-hostname,source-context,connector-id,source,"
    "event-id,"
    "internal-message-id,message-id,network-message-id,recipient-address,recipient-status,total-bytes,recipient-count,"
    "related-recipient-address,reference,message-subject,sender-address,return-path,message-info\n"
)


def deferred(recipient: int, queue_id: str = "4B0000000F", host: str = "mx") -> str:
    said = "host mx.test[192.0.2.1] said: 450 4.2.2 full"
    rest = f"relay=mx.test[192.0.2.1]:25, delay=1, delays=0/0/0/1, dsn=4.2.2, status=deferred ({said})\n"
    return f"{START.format(1, host, 'smtp')}{queue_id}: to=<u{recipient}@d.test>, {rest}"


def sent(recipient: int, relay: str = "mx.test[192.0.2.1]:25", text: str = "250 ok") -> str:
    rest = f"relay={relay}, delay=1, delays=0/0/0/1, dsn=2.0.0, status=sent ({text})\n"
    return f"{START.format(3, 'mx', 'smtp')}4B0000000F: to=<u{recipient}@d.test>, {rest}"


def exim(recipient: str, outcome: str, text: str = "") -> str:
    return f"2026-11-20 10:00:01 1abcDE-000001-AB {outcome} {recipient} R=r T=t{text}\n"


def tracked(event: str, recipient: str, status: str = "", related: str = "") -> str:
    source = "ROUTING" if related else "SMTP"
    return (
        f"2026-11-20T10:00:01.000Z,,,,ex1,,c,{source},{event},1,<m@x>,n,{recipient},{status},1,1,{related},,s,a@b.test,"
        "a@b.test,\n"
    )


def through_a_filter(size: int) -> list[str]:
    relay, text = "127.0.0.1[127.0.0.1]:10024", "250 2.0.0 Ok: queued as 4C0000000F"
    return [
        f"{START.format(0, 'mx', 'smtpd')}4B0000000F: client=x[192.0.2.1]\n",
        *map(deferred, range(size)),
        f"{START.format(2, 'mx', 'smtpd')}4C0000000F: client=localhost[127.0.0.1]\n",
        *(sent(number, relay, text) for number in range(size)),
    ]


AXES: dict[str, tuple[str, Callable[[int], list[str]]]] = {
    "recipients of a message": ("postfix", lambda size: [deferred(number % (size // 2)) for number in range(size)]),
    "deferred, then sent": ("postfix", lambda size: [*map(deferred, range(size)), *map(sent, range(size))]),
    "through a filter": ("postfix", through_a_filter),
    "messages": ("postfix", lambda size: [deferred(1, f"4B{number:08X}") for number in range(size)]),
    "hosts": ("postfix", lambda size: [deferred(1, host=f"mx{number}") for number in range(size)]),
    "local mailboxes": (
        "exim",
        lambda size: [
            *(exim(f"u{number}@d.test", "==", " defer (0): 450 no") for number in range(size)),
            *(exim(f"v{number}", "=>") for number in range(size)),
        ],
    ),
    "forwards": (
        "exchange",
        lambda size: [EXCHANGE, *(tracked("REDIRECT", f"u{n}@d.test", "", f"v{n}@d.test") for n in range(size))],
    ),
    "failures": (
        "exchange",
        lambda size: [EXCHANGE, *(tracked("FAIL", f"u{n}@d.test", "550 5.1.1 no") for n in range(size))],
    ),
}


def work(mta: str, lines: list[str], folder: Path) -> tuple[int, int]:
    """The calls of functions that reading some lines takes, and those of the commit and the snapshot after one more."""
    folder.mkdir()
    state, counters, ledger, read = (
        State(folder / "db", print),
        Counters(),
        Ledger(recording=True),
        parser(mta).reader(),
    )
    calls = 0

    def note(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    def counted(do: Callable[[], object]) -> int:
        nonlocal calls
        calls = 0
        sys.setprofile(note)
        try:
            do()
        finally:
            sys.setprofile(None)
        return calls

    def count(some: list[str]) -> None:
        block = read.block("".join(some)) if isinstance(read, BlockReader) else None
        ledger.count(block or read_lines([each.removesuffix("\n") for each in some], read), counters)

    def commit() -> None:
        numbers = counters.numbers() | {"lines": {}, "dropped": {}}
        state.commit(numbers, {}, ledger.memory.servers(), ledger.memory.changes())
        ledger.memory.changes_kept()
        take_snapshot(counters, ledger.memory, [], numbers)

    reading = counted(lambda: count(lines))
    commit()
    count(lines[-1:])
    committing = counted(commit)
    state.close()
    return reading, committing


@pytest.mark.parametrize("axis", AXES)
def test_twice_as_far_is_twice_the_work(axis: str, tmp_path: Path) -> None:
    mta, lines = AXES[axis]
    small, large = (work(mta, lines(size), tmp_path / str(size)) for size in (400, 800))
    assert large[0] < 2.2 * small[0] + 2000
    assert large[1] < 2.2 * small[1] + 2000


def test_of_many_codes_only_those_that_changed_are_counted_again() -> None:
    message = Message(0.0, 0.0)
    for number in range(500):
        message.defer(message.recipient(f"u{number}@d.test"), 0.0, EnhancedCode(4, 0, number), OTHER, again=False)
        assert list(message.count(message.open)) == [((EnhancedCode(4, 0, number), OTHER), 1)]
