"""The vocabulary of mail logs: parsers produce these types, exporters consume them.

An `Event` is an outcome: something happened to a recipient (or our own server refused mail). A `Step` is
anything else about a message that is needed to count recipients and not attempts: where it came from, who
sent it, when it left the queue.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

__all__ = [
    "NOWHERE",
    "EnhancedCode",
    "Entry",
    "Event",
    "Kind",
    "Outcome",
    "Stage",
    "Step",
    "StepKind",
    "undefined_code",
]


NOWHERE = "-"
"""In place of a queue ID that a message was passed on under: a filter threw it away, or put it into quarantine."""


class Outcome(StrEnum):
    """How one attempt ended."""

    DELIVERED = "delivered"
    DEFERRED = "deferred"
    """Failed for now; the server will retry."""
    BOUNCED = "bounced"
    """Refused for good."""
    EXPIRED = "expired"
    """The server gave up after retries."""
    REJECTED = "rejected"
    """Our own server refused someone else's mail."""


class Kind(StrEnum):
    """Soft for class 4, hard for class 5."""

    SOFT = "soft"
    HARD = "hard"


class Stage(StrEnum):
    """Where in the SMTP dialogue our own server refused (RFC 5321)."""

    CONNECT = "connect"
    HELO = "helo"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"


class EnhancedCode(NamedTuple):
    """An enhanced mail system status code (RFC 3463): `5.7.1` is class 5, subject 7, detail 1."""

    digit: int
    subject: int
    detail: int

    @staticmethod
    @lru_cache(maxsize=4096)
    def parse(text: str) -> EnhancedCode:
        """Read a code such as `5.7.26`.

        Raises:
            ValueError: The text is not three numbers, the first of them 2, 4 or 5.
        """
        match = re.fullmatch(r"([245])\.([0-9]{1,3})\.([0-9]{1,3})", text)
        if match is None:
            raise ValueError(f"{text!r} is not an enhanced status code such as 5.7.1 (RFC 3463)")
        return EnhancedCode(int(match[1]), int(match[2]), int(match[3]))

    @property
    def code_class(self) -> str:
        """The first two parts: `5.7`."""
        return f"{self.digit}.{self.subject}"

    @property
    def kind(self) -> Kind | None:
        """Soft for class 4, hard for class 5, None for success."""
        return {4: Kind.SOFT, 5: Kind.HARD}.get(self.digit)

    def __str__(self) -> str:
        return f"{self.digit}.{self.subject}.{self.detail}"


_OUTCOME_CODES = {
    Outcome.DELIVERED: EnhancedCode(2, 0, 0),
    Outcome.DEFERRED: EnhancedCode(4, 0, 0),
    Outcome.BOUNCED: EnhancedCode(5, 0, 0),
    Outcome.EXPIRED: EnhancedCode(4, 4, 7),
    Outcome.REJECTED: EnhancedCode(5, 0, 0),
}


def undefined_code(outcome: Outcome, reply_code: int | None) -> EnhancedCode:
    """The code for a reply that has none: the undefined code of its class (RFC 3463, X.0.0).

    Args:
        outcome: Decides the class if there is no SMTP reply either.
        reply_code: The three digits of the SMTP reply, or None.
    """
    if outcome is not Outcome.EXPIRED and reply_code is not None and reply_code // 100 in (2, 4, 5):
        return EnhancedCode(reply_code // 100, 0, 0)
    return _OUTCOME_CODES[outcome]


@dataclass(slots=True)
class Event:
    """One outcome, from one line of the log.

    Attributes:
        time: Seconds since 1970 UTC, or None if the line has no time.
        mta: The parser's name: `postfix`, `exim`, `exchange`.
        host: The host that wrote the line, as the line names it.
        outcome: What happened.
        code: The enhanced status code from the log, else the undefined code of its class.
        reply_code: The three digits of the SMTP reply, if the log has one.
        queue_id: The message's name in the queue; None for a rejection before the message had one.
        recipient: The address tried; None if the line is about all recipients (Postfix's expiry).
        original_recipient: The address before aliases and rewriting, if it differs.
        sender: The envelope sender; the empty string is the null sender of a notification.
        relay: The other server: where mail went (also a file or a command, `|/usr/bin/vacation`), or, for a
            rejection, the client that was refused.
        delay: Seconds from acceptance to this line.
        text: The reply or error, as logged; in a rejection by Postfix, what the client wrote is in brackets, without
            spaces.
        stage: For a rejection, the stage of the SMTP dialogue.
        passed_to: The queue ID, or a filter's own ID, that the next server says it gave the message; `NOWHERE` if it
            says that it discarded the message. Any server can claim this.
        forwarded: Whether our own server gave `passed_to`: the message continues as that, to other recipients.
        identity: What tells the message from all others of its host, if the queue ID does not.
    """

    mta: str
    outcome: Outcome
    code: EnhancedCode
    time: float | None = None
    host: str | None = None
    reply_code: int | None = None
    queue_id: str | None = None
    recipient: str | None = None
    original_recipient: str | None = None
    sender: str | None = None
    relay: str | None = None
    delay: float | None = None
    text: str | None = None
    stage: Stage | None = None
    passed_to: str | None = None
    forwarded: bool = False
    identity: str | None = None

    @property
    def kind(self) -> Kind | None:
        """Soft or hard, by the code's class; None for a delivery."""
        return None if self.outcome is Outcome.DELIVERED else self.code.kind


class StepKind(StrEnum):
    """What a `Step` records about a message."""

    ARRIVED = "arrived"
    """Accepted into the queue. `peer` is the client's address, `related` its earlier queue ID, if logged."""
    QUEUED = "queued"
    """The queue manager picked it up: its sender is known."""
    NOTIFIED = "notified"
    """The server made a notification about it, with the queue ID `related`."""
    PASSED_ON = "passed on"
    """Another address replaced `recipient`, or it went to another of our servers: it does not end here, unless an
    outcome follows. In a filter's line, `queue_id` is the filter's own ID, `peer` where the filter runs, and `related`
    the message's new queue ID."""
    DROPPED = "dropped"
    """`recipient` was discarded on purpose, or put into quarantine: neither delivered nor bounced."""
    REMOVED = "removed"
    """It left the queue."""
    RESUMED = "resumed"
    """It had ended, and was taken up again: its recipients can end once more."""
    NAMED = "named"
    """Its header has the Message-ID `related`. Only a search reads it; see `bouncemeter.plugin.MessageIDReader`."""


@dataclass(slots=True)
class Step:
    """Something that happened to a message, other than an outcome.

    Attributes:
        what: What happened.
        time, mta, host, queue_id, sender, identity: As in `Event`. Without a queue ID, `queue_id` is empty.
        peer: The address of the client that handed the message over.
        related: Another queue ID; see `StepKind`.
        recipient: The address that the step is about; see `StepKind`.
        account: Who handed the message over, by name: the user who logged in (SASL), or the local user.
    """

    what: StepKind
    mta: str
    queue_id: str
    time: float | None = None
    host: str | None = None
    sender: str | None = None
    peer: str | None = None
    related: str | None = None
    recipient: str | None = None
    identity: str | None = None
    account: str | None = None


Entry = Event | Step
"""What a parser makes of one line."""
