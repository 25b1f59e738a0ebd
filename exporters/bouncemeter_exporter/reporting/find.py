"""Finds messages by what people know of them: a recipient, a sender, the Message-ID, a part of a reply.

The logs are read once to find the messages, and again for what became of each. A message that a filter handed back
under another queue ID is one message.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bouncemeter.event import Entry, Event, Outcome, Step, StepKind

from bouncemeter_exporter.records import Redactor, rfc3339
from bouncemeter_exporter.reporting.sought import By, Sought, search_for
from bouncemeter_exporter.reporting.trace import (
    HANDED_ON,
    ROUNDS,
    Outcomes,
    Reader,
    Story,
    handed_on_as,
    name_of,
    names_in,
    trace_message,
)
from bouncemeter_exporter.sources.search import Search

__all__ = ["MAX_FOUND", "FoundMessages", "Message", "find_messages"]

MAX_FOUND = 10_000
"""Messages that are remembered; of more, the latest."""

MAX_REFUSALS = 100
"""Outcomes without a queue ID that are remembered of a message."""

MAX_LINKED = 5 * MAX_FOUND
"""Queue IDs that are looked for to follow these messages through filters."""


@dataclass(slots=True)
class Message:
    """What the logs say about a message, in short.

    Attributes:
        names: What names it in all of its lines; nothing does if our server refused it before it had a queue ID.
        queue_ids: Its queue IDs; more than one if a filter handed it back.
        time: When it arrived, or its first line, in seconds since 1970 UTC.
        mta, host, sender: As in `bouncemeter.event.Event`.
        recipients: What became of each recipient: an outcome, `waiting`, `handed on` or `dropped`.
        asked: The recipients that were asked for, or had the reply that was asked for.
        last: The last outcome; the last that was asked for, if any was.
        is_last_asked: Whether it is one that was asked for.
        refusals: The outcomes that have no queue ID.
    """

    names: list[str] = field(default_factory=list)
    queue_ids: list[str] = field(default_factory=list)
    time: float | None = None
    mta: str = ""
    host: str | None = None
    sender: str | None = None
    recipients: dict[str, str] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    last: Event | None = None
    is_last_asked: bool = False
    refusals: list[Event] = field(default_factory=list)

    @property
    def outcomes(self) -> dict[str, int]:
        """How many recipients had each outcome; of those that were asked for, if any were."""
        asked = self.asked & self.recipients.keys() or self.recipients.keys()
        found = Counter(outcome for recipient, outcome in self.recipients.items() if recipient in asked)
        return dict(found) or ({self.last.outcome: 1} if self.last else {})

    def note(self, entry: Entry, sought: Sought) -> None:
        """Note the next entry about it.

        Args:
            entry: The entry.
            sought: What the search asks for.
        """
        self.time = entry.time if self.time is None else self.time
        self.sender = entry.sender if self.sender is None else self.sender
        self.mta, self.host = entry.mta, self.host or entry.host
        if entry.queue_id and entry.queue_id not in self.queue_ids:
            self.queue_ids.append(entry.queue_id)
        is_asked = sought.by in (By.RECIPIENT, By.REPLY) and sought.matches(entry)
        if is_asked and entry.recipient:
            self.asked.add(entry.recipient)
        if isinstance(entry, Step):
            if entry.what is StepKind.DROPPED and entry.recipient:
                self.recipients.setdefault(entry.recipient, "dropped")
            return
        if entry.outcome is Outcome.REJECTED and entry.recipient:
            self.recipients.setdefault(entry.recipient, entry.outcome)
        if is_asked or not self.is_last_asked or (entry.recipient is None and sought.by is By.RECIPIENT):
            self.last, self.is_last_asked = entry, is_asked or self.is_last_asked
        if not entry.queue_id and len(self.refusals) < MAX_REFUSALS:
            self.refusals.append(entry)

    def in_order(self) -> list[str]:
        """The recipients, those that were asked for first."""
        return sorted(self.recipients, key=lambda recipient: recipient not in self.asked)

    def redacted(self, hidden: Redactor) -> Message:
        """The same message without addresses."""
        return replace(
            self,
            sender=None if self.sender is None else hidden.address(self.sender),
            recipients={hidden.address(each): outcome for each, outcome in self.recipients.items()},
            asked={hidden.address(each) for each in self.asked},
            last=hidden.entry(self.last) if self.last else None,
        )

    def as_json(self) -> dict[str, Any]:
        """The message as a JSON object."""
        return {
            "queue_id": self.queue_ids[0] if self.queue_ids else None,
            "queue_ids": self.queue_ids,
            "time": rfc3339(self.time),
            "mta": self.mta,
            "host": self.host,
            "sender": self.sender,
            "recipients": [{"recipient": each, "outcome": self.recipients[each]} for each in self.in_order()],
            "outcomes": self.outcomes,
            "code": str(self.last.code) if self.last else None,
            "text": self.last.text if self.last else None,
        }


@dataclass(frozen=True, slots=True)
class FoundMessages:
    """The messages that a search found.

    Attributes:
        sought: What they were found by.
        messages: The latest of them, in the order of their times.
        more: How many earlier ones there are.
        story: The story of the message, if there is only one.
        others: In what other ways the text could be meant, for which there are messages as well.
        is_limited: More than `MAX_FOUND` were found. A message with late lines may then count twice among `more`.
    """

    sought: Sought
    messages: Sequence[Message]
    more: int = 0
    story: Story | None = None
    others: Sequence[Sought] = ()
    is_limited: bool = False

    def redacted(self, hidden: Redactor) -> FoundMessages:
        """The same without addresses."""
        return replace(
            self,
            sought=self.sought.redacted(hidden),
            messages=[each.redacted(hidden) for each in self.messages],
            story=self.story.redacted(hidden) if self.story else None,
            others=[each.redacted(hidden) for each in self.others],
        )

    def as_json(self, hidden: Redactor | None = None) -> dict[str, Any]:
        """What was found as a JSON object.

        Args:
            hidden: What hides its addresses.
        """
        return {
            "by": self.sought.by,
            "messages": [(each.redacted(hidden) if hidden else each).as_json() for each in self.messages],
            "more": self.more,
            "story": self.story.as_json(hidden) if self.story else None,
        }


def find_messages(sought: Sequence[Sought], read: Reader, top: int) -> FoundMessages | None:
    """The messages that a text asks for; None if there is none.

    Args:
        sought: What the text can ask for; the first that is found counts.
        read: Reads the logs.
        top: How many messages are wanted, the latest.
    """
    matches = [_Matches(each) for each in sought]
    for entry in read(search_for(sought)):
        for each in matches:
            each.note(entry)
    for found in matches:
        messages = _refused(found) + (_gathered(found, read) if found.names else [])
        if messages:
            messages.sort(key=lambda message: message.time or 0.0)
            more = max(0, len(messages) - top) + found.forgotten
            others = [each.sought for each in matches if each is not found and each]
            story = _story_of(messages[0], read) if len(messages) == 1 and not more else None
            return FoundMessages(found.sought, messages[-top:], more, story, others, found.forgotten > 0)
    return None


class _Matches:
    """What matches one reading of the text that is sought.

    Attributes:
        sought: The reading.
        forgotten: How many messages are too many to be remembered.
    """

    def __init__(self, sought: Sought) -> None:
        self.sought, self.forgotten = sought, 0
        self._found: dict[str | int, Event | None] = {}
        self._number = 0

    def __bool__(self) -> bool:
        """Whether anything matched."""
        return bool(self._found)

    @property
    def names(self) -> frozenset[str]:
        """What names the messages that were found."""
        return frozenset(name for name in self._found if isinstance(name, str))

    @property
    def nameless(self) -> Sequence[Event]:
        """The outcomes of messages that nothing names."""
        return [event for event in self._found.values() if event is not None]

    def note(self, entry: Entry) -> None:
        """Note an entry if it matches."""
        if not self.sought.matches(entry):
            return
        if name := name_of(entry):
            self._found.setdefault(name, None)
        elif isinstance(entry, Event):
            self._number += 1
            self._found[self._number] = entry
        if len(self._found) > MAX_FOUND:
            del self._found[next(iter(self._found))]
            self.forgotten += 1


def _refused(found: _Matches) -> list[Message]:
    """The messages that our own server refused before they had a queue ID."""
    messages = []
    for event in found.nameless:
        message = Message()
        message.note(event, found.sought)
        messages.append(message)
    return messages


def _gathered(found: _Matches, read: Reader) -> list[Message]:
    """The messages that have names, those that a filter handed back as one, in the order of the log."""
    wanted = found.names
    for _ in range(ROUNDS):
        outcomes, messages, others = Outcomes(), dict[str, Message](), set[str]()
        for entry in read(Search(wanted)):
            names = _same_message(entry)
            if wanted.isdisjoint(names):
                continue
            others |= names
            name = name_of(entry)
            if name in wanted:
                outcomes.note(entry, name)
                messages.setdefault(name, Message()).note(entry, found.sought)
        others -= wanted
        if not others or len(wanted) + len(others) > MAX_LINKED:
            break
        wanted |= others
    for name, message in messages.items():
        message.names.append(name)
        message.recipients = {**message.recipients, **outcomes.recipients.get(name, {})}
    links = [(first, then) for first, then, how in outcomes.links if how is HANDED_ON]
    groups = _groups(messages, links)
    return [_merged([messages[name] for name in group]) for group in groups if not found.names.isdisjoint(group)]


def _same_message(entry: Entry) -> set[str]:
    """The names that an entry gives to one message, before and after a filter."""
    is_one = entry.what is not StepKind.NOTIFIED if isinstance(entry, Step) else handed_on_as(entry) is not None
    name = name_of(entry)
    return names_in(entry) if is_one else {name} if name else set()


def _groups(names: Iterable[str], links: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Names in groups that links connect; the groups and the names are in the order of the names."""
    neighbours: dict[str, list[str]] = {name: [] for name in names}
    for first, then in links:
        if first in neighbours and then in neighbours:
            neighbours[first].append(then)
            neighbours[then].append(first)
    place = {name: number for number, name in enumerate(neighbours)}
    groups, seen = [], set[str]()
    for name in neighbours:
        group, waiting = [], [name]
        while waiting:
            if (each := waiting.pop()) not in seen:
                seen.add(each)
                group.append(each)
                waiting += neighbours[each]
        if group:
            groups.append(sorted(group, key=place.__getitem__))
    return groups


