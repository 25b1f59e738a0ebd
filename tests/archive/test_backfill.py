"""The past in Prometheus: what `report` says of the same logs, at every moment, and on the dashboards."""

from __future__ import annotations

import gzip
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from bouncemeter.plugin import parser
from bouncemeter_exporter.archive.backfill import GAP, Past, backfill
from bouncemeter_exporter.archive.openmetrics import DAY, DayFiles, OneFile
from bouncemeter_exporter.archive.samples import Samples
from bouncemeter_exporter.grafana.dashboards.queries import Queries
from bouncemeter_exporter.reporting.logs import Logs
from bouncemeter_exporter.reporting.period import Period
from bouncemeter_exporter.reporting.summary import summarise
from bouncemeter_exporter.sources.lines import SourceError
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.bench.traffic import day
from tests.conftest import LOGS, Run
from tests.grafana.test_dashboards import PAGES, panels, written
from tests.servers.prometheus import Prometheus

HOUR = 3600
LABELS = {"job": "bouncemeter", "instance": "mail.test:19525"}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four days of Postfix in rotated files, some compressed, and Exim's log of the same time."""
    folder = tmp_path_factory.mktemp("archive")
    chance = random.Random(5)
    lines = list(day("postfix", 24_000))
    size = len(lines) // 4
    for number in range(4):
        stamp = f"Nov {20 + number:2} "
        text = "".join(
            f"{re.sub('^Nov  [0-9] ', stamp, line)}\n" for line in lines[number * size : (number + 1) * size]
        )
        name = "mail.log" if number == 3 else f"mail.log.{3 - number}"
        path = folder / (name if number > 1 else f"{name}.gz")
        path.write_bytes(gzip.compress(text.encode()) if number <= 1 else text.encode())
        last = datetime(2026, 11, 20 + number, 23, 59, 59, tzinfo=UTC).timestamp()
        os.utime(path, (last, last))
    exim = [f"2026-11-2{chance.choice('2')}{line[10:]}\n" for line in day("exim", 6000, seed=2)]
    (folder / "mainlog").write_text("".join(exim))
    return folder


def logs(*names: object) -> Logs:
    return Logs.find([str(name) for name in names], None, lambda _: None)


class Kept:
    """Keeps all samples."""

    def __init__(self) -> None:
        self.pieces: list[Samples] = []

    def write(self, samples: Samples) -> None:
        self.pieces.append(samples)

    def end(self) -> None:
        pass

    def at(self, moment: int) -> dict[str, dict[tuple[str, ...], float]]:
        """All values at a moment, by the name of the series."""
        found: dict[str, dict[tuple[str, ...], float]] = {}
        piece = next(each for each in self.pieces if moment in each.times)
        for name, values in piece.at_each_time():
            if (value := dict(values).get(moment)) is not None:
                found.setdefault(name.family + name.suffix, {})[name.labels] = value
        return found


def totals(values: dict[str, dict[tuple[str, ...], float]]) -> dict[str, Any]:
    """What a report says as well, of the values at a moment."""

    def by(name: str, place: int) -> dict[str, int]:
        found: Counter[str] = Counter()
        for labels, number in values.get(name, {}).items():
            found[labels[place]] += int(number)
        return dict(+found)

    return {
        "recipients": by("mail_recipients_total", 1),
        "waiting": int(sum(values.get("mail_deferred_recipients", {}).values())),
        "bounces": by("mail_bounces_total", 1),
        "attempts": by("mail_delivery_attempts_total", 1),
        "classes": by("mail_bounces_by_class_total", 2),
        "messages": by("mail_bounced_messages_total", 2),
        "rejections": int(sum(values.get("mail_rejections_total", {}).values())),
        "notifications": int(sum(values.get("mail_notifications_total", {}).values())),
        "delays": int(sum(values.get("mail_delivery_delay_seconds_count", {}).values())) > 0,
    }


