"""Events as Arrow columns, a batch at a time. Needs pyarrow, the extra `arrow`.

The columns are the keys of `bouncemeter parse`, in its order, each with a type.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any

import pyarrow as pa

__all__ = ["EVENT", "LENGTH", "SHORT", "TIME", "WORD", "Row", "batch", "batches", "plain"]

Row = tuple[Any, ...]

LENGTH = 65_536
"""Events in a batch, and in a row group of a Parquet file."""

SHORT = 10_000
"""Rows in a batch for Spark: what it takes by default."""

SIZE = 33_554_432
"""Characters of replies in a batch, after which it ends: remote servers may write long ones."""

TIME = pa.timestamp("us", "UTC")
WORD = pa.dictionary(pa.int32(), pa.string())
"""A text that often comes again: it is stored once a batch."""

EVENT = pa.schema(
    [
        ("time", TIME),
        ("mta", WORD),
        ("host", WORD),
        ("outcome", WORD),
        ("kind", WORD),
        ("code", WORD),
        ("class", WORD),
        ("reply_code", pa.int16()),
        ("reason", WORD),
        ("provider", WORD),
        ("queue_id", pa.string()),
        ("recipient", pa.string()),
        ("original_recipient", pa.string()),
        ("sender", pa.string()),
        ("relay", WORD),
        ("delay", pa.float64()),
        ("text", pa.string()),
        ("stage", WORD),
    ]
)
"""The columns of an event: `time` in microseconds, `delay` in seconds."""


def plain(schema: pa.Schema) -> pa.Schema:
    """The same columns with their texts as they are, for Spark, which takes no dictionaries."""
    return pa.schema([(each.name, pa.string() if each.type == WORD else each.type) for each in schema])


def batch(rows: Sequence[Row], schema: pa.Schema) -> pa.RecordBatch:
    """Rows as columns.

    Args:
        rows: The values of each row in the order of the columns; times in seconds since 1970 UTC.
        schema: The columns.
    """
    columns = zip(*rows, strict=True) if rows else repeat(())
    return pa.record_batch([_column(*each) for each in zip(columns, schema.types, strict=bool(rows))], schema)


def batches(rows: Iterable[Row], schema: pa.Schema, length: int = LENGTH) -> Iterator[pa.RecordBatch]:
    """The same, a batch of at most `length` rows at a time."""
    waiting: list[Row] = []
    size, text = 0, schema.get_field_index("text")
    for row in rows:
        waiting.append(row)
        size += len(row[text] or "")
        if len(waiting) >= length or size >= SIZE:
            yield batch(waiting, schema)
            waiting, size = [], 0
    if waiting:
        yield batch(waiting, schema)


def _column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if kind == TIME:
        return pa.array([None if each is None else round(each * 1e6) for each in values], kind)
    try:
        return pa.array(values, kind)
    except UnicodeEncodeError:  # half a character, which JSON around a line may contain
        return pa.array([None if each is None else _whole(each) for each in values], kind)


def _whole(text: str) -> str:
    """A text that UTF-8 can hold."""
    return text.encode("utf-8", "backslashreplace").decode()
