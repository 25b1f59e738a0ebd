"""Several processes count the same as one, wherever a log is cut into pieces."""

from __future__ import annotations

import gzip
import multiprocessing
import random
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
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

from tests.bench.traffic import EXCHANGE_HEADER
from tests.bench.traffic import day as whole_day
from tests.conftest import LOGS
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
    return result(parallel._combined(((piece, parallel._read(piece)) for piece in found), lambda _size: None, print))


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
    assert result(parallel.summarise_pieces(found, 2, silent, print)) == by_one([log])


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
    for size in range(100, 540, 30):
        try:
            assert by_pieces([log], size, monkeypatch) == one
        except DependentPiecesError:
            continue


def split_by(lines: list[str], place: int, log: Path) -> dict[str, Any] | None:
    """Lines counted in two pieces, the second of which begins at the line `place`; None if one process must count."""
    written(log, lines)
    border, size = len("\n".join(lines[:place])) + 1, log.stat().st_size
    change = log.stat().st_mtime
    found = [Piece(log, "postfix", begin, end, end - begin, change) for begin, end in pairwise((0, border, size))]
    try:
        return result(
            parallel._combined([(piece, parallel._read(piece)) for piece in found], lambda _size: None, print)
        )
    except DependentPiecesError:
        return None


@pytest.mark.parametrize(
    "lines",
    [
        [
            (
                "Nov  4 03:00:00 mx1 postfix/smtpd[1]: NOQUEUE: reject: RCPT from unknown[203.0.113.95]: 554 5.7.1 no;"
                " from=<a@src.test> to=<b@dest.test> proto=ESMTP helo=<h>"
            ),
            "Nov  4 03:00:09 mx1 last message repeated 30 times",
        ],
        [
            (
                "2026-11-04T03:00:00.1Z stdout P Nov  4 03:00:00 mx1 postfix/smtp[1]: 4B0000000F: to=<b@dest.test>,"
                " relay=mx.dest.test[192.0.2.9]:25, delay=1, delays=0/0/0/1, dsn=5.1.1, status=bou"
            ),
            "2026-11-04T03:00:00.1Z stdout F nced (host said: 550 5.1.1 no)",
        ],
        [
            "Nov  4 03:00:00 mx1 postfix/smtpd[1]: 4A0000000F: client=src.test[192.0.2.1], sasl_username=bob",
            "Nov  4 03:00:01 mx1 postfix/smtpd[1]: 4B0000000F: client=localhost[127.0.0.1], orig_queue_id=4A0000000F",
            (
                "Nov  4 03:00:02 mx1 postfix/smtp[1]: 4B0000000F: to=<b@dest.test>, relay=mx.dest.test[192.0.2.9]:25,"
                " delay=1, delays=0/0/0/1, dsn=5.1.1, status=bounced (host said: 550 5.1.1 no)"
            ),
            "Nov  4 03:00:03 mx1 postfix/qmgr[1]: 4B0000000F: removed",
        ],
    ],
    ids=["repeated", "in parts", "taken over"],
)
def test_lines_that_need_those_of_the_piece_before(lines: list[str], tmp_path: Path) -> None:
    log = written(tmp_path / "mail.log", lines)
    one = by_one([log])
    for place in range(1, len(lines)):
        assert split_by(lines, place, log) in (one, None)


def test_a_log_in_utf_16_is_left_to_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "mail.log"
    log.write_text("".join(f"{line}\n" for line in day("postfix", 500, 1)), encoding="utf-16")
    monkeypatch.setattr(parallel, "PIECE", 10_000)
    assert parallel.pieces([log], None, 2) == []


def exchange_logs(folder: Path, rows: list[str], number: int, size: int) -> list[Path]:
    """Message tracking logs of `size` rows each; one that begins in the middle of a day has a header with the time."""
    found = []
    for place in range(number):
        some = rows[place * size : (place + 1) * size]
        found.append(written(folder / f"MSGTRK-{place}.LOG", [*EXCHANGE_HEADER, f"#Date: {some[0][:24]}", *some]))
    return found


