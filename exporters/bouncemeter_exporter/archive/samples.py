"""Samples of many series over time, kept as changes, and written as OpenMetrics."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from bouncemeter_exporter.serving.exposition import Family, begin, number_text

__all__ = ["Lines", "Samples", "SeriesName", "Timeline"]

ABSENT = float("nan")


class SeriesName(NamedTuple):
    """What identifies a series.

    Attributes:
        family: The name of its metric, without suffixes.
        suffix: What follows it.
        names, labels: Its labels.
    """

    family: str
    suffix: str
    names: tuple[str, ...]
    labels: tuple[str, ...]


class Lines(NamedTuple):
    """Lines that belong together: of one series, or of one histogram.

    Attributes:
        family: Their metric, of which only name, kind and text count.
        labels: The values of their own labels, but for a bucket's bound.
        text: The lines.
    """

    family: Family
    labels: tuple[str, ...]
    text: str


@dataclass(slots=True)
class _Changes:
    """A series: at each place among the samples' times where it changes, its value from then on; NaN is none."""

    places: array[int] = field(default_factory=lambda: array("L"))
    values: array[float] = field(default_factory=lambda: array("d"))

    def add(self, place: int, value: float) -> None:
        self.places.append(place)
        self.values.append(value)

    def runs(self, number: int) -> Iterator[tuple[int, int, float]]:
        """The places from one up to another, among so many, that have the same value."""
        for index, begin_ in enumerate(self.places):
            value = self.values[index]
            if value == value:  # noqa: PLR0124 - only NaN differs from itself
                yield begin_, self.places[index + 1] if index + 1 < len(self.places) else number, value


class Samples:
    """The values of many series at some times, in memory as small as the number of their changes.

    Attributes:
        times: The times, in whole seconds since 1970 UTC.
    """

    def __init__(self) -> None:
        self.times: list[int] = []
        self._families: dict[str, Family] = {}
        self._series: dict[SeriesName, _Changes] = {}
        self._last: dict[SeriesName, float] = {}

    def __len__(self) -> int:
        """The number of samples."""
        return sum(
            end - begin_ for changes in self._series.values() for begin_, end, _ in changes.runs(len(self.times))
        )

    def add(self, time: int, values: Mapping[SeriesName, float], families: Mapping[str, Family]) -> None:
        """Add all values of a moment, which is later than those before."""
        place = len(self.times)
        self.times.append(time)
        self._families = {**self._families, **families} if families.keys() - self._families.keys() else self._families
        for name, value in values.items() - self._last.items():
            self._changes(name).add(place, value)
        for name in self._last.keys() - values.keys():
            self._changes(name).add(place, ABSENT)
        self._last = dict(values)

    def start(self, name: SeriesName) -> None:
        """Give a series that begins at the next moment the value 0 at the last one, so that its first count counts."""
        if self.times:
            self._changes(name).add(len(self.times) - 1, 0.0)
            self._last[name] = 0.0

    def _changes(self, name: SeriesName) -> _Changes:
        found = self._series.get(name)
        if found is None:
            found = self._series[name] = _Changes()
        return found

    def at_each_time(self) -> Iterator[tuple[SeriesName, list[tuple[int, float]]]]:
        """Each series with its samples: times and values."""
        for name, changes in self._series.items():
            runs = changes.runs(len(self.times))
            yield name, [(time, value) for begin_, end, value in runs for time in self.times[begin_:end]]

    def openmetrics(self, more: Mapping[str, str]) -> Iterator[Lines]:
        """The samples as OpenMetrics, metric by metric. The samples of a series, or of a histogram, are in the order of
        time.

        Args:
            more: Labels that each series has besides its own.
        """
        times = [f" {time}\n" for time in self.times]
        together: dict[str, dict[tuple[str, ...], list[SeriesName]]] = {}
        for name in sorted(self._series, key=_order):
            labels = tuple(each for key, each in zip(name.names, name.labels, strict=True) if key != "le")
            together.setdefault(name.family, {}).setdefault(labels, []).append(name)
        for family in self._families.values():
            for labels, group in together.get(family.name, {}).items():
                yield Lines(family, labels, self._lines(group, times, more))

    def _lines(self, group: Iterable[SeriesName], times: list[str], more: Mapping[str, str]) -> str:
        """The lines of a series, or of a histogram's, time by time."""
        found = []
        for name in group:
            start = begin(name.family + name.suffix, name.names + tuple(more), name.labels + tuple(more.values()))
            line: list[str] = [""] * len(times)
            for begin_, end, value in self._series[name].runs(len(times)):
                text = f"{start} {number_text(value)}"
                line[begin_:end] = [text + time for time in times[begin_:end]]
            found.append(line)
        return "".join(found[0]) if len(found) == 1 else "".join(text for at in zip(*found, strict=True) for text in at)


def _order(name: SeriesName) -> tuple[object, ...]:
    """The order of series in a file: a histogram's buckets by their bounds, before count and sum."""
    labels = dict(zip(name.names, name.labels, strict=True))
    bound = float(labels.pop("le", "0"))
    return name.family, tuple(labels.values()), name.suffix, bound


class Timeline:
    """Samples in pieces by time.

    Args:
        length: Seconds of a piece; pieces begin at whole multiples of it since 1970 UTC.
    """

    def __init__(self, length: int) -> None:
        self._length = length
        self._piece, self._known = Samples(), set[SeriesName]()
        self._values: dict[str, tuple[Family, dict[SeriesName, float]]] = {}

    def add(self, time: int, families: Iterable[Family]) -> Iterator[Samples]:
        """Add the values of all series at a moment, which is later than those before.

        A counter begins at 0: at the moment before the one at which it first has a value.

        Returns:
            The piece before, if this moment is in another one.
        """
        by_name = {family.name: family for family in families if family.samples}
        values: dict[SeriesName, float] = {}
        for family in by_name.values():
            before, its = self._values.get(family.name, (None, {}))
            if before is not family:  # else nothing of it has changed
                its = {
                    SeriesName(family.name, each.suffix, each.names, each.labels): each.value for each in family.samples
                }
                self._values[family.name] = family, its
            values |= its
        for name in values.keys() - self._known:
            self._known.add(name)
            if by_name[name.family].kind != "gauge":
                self._piece.start(name)
        if self._piece.times and time // self._length != self._piece.times[0] // self._length:
            yield self._piece
            self._piece = Samples()
        self._piece.add(time, values, by_name)

    @property
    def series(self) -> int:
        """How many series there have been."""
        return len(self._known)

    def end(self) -> Iterator[Samples]:
        """The last piece."""
        if self._piece.times:
            yield self._piece
