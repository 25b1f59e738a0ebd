"""What the entries of a log mean for each recipient.

A log records attempts. The ledger turns them into recipient facts: a recipient is a soft bounce at its first
deferral, and ends once: delivered, bounced or expired. `docs/counting.md` says what it does where a log has gaps.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection
from dataclasses import replace
from itertools import islice

from bouncemeter.blocks import Block, Rows
from bouncemeter.event import NOWHERE, Entry, Event, Kind, Outcome, Step, StepKind
from bouncemeter.knowledge.providers import OTHER, provider_of
from bouncemeter.stamps import Clock

from bouncemeter_exporter.counting.facts import Counts, Fact, FactKind
from bouncemeter_exporter.counting.memory import LATE, MAX_AGE, MAX_ENDED, MAX_MESSAGES, Memory, Queue
from bouncemeter_exporter.counting.message import Message, Recipient, bounce_bit, pack
from bouncemeter_exporter.counting.ordinary import (
    UNORDERED,
    OrdinaryMail,
    file_or_pipe,
    find_ordinary,
    internal_address,
    recipient_key,
)

__all__ = ["Ledger", "count_ordinary"]

MAX_FILTERS = 8
"""Filters that a message may pass, each of which gives it another queue ID."""


class Ledger:
    """Turns entries into facts.

    Args:
        max_age: Seconds after which a message without a further line is forgotten.
        max_messages: How many messages are remembered.
        clock: Supplies the current time.
        recording: Note which messages change, so that they can be saved.
        senders: Remember who sent each message and who handed it over, and name them in the facts.

    Attributes:
        memory: The messages that are remembered.
        senders: As above. Once it is set, messages that came before have no sender.
    """

    def __init__(
        self,
        max_age: float = MAX_AGE,
        max_messages: int = MAX_MESSAGES,
        clock: Clock = time.time,
        *,
        recording: bool = False,
        senders: bool = False,
    ) -> None:
        self.senders = senders
        self.memory = Memory(max_age, max_messages, clock, recording=recording)

    def count(self, block: Block, counts: Counts) -> None:
        """Count the entries of a block, and the facts that follow from them."""
        memory = self.memory
        for host, rows in block.rows.by_server().items() if block.rows is not None else ():
            mail = self._ordinary(rows, host)
            count_ordinary(mail, counts, senders=self.senders)
            mta = rows.reader.mta
            for entry in rows.entries(without=mail.queue_ids, known=self._waiting(mta, host)):
                counts.count(entry, self.facts(entry))
            if (latest := mail.latest()) is not None:  # last, or messages would look too old to earlier lines
                memory.advance(memory.queue(mta, host) or Queue((mta, host)), latest)
        for entry in block.entries:
            counts.count(entry, self.facts(entry))

    def facts(self, entry: Entry) -> list[Fact]:
        """The facts that follow from the log's next entry."""
        queue_id, memory = entry.identity or entry.queue_id, self.memory
        if not queue_id or (isinstance(entry, Event) and entry.outcome is Outcome.REJECTED):
            return []
        queue = memory.queue(entry.mta, entry.host) or memory.add_queue(entry.mta, entry.host)
        if entry.time is not None and entry.time > queue.now:
            memory.advance(queue, entry.time)
        now = memory.now if entry.time is None else entry.time
        memory.note_change(queue, queue_id)
        if isinstance(entry, Event):
            facts = self._event(entry, queue, queue_id, now)
        else:
            self._step(entry, queue, queue_id, now)
            facts = []
        memory.tidy()
        return facts

    def _ordinary(self, rows: Rows, host: str | None) -> OrdinaryMail:
        """The ordinary messages among a server's lines. They are not examined one by one. Those that left last are
        kept for lines that come late; nothing else about them is needed."""
        mta, memory = rows.reader.mta, self.memory
        queue = memory.queue(mta, host)
        mail = find_ordinary(rows, queue.known if queue is not None else lambda _: set())
        if not mail.queue_ids or not memory.has_room(mta, host):
            return OrdinaryMail(rows)
        queue = queue or memory.add_queue(mta, host)
        queue.removes = True
        latest = islice(mail.left_last(LATE), MAX_ENDED)
        for name, message in mail.messages(reversed([name for name, _ in latest]), senders=self.senders):
            memory.keep_ended(queue, name, message)
            memory.note_change(queue, name)
        return mail

    def _waiting(self, mta: str, host: str | None) -> Collection[str]:
        """A live view of the queue IDs of a server's messages with a waiting recipient."""
        queue = self.memory.queue(mta, host)
        return queue.waiting if queue is not None else ()

    # --- steps --------------------------------------------------------------------------------------------------

    def _step(self, step: Step, queue: Queue, queue_id: str, now: float) -> None:
        if step.what is StepKind.NOTIFIED:
            if step.related:
                self._notified(queue, step.related, now)
            return
        if step.what is StepKind.QUEUED and queue_id in queue.waiting:
            return  # queued for another attempt: nothing new
        message = self.memory.find(queue, queue_id, now)
        if step.what is StepKind.REMOVED:
            queue.removes = True
            if message is not None:
                message.removed = True
        elif step.what is StepKind.ARRIVED:
            message = self._arrived(step, queue, queue_id, message, now)
        elif step.what is StepKind.QUEUED:
            if message is None or (message.removed and message.queued):  # the queue ID is reused
                message = Message(now, now)
            message.queued, message.notification = True, message.notification or step.sender == ""
        else:
            message = message or Message(now, now)
            _note_recipient(message, step)
        if message is not None:
            self._note_sender(step, message)
            self.memory.keep(queue, queue_id, message)

    def _note_sender(self, step: Step, message: Message) -> None:
        if self.senders:
            message.sender, message.account = step.sender or message.sender, step.account or message.account

    def _arrived(self, step: Step, queue: Queue, queue_id: str, before: Message | None, now: float) -> Message:
        """An arrival begins a new message, since short queue IDs are reused, unless its line comes late. A message with
        an identity arrives once at each of a server's services, and remains the same."""
        late = before is not None and not before.arrived and abs(before.begun - now) <= UNORDERED
        same = before is not None and (late or step.identity is not None)
        if before is not None and not same and not before.removed:
            self.memory.end_wait(queue, queue_id)
        message = before if before is not None and same else Message(now, now)
        if not (same and message.arrived and message.begun <= now):
            message.begun, message.arrived, message.peer, message.origin = now, True, step.peer, step.related
        if step.sender is not None:
            message.queued, message.notification = True, step.sender == ""
        if step.related and (origin := queue.peek(step.related)) is not None:
            message.take_soft(origin.soft())
            message.bounced |= origin.bounced
            message.account = origin.account
        return message

    def _notified(self, queue: Queue, queue_id: str, now: float) -> None:
        message = self.memory.find(queue, queue_id, now) or Message(now, now)
        message.notification = True
        self.memory.keep(queue, queue_id, message)
        self.memory.note_change(queue, queue_id)

    # --- outcomes -----------------------------------------------------------------------------------------------

    def _event(self, event: Event, queue: Queue, queue_id: str, now: float) -> list[Fact]:
        message = self.memory.find(queue, queue_id, now) or Message(now, now)
        if event.sender is not None:
            message.queued, message.notification = True, message.notification or event.sender == ""
            if self.senders:
                message.sender = event.sender or message.sender
        facts = self._recipient(event, queue, message, queue_id, now)
        if message.notification:
            facts = [fact._replace(kind=FactKind.NOTIFICATION) for fact in facts]
        elif facts and event.outcome is not Outcome.DELIVERED:
            facts = [self._marked(fact, queue, message) for fact in facts]
        self.memory.keep(queue, queue_id, message)
        return facts

    def _recipient(self, event: Event, queue: Queue, message: Message, queue_id: str, now: float) -> list[Fact]:
        if event.recipient is None:
            return [] if event.outcome is Outcome.DEFERRED else self._end_all(event, message)
        key = _key(event, message)
        recipient = message.recipient(key)
        if event.outcome is Outcome.DEFERRED:
            return self._defer(event, message, recipient, now)
        if recipient.ended and not recipient.passed_on:
            return []
        if event.outcome is Outcome.DELIVERED and self._handed_on(event, queue, message, queue_id, now):
            message.end(recipient, passed_on=recipient.passed_on)
            return []
        return [self._end(event, message, recipient)]

    def _defer(self, event: Event, message: Message, recipient: Recipient, now: float) -> list[Fact]:
        """The first deferral is a soft bounce, even if its line comes after that of the end."""
        facts = []
        first = recipient.since is None and (event.recipient or "").lower() not in message.soft_before
        provider = provider_of(event.relay, event.recipient)
        again = recipient.passed_on and now >= message.seen
        if event.delay is not None and not message.arrived:  # a message of the server's own, or from before the log
            message.begun, message.dated = now - event.delay, True
        message.defer(recipient, now, event.code, provider, again=again)
        if first:
            who = message.sender, message.account
            facts.append(Fact(FactKind.SOFT_BOUNCE, event, Outcome.DEFERRED, provider, None, False, *who))  # noqa: FBT003
        if message.expired and not recipient.ended:
            if not message.unnamed:
                facts.append(self._end(replace(event, outcome=Outcome.EXPIRED), message, recipient))
            message.end(recipient, passed_on=recipient.passed_on)
            message.unnamed = False
        return facts

    def _end(self, event: Event, message: Message, recipient: Recipient) -> Fact:
        message.end(recipient)
        provider = provider_of(event.relay, event.recipient)
        if event.outcome is Outcome.EXPIRED and recipient.code is not None:
            event, provider = replace(event, code=recipient.code), recipient.provider
        delay = event.delay
        if delay is None and (message.arrived or message.dated) and event.time is not None:
            delay = round(max(0.0, event.time - message.begun), 3)
        who = message.sender, message.account
        return Fact(FactKind.ENDED, event, event.outcome, provider, delay, False, *who)  # noqa: FBT003 - faster

    def _end_all(self, event: Event, message: Message) -> list[Fact]:
        """End the whole message: every recipient that waits, or one if none is known."""
        if message.expired:
            return []
        message.expired = True
        facts = [self._end(_about(event, key), message, each) for key, each in list(message.waiting())]
        if not facts:
            message.unnamed = True
            facts = [self._end(event, message, Recipient(provider=OTHER))]
        return facts

    def _marked(self, fact: Fact, queue: Queue, message: Message) -> Fact:
        """A fact, marked if it is the first bounce of its message with its kind and class. A message that a filter
        handed back, perhaps in parts, is still the same message."""
        if fact.bounce is None:
            return fact
        bit, before, origin = bounce_bit(fact.bounce, fact.event.code), message.bounced, message.origin
        message.bounced |= bit
        for _ in range(MAX_FILTERS):
            if origin is None or (earlier := queue.peek(origin)) is None:
                break
            before |= earlier.bounced
            if not earlier.bounced & bit:
                earlier.bounced |= bit
                self._keep_change(queue, origin, earlier)
            origin = earlier.origin
        if before & bit:
            return fact
        kind, event, outcome, provider, delay, _, sender, account = fact  # `_replace` takes five times as long
        return Fact(kind, event, outcome, provider, delay, True, sender, account)  # noqa: FBT003

    def _keep_change(self, queue: Queue, queue_id: str, message: Message) -> None:
        """Keep a change of a message that was not taken out."""
        if isinstance(queue.waiting.get(queue_id), bytes):
            queue.waiting[queue_id] = pack(message)
        self.memory.note_change(queue, queue_id)

    def _handed_on(self, event: Event, queue: Queue, message: Message, queue_id: str, now: float) -> bool:
        """Whether a delivery was to a filter or to our own server, which now has the message under another queue ID, or
        discarded it. The next server's reply alone proves nothing: see `_came_back`."""
        if event.forwarded:
            return True
        if event.passed_to is None or event.passed_to == queue_id:
            return False
        if event.passed_to == NOWHERE:
            return internal_address(event.relay or "") is not None
        successor = queue.peek(event.passed_to)
        if successor is None or now - successor.seen > LATE:
            return False
        if not _came_back(event, message, successor, queue_id):
            return False
        # A recipient deferred before the hand-off is not soft again after it; and no other message may claim this one.
        successor.origin = queue_id
        successor.take_soft(message.soft())
        message.bounced = successor.bounced = message.bounced | successor.bounced
        successor.account = successor.account or message.account
        self._keep_change(queue, event.passed_to, successor)
        return True


