"""Why mail is refused: a small closed vocabulary (`reasons.toml`), told from the enhanced status code."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files

from bouncemeter.codes import explain
from bouncemeter.event import Event, Outcome

__all__ = ["reason_of", "reasons"]


@cache
def reasons() -> dict[str, str]:
    """Every reason with its meaning."""
    data = tomllib.loads((files("bouncemeter") / "reasons.toml").read_text("utf-8"))
    return {name: entry["meaning"] for name, entry in data.items()}


def reason_of(event: Event) -> str | None:
    """The reason of a refusal; None for a delivery."""
    if event.outcome is Outcome.DELIVERED:
        return None
    if event.outcome is Outcome.EXPIRED:
        return "expired"
    return explain(event.code).reason