def _merged(messages: Sequence[Message]) -> Message:
    """One message in place of those that it became."""
    merged = messages[0]
    for each in messages[1:]:
        merged.names += each.names
        merged.queue_ids += [queue_id for queue_id in each.queue_ids if queue_id not in merged.queue_ids]
        merged.sender = each.sender if merged.sender is None else merged.sender
        merged.asked |= each.asked
        if each.last and (merged.last is None or _weight(each) >= _weight(merged)):
            merged.last, merged.is_last_asked = each.last, each.is_last_asked
        ends = {recipient: end for recipient, end in each.recipients.items() if end != "handed on"}
        merged.recipients = {**merged.recipients, **ends}
    if len(messages) > 1:
        ends = {recipient: end for recipient, end in merged.recipients.items() if end != "handed on"}
        merged.recipients = ends or merged.recipients
    return merged


def _weight(message: Message) -> tuple[bool, float]:
    """Of several messages' last outcomes, the one with the highest weight is the last of all."""
    return message.is_last_asked, (message.last.time if message.last else None) or 0.0


def _story_of(message: Message, read: Reader) -> Story | None:
    """The whole story of a message."""
    if message.queue_ids:
        return trace_message(message.queue_ids[0], read, frozenset(message.names))
    return Story(None, list(message.refusals))