def test_logs_of_exchange_are_counted_as_by_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many messages have lines in two logs or more. One log has a header in its middle, with other columns below it;
    others are protocol logs, whose lines need earlier ones, or compressed."""
    logs = exchange_logs(tmp_path, [*whole_day("exchange", 6000)], 6, 1000)
    text = logs[1].read_text("utf-8").splitlines()
    header = EXCHANGE_HEADER[-1].removesuffix(",schema-version")
    text[500:] = [EXCHANGE_HEADER[1], header, *(line.rpartition(",")[0] for line in text[500:])]
    written(logs[1], text)
    compressed = tmp_path / "MSGTRK-2.LOG.gz"
    compressed.write_bytes(gzip.compress(logs[2].read_bytes()))
    logs[2] = compressed
    logs += [path for path in sorted(LOGS.glob("exchange/*")) if path.suffix.lower() == ".log"]
    one, apart = by_one(logs), sum(by_one([log])["recipients"]["delivered"] for log in logs)
    assert one["recipients"]["delivered"] > 1000
    assert one["bounces"] != {"soft": 0, "hard": 0}
    assert by_pieces(logs, 500_000, monkeypatch) == one
    assert apart == one["recipients"]["delivered"]
    assert sum(by_one([log])["bounces"]["soft"] for log in logs) > one["bounces"]["soft"], "no message spans two logs"
    assert result(parallel.summarise_pieces(parallel.pieces(logs, None, 2), 2, silent, print)) == one


def test_logs_of_several_formats_are_counted_as_by_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = [written(tmp_path / "mail.log", day("postfix", 4000, 1))]
    logs += exchange_logs(tmp_path, [*whole_day("exchange", 2000)], 2, 1000)
    logs += [written(tmp_path / "mainlog", day("exim", 4000, 1))]
    assert by_pieces(logs, 300_000, monkeypatch) == by_one(logs)


def test_a_large_log_whose_lines_need_earlier_ones_is_left_to_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = exchange_logs(tmp_path, [*whole_day("exchange", 1100)], 2, 500)
    large = max(log.stat().st_size for log in logs)
    monkeypatch.setattr(parallel, "PIECE", large)
    assert len(parallel.pieces(logs, None, 2)) == 2
    monkeypatch.setattr(parallel, "PIECE", large - 1)
    assert parallel.pieces(logs, None, 2) == []


def test_processes_that_inherit_nothing_count_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_context", lambda: multiprocessing.get_context("spawn"))
    monkeypatch.setattr(parallel, "PIECE", 300_000)
    logs = [written(tmp_path / "mail.log", day("postfix", 4000, 1))]
    logs += exchange_logs(tmp_path, [*whole_day("exchange", 1000)], 1, 1000)
    assert result(parallel.summarise_pieces(parallel.pieces(logs, None, 2), 2, silent, print)) == by_one(logs)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system has no fork")
@pytest.mark.parametrize(("system", "method"), [("linux", "fork"), ("darwin", "spawn"), ("win32", "spawn")])
def test_a_process_is_forked_where_that_is_safe(system: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    assert parallel._context().get_start_method() == method
    monkeypatch.setattr(threading, "active_count", lambda: 2)
    assert parallel._context().get_start_method() == "spawn"


def test_only_a_few_pieces_are_read_ahead() -> None:
    """Or the results would fill the memory while the first of them is combined."""
    begun = Counter[str]()

    class AtOnce(Executor):
        def submit(self, read: Callable[..., Any], /, *pieces: Any, **_: Any) -> Future[Any]:
            begun["pieces"] += 1
            future = Future[Any]()
            future.set_result(pieces[0].mta)
            return future

    logs = [Piece(Path("mail.log"), str(place), 0, 1, 1, 0.0) for place in range(20)]
    pool = AtOnce()
    waiting = deque((piece, pool.submit(print, piece)) for piece in logs[:4])
    for place, (piece, read) in enumerate(parallel._results(pool, waiting, logs[4:])):
        assert piece is logs[place]
        assert str(read) == str(place)
        assert begun["pieces"] == min(place + 5, 20)


def test_it_is_said_that_no_outcome_of_a_log_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = exchange_logs(tmp_path, [*whole_day("exchange", 200)], 2, 100)
    written(logs[1], [*EXCHANGE_HEADER, "2026-11-01T00:00:00.000Z,too,few"])
    said = list[str]()
    parallel._combined(((piece, parallel._read(piece)) for piece in parallel.pieces(logs, None, 1)), int, said.append)
    assert [each.partition(";")[0] for each in said] == [f"{logs[1]}: no outcome could be read"]
