"""Metrics in Prometheus' text format and in OpenMetrics, byte for byte as prometheus-client writes them.

prometheus-client creates several objects for each sample. With thousands of series, that takes longer than Prometheus
should wait while lines come in. This module builds the beginning of a line, which never changes, only once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from prometheus_client import Metric
from prometheus_client import samples as prometheus
from prometheus_client.utils import floatToGoString

from bouncemeter_exporter.counting.counters import Exemplar, Labels

__all__ = ["Family", "Sample", "begin", "exposition", "head", "number_text"]


class Sample(NamedTuple):
    """One line of the page.

    Attributes:
        suffix: What follows the family's name.
        names: The names of the labels.
        labels: Their values.
        value: The number.
        exemplar: A message behind it, if one is known.
        counted: The exemplar's value: 1, or the delay in seconds.
    """

    suffix: str
    names: tuple[str, ...]
    labels: Labels
    value: float
    exemplar: Exemplar | None = None
    counted: float = 1.0


@dataclass(slots=True)
class Family:
    """One metric with all its series.

    Attributes:
        name: Its name, without the suffix of a counter.
        kind: `counter`, `gauge` or `histogram`.
        text: What it counts.
        names: The names of its labels.
        samples: Its lines.
    """

    name: str
    kind: str
    text: str
    names: tuple[str, ...] = ()
    samples: list[Sample] = field(default_factory=list)

    @staticmethod
    def of(metric: Metric) -> Family:
        """A family of prometheus-client's own, without labels."""
        found = Family(metric.name, metric.type, metric.documentation)
        found.samples = [Sample(each.name.removeprefix(metric.name), (), (), each.value) for each in metric.samples]
        return found

    def add(self, labels: Labels, value: float, exemplar: Exemplar | None = None) -> None:
        """Add a series."""
        self.samples.append(Sample("_total" if self.kind == "counter" else "", self.names, labels, value, exemplar))

    def as_metric(self) -> Metric:
        """The family as an object of prometheus-client."""
        metric = Metric(self.name, self.text, self.kind)
        for each in self.samples:
            exemplar = each.exemplar
            made = (
                prometheus.Exemplar({"queue_id": exemplar.queue_id}, each.counted, exemplar.time) if exemplar else None
            )
            names = dict(zip(each.names, each.labels, strict=True))
            metric.add_sample(self.name + each.suffix, names, each.value, exemplar=made)
        return metric


def exposition(families: Iterable[Family], *, openmetrics: bool) -> bytes:
    """Metric families in OpenMetrics, or in Prometheus' text format, which has no exemplars."""
    out = []
    for family in families:
        out.append(head(family, openmetrics=openmetrics))
        for suffix, names, labels, value, exemplar, counted in family.samples:
            line = f"{begin(family.name + suffix, names, labels)} {number_text(value)}"
            if exemplar is not None and openmetrics:
                line += f' # {{queue_id="{exemplar.queue_id}"}} {number_text(counted)}'
                line += f" {exemplar.time}" if exemplar.time is not None else ""
            out.append(f"{line}\n")
    return ("".join(out) + ("# EOF\n" if openmetrics else "")).encode("utf-8")


def head(family: Family, *, openmetrics: bool = True) -> str:
    """The lines before a metric's first sample."""
    name = family.name if openmetrics or family.kind != "counter" else f"{family.name}_total"
    return f"# HELP {name} {family.text}\n# TYPE {name} {family.kind}\n"


number_text = lru_cache(maxsize=16_384)(floatToGoString)


@lru_cache(maxsize=65_536)
def begin(name: str, names: tuple[str, ...], labels: Labels) -> str:
    """A series' line up to its value."""
    pairs = sorted(zip(names, labels, strict=True))
    text = ",".join(f'{key}="{_escaped(value)}"' for key, value in pairs)
    return f"{name}{{{text}}}" if text else name


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
