"""Files of OpenMetrics for `promtool tsdb create-blocks-from openmetrics`: one for each day, or one for all."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

from bouncemeter_exporter.archive.samples import Samples
from bouncemeter_exporter.archive.whole import check_metrics, whole_file
from bouncemeter_exporter.counting.counters import Labels
from bouncemeter_exporter.serving.exposition import head

__all__ = ["DAY", "DayFiles", "OneFile"]

DAY = 86400
"""Seconds of samples in a file: promtool reads a file once for every two hours in it."""

END = "# EOF\n"


class DayFiles:
    """A file for each day, in UTC, named after it.

    Args:
        folder: Where; created if it does not exist.
        labels: Labels of each series besides its own.

    Attributes:
        written: The files so far.

    Raises:
        OSError: It cannot be written.
    """

    def __init__(self, folder: Path, labels: Mapping[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob("*.om"):
            check_metrics(path)
        self._folder, self._labels = folder, labels
        self.written: list[Path] = []

    def write(self, samples: Samples) -> None:
        """Write the samples of a day."""
        path = self._folder / f"{datetime.fromtimestamp(samples.times[0], UTC):%Y-%m-%d}.om"
        with whole_file(path) as stream:
            for family, groups in groupby(samples.openmetrics(self._labels), key=lambda lines: lines.family):
                stream.write(head(family).encode())
                stream.writelines(lines.text.encode() for lines in groups)
            stream.write(END.encode())
        self.written.append(path)

    def end(self) -> None:
        """Nothing more will come."""


class OneFile:
    """One file, in which all samples of a series are together: they are put together by a second file beside it.

    Args:
        path: The file.
        labels: Labels of each series besides its own.

    Attributes:
        written: The file, once it is there.

    Raises:
        OSError: It cannot be written.
    """

    def __init__(self, path: Path, labels: Mapping[str, str]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        check_metrics(path)
        self._path, self._labels = path, labels
        self._pieces = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115 - closed in `end`
        self._places: dict[str, dict[Labels, list[tuple[int, int]]]] = {}
        self.written: list[Path] = []

    def write(self, samples: Samples) -> None:
        """Write further samples."""
        for family, labels, text in samples.openmetrics(self._labels):
            begin = self._pieces.tell()
            self._pieces.write(text.encode())
            places = self._places.setdefault(head(family), {}).setdefault(labels, [])
            places.append((begin, self._pieces.tell() - begin))

    def end(self) -> None:
        """Put everything together."""
        with whole_file(self._path) as stream, self._pieces:
            for begin, series in self._places.items():
                stream.write(begin.encode())
                for places in series.values():
                    for place, size in places:
                        self._pieces.seek(place)
                        stream.write(self._pieces.read(size))
            stream.write(END.encode())
        self.written.append(self._path)
