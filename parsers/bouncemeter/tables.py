"""The tables beside the code: TOML files of this package."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

__all__ = ["table"]


@cache
def table(name: str) -> dict[str, Any]:
    """What stands in `NAME.toml`, read once; nobody changes it."""
    return tomllib.loads((files("bouncemeter") / f"{name}.toml").read_text("utf-8"))
