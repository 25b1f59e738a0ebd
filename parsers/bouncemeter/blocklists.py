"""Which blocklist a reply names. The names are data, in `blocklists.toml` beside this module."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files

from bouncemeter.event import Event
from bouncemeter.phrases import Phrases
from bouncemeter.reasons import said

__all__ = ["blocklists", "blocklists_of"]


@cache
def _lists() -> dict[str, list[str]]:
    data = tomllib.loads((files("bouncemeter") / "blocklists.toml").read_text("utf-8"))
    return {name: entry["names"] for name, entry in data.items()}


@cache
def _names() -> Phrases[str]:
    return Phrases((words, name) for name, names in _lists().items() for words in names)


def blocklists() -> list[str]:
    """Every value that `blocklists_of` can give."""
    return sorted(_lists())


def blocklists_of(event: Event) -> list[str]:
    """The blocklists that a reply names, each once."""
    if not event.text:
        return []
    return list(dict.fromkeys(_names().all(said(event.text, event.reply_code))))
