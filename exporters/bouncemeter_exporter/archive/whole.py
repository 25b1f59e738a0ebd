"""Files that are there as a whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

__all__ = ["check_metrics", "whole_file"]


METRICS = (b"# HELP ", b"# TYPE ", b"# UNIT ", b"# EOF")
"""How a file of metrics begins."""


def check_metrics(path: Path) -> None:
    """Check that a file of metrics may have a path: that no other file is there, such as a log, which would be lost.

    Raises:
        FileExistsError: There is one.
        OSError: It cannot be read.
    """
    if path.is_file():
        with path.open("rb") as file:
            beginning = file.read(64)
        if beginning and not beginning.startswith(METRICS):
            raise FileExistsError(errno.EEXIST, "a file is there which holds no metrics", str(path))


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Write a file, which gets its name once it is complete. If writing fails or is interrupted, nothing is left of it,
    and an earlier file of that name stays.

    Args:
        path: The file's name. A pipe or a device is written to at once.

    Raises:
        OSError: The file cannot be written.
    """
    path = path.resolve()
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            yield file
        return
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