def reported(read: Logs, until: float | None = None) -> dict[str, Any]:
    """The same, of a report up to a moment."""
    found = summarise(read, 1, Period(until=until)).as_json(10_000)
    classes, messages = Counter[str](), Counter[str]()
    for row in found["classes"]:
        classes[row["class"]] += row["recipients"]
        messages[row["class"]] += row["messages"]
    return {
        "recipients": {name: found["recipients"][name] for name in found["recipients"] if name != "waiting"},
        "waiting": found["recipients"]["waiting"],
        "bounces": found["bounces"],
        "attempts": found["attempts"],
        "classes": dict(+classes),
        "messages": dict(+messages),
        "rejections": found["rejections"],
        "notifications": found["notifications"],
        "delays": True,
    }


def trimmed(found: dict[str, Any]) -> dict[str, Any]:
    return {
        key: {k: v for k, v in each.items() if v} if isinstance(each, dict) else each for key, each in found.items()
    }


@pytest.mark.parametrize("seed", range(2))
def test_at_every_moment_the_numbers_are_the_report_s(archive: Path, seed: int) -> None:
    names = sorted(archive.iterdir())
    random.Random(seed).shuffle(names)
    kept = Kept()
    done = backfill(Past(logs(*names), 60), DAY, kept)
    assert done.samples == sum(len(values) for piece in kept.pieces for _, values in piece.at_each_time())
    chance = random.Random(seed)
    times = [time for piece in kept.pieces for time in piece.times]
    assert times == sorted(set(times))
    assert all(time % 60 == 0 for time in times)
    for moment in [*chance.sample(times[1:-1], 3), times[-1]]:
        assert trimmed(totals(kept.at(moment))) == trimmed(reported(logs(*names), moment)), moment


def test_all_lines_are_counted_by_the_end(archive: Path) -> None:
    kept = Kept()
    backfill(Past(logs(archive), 60), DAY, kept)
    counted = Counter[str]()
    for (_, _, result), number in kept.at(kept.pieces[-1].times[-1])["bouncemeter_lines_total"].items():
        counted[result] += int(number)
    lines = summarise(logs(archive), 1).lines
    assert counted == lines
    assert lines["other"]


def test_every_counter_begins_at_zero(archive: Path) -> None:
    kept, begun = Kept(), dict[Any, float]()
    backfill(Past(logs(archive), 60), DAY, kept)
    for piece in kept.pieces:
        for name, values in piece.at_each_time():
            if values and not name.family.startswith(("mail_deferred", "bouncemeter_l", "bouncemeter_build", "up")):
                begun.setdefault(name, values[0][1])
    assert len(begun) > 100
    assert set(begun.values()) == {0.0}


@pytest.mark.parametrize("seconds", [7, 240])
def test_any_step_ends_with_the_same_numbers(archive: Path, seconds: int) -> None:
    kept = Kept()
    backfill(Past(logs(archive / "mail.log"), seconds), DAY, kept)
    assert trimmed(totals(kept.at(kept.pieces[-1].times[-1]))) == trimmed(reported(logs(archive / "mail.log")))


