"""One message's story: its arrival, each attempt with the reply in full, the end, and the messages that it became.

A filter hands a message back under another queue ID, and a failure creates a bounce message. The story follows them, as
the ledger does, but ignores a remote server that names one of our queue IDs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from bouncemeter.event import NOWHERE, Entry, Event, Outcome, Step, StepKind
from bouncemeter.knowledge.codes import explain
from bouncemeter.knowledge.reasons import reasons

from bouncemeter_exporter.counting.facts import FactKind
from bouncemeter_exporter.counting.ledger import Ledger
from bouncemeter_exporter.reporting.records import record, rfc3339

__all__ = ["MAX_MESSAGES", "Story", "meaning_of", "trace_message"]

MAX_MESSAGES = 50
"""Messages that a story may contain."""

ROUNDS = 8
"""How often the logs are read, at most: each time also for the queue IDs that the last reading found."""

HANDED_ON = ("before", "handed on")
NOTIFIED = ("bounced message", "a bounce message")
"""How two messages are connected: what the first is to the second, and the second to the first."""

_Link = tuple[str, str, tuple[str, str]]
"""A queue ID, a queue ID that came from it, and how they are connected."""

Reader = Callable[[frozenset[str]], Iterable[Entry]]
"""Reads the log entries about some queue IDs; it may return other entries too."""


@dataclass(slots=True)
class Story:
    """What the logs say about a message.

    Attributes:
        queue_id: The queue ID that was asked for.
        entries: All entries about it and the messages connected with it, in the order of the log.
        names: The queue IDs, each with what it is: `the message`, `a bounce message`, `handed on`, `before`.
        recipients: What became of each recipient, by queue ID and address.
    """

    queue_id: str
    entries: list[Entry] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    recipients: dict[tuple[str, str], str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The story as a JSON object."""
        return {
            "queue_id": self.queue_id,
            "messages": [{"queue_id": name, "what": what} for name, what in self.names.items()],
            "entries": [_as_json(entry) for entry in self.entries],
            "recipients": [
                {"queue_id": queue_id, "recipient": recipient, "outcome": outcome}
                for (queue_id, recipient), outcome in self.recipients.items()
            ],
        }


def _as_json(entry: Entry) -> dict[str, Any]:
    if isinstance(entry, Event):
        return {**record(entry), "meaning": None if entry.outcome is Outcome.DELIVERED else meaning_of(entry)}
    return {
        "time": rfc3339(entry.time),
        "mta": entry.mta,
        "host": entry.host,
        "step": entry.what,
        "queue_id": entry.queue_id,
        "sender": entry.sender,
        "client": entry.peer,
        "related": entry.related,
        "recipient": entry.recipient,
    }


def meaning_of(event: Event) -> str:
    """What the code of a refusal or deferral means; for an expiry, that the server gave up."""
    return reasons()["expired"].meaning if event.outcome is Outcome.EXPIRED else explain(event.code).meaning


def trace_message(queue_id: str, read: Reader) -> Story | None:
    """The story of a queue ID; None if no entry is about it.

    Args:
        queue_id: As the log writes it.
        read: Reads the logs; called again while it finds further queue IDs.
    """
    wanted = frozenset({queue_id})
    entries: list[Entry] = []
    for _ in range(ROUNDS):
        found = [entry for entry in read(wanted) if entry.queue_id == queue_id or wanted & _names(entry)]
        entries = [entry for entry in found if entry.queue_id == queue_id or _name(entry) in wanted]
        more = {name for entry in found for name in _names(entry)} - wanted
        if not more or len(wanted) + len(more) > MAX_MESSAGES:
            break
        wanted |= more
    if not any(entry.queue_id == queue_id for entry in entries):
        return None
    return _story(queue_id, entries)


def _name(entry: Entry) -> str | None:
    """What names the message of an entry in all of its lines: Exchange's queue IDs differ from service to service."""
    return entry.identity or entry.queue_id


def _names(entry: Entry) -> set[str]:
    """Every message that an entry names."""
    other = entry.passed_to if isinstance(entry, Event) else entry.related
    return {name for name in (_name(entry), other) if name and name != NOWHERE}


def _story(queue_id: str, entries: list[Entry]) -> Story:
    """The story of a queue ID, without the entries of unconnected messages."""
    links: list[_Link] = []
    ends: dict[tuple[str, str], str] = {}
    first: dict[str, str] = {}
    ledger = Ledger()
    for entry in entries:
        facts = ledger.facts(entry)
        if entry.identity and entry.queue_id and first.setdefault(entry.identity, entry.queue_id) != entry.queue_id:
            links.append((first[entry.identity], entry.queue_id, HANDED_ON))
        if isinstance(entry, Step):
            if entry.related:
                links.append(_link(entry.what, entry.queue_id, entry.related))
            continue
        name = first.get(entry.identity or "") or entry.queue_id or ""
        if entry.outcome is Outcome.DELIVERED and entry.passed_to not in (None, NOWHERE) and not facts:
            links.append((name, entry.passed_to, HANDED_ON))
        _note_outcome(ends, name, entry, ended=any(fact.kind is not FactKind.SOFT_BOUNCE for fact in facts))
    story = Story(queue_id, names=_connected(queue_id, links))
    story.entries = [entry for entry in entries if entry.queue_id in story.names]
    story.recipients = {key: outcome for key, outcome in ends.items() if key[0] in story.names}
    return story


def _link(what: StepKind, queue_id: str, related: str) -> _Link:
    """How the two messages of a step are connected, the earlier one first."""
    if what is StepKind.NOTIFIED:
        return queue_id, related, NOTIFIED
    return (queue_id, related, HANDED_ON) if what is StepKind.PASSED_ON else (related, queue_id, HANDED_ON)


def _note_outcome(ends: dict[tuple[str, str], str], name: str, event: Event, *, ended: bool) -> None:
    """Note the outcome of a recipient, or of all that wait."""
    if event.outcome is Outcome.REJECTED:
        return
    if event.recipient is None:
        for key, outcome in ends.items():
            if key[0] == name and outcome == "waiting":
                ends[key] = event.outcome
        return
    key = name, event.recipient
    if event.outcome is Outcome.DEFERRED:
        ends.setdefault(key, "waiting")
    elif ended or ends.get(key, "waiting") == "waiting":
        ends[key] = event.outcome if ended else "handed on"


def _connected(queue_id: str, links: list[_Link]) -> dict[str, str]:
    """The queue IDs that links connect, in either direction."""
    names = {queue_id: "the message"}
    grown = True
    while grown:
        before = len(names)
        for first, then, (before_it, after_it) in links:
            if first in names:
                names.setdefault(then, after_it)
            elif then in names:
                names.setdefault(first, before_it)
        grown = len(names) > before
    return names
