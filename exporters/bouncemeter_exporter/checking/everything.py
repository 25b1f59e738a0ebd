"""All checks, in the order in which a user would ask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bouncemeter.plugin import ParserNotFoundError, parser

from bouncemeter_exporter.checking.finding import Finding, Level
from bouncemeter_exporter.checking.logs import check_source
from bouncemeter_exporter.checking.prometheus import check_prometheus
from bouncemeter_exporter.checking.service import check_service
from bouncemeter_exporter.config import Config, ConfigError, SourceConfig, read_config
from bouncemeter_exporter.sources.found import this_machines
from bouncemeter_exporter.sources.lines import SourceError

__all__ = ["check_config", "check_everything"]


def check_everything(
    sources: Sequence[str], config: Path | None, format_of: str | None, prometheus: str | None
) -> Iterator[Finding]:
    """Check settings, sources, the exporter's own needs, and Prometheus.

    Args:
        sources: As given to the command; if there are none, those of the settings, or this machine's.
        config: The settings file.
        format_of: The sources' format.
        prometheus: The URL of a Prometheus.
    """
    settings = Config()
    if config is not None:
        try:
            settings = read_config(config)
            settings.add_knowledge()
            yield Finding(Level.OK, str(config), "the settings are right")
        except ConfigError as error:
            for line in str(error).splitlines():
                place, colon, sentence = line.partition(": ")
                yield Finding(Level.WRONG, place if colon else str(config), sentence or line)
    named = tuple(SourceConfig(each, format_of) for each in sources) or settings.sources
    yield from check_config(settings, named)
    if prometheus is not None:
        yield from check_prometheus(prometheus, settings)


def check_config(settings: Config, sources: Sequence[SourceConfig]) -> Iterator[Finding]:
    """Check sources, and what `serve` needs."""
    if not sources:
        said: list[str] = []
        try:
            sources = [SourceConfig(each) for each in this_machines(said.append)]
            yield from (Finding(Level.NOTE, "sources", each) for each in said)
        except SourceError as error:
            yield Finding(Level.WRONG, "sources", str(error))
    for source in sources:
        try:
            known = parser(source.format) if source.format else None
        except ParserNotFoundError as error:
            yield Finding(Level.WRONG, source.path, str(error))
            continue
        yield from check_source(source.path, known)
    yield from check_service(settings)
