"""The fixed words of `explain` and `codes`, in each language: the tables beside this module."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

from bouncemeter.knowledge.languages import Language

__all__ = ["words_in"]


@cache
def words_in(language: Language) -> dict[str, Any]:
    """The words in a language, by their keys. The table is read when it is first asked for."""
    return tomllib.loads((files("bouncemeter_exporter.reporting") / f"words_{language}.toml").read_text("utf-8"))
