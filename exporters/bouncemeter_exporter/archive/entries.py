"""Entries of logs (events and steps) as rows, and back: what the ledger needs to count recipients. Needs pyarrow.

A row has the columns of an event, which are empty where a step has nothing for them, and then what only the ledger
needs: the fields of a step, whose ledger it belongs to, and its place in its log.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

import pyarrow as pa
from bouncemeter.event import EnhancedCode, Entry, Event, Outcome, Stage, Step, StepKind

from bouncemeter_exporter.archive.columns import EVENT, TIME, Row, plain
from bouncemeter_exporter.records import Redactor, values

__all__ = ["ENTRY", "NEEDED", "ORDER", "SERVER", "Rows", "code_of", "entries_of"]

SERVER = ("mta", "server")
"""The columns that name a ledger."""

ORDER = ("at", "begun", "source", "part", "number")
"""The columns that order the entries of a ledger."""

ENTRY = pa.schema(
    [
        ("entry", pa.string()),
        *plain(EVENT),
        ("peer", pa.string()),
        ("related", pa.string()),
        ("account", pa.string()),
        ("identity", pa.string()),
        ("passed_to", pa.string()),
        ("forwarded", pa.bool_()),
        ("server", pa.string()),
        ("at", TIME),
        ("begun", TIME),
        ("source", pa.string()),
        ("part", pa.int64()),
        ("number", pa.int64()),
    ]
)
"""The columns of an entry: after those of an event come

- `entry`: `event`, or the kind of a step (`bouncemeter.event.StepKind`),
- `peer` to `forwarded`: as in `bouncemeter.event.Step` and `Event`,
- `server`: the host that the line names, or else what stands for it,
- `at`: the time of the latest line of this host so far, in this part of the log,
- `begun`: the first time in the log, `source`: the log's name, `part`: the byte where this part of it begins, `number`:
  the entry's number in the part.
"""

_NOTHING = (None,) * len(EVENT)


class Rows:
    """Makes rows of the entries of one part of a log.

    Args:
        source: The log's name; None if it is not known. Its lines may be out of order then.
        part: The byte where the part begins.
        begun: The first time in the log, in seconds since 1970 UTC; if None, that of the first entry with a time.
        server: What stands for the host in lines that name none.
        hidden: What hides addresses.
        number: The number of the first entry.
        only_events: Leave out the steps.

    Attributes:
        number: The number of the next entry.
    """

    def __init__(
        self,
        source: str | None,
        part: int = 0,
        begun: float | None = None,
        server: str | None = None,
        hidden: Redactor | None = None,
        number: int = 0,
        *,
        only_events: bool = False,
    ) -> None:
        self.number = number
        self._source, self._part, self._begun, self._server = source, part, begun, server
        self._hidden, self._only_events = hidden, only_events
        self._latest: dict[str | None, float] = {}

    def of(self, entries: Iterable[Entry]) -> Iterator[Row]:
        """The rows of the next entries."""
        for entry in entries:
            if self._only_events and not isinstance(entry, Event):
                continue
            latest = self._latest.get(entry.host)
            if entry.time is not None and (latest is None or entry.time > latest or self._source is None):
                latest = self._latest[entry.host] = entry.time
                self._begun = latest if self._begun is None else self._begun
            server = self._server if entry.host is None else entry.host
            yield (*self._fields(entry), server, latest, self._begun, self._source, self._part, self.number)
            self.number += 1

    def _fields(self, entry: Entry) -> Row:
        if isinstance(entry, Event):
            found = values(entry, self._hidden).values()
            return ("event", *found, None, None, None, entry.identity, entry.passed_to, entry.forwarded)
        shown = entry if self._hidden is None else self._hidden.entry(entry)
        return (
            *(entry.what, entry.time, entry.mta, entry.host, *_NOTHING[:7], entry.queue_id, shown.recipient, None),
            *(shown.sender, *_NOTHING[:4], entry.peer, entry.related, shown.account, entry.identity, None, None),
        )


def entries_of(batch: pa.RecordBatch) -> Iterator[tuple[str | None, Entry]]:
    """The entries of a batch of rows, each with its server.

    Args:
        batch: With the columns of `ENTRY`, in any order.
    """
    columns = {name: batch.column(name).to_pylist() for name in _FIELDS if name != "time"}
    columns["time"] = [None if each is None else each / 1e6 for each in batch.column("time").cast("int64").to_pylist()]
    steps = zip(*(columns[name] for name in _OF_STEP), strict=True)
    events = zip(*(columns[name] for name in _OF_EVENT), strict=True)
    for kind, server, step, event in zip(columns["entry"], columns["server"], steps, events, strict=True):
        if kind == "event":
            made = Event(*event)
            made.outcome, made.code = _OUTCOMES[event[1]], code_of(event[2])
            made.stage = None if made.stage is None else Stage(made.stage)
            yield server, made
        else:
            yield server, Step(_STEPS[kind], *step)


@lru_cache(maxsize=4096)
def code_of(text: str) -> EnhancedCode:
    """The code that a column has as text."""
    return EnhancedCode(*map(int, text.split(".")))


_OF_STEP = ("mta", "queue_id", "time", "server", "sender", "peer", "related", "recipient", "identity", "account")
_OF_EVENT = (
    *("mta", "outcome", "code", "time", "server", "reply_code", "queue_id", "recipient", "original_recipient"),
    *("sender", "relay", "delay", "text", "stage", "passed_to", "forwarded", "identity"),
)
_FIELDS = tuple(dict.fromkeys(("entry", *SERVER, *_OF_EVENT, *_OF_STEP)))
_OUTCOMES = {each.value: each for each in Outcome}
_STEPS = {each.value: each for each in StepKind}

NEEDED = (*_FIELDS, *ORDER)
"""The columns that `entries_of` needs, and those that put the rows in order."""
