"""Who refused: the mailbox provider or gateway behind a relay host, else behind the recipient's domain.

The endings are data, in `providers.toml` beside this module.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache

from bouncemeter.knowledge.phrases import Phrases, ReplyText
from bouncemeter.tables import table

__all__ = [
    "MAX_OWN",
    "OTHER",
    "add_providers",
    "check_providers",
    "provider_at",
    "provider_by_words",
    "provider_of",
    "providers",
]

MAX_OWN = 50
"""How many providers a configuration may add: each is a label value."""

_NAME = re.compile("[a-z][a-z0-9_]{0,31}")

OTHER = "other"
"""Any server that is not in the list."""


_own: dict[str, Mapping[str, Sequence[str]]] = {}


def check_providers(own: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
    """Check providers before they are added.

    Raises:
        ValueError: A name is not valid, there are too many, or an entry has anything but lists of endings.
    """
    if len(own) > MAX_OWN:
        raise ValueError(f"{len(own)} providers are added; the limit is {MAX_OWN}")
    for name, entry in own.items():
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a valid provider name: use lower-case letters, digits and _")
        for key, endings in entry.items():
            if key not in ("hosts", "domains"):
                raise ValueError(f"provider {name}: {key} is not a setting; use hosts or domains")
            if not isinstance(endings, list) or not all(isinstance(ending, str) and ending for ending in endings):
                raise ValueError(f'provider {name}: {key} must be a list such as ["mx.partner.example"]')


def add_providers(own: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
    """Add your own providers, or endings to known ones, before any log is read.

    Args:
        own: `hosts` and `domains` by name: endings, of which the longest decides. They replace any added before.

    Raises:
        ValueError: See `check_providers`.
    """
    check_providers(own)
    _own.clear()
    _own.update(own)
    _endings.cache_clear()
    _by_relay.cache_clear()
    provider_at.cache_clear()


@cache
def _endings() -> tuple[dict[str, str], dict[str, str]]:
    """Endings of host names and of domains, each with its provider; added ones override known ones."""
    hosts: dict[str, str] = {}
    domains: dict[str, str] = {}
    for entries in (table("knowledge/providers"), _own):
        for name, entry in entries.items():
            hosts.update(dict.fromkeys((ending.lower().lstrip(".") for ending in entry.get("hosts", ())), name))
            domains.update(dict.fromkeys((ending.lower().lstrip(".") for ending in entry.get("domains", ())), name))
    return hosts, domains


@cache
def _signs() -> Phrases[str]:
    return Phrases(
        (sign, name) for name, entry in table("knowledge/providers").items() for sign in entry.get("signs", ())
    )


def provider_by_words(reply: ReplyText) -> str:
    """The provider whose signs a reply has. Use it only to find the reason: anyone can write such a sign."""
    return _signs().first(reply) or OTHER


def providers() -> list[str]:
    """Every value that `provider_of` can give."""
    hosts, domains = _endings()
    return [*sorted({*hosts.values(), *domains.values()}), OTHER]


def provider_of(relay: str | None, recipient: str | None) -> str:
    """The provider behind a relay (`mx.example.com[192.0.2.1]:25`), else behind the recipient's domain."""
    return provider_at(relay, recipient.rpartition("@")[2].lower() if recipient and "@" in recipient else "")


@lru_cache(maxsize=4096)
def provider_at(relay: str | None, domain: str) -> str:
    """The same for a recipient's domain, in lower case; empty for an address of this host."""
    found = _by_relay(relay) if relay else None
    if found is None and domain:
        found = _longest(domain, 1)
    return found or OTHER


@lru_cache(maxsize=4096)
def _by_relay(relay: str) -> str | None:
    host = re.split(r"[\s\[(:]", relay, maxsplit=1)[0]
    return _longest(host.lower(), 0)


def _longest(name: str, table: int) -> str | None:
    """The provider of the longest known ending of a name. Names are at most 253 characters (RFC 1035)."""
    endings = _endings()[table]
    if len(name) > 253:
        return None
    while name:
        if name in endings:
            return endings[name]
        name = name.partition(".")[2]
    return None
