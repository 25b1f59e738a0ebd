"""Writes readable YAML: text of several lines as a block, everything else as JSON, which is valid YAML."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["yaml_text"]


def yaml_text(value: Mapping[str, Any], comment: str) -> str:
    """Write a YAML file.

    Args:
        value: Its content: mappings, lists, text, numbers.
        comment: Its first line.
    """
    return "\n".join([f"# {comment}", *_lines(value)]) + "\n"


def _lines(value: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON value
    if isinstance(value, Mapping) and value:
        for name, each in value.items():
            yield from _after(f"{name}:", each)
    elif isinstance(value, Sequence) and not isinstance(value, str) and value:
        for each in value:
            first, *more = _lines(each)
            yield f"- {first}"
            yield from (f"  {line}" for line in more)
    else:
        yield json.dumps(value, ensure_ascii=False)


def _after(name: str, value: Any) -> Iterator[str]:  # noqa: ANN401
    if isinstance(value, str) and "\n" in value:
        yield f"{name} |-"
        yield from (f"  {line}" for line in value.splitlines())
    elif isinstance(value, (str, int, float)) or not value:
        yield f"{name} {json.dumps(value, ensure_ascii=False)}"
    else:
        yield name
        yield from (f"  {line}" for line in _lines(value))
