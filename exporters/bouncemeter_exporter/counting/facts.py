"""Facts about recipients, which the ledger passes on to be counted: by the counters, or by a report."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

from bouncemeter.event import Entry, Event, Kind, Outcome

from bouncemeter_exporter.counting.ordinary import OrdinaryMail

__all__ = ["Counts", "Fact", "FactKind"]


class FactKind(StrEnum):
    """What became of a recipient."""

    SOFT_BOUNCE = "soft bounce"
    """Deferred for the first time: it waits from now on."""
    ENDED = "ended"
    """Delivered, bounced or expired: nothing more will come."""
    NOTIFICATION = "notification"
    """Either of the above, for mail with the empty sender."""


class Fact(NamedTuple):
    """What became of one recipient of one message.

    Attributes:
        kind: Which kind of fact.
        event: The event that established it, with the code known by then.
        outcome: `deferred` for a soft bounce, else how the recipient ended.
        provider: Who accepted or refused it.
        delay: Seconds from acceptance to the end, if known.
        first: Whether no recipient of the same message bounced before with the same kind and class.
        sender, account: Who sent the message, and who handed it over, where the ledger remembers that.
    """

    kind: FactKind
    event: Event
    outcome: Outcome
    provider: str
    delay: float | None = None
    first: bool = False
    sender: str | None = None
    account: str | None = None

    @property
    def bounce(self) -> Kind | None:
        """The kind of bounce; None if it is none. A deferral is soft and a refusal for good is hard, even if the
        reply's code is of the other class."""
        return None if self.kind is FactKind.NOTIFICATION else BOUNCES.get(self.outcome)


BOUNCES = {Outcome.DEFERRED: Kind.SOFT, Outcome.BOUNCED: Kind.HARD}


class Counts(Protocol):
    """Something that counts: the exporter's counters, or a report."""

    def count(self, entry: Entry, facts: Sequence[Fact], /) -> None:
        """Count an entry of a log, and the facts that follow from it."""
        ...

    def count_ordinary(self, mail: OrdinaryMail, /) -> None:
        """Count ordinary mail."""
        ...
