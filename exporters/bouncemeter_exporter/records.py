"""Events as records: the contract of `bouncemeter parse`, and how addresses are hidden."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import unquote

from bouncemeter.event import Event, Step
from bouncemeter.knowledge.providers import provider_of
from bouncemeter.knowledge.reasons import reason_of

__all__ = ["SHORTEST_KEY", "Record", "Redactor", "record", "rfc3339", "values"]

E = TypeVar("E", Event, Step, Event | Step)

_ENCODED = re.compile(r"""([^\s<>"@:;,()\[\]=&/?#]{1,64})((?:%40|=40)[A-Za-z0-9])""")
"""The beginning of an address in a link, or in a quoted-printable text."""

Record = dict[str, Any]
"""By key, a text, a number or None."""

_ADDRESS = re.compile(r'(?:"(?:[^"\\]|\\.){1,64}"|[^\s<>"@:;,()\[\]]{1,64})@[^\s<>"@:;,()]{1,255}')


def rfc3339(seconds: float | None) -> str | None:
    """Seconds since 1970 as RFC 3339 in UTC, with milliseconds where there are any."""
    if seconds is None:
        return None
    moment = datetime.fromtimestamp(round(seconds, 3), UTC)
    return moment.isoformat(timespec="milliseconds" if moment.microsecond else "seconds").replace("+00:00", "Z")


def record(event: Event, hidden: Redactor | None = None) -> Record:
    """An event as JSON has it: as `values`, with the time as RFC 3339."""
    return values(event, hidden) | {"time": rfc3339(event.time)}


def values(event: Event, hidden: Redactor | None = None) -> Record:
    """An event with every key of the contract; an absent value is None, the time is in seconds since 1970 UTC.

    Args:
        event: The event.
        hidden: What hides its addresses.
    """
    shown = event if hidden is None else hidden.entry(event)
    return {
        "time": event.time,
        "mta": event.mta,
        "host": event.host,
        "outcome": event.outcome,
        "kind": event.kind,
        "code": str(event.code),
        "class": event.code.code_class,
        "reply_code": event.reply_code,
        "reason": reason_of(event),
        "provider": provider_of(event.relay, event.recipient),
        "queue_id": event.queue_id,
        "recipient": shown.recipient,
        "original_recipient": shown.original_recipient,
        "sender": shown.sender,
        "relay": shown.relay,
        "delay": event.delay,
        "text": shown.text,
        "stage": event.stage,
    }


SHORTEST_KEY = 16
"""Bytes of a key: one that is shorter could be found by trying."""


class Redactor:
    """Hides the local part of every address behind 16 digits of its SHA-256; domains stay.

    The same address gives the same digits, so that records can still be matched. With a key nobody without it can find
    an address by trying.

    Args:
        key: The key of an HMAC; None for a plain hash.
    """

    def __init__(self, key: bytes | None = None) -> None:
        self._key = key

    def address(self, address: str) -> str:
        """An address, or the name of an account, with its local part hidden."""
        local, at, domain = address.rpartition("@")
        return f"{self._hash(local)}@{domain}" if at else self._hash(address) if address else ""

    def text(self, text: str, *known: str | None) -> str:
        """A text with the local parts of addresses hidden.

        Args:
            text: The text.
            known: Addresses whose local parts are also hidden where they stand alone.
        """
        text = _ADDRESS.sub(lambda match: self.address(match[0]), text)
        text = _ENCODED.sub(lambda match: f"{self._hash(unquote(match[1]))}{match[2]}", text)
        for address in known:
            local = (address or "").rpartition("@")[0].strip('"')
            if len(local) > 1:
                text = re.sub(rf"(?<![\w@]){re.escape(local)}(?![\w@])", self._hash(local), text, flags=re.IGNORECASE)
        return text

    def entry(self, entry: E) -> E:
        """The same entry of a log with all its addresses hidden."""
        if isinstance(entry, Step):
            account = None if entry.account is None else self.address(entry.account)
            return replace(
                entry, sender=self._maybe(entry.sender), recipient=self._maybe(entry.recipient), account=account
            )
        known = entry.recipient, entry.original_recipient, entry.sender
        recipient, original, sender = map(self._maybe, known)
        text = self.text(entry.text, *known) if entry.text else entry.text
        relay = self.text(entry.relay) if entry.relay else entry.relay
        return replace(entry, recipient=recipient, original_recipient=original, sender=sender, text=text, relay=relay)

    def _maybe(self, address: str | None) -> str | None:
        return None if address is None else self.address(address)

    def _hash(self, text: str) -> str:
        said = text.strip('"').lower().encode("utf-8", "surrogatepass")
        made = hashlib.sha256(said) if self._key is None else hmac.new(self._key, said, "sha256")
        return made.hexdigest()[:16]