def count_ordinary(mail: OrdinaryMail, counts: Counts, *, senders: bool = False) -> None:
    """Count ordinary messages: each of their recipients ended.

    Args:
        mail: The messages.
        counts: What counts them.
        senders: Name in the facts who sent each message and who handed it over.
    """
    counts.count_ordinary(mail)
    counted = set()
    of, by = (mail.senders(), mail.accounts()) if senders and mail.refusals else ({}, {})
    for event in mail.refusals:
        provider, first = provider_of(event.relay, event.recipient), (event.queue_id, bounce_bit(Kind.HARD, event.code))
        delay, is_first = mail.delay(event), first not in counted
        who = event.sender or of.get(event.queue_id or ""), by.get(event.queue_id or "")
        counts.count(event, [Fact(FactKind.ENDED, event, event.outcome, provider, delay, is_first, *who)])
        counted.add(first)


def _about(event: Event, key: str) -> Event:
    """An event about all recipients as one about the recipient of a key."""
    recipient, _, rest = key.partition("\n")
    return replace(event, recipient=recipient, original_recipient=rest.partition("\n")[0] or None)


def _key(event: Event, message: Message) -> str:
    """The key of an event's recipient: see `recipient_key`."""
    original, target = event.original_recipient or "", file_or_pipe(event)
    recipient = event.recipient or ""
    key = recipient_key(recipient, original, target)
    if "@" not in recipient and key not in message.recipients:
        # Exim logs a local mailbox without its domain when it delivers, and with it when it defers.
        for known in message.named(f"{recipient.lower()}@"):
            if known.partition("\n")[2] == f"{original.lower()}\n{target}" and message.recipients[known].waits:
                return known
    return key


