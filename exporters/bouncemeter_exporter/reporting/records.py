"""Events as JSON objects: the contract of `bouncemeter parse`."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime

from bouncemeter.event import Event
from bouncemeter.knowledge.providers import provider_of
from bouncemeter.knowledge.reasons import reason_of

__all__ = ["record", "redacted", "redacted_text", "rfc3339"]

Record = dict[str, str | int | float | None]

_ADDRESS = re.compile(r'(?:"(?:[^"\\]|\\.){1,64}"|[^\s<>"@:;,()\[\]]{1,64})@[^\s<>"@:;,()]{1,255}')


def rfc3339(seconds: float | None) -> str | None:
    """Seconds since 1970 as RFC 3339 in UTC, with milliseconds where there are any."""
    if seconds is None:
        return None
    moment = datetime.fromtimestamp(round(seconds, 3), UTC)
    return moment.isoformat(timespec="milliseconds" if moment.microsecond else "seconds").replace("+00:00", "Z")


def record(event: Event) -> Record:
    """An event with every key of the contract; an absent value is None."""
    return {
        "time": rfc3339(event.time),
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
        "recipient": event.recipient,
        "original_recipient": event.original_recipient,
        "sender": event.sender,
        "relay": event.relay,
        "delay": event.delay,
        "text": event.text,
        "stage": event.stage,
    }


def redacted(found: Record) -> Record:
    """The same record with the local part of every address hashed (SHA-256, 16 digits); domains stay.

    The same address gives the same hash, so that records can still be matched. The local parts of the record's
    addresses are also hashed where they stand alone in the text.
    """
    hidden = dict(found)
    for key in ("recipient", "original_recipient", "sender"):
        if address := found[key]:
            hidden[key] = _hash_address(str(address))
    if found["text"]:
        text = redacted_text(str(found["text"]))
        for key in ("recipient", "original_recipient", "sender"):
            local = str(found[key] or "").rpartition("@")[0].strip('"')
            if len(local) > 1:
                text = re.sub(rf"(?<![\w@]){re.escape(local)}(?![\w@])", _hash(local), text)
        hidden["text"] = text
    return hidden


def redacted_text(text: str) -> str:
    """A text with the local part of every address hashed."""
    return _ADDRESS.sub(lambda match: _hash_address(match[0]), text)


def _hash_address(address: str) -> str:
    local, at, domain = address.rpartition("@")
    return f"{_hash(local)}@{domain}" if at else _hash(address)


def _hash(text: str) -> str:
    return hashlib.sha256(text.strip('"').lower().encode("utf-8", "surrogatepass")).hexdigest()[:16]
