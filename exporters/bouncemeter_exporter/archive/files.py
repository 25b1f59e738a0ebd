"""Events as Parquet files and Arrow streams. Needs pyarrow, the extra `arrow`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO

import pyarrow as pa
from bouncemeter.event import Event
from pyarrow import parquet

from bouncemeter_exporter.archive.columns import EVENT, Row, batches
from bouncemeter_exporter.records import Redactor, values

__all__ = ["write_arrow", "write_parquet"]


def write_parquet(events: Iterable[Event], file: BinaryIO, hidden: Redactor | None = None) -> None:
    """Write events as Parquet, a row group a batch.

    Args:
        events: The events.
        file: Where to write; the caller closes it.
        hidden: What hides addresses.
    """
    with parquet.ParquetWriter(file, EVENT, compression="zstd") as writer:
        for each in batches(_rows(events, hidden), EVENT):
            writer.write_batch(each)


def write_arrow(events: Iterable[Event], file: BinaryIO, hidden: Redactor | None = None) -> None:
    """Write events as an Arrow stream (IPC); the arguments are those of `write_parquet`."""
    writer = pa.ipc.new_stream(file, EVENT)
    for each in batches(_rows(events, hidden), EVENT):
        writer.write_batch(each)
    writer.close()


def _rows(events: Iterable[Event], hidden: Redactor | None) -> Iterator[Row]:
    return (tuple(values(event, hidden).values()) for event in events)
