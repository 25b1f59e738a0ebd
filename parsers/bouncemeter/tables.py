"""Reads the tables beside the code: TOML files in this package."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

__all__ = ["table"]


@cache
def table(name: str) -> dict[str, Any]:
    """The table `NAME.toml` in this package, such as `knowledge/codes`. It is read once and must not be changed."""
    return tomllib.loads((files("bouncemeter") / f"{name}.toml").read_text("utf-8"))
