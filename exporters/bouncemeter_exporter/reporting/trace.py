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
from bouncemeter_exporter.counting.ordinary import internal_address
from bouncemeter_exporter.records import Redactor, record, rfc3339
from bouncemeter_exporter.sources.search import Search

__all__ = [
    "HANDED_ON",
    "MAX_MESSAGES",
    "ROUNDS",
    "Outcomes",
    "Reader",
    "Story",
    "handed_on_as",
    "meaning_of",
    "name_of",
    "names_in",
    "trace_message",
]

MAX_MESSAGES = 50
"""Messages that a story may contain."""

ROUNDS = 8
"""How often the logs are read, at most: each time also for the queue IDs that the last reading found."""

HANDED_ON = ("before", "handed on")
NOTIFIED = ("bounced message", "a bounce message")
"""How two messages are connected: what the first is to the second, and the second to the first."""

_Link = tuple[str, str, tuple[str, str]]
"""A queue ID, a queue ID that came from it, and how they are connected."""

Reader = Callable[[Search], Iterable[Entry]]
"""Reads the log entries about what is looked for, such as some queue IDs; it may return other entries too."""


@dataclass(slots=True)
class Story:
    """What the logs say about a message.

    Attributes:
        queue_id: The queue ID that was asked for; None of a rejection that has none.
        entries: All entries about it and the messages connected with it, in the order of the log.
        names: The queue IDs, each with what it is: `the message`, `a bounce message`, `handed on`, `before`.
        recipients: What became of each recipient, by queue ID and address.
    """

    queue_id: str | None
    entries: list[Entry] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    recipients: dict[tuple[str, str], str] = field(default_factory=dict)

    def redacted(self, hidden: Redactor) -> Story:
        """The same story without addresses."""
        recipients = {(name, hidden.address(each)): outcome for (name, each), outcome in self.recipients.items()}
        return Story(self.queue_id, [hidden.entry(each) for each in self.entries], self.names, recipients)

    def as_json(self, hidden: Redactor | None = None) -> dict[str, Any]:
        """The story as a JSON object.

        Args:
            hidden: What hides its addresses.
        """
        return {
            "queue_id": self.queue_id,
            "messages": [{"queue_id": name, "what": what} for name, what in self.names.items()],
            "entries": [_as_json(entry, hidden) for entry in self.entries],
            "recipients": [
                {
                    "queue_id": queue_id,
                    "recipient": hidden.address(recipient) if hidden else recipient,
                    "outcome": outcome,
                }
                for (queue_id, recipient), outcome in self.recipients.items()
            ],
        }


def _as_json(entry: Entry, hidden: Redactor | None) -> dict[str, Any]:
    if isinstance(entry, Event):
        return {**record(entry, hidden), "meaning": None if entry.outcome is Outcome.DELIVERED else meaning_of(entry)}
    entry = hidden.entry(entry) if hidden else entry
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


def trace_message(queue_id: str, read: Reader, names: frozenset[str] = frozenset()) -> Story | None:
    """The story of a queue ID; None if no entry is about it.

    Args:
        queue_id: As the log writes it.
        read: Reads the logs; called again while it finds further queue IDs.
        names: What names the message in all of its lines, where the queue ID alone may name others, too.
    """
    wanted = names or frozenset({queue_id})
    entries: list[Entry] = []
    for _ in range(ROUNDS):
        found = [
            entry
            for entry in read(Search(wanted))
            if (not names and entry.queue_id == queue_id) or not wanted.isdisjoint(names_in(entry))
        ]
        entries = [entry for entry in found if (not names and entry.queue_id == queue_id) or name_of(entry) in wanted]
        more = {name for entry in found for name in names_in(entry)} - wanted
        if not more or len(wanted) + len(more) > MAX_MESSAGES:
            break
        wanted |= more
    if not any(entry.queue_id == queue_id for entry in entries):
        return None
    return _story(queue_id, entries)


def name_of(entry: Entry) -> str | None:
    """What names the message of an entry in all of its lines: Exchange's queue IDs differ from service to service."""
    return entry.identity or entry.queue_id


def handed_on_as(event: Event) -> str | None:
    """The queue ID under which a delivered message may go on in one of our own servers: no other one knows our IDs."""
    if event.outcome is not Outcome.DELIVERED or event.passed_to == NOWHERE:
        return None
    return event.passed_to if event.forwarded or internal_address(event.relay or "") is not None else None


def names_in(entry: Entry) -> set[str]:
    """Every message that an entry names."""
    other = entry.passed_to if isinstance(entry, Event) else entry.related
    return {name for name in (name_of(entry), other) if name and name != NOWHERE}


def _story(queue_id: str, entries: list[Entry]) -> Story:
    """The story of a queue ID, without the entries of unconnected messages."""
    outcomes = Outcomes()
    first: dict[str, str] = {}
    for entry in entries:
        if entry.identity and entry.queue_id and first.setdefault(entry.identity, entry.queue_id) != entry.queue_id:
            outcomes.links.append((first[entry.identity], entry.queue_id, HANDED_ON))
        outcomes.note(entry, first.get(entry.identity or "") or entry.queue_id or "")
    story = Story(queue_id, names=_connected(queue_id, outcomes.links))
    story.entries = [entry for entry in entries if entry.queue_id in story.names]
    story.recipients = {
        (name, recipient): outcome
        for name, recipients in outcomes.recipients.items()
        for recipient, outcome in recipients.items()
        if name in story.names
    }
    return story


class Outcomes:
    """What became of the recipients of some messages.

    Attributes:
        recipients: By the message's name and the address: an outcome, `waiting`, `handed on`, or `dropped` by a filter.
        links: How the messages are connected.
    """

    def __init__(self) -> None:
        self.recipients: dict[str, dict[str, str]] = {}
        self.links: list[_Link] = []
        self._ledger = Ledger()

    def note(self, entry: Entry, name: str) -> None:
        """Note what an entry says.

        Args:
            entry: The log's next entry about one of the messages.
            name: The message's name.
        """
        facts = self._ledger.facts(entry)
        if isinstance(entry, Step):
            if entry.related:
                self.links.append(_link(entry.what, name, entry.related))
            return
        if (then := handed_on_as(entry)) is not None and not facts:
            self.links.append((name, then, HANDED_ON))
        if entry.outcome is not Outcome.REJECTED:
            ended = any(fact.kind is not FactKind.SOFT_BOUNCE for fact in facts)
            _note_outcome(self.recipients.setdefault(name, {}), entry, ended=ended)


def _link(what: StepKind, queue_id: str, related: str) -> _Link:
    """How the two messages of a step are connected, the earlier one first."""
    if what is StepKind.NOTIFIED:
        return queue_id, related, NOTIFIED
    return (queue_id, related, HANDED_ON) if what is StepKind.PASSED_ON else (related, queue_id, HANDED_ON)


def _note_outcome(ends: dict[str, str], event: Event, *, ended: bool) -> None:
    """Note the outcome of a recipient of a message, or of all that wait."""
    if event.recipient is None:
        for recipient, outcome in ends.items():
            if outcome == "waiting":
                ends[recipient] = event.outcome
    elif event.outcome is Outcome.DEFERRED:
        ends.setdefault(event.recipient, "waiting")
    elif ended or ends.get(event.recipient, "waiting") == "waiting":
        ends[event.recipient] = event.outcome if ended else "dropped" if event.passed_to == NOWHERE else "handed on"


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
