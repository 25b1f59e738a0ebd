"""The languages of the texts: English in the tables beside this module, Swedish in those of the folder `sv`.

A table in another language has texts only. What is no text (a reason, a reference) is in the English table alone.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from bouncemeter.tables import table

__all__ = ["Language", "texts"]


class Language(StrEnum):
    """A language of the texts."""

    EN = "en"
    SV = "sv"


def texts(name: str, language: Language) -> dict[str, Any]:
    """The table with the texts of `NAME.toml` in a language. It is read when it is first asked for."""
    return table(f"knowledge/{name}" if language is Language.EN else f"knowledge/{language}/{name}")
