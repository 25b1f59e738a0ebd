"""A soak: Postfix and Exim logs of scripted messages at a steady rate, rotated all the time, read by a real exporter.

    python -m tests.bench.soak SECONDS [LINES A SECOND]

It prints the exporter's memory, processor time and backlog as time goes on, and at the end the difference between what
the scripts say and what the exporter counted.
"""

from __future__ import annotations

import heapq
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import count, cycle
from pathlib import Path

from tests.counting.test_lives import START, WRITERS, Life, Recipient, Truth
from tests.servers.exporter import Exporter
from tests.sources.test_following import compress, rename

ROTATE = 90.0
"""Seconds between rotations of a log."""

SHOW = 300.0
"""Seconds between lines of the table."""


def lives(chance: random.Random) -> Iterator[tuple[str, list[Recipient]]]:
    """Senders and recipients of messages without end: most are delivered at once, and each ends within an hour."""
    for number in count():
        recipients = []
        for place in range(chance.choice([1, 1, 1, 2, 4])):
            deferrals = chance.choice([0, 0, 0, 0, 0, 0, 0, 0, 1, 3])
            ends = ["delivered"] * 8 + ["bounced"] + (["expired"] if deferrals else [])
            recipients.append(Recipient(f"r{place}@d{number}.test", deferrals, chance.choice(ends)))
        yield chance.choice(["ann@src.test", "bob@src.test", "eve@src.test", ""]), recipients


class Log:
    """A log of scripted messages.

    Args:
        mta: Whose.
        path: Where.
    """

    def __init__(self, mta: str, path: Path) -> None:
        self.mta, self.path, self.truth, self.lines = mta, path, Truth(), 0
        self._chance = random.Random(mta)
        self._lives, self._numbers = lives(self._chance), cycle(range(0x10000, 0x100000))  # IDs are used again
        self._due: list[tuple[float, int, str]] = []
        self._order = count()
        path.touch()

    def write(self, now: float, number: int, *, more: bool = True) -> None:
        """Write the lines that are due, and begin messages until there are about so many."""
        written = list[str]()
        while len(written) < number:
            while self._due and self._due[0][0] <= now:
                written.append(heapq.heappop(self._due)[2])
            if not more or len(written) >= number:
                break
            sender, recipients = next(self._lives)
            life = Life("mx1", f"{next(self._numbers):X}F", sender, now - 5, recipients)
            self.truth.add(life)
            for moment, line in WRITERS[self.mta](life, self._chance):
                heapq.heappush(self._due, (moment, next(self._order), line))
        with self.path.open("a") as file:
            file.writelines(f"{line}\n" for line in written)
        self.lines += len(written)

    def finish(self) -> None:
        """Write all that is left, with the times at which it would have come."""
        self.write(float("inf"), len(self._due) + 1, more=False)

    def rotate(self) -> None:
        """Rotate, compress, and delete what is old."""
        rename(self.path)
        self.path.touch()
        second, fourth = (self.path.with_name(f"{self.path.name}.{number}") for number in ("2", "4.gz"))
        if second.exists():
            compress(second)
        fourth.unlink(missing_ok=True)


def measured(exporter: Exporter) -> tuple[float, float, float]:
    """Memory in megabytes, processor seconds, and bytes that are not read yet."""
    found = {"size": 0.0, "offset": 0.0, "process_resident_memory": 0.0, "process_cpu": 0.0}
    for line in exporter.page().splitlines():
        series, _, value = line.rpartition(" ")
        for name in found:
            if series.startswith((f"bouncemeter_source_{name}_bytes{{", f"{name}_bytes", f"{name}_seconds_total")):
                found[name] += float(value)
    return found["process_resident_memory"] / 1e6, found["process_cpu"], found["size"] - found["offset"]


def main(seconds: float, rate: float) -> None:
    """Soak, and print."""
    with tempfile.TemporaryDirectory() as name:
        logs = []
        for mta in ("postfix", "exim"):
            folder = Path(name) / mta
            folder.mkdir()
            logs.append(Log(mta, folder / "mail.log"))
        with Exporter("--state", Path(name) / "state.db", *(each.path for each in logs)) as exporter:
            print("| minutes | lines | memory, MB | processor seconds | unread now | unread at most |")
            print("|--:|--:|--:|--:|--:|--:|")
            began = rotated = shown = time.monotonic()
            most = 0.0
            while (now := time.monotonic()) - began < seconds:
                for each in logs:
                    each.write(START + now - began, round(rate * (now - began) / len(logs)) - each.lines)
                memory, processor, unread = measured(exporter)
                most = max(most, unread)
                if now - rotated > ROTATE:
                    rotated = now
                    for each in logs:
                        each.rotate()
                if now - shown >= SHOW:
                    shown = now
                    lines = sum(each.lines for each in logs)
                    print(
                        f"| {(now - began) / 60:.0f} | {lines:,} | {memory:.0f} | {processor:.0f} | {unread:,.0f} |"
                        f" {most:,.0f} |",
                        flush=True,
                    )
                    most = 0.0
                time.sleep(0.2)
            for each in logs:
                each.finish()
                exporter.wait_until_read(each.path)
            for each in logs:
                compare(exporter, each)


def compare(exporter: Exporter, log: Log) -> None:
    """Print the difference between a log's scripts and what was counted."""
    time.sleep(3)
    page = exporter.page().splitlines()

    def total(metric: str, *labels: str) -> float:
        wanted = (f'mta="{log.mta}"', *labels)
        return sum(
            float(line.rpartition(" ")[2])
            for line in page
            if line.startswith(f"{metric}{{") and all(each in line for each in wanted)
        )

    truth = log.truth
    differences = {
        **{end: total("mail_recipients_total", f'outcome="{end}"') - truth.recipients[end] for end in truth.recipients},
        "soft": total("mail_bounces_by_class_total", 'kind="soft"') - truth.soft,
        "hard": total("mail_bounces_by_class_total", 'kind="hard"') - truth.hard,
        "messages": total("mail_bounced_messages_total") - truth.soft_messages - truth.hard_messages,
        "notifications": total("mail_notifications_total") - truth.notifications.total(),
        "waiting": total("mail_deferred_recipients") - truth.waiting,
        "lines": total("bouncemeter_lines_total") - log.lines,
    }
    print(f"\n{log.mta}: {log.lines:,} lines, {truth.recipients.total():,} recipients; differences: {differences}")


if __name__ == "__main__":
    os.environ["TZ"] = "UTC"
    main(float(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 5000.0)
