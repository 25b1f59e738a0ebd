"""What became of each recipient, from the rows of entries in order. Needs pyarrow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa
from bouncemeter.event import Event, Outcome, undefined_code

from bouncemeter_exporter.archive.columns import EVENT, SHORT, Row, batches, plain
from bouncemeter_exporter.archive.entries import entries_of
from bouncemeter_exporter.counting.ledger import Ledger
from bouncemeter_exporter.records import Record, Redactor, values

__all__ = ["FACT", "WAITING", "facts"]

WAITING = "waiting"
"""The fact of a recipient that still waits at the end of the logs."""

FACT = pa.schema([("fact", pa.string()), *plain(EVENT), ("account", pa.string()), ("first", pa.bool_())])
"""The columns of a fact, those of an event and three more:

- `fact`: `soft bounce`, `ended`, `notification` or `waiting`,
- `account`: who handed the message over,
- `first`: whether no recipient of the message bounced before with this kind and class.

`host` is the server whose ledger it is. `kind` is empty unless the recipient bounced. A recipient that waits has the
time of its first deferral and the code of its last."""


def facts(rows: Iterable[pa.RecordBatch], hidden: Redactor | None = None) -> Iterator[pa.RecordBatch]:
    """The facts of one server after the other, each with a ledger of its own.

    Args:
        rows: Entries, ordered by server and place.
        hidden: What hides addresses in the facts.
    """
    return batches(_facts(rows, hidden), FACT, SHORT)


def _facts(rows: Iterable[pa.RecordBatch], hidden: Redactor | None) -> Iterator[Row]:
    ledger, current = Ledger(senders=True), None
    for batch in rows:
        for server, entry in entries_of(batch):
            if current != (entry.mta, server):
                yield from _waiting(ledger, hidden)
                ledger, current = Ledger(senders=True), (entry.mta, server)
            for fact in ledger.facts(entry):
                more = {"outcome": fact.outcome, "kind": fact.bounce, "provider": fact.provider, "delay": fact.delay}
                yield _row(fact.kind, fact.event, more, fact.sender, fact.account, hidden, first=fact.first)
    yield from _waiting(ledger, hidden)


def _waiting(ledger: Ledger, hidden: Redactor | None) -> Iterator[Row]:
    """The recipients that wait at the end, after those were forgotten that waited too long."""
    ledger.memory.forget_old()
    for (mta, host), queue_id, message in ledger.memory.waiting_messages():
        for key, each in message.waiting():
            recipient, _, rest = key.partition("\n")
            code = each.code or undefined_code(Outcome.DEFERRED, None)
            event = Event(mta, Outcome.DEFERRED, code, each.since, host, queue_id=queue_id)
            event.recipient, event.original_recipient = recipient or None, rest.partition("\n")[0] or None
            more = {"kind": None, "reason": None, "provider": each.provider}
            yield _row(WAITING, event, more, message.sender, message.account, hidden)


def _row(
    kind: str,
    event: Event,
    more: Record,
    sender: str | None,
    account: str | None,
    hidden: Redactor | None,
    *,
    first: bool = False,
) -> Row:
    """The row of a fact, with the values of its event but for some."""
    found = values(event, hidden)
    found.update(more)
    if hidden is not None:
        sender, account = (None if each is None else hidden.address(each) for each in (sender, account))
    found["sender"] = found["sender"] if sender is None else sender
    return (kind, *found.values(), account, first)
