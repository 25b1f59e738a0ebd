"""The tables beside the code: TOML files of this package."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

__all__ = ["table"]


@cache
def table(name: str) -> dict[str, Any]:
    """The table `NAME.toml` of this package, such as `knowledge/codes`. It is read once, and nobody changes it."""
    return tomllib.loads((files("bouncemeter") / f"{name}.toml").read_text("utf-8"))
