"""Who refused: the mailbox provider or gateway behind a relay host, else behind the recipient's domain.

The endings are data, in `providers.toml` beside this module.
"""

from __future__ import annotations

import re
import tomllib
from functools import cache, lru_cache
from importlib.resources import files

__all__ = ["OTHER", "provider_of", "providers"]

OTHER = "other"
"""Any server that the list does not know."""


@cache
def _endings() -> tuple[dict[str, str], dict[str, str]]:
    """Endings of host names and of domains, each with its provider."""
    data = tomllib.loads((files("bouncemeter") / "providers.toml").read_text("utf-8"))
    hosts = {ending: name for name, entry in data.items() for ending in entry.get("hosts", ())}
    domains = {ending: name for name, entry in data.items() for ending in entry.get("domains", ())}
    return hosts, domains


def providers() -> list[str]:
    """Every value that `provider_of` can give."""
    hosts, domains = _endings()
    return [*sorted({*hosts.values(), *domains.values()}), OTHER]


def provider_of(relay: str | None, recipient: str | None) -> str:
    """The provider behind a relay (`mx.example.com[192.0.2.1]:25`), else behind the recipient's domain."""
    host = re.split(r"[\s\[(:]", relay, maxsplit=1)[0] if relay else ""
    domain = recipient.rpartition("@")[2] if recipient else ""
    return _longest(host.lower(), 0) or _longest(domain.lower(), 1) or OTHER


@lru_cache(maxsize=4096)
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
