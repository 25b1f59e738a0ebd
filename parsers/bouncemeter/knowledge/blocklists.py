"""Which blocklist a reply names. The names are data, in `blocklists.toml` beside this module."""

from __future__ import annotations

from functools import cache, lru_cache

from bouncemeter.event import Event
from bouncemeter.knowledge.phrases import Phrases
from bouncemeter.knowledge.reasons import reply_text, words_alone
from bouncemeter.tables import table

__all__ = ["blocklists", "blocklists_of"]


@cache
def _names() -> Phrases[str]:
    return Phrases((words, name) for name, entry in table("knowledge/blocklists").items() for words in entry["names"])


def blocklists() -> list[str]:
    """Every value that `blocklists_of` can give."""
    return sorted(table("knowledge/blocklists"))


def blocklists_of(event: Event) -> list[str]:
    """The blocklists that a reply names, each once."""
    if not event.text:
        return []
    return _named(words_alone(event), event.reply_code)


@lru_cache(maxsize=2048)
def _named(text: str | None, reply_code: int | None) -> list[str]:
    return list(dict.fromkeys(_names().all(reply_text(text, reply_code))))