@given(times=st.lists(st.integers(0, 500), min_size=1, max_size=40), length=st.integers(1, 100))
@settings(deadline=None)
@pytest.mark.parametrize("mta", ["postfix", "exim"])
def test_periods_of_a_block_hold_its_entries_in_order(mta: str, times: list[int], length: int) -> None:
    line = {
        "postfix": "{:%Y-%m-%dT%H:%M:%S}+00:00 mx postfix/qmgr[1]: 4ABC{:03}: removed",
        "exim": "{:%Y-%m-%d %H:%M:%S} 1abcDE-000000005vi-0{:03} Completed",
    }[mta]
    text = "".join(
        line.format(datetime.fromtimestamp(1_800_000_000 + each, UTC), number) + "\n"
        for number, each in enumerate(times)
    )
    read = parser(mta).reader(lambda: 1_800_001_000.0)
    block = read.block(text)  # type: ignore[attr-defined]
    parts = list(block.by_period(length))
    assert [entry for _, part in parts for entry in part] == list(block)
    periods = [at for at, _ in parts]
    assert periods == sorted(set(periods))
    for at, part in parts:
        found = [int(entry.time // length) for entry in part if entry.time is not None]
        assert found[0] == at == max(found)


def test_files_are_the_same_in_one_and_for_each_day_and_readable(archive: Path, tmp_path: Path) -> None:
    backfill(Past(logs(archive), 60), DAY, days := DayFiles(tmp_path / "days", LABELS))
    backfill(Past(logs(archive), 60), DAY, OneFile(tmp_path / "past.om", LABELS))
    assert [each.name for each in days.written] == [f"2026-11-{each}.om" for each in (20, 21, 22, 23)]

    def samples(text: str) -> list[str]:
        return sorted(line for line in text.splitlines() if not line.startswith("#"))

    one = (tmp_path / "past.om").read_text()
    assert samples("".join(each.read_text() for each in days.written)) == samples(one)
    assert one.endswith("# EOF\n")
    # prometheus-client takes a histogram's second moment for a repetition of its first.
    first = days.written[0].read_text()
    plain = re.sub("# HELP mail_delivery_delay.*\n# TYPE.*\n(?:mail_delivery_delay.*\n)+", "", first)
    plain = "".join(re.findall("^(?:#.*| *[^ ]* [^ ]* [0-9]*00)\n", plain, re.MULTILINE))  # every fifth moment
    families = list(text_string_to_metric_families(plain))  # type: ignore[no-untyped-call]
    assert sum(len(each.samples) for each in families) == len(samples(plain))
    assert all(each.timestamp is not None for family in families for each in family.samples)
    histogram = re.findall('^mail_delivery_delay_seconds_bucket.*le="([^"]*)".* ([0-9]+)$', one, re.MULTILINE)
    bounds = [bound for bound, _ in histogram[:13]]
    assert [float(each) for each in bounds] == sorted(map(float, bounds))
    assert len({moment for _, moment in histogram[:13]}) == 1


def test_running_again_gives_the_same_files_also_after_an_interruption(archive: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bouncemeter_exporter", "backfill", "--output", str(tmp_path / "past"), "--step"]
    command += ["15s", "--instance", "mail.test:19525", str(archive)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob("past/*.om")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    process.wait(60)
    assert not [each for each in (tmp_path / "past").iterdir() if each.suffix != ".om"], "nothing half written is left"
    for each in (tmp_path / "past").glob("*.om"):
        assert each.read_text().endswith("# EOF\n")
    backfill(Past(logs(archive), 15), DAY, DayFiles(tmp_path / "whole", LABELS))
    subprocess.run(command, check=True, capture_output=True)
    assert {each.name: each.read_bytes() for each in (tmp_path / "past").iterdir()} == {
        each.name: each.read_bytes() for each in (tmp_path / "whole").iterdir()
    }


def line(moment: float, number: int) -> str:
    stamp = datetime.fromtimestamp(moment, UTC).isoformat()
    return (
        f"{stamp} mx postfix/smtp[1]: 4ABC{number:03}: to=<a@dest.test>, relay=mx.dest.test[192.0.2.1]:25, delay=1,"
        " delays=0/0/0/1, dsn=5.1.1, status=bounced (host mx.dest.test[192.0.2.1] said: 550 5.1.1 no (in reply to RCPT"
        " TO command))\n"
    )


def test_a_wrong_clock_makes_no_samples_of_years(tmp_path: Path) -> None:
    """Lines of 1970 and of the far future are counted where they stand; nothing is written for the time between."""
    now = time.time() // DAY * DAY - 10 * DAY
    times = [1000.0, now, now + 4e9, now + 30, now + 5 * DAY]
    log = tmp_path / "mail.log"
    log.write_text("".join(line(each, number) for number, each in enumerate(times)))
    kept = Kept()
    backfill(Past(logs(log), 60), DAY, kept)
    assert sum(len(piece.times) for piece in kept.pieces) < 10
    assert totals(kept.at(kept.pieces[-1].times[-1]))["bounces"] == {"hard": 5}
    assert kept.pieces[-1].times[-1] < now + 6 * DAY
    assert GAP == DAY


def test_a_silent_hour_has_samples_in_which_only_age_grows(tmp_path: Path) -> None:
    now = time.time() // DAY * DAY - 10 * DAY
    log = tmp_path / "mail.log"
    deferred = line(now, 1).replace("5.1.1", "4.2.2").replace("status=bounced", "status=deferred").replace("550", "452")
    log.write_text(deferred + line(now + 2 * HOUR, 2))
    kept = Kept()
    backfill(Past(logs(log), 60), DAY, kept)
    ages = [kept.at(int(now) + moment)["mail_deferred_oldest_seconds"][("postfix",)] for moment in (60, HOUR, 2 * HOUR)]
    assert ages == [60, HOUR, 2 * HOUR]


def test_logs_without_times_are_reported(tmp_path: Path) -> None:
    log = tmp_path / "mail.log"
    log.write_text(re.sub(r"^\S+ mx ", "", line(0, 1)))
    with pytest.raises(SourceError, match=r"no line in .* has a time"):
        backfill(Past(logs(log), 60), DAY, Kept())


def test_a_period_counts_what_report_counts(archive: Path) -> None:
    begin = datetime(2026, 11, 21, 5, 30, 30, tzinfo=UTC).timestamp()
    asked = Period(begin, begin + 20 * HOUR)
    kept = Kept()
    backfill(Past(logs(archive), 60, asked), DAY, kept)
    found = totals(kept.at(kept.pieces[-1].times[-1]))
    there = summarise(logs(archive), 1, asked).as_json(10)
    assert found["bounces"] == {key: value for key, value in there["bounces"].items() if value}
    assert found["recipients"] == {
        key: value for key, value in there["recipients"].items() if value and key != "waiting"
    }
    assert kept.pieces[0].times[0] == begin // 60 * 60
    assert kept.pieces[-1].times[-1] <= begin + 20 * HOUR + 60


def test_exchange_and_all_sample_logs(bouncemeter: Run, tmp_path: Path) -> None:
    for folder in sorted(LOGS.iterdir()):
        if folder.is_dir():
            kept = Kept()
            read = logs(*sorted([*folder.glob("*.log"), *folder.glob("*.LOG")]))
            backfill(Past(read, 60), DAY, kept)
            assert trimmed(totals(kept.at(kept.pieces[-1].times[-1]))) == trimmed(reported(read)), folder


@pytest.mark.needs("prometheus")
def test_prometheus_serves_the_past_and_the_dashboards_show_it(archive: Path, bouncemeter: Run, tmp_path: Path) -> None:
    """By the command that is printed."""
    command = ["backfill", "--output", tmp_path / "past", "--instance", LABELS["instance"]]
    done = bouncemeter(*command, "--tsdb-path", tmp_path / "data", archive)
    (following,) = re.findall("^  (for .*)$", done.stdout, re.MULTILINE)
    subprocess.run(["sh", "-ec", following], check=True, capture_output=True)
    kept = Kept()
    backfill(Past(logs(archive), 60), DAY, kept)
    begin, end = kept.pieces[0].times[0], kept.pieces[-1].times[-1]
    with Prometheus(tmp_path, 1) as prometheus:

        def asked(query: str, moment: int) -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = prometheus.ask("query", query=query, time=str(moment))["result"]
            return found

        for moment in (begin + HOUR, begin + 30 * HOUR, end):
            truth = reported(logs(archive), moment)
            for outcome, number in truth["recipients"].items():
                query = f'sum(mail_recipients_total{{outcome="{outcome}",job="bouncemeter"}}) or vector(0)'
                assert [float(each["value"][1]) for each in asked(query, moment)] == [number]
            (waiting,) = asked("sum(mail_deferred_recipients) or vector(0)", moment)
            assert float(waiting["value"][1]) == truth["waiting"]
        truth = reported(logs(archive))
        queries = Queries("mta")
        for outcome, number in trimmed(truth)["recipients"].items():
            (shown,) = asked(written(queries.count("mail_recipients", f"{end - begin}s", outcome=outcome)), end)
            assert round(float(shown["value"][1]), 6) == number
        for code_class, number in truth["classes"].items():
            query = queries.count("mail_bounces_by_class", f"{end - begin}s", **{"class": code_class})
            (shown,) = asked(written(query), end)
            assert round(float(shown["value"][1]), 6) == number
        answered = [
            bool(asked(written(target["expr"], datasource="x"), end))
            for page in PAGES.values()
            for panel in panels(page)
            for target in panel.get("targets", ())
        ]
        assert sum(answered) > 0.8 * len(answered), "most queries have something to show"
