"""Every fixture log gives exactly the records in the `.jsonl`, and the metrics in the `.prom`, beside it.

After an intended change, `make golden` writes them again; review the difference.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from bouncemeter.event import Event
from bouncemeter_exporter.counting.counters import Counters
from bouncemeter_exporter.counting.ledger import Ledger
from bouncemeter_exporter.records import record
from bouncemeter_exporter.serving.exposition import exposition
from bouncemeter_exporter.serving.metrics import MailCollector, take_snapshot
from bouncemeter_exporter.sources.lines import open_log, read_text
from bouncemeter_exporter.sources.log import LogReader
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as in_openmetrics

from tests.conftest import LOGS

WRITE = bool(os.environ.get("WRITE_GOLDEN"))
CLOCK = 1_795_600_000.0  # 25 November 2026: the year of stamps without one

FIXTURES = sorted(path for path in LOGS.glob("*/*") if path.suffix.lower() == ".log")


def check(path: Path, found: str) -> None:
    """Compare with a golden file, or write it."""
    if WRITE:
        path.write_text(found)
    assert found == path.read_text()


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_fixture_log_gives_its_golden_files(path: Path) -> None:
    log, ledger, counters = LogReader(path.name, clock=lambda: CLOCK), Ledger(), Counters()
    counters.announce(path.parent.name)
    records = []
    with open_log(path) as stream:
        for text, _ in read_text(stream, path.name):
            for entry in log.read(text):
                counters.count(entry, ledger.facts(entry))
                if isinstance(entry, Event):
                    records.append(json.dumps(record(entry)))
    assert list(log.end()) == []
    assert log.parser is not None
    assert log.parser.name == path.parent.name
    check(path.with_suffix(".jsonl"), "\n".join(records) + "\n")
    registry = CollectorRegistry()
    shown = take_snapshot(counters, ledger.memory, [], {**counters.numbers(), "lines": {}, "dropped": {}})
    registry.register(MailCollector(lambda: shown, [], lambda: None))
    page = generate_latest(registry).decode()
    families = list(MailCollector(lambda: shown, [], lambda: None).families())
    now = re.compile(r"(?m)^mail_deferred_oldest_seconds{.*$").sub  # time passes during the comparison
    pages = ((page, False), (in_openmetrics(registry).decode(), True))  # type: ignore[no-untyped-call]
    for by_library, openmetrics in pages:
        assert now("", exposition(families, openmetrics=openmetrics).decode()) == now("", by_library)
    changing = ("mail_deferred_oldest_seconds", "bouncemeter_build_info")
    check(
        path.with_suffix(".prom"),
        "".join(each for each in page.splitlines(keepends=True) if changing[0] not in each and changing[1] not in each),
    )
