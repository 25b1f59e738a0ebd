"""Which entries are about what a search asks for: a recipient, a sender, a Message-ID, a part of a reply."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from bouncemeter.event import Entry, Event, Outcome, Step, StepKind

from bouncemeter_exporter.records import Redactor
from bouncemeter_exporter.sources.search import Search, unescaped

__all__ = ["By", "Sought", "readings", "search_for"]


class By(StrEnum):
    """What a message is searched by."""

    QUEUE_ID = "queue-id"
    RECIPIENT = "recipient"
    SENDER = "sender"
    MESSAGE_ID = "message-id"
    REPLY = "reply"


@dataclass(frozen=True, slots=True)
class Sought:
    """What a search asks for.

    Attributes:
        by: What it is.
        text: The text: an address (or `@` and a domain) and a part of a reply in lower case, a Message-ID without its
            angle brackets.
    """

    by: By
    text: str

    @property
    def in_words(self) -> str:
        """What is asked for, after the word `message`."""
        match self.by:
            case By.RECIPIENT:
                return f"to {self.text}"
            case By.SENDER:
                return f"from {self.text or '<>'}"
            case By.MESSAGE_ID:
                return f"with the Message-ID <{self.text}>"
            case By.REPLY:
                return f"with a reply or error that contains {self.text!r}"
            case By.QUEUE_ID:
                return f"with the queue ID {self.text}"

    def redacted(self, hidden: Redactor) -> Sought:
        """The same for a reader who is to see no address."""
        if self.by in (By.RECIPIENT, By.SENDER):
            return replace(self, text=hidden.address(self.text) if self.text.partition("@")[0] else self.text)
        return replace(self, text=hidden.text(self.text))

    def matches(self, entry: Entry) -> bool:
        """Whether an entry is about it."""
        match self.by:
            case By.RECIPIENT:
                return self._is(entry.recipient) or (isinstance(entry, Event) and self._is(entry.original_recipient))
            case By.SENDER:
                return self._is(entry.sender)
            case By.MESSAGE_ID:
                return _message_id_in(entry) == self.text
            case By.REPLY:
                return isinstance(entry, Event) and self.text in _reply_of(entry)
            case By.QUEUE_ID:
                return entry.queue_id == self.text

    def _is(self, address: str | None) -> bool:
        """Whether an address is the one, or in the domain, that is asked for."""
        if address is None:
            return False
        address = address.lower()
        return address == self.text or (self.text.startswith("@") and address.endswith(self.text))


def _reply_of(event: Event) -> str:
    """A reply in lower case. A rejection's text lacks the reply's numbers, which its own words are logged with."""
    numbers = f"{event.reply_code or ''} {event.code} " if event.outcome is Outcome.REJECTED else ""
    return f"{numbers}{event.text or ''}".lower()


def _message_id_in(entry: Entry) -> str | None:
    """The Message-ID that an entry gives its message."""
    return _bare(entry.related or "") if isinstance(entry, Step) and entry.what is StepKind.NAMED else None


def readings(what: str, by: By | None = None) -> Sequence[Sought]:
    """What a text can ask for; the first that is found counts.

    Args:
        what: As the user wrote it.
        by: What it is; if None, its form decides: `<...@...>` is a Message-ID, any other text with an `@` an address
            (the recipient's, else the sender's) or a Message-ID without its brackets, and all else a queue ID.

    Raises:
        ValueError: There is nothing to look for.
    """
    what = what.strip()
    if by is not None:
        kinds = [by]
    elif re.fullmatch(r"<[^<>]*@[^<>]*>", what):
        kinds = [By.MESSAGE_ID]
    elif "@" in what:
        kinds = [By.RECIPIENT, By.SENDER] + [By.MESSAGE_ID] * (not what.startswith("@"))
    else:
        kinds = [By.QUEUE_ID]
    found = [Sought(kind, _normal(kind, what)) for kind in kinds]
    if not what or (not found[0].text and found[0].by is not By.SENDER):
        raise ValueError(f"there is nothing to look for in {what!r}")
    return found


def _normal(by: By, what: str) -> str:
    match by:
        case By.QUEUE_ID:
            return what
        case By.MESSAGE_ID:
            return _bare(what)
        case By.REPLY:
            return what.lower()
        case _:
            return what.removeprefix("<").removesuffix(">").lower()


def _bare(message_id: str) -> str:
    """A Message-ID without its angle brackets, and without a comment after them."""
    found = re.match(r"\s*<([^<>]*)>", message_id)
    return found[1] if found else message_id.strip()


def search_for(sought: Sequence[Sought]) -> Search:
    """What to look for in the lines of logs.

    Args:
        sought: What one text can ask for.
    """
    # In a refusal, Postfix's parser puts underscores in place of other characters.
    text = sought[0].text.lower().replace("_", "\n")
    return Search(unescaped(text), any_case=True, message_ids=any(each.by is By.MESSAGE_ID for each in sought))