def _note_recipient(message: Message, step: Step) -> None:
    """End, without an outcome, a recipient that was replaced, went to another server of ours, or was dropped on
    purpose; or let the recipients of a message that was taken up again end once more."""
    if step.what is StepKind.RESUMED:
        for each in message.recipients.values():
            each.passed_on = each.ended
        return
    if step.peer is not None:  # a filter's line: its own ID is only needed until the delivery to it is logged
        message.peer, message.removed = step.peer, True
    name = (step.recipient or "").lower()
    for key in list(message.named(name)) or [name]:
        recipient = message.recipient(key)
        still_open = recipient.passed_on or not recipient.ended
        message.end(recipient, passed_on=still_open and step.what is StepKind.PASSED_ON)


def _came_back(event: Event, message: Message, successor: Message, queue_id: str) -> bool:
    """Whether a delivered message came back as another one, which arrived from where the delivery went, not before the
    first message, and is for the same recipient, once all of its recipients are known."""
    if successor.origin is not None:
        return successor.origin == queue_id
    if message.arrived and successor.begun < message.begun:
        return False
    name = _without_extension((event.recipient or "").lower())
    if successor.removed and not any(
        name == _without_extension(each) for key in successor.recipients for each in key.split("\n")[:2]
    ):
        return False
    # Only our own filters, on this host or on a private network, are trusted to know our queue IDs.
    there, here = internal_address(event.relay or ""), internal_address(successor.peer or "")
    return there is not None and here is not None and (there == here or (there.is_loopback and here.is_loopback))


def _without_extension(address: str) -> str:
    """An address without what a filter may have added to the local part: `ann+spam@dest.test` is for `ann`."""
    local, _, domain = address.rpartition("@")
    return f"{re.split('[+-]', local, maxsplit=1)[0]}@{domain}"
