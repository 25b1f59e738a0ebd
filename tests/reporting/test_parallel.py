"""Several processes count the same as one, wherever a log is cut into pieces."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from bouncemeter_exporter.counting.ledger import Ledger
from bouncemeter_exporter.reporting import parallel
from bouncemeter_exporter.reporting.parallel import DependentPiecesError, Piece
from bouncemeter_exporter.reporting.progress import Advance
from bouncemeter_exporter.reporting.report import Report, Summary
from bouncemeter_exporter.sources.lines import open_log, read_text
from bouncemeter_exporter.sources.log import LogReader

from tests.parsers.test_blocks import MTAS, day
from tests.parsers.test_lowering import lines


def silent() -> nullcontext[Advance]:
    return nullcontext(lambda _size: None)


def result(summary: Summary) -> dict[str, Any]:
    summary.ledger.memory.forget_old()
    return summary.report.as_json(summary.lines, summary.ledger.memory.waiting.total())


def by_one(logs: list[Path]) -> dict[str, Any]:
    found = Summary(Report(), Ledger(senders=True), Counter())
    for path in logs:
        log = LogReader(str(path), clock=lambda path=path: path.stat().st_mtime)  # type: ignore[misc]
        with open_log(path) as stream:
            for text, _ in read_text(stream, str(path)):
                found.ledger.count(log.read(text), found.report)
        found.lines.update(log.counts)
    return result(found)


def _without_delays(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if key not in ("delays", "slowest")}


def by_pieces(logs: list[Path], size: int, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The same result, read in this process in pieces of `size` bytes."""
    monkeypatch.setattr(parallel, "PIECE", size)
    found = parallel.pieces(logs, None, 1)
    assert len(found) > 1
    return result(parallel._combined(((piece, parallel._read(piece)) for piece in found), lambda _size: None))


def written(path: Path, text: list[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in text))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("mta", MTAS)
@pytest.mark.parametrize("size", [2_000_000, 300_000, 40_000, 3_000])
def test_pieces_of_a_log_are_counted_as_the_whole(
    mta: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = [written(tmp_path / f"{place}.log", day(mta, 8000, seed)) for place, seed in enumerate((1, 3))]
    assert by_pieces(logs, size, monkeypatch) == by_one(logs)


@pytest.mark.parametrize("mta", MTAS)
def test_half_a_year_in_pieces_is_counted_as_the_whole(
    mta: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = written(tmp_path / "mail.log", day(mta, 5000, 7, pause=25_000.0))
    assert by_pieces([log], 60_000, monkeypatch) == by_one([log])


@pytest.mark.parametrize("mta", MTAS)
def test_more_processes_count_the_same(mta: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "PIECE", 200_000)
    log = written(tmp_path / "mail.log", day(mta, 8000, 1))
    found = parallel.pieces([log], None, 2)
    assert result(parallel.summarise_pieces(found, 2, silent)) == by_one([log])


@pytest.mark.slow
@pytest.mark.parametrize("mta", MTAS)
def test_disordered_lines_are_counted_the_same_or_left_to_one_process(
    mta: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines out of order, doubled or lost; reused queue IDs; a content filter on this host. Where Exim logs no delay,
    that of a message whose arrival comes late may be known to one reader alone."""
    left_to_one = 0
    for seed in range(15):
        chance = random.Random(seed)
        text = [*day(mta, 3000, seed), *day(mta, 2000, seed + 50), *lines(mta)]
        if seed % 3 == 0:
            text = [line.replace("192.0.2.", "127.0.0.").replace("198.51.100.", "127.0.0.") for line in text]
        if seed % 5 == 0:
            text += day(mta, 1000, seed)
        places = [(place + chance.choice((*[0] * 50, 1, 3, 20)), line) for place, line in enumerate(text)]
        text = [line for _, line in sorted(places) for _ in range(chance.choices((0, 1, 2), (1, 500, 1))[0])]
        log = written(tmp_path / f"{seed}.log", text)
        try:
            found = by_pieces([log], chance.choice((50_000, 100_000, 300_000)), monkeypatch)
        except DependentPiecesError:
            left_to_one += 1
        else:
            assert _without_delays(found) == _without_delays(by_one([log]))
    assert 0 < left_to_one < 13


def test_each_line_is_in_exactly_one_piece(tmp_path: Path) -> None:
    chance = random.Random(1)
    for _ in range(200):
        text = b"".join(b"x" * chance.choice((0, 1, 5, 30)) + b"\n" for _ in range(chance.randint(1, 20)))
        text += b"rest" * chance.randint(0, 1)
        log = tmp_path / "mail.log"
        log.write_bytes(text)
        borders = sorted({0, len(text), *(chance.randint(0, len(text)) for _ in range(4))})
        found = [
            "".join(parallel._texts(Piece(log, "postfix", begin, end, 0, 0.0))) for begin, end in pairwise(borders)
        ]
        whole = text.decode() if text.endswith(b"\n") else text.decode() + "\n"
        assert "".join(found) == whole


def test_a_message_filtered_across_two_pieces_is_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One piece records that it was handed on; the piece before records that it came back."""
    start = "Nov  1 00:00:{:02} mx1 postfix/{}[1]: "
    text = [
        start.format(1, "smtpd") + "AAAAAAAAAA: client=src.test[192.0.2.1]",
        start.format(2, "qmgr") + "AAAAAAAAAA: from=<a@src.test>, size=1, nrcpt=1 (queue active)",
        start.format(3, "smtpd") + "BBBBBBBBBB: client=localhost[127.0.0.1]",
        start.format(4, "qmgr") + "BBBBBBBBBB: from=<a@src.test>, size=1, nrcpt=1 (queue active)",
        start.format(5, "smtp") + "BBBBBBBBBB: to=<b@dest.test>, relay=mx.dest.test[192.0.2.9]:25, delay=1,"
        " delays=0/0/0/1, dsn=2.0.0, status=sent (250 2.0.0 Ok)",
        start.format(5, "qmgr") + "BBBBBBBBBB: removed",
        start.format(6, "smtp") + "AAAAAAAAAA: to=<b@dest.test>, relay=127.0.0.1[127.0.0.1]:10024, delay=1,"
        " delays=0/0/0/1, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as BBBBBBBBBB)",
        start.format(6, "qmgr") + "AAAAAAAAAA: removed",
    ]
    log = written(tmp_path / "mail.log", text)
    one = by_one([log])
    assert one["recipients"]["delivered"] == 1
    for size in range(100, 800, 50):
        try:
            assert by_pieces([log], size, monkeypatch) == one
        except DependentPiecesError:
            continue
