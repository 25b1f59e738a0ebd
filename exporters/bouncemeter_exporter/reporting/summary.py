"""Summarises logs for `report`, on one core or several."""

from __future__ import annotations

import os
from collections import Counter

from bouncemeter_exporter.counting.ledger import Ledger
from bouncemeter_exporter.reporting.logs import Logs
from bouncemeter_exporter.reporting.period import ALWAYS, Part, Period, count_parts
from bouncemeter_exporter.reporting.progress import progress
from bouncemeter_exporter.reporting.report import Report, Summary

__all__ = ["summarise"]

MANY_BYTES = 67_108_864
"""Bytes of logs, below which one process is enough."""


def summarise(logs: Logs, jobs: int | None, period: Period = ALWAYS, before: Period | None = None) -> Summary:
    """Read logs and summarise them.

    Args:
        logs: The logs.
        jobs: How many cores may read; None for all.
        period: What to summarise. One core reads the logs if it has a beginning or an end.
        before: Another period to compare with, which ends no later.

    Raises:
        SourceError: A log cannot be read.
    """
    summary = None if period.bounded or before else _by_several_cores(logs, jobs)
    summary = summary or _by_one_core(logs, period, before)
    summary.ledger.memory.forget_old()
    return summary


def _by_one_core(logs: Logs, period: Period, before: Period | None) -> Summary:
    found, readers = Summary(Report(), Ledger(senders=True), Counter(), Report() if before else None), {}
    parts = [Part(period, found.report)]
    if before is not None and found.before is not None:
        parts.append(Part(before, found.before))
    for log, block in logs.read("Reading"):
        readers[id(log)] = log
        count_parts(found.ledger, block, parts)
    for log in readers.values():
        found.lines.update(log.counts)
    return found


def _by_several_cores(logs: Logs, jobs: int | None) -> Summary | None:
    """Summarise logs on several cores; None if that is not worthwhile or not possible."""
    cores = jobs or len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))
    files = [path for path in logs.paths if path]
    size = sum(path.stat().st_size for path in files)
    if cores == 1 or None in logs.paths or logs.journals or size < MANY_BYTES:
        return None
    from bouncemeter_exporter.reporting import parallel  # noqa: PLC0415 - it loads multiprocessing

    cores = min(cores, size // parallel.PIECE)  # less than a piece is not worth a process
    pieces = parallel.pieces(files, logs.parser, cores)
    if len(pieces) < 2:
        return None
    try:
        return parallel.summarise_pieces(pieces, cores, lambda: progress(size, "Reading"), logs.say)
    except parallel.DependentPiecesError:
        return None
