"""Whether a source can be read and is understood, and what its log hides."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from bouncemeter.event import Entry, Event, Outcome
from bouncemeter.plugin import Parser

from bouncemeter_exporter.checking.finding import Finding, Level
from bouncemeter_exporter.sources.journal import PREFIX, read_journal, without_entries
from bouncemeter_exporter.sources.lines import COMPRESSED, STDIN, SourceError, open_log, read_text
from bouncemeter_exporter.sources.listing import files_of, mounted_alone
from bouncemeter_exporter.sources.log import LogReader, UnknownFormatError, unlike
from bouncemeter_exporter.sources.permission import GROUPS, may_user, may_write
from bouncemeter_exporter.sources.source import LineCounts
from bouncemeter_exporter.sources.stream import Fifo
from bouncemeter_exporter.sources.syslog import SCHEMES, syslog_source

__all__ = ["check_source"]

LATEST = 8_388_608
"""Bytes of a log that are looked at: its last."""

FILES = 5
"""Files of a directory or pattern that are looked at: the last."""

ENTRIES = 50_000
"""Entries of a journal that are looked at: the last."""

SAMPLES = 3
SILENT = 86_400.0
AHEAD = 300.0
"""Lines that are shown; seconds without a line, or ahead of this machine's clock, that are worth a warning."""

SERVICE_USER = "bouncemeter"
"""The user of the packaged service."""

SHORT_ID = re.compile(r"[0-9A-F]{5,15}")
LOCAL_RELAY = re.compile(r"[^\[\]]*\[(?:127\.[0-9.]+|::1)\]:(?!24$|2003$)[0-9]+")
"""A relay on this machine other than LMTP's usual ports."""

ROUND = 120.0
"""Seconds within which mail comes back from a content filter."""

STAMPS = (
    (re.compile(r"(?:<[0-9]+>)?[A-Z][a-z]{2} [ 0-9]?[0-9] [0-9:]{8} (?![12][0-9]{3} )"), "neither year nor zone"),
    (re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:.]{8,} (?![+-][0-9]{4} )"), "no zone"),
)


def check_source(name: str, parser: Parser | None) -> Iterator[Finding]:
    """What there is to say of a source.

    Args:
        name: As the user wrote it.
        parser: Its format; if None, it is detected.
    """
    if name == STDIN or name.startswith(SCHEMES) or Fifo.is_at(name):
        if name.startswith(("udp:", "tcp:")):
            yield from _check_address(name)
        elif name.startswith("unix") and (trouble := may_write(Path(name.partition(":")[2]))):
            yield Finding(Level.WRONG, name, f"cannot listen there: {trouble}")
        yield Finding(Level.NOTE, name, "its lines come later, so nothing can be said of them")
        return
    try:
        if name.startswith(PREFIX):
            yield from _check_journal(name, parser)
        else:
            yield from _check_files(name, parser)
    except UnknownFormatError as error:
        yield Finding(Level.WRONG, name, str(error))
    except SourceError as error:
        yield Finding(Level.WRONG, name, str(error))


def _check_address(name: str) -> Iterator[Finding]:
    """Whether syslog can be listened for."""
    try:
        syslog_source(name, None, LineCounts()).close()
    except ValueError as error:
        yield Finding(Level.WRONG, name, str(error))
    except SourceError as error:
        yield Finding(Level.WARNING, name, str(error), "if a bouncemeter listens there already, all is well")


def _check_journal(name: str, parser: Parser | None) -> Iterator[Finding]:
    seen = _Seen(name, parser, time.time())
    for text, _ in read_journal(name, last=ENTRIES):
        seen.read(text)
    if not seen.lines:
        yield Finding(Level.WRONG, name, without_entries(name))
        return
    yield from seen.findings()


def _check_files(name: str, parser: Parser | None) -> Iterator[Finding]:
    found = files_of(name, compressed=False) or files_of(name, compressed=True)
    if not found:
        yield Finding(Level.WRONG, name, "there is no log in it")
        return
    if mounted_alone(Path(name)):
        remedy = "mount its folder instead"
        yield Finding(Level.WARNING, name, "it is mounted by itself, so a rotation cannot be seen", remedy)
    if len(found) > 1:
        yield Finding(Level.OK, name, f"{len(found):,} files; looked at the last {min(FILES, len(found))}")
    formats = set[str]()
    for path, stat in found[-FILES:]:
        seen = _Seen(str(path), parser, stat.st_mtime)
        with closing(_latest(path, stat.st_size)) as stream:
            for text, _ in read_text(stream, str(path)):
                seen.read(text)
        try:
            yield from seen.findings()
        except UnknownFormatError as error:
            # A directory may have other files in it.
            yield Finding(Level.WRONG if len(found) == 1 else Level.NOTE, str(path), str(error))
        formats |= seen.formats
        yield from _who_may_read(path)
    if len(found) > 1 and not formats:
        yield Finding(Level.WRONG, name, "none of its files is a mail log")


def _latest(path: Path, size: int) -> BinaryIO:
    """The last bytes of a log, from a line's beginning on, after its heading if it has one."""
    stream = open_log(path)
    if path.suffix in COMPRESSED or size <= LATEST:
        return stream
    with closing(stream):
        heading = b""
        while (line := stream.readline(LATEST)).startswith(b"#"):
            heading += line
        stream.seek(size - LATEST)
        stream.readline(LATEST)
        return BytesIO(heading + stream.read(LATEST))


def _who_may_read(path: Path) -> Iterator[Finding]:
    """If root asks, whether the service may read it too."""
    if not GROUPS or os.geteuid() != 0:
        return
    remedy = may_user(SERVICE_USER, path)
    if remedy:
        sentence = f"root can read it, but the service's user {SERVICE_USER} cannot"
        yield Finding(Level.WARNING, str(path), sentence, remedy)


@dataclass(slots=True)
class _Seen:
    """What was seen of one log."""

    name: str
    parser: Parser | None
    last_change: float
    lines: int = 0
    first_line: str = ""
    samples: list[str] = field(default_factory=list)
    latest: float | None = None
    ids: Counter[bool] = field(default_factory=Counter)
    through: dict[str, tuple[str, str | None, float]] = field(default_factory=dict)
    filtered: Counter[str] = field(default_factory=Counter)
    log: LogReader = field(init=False)

    def __post_init__(self) -> None:
        last_change = self.last_change
        self.log = LogReader(self.name, self.parser, clock=lambda: last_change, on_unparsed=self._sample)

    def _sample(self, _: int, line: str) -> None:
        if len(self.samples) < SAMPLES:
            self.samples.append(line)

    @property
    def formats(self) -> set[str]:
        """The name of its format, if that was found."""
        return {self.log.parser.name} if self.log.parser else set()

    def read(self, text: str) -> None:
        """Read further lines."""
        self.first_line = self.first_line or next((each for each in text.split("\n") if each and each[0] != "#"), "")
        self.lines += text.count("\n")
        self._note(list(self.log.read(text)))

    def _note(self, entries: Sequence[Entry]) -> None:
        for each in entries:
            if each.time is not None:
                self.latest = max(self.latest or 0.0, each.time)
            if isinstance(each, Event) and each.queue_id is not None:
                self.ids[SHORT_ID.fullmatch(each.queue_id) is not None] += 1
                if each.outcome is Outcome.DELIVERED:
                    self._look_for_filter(each)

    def _look_for_filter(self, event: Event) -> None:
        """Mail that a program on this machine takes, and that comes back without a name to follow it by."""
        if event.recipient is None or event.time is None or event.queue_id is None:
            return
        local = event.relay is not None and LOCAL_RELAY.fullmatch(event.relay)
        if local and event.passed_to is None:
            if len(self.through) < 100_000:
                self.through[event.recipient] = event.queue_id, event.relay, event.time
        elif not local and (taken := self.through.pop(event.recipient, None)) is not None:
            queue_id, relay, moment = taken
            if queue_id != event.queue_id and 0 <= event.time - moment <= ROUND:
                self.filtered[str(relay)] += 1

    def findings(self) -> Iterator[Finding]:
        """What there is to say of the log.

        Raises:
            UnknownFormatError: It is no mail log.
        """
        self._note(list(self.log.end()))
        if not self.lines:
            yield Finding(Level.NOTE, self.name, "it is empty")
            return
        if self.log.doubtful:
            yield Finding(Level.WRONG, self.name, unlike(self.log))
            return
        yield self._understood()
        yield from self._times()
        yield from self._hidden()

    def _understood(self) -> Finding:
        counts, mta = self.log.counts, self.log.parser.name if self.log.parser else ""
        outcomes = counts["event"] + counts["unparsed"]
        what = f"a log of {mta}: {self.lines:,} lines, {outcomes:,} outcomes"
        if not outcomes:
            return Finding(Level.NOTE, self.name, f"a log of {mta}: {self.lines:,} lines, no outcome of any mail yet")
        if not counts["unparsed"]:
            return Finding(Level.OK, self.name, f"{what}, all understood")
        share = f"{counts['unparsed']:,} of them ({counts['unparsed'] / outcomes:.2%}) not understood"
        remedy = f"see all by 'bouncemeter parse --unparsed --redact {self.name}', and please report them"
        return Finding(Level.WARNING, self.name, f"{what}, {share}", remedy, tuple(self.samples))

    def _times(self) -> Iterator[Finding]:
        now = time.time()
        for form, lacks in STAMPS:
            if form.match(self.first_line):
                year = datetime.fromtimestamp(self.last_change, UTC).year
                zone = time.strftime("%Z (UTC%z)")
                guessed = f"{year} by its last change, and " if "year" in lacks else ""
                yield Finding(
                    Level.OK, self.name, f"its time stamps have {lacks}: taken as {guessed}local time, {zone}"
                )
        if self.latest is None:
            return
        if self.latest > now + AHEAD:
            ahead = _span(self.latest - now)
            remedy = "set TZ to the zone in which the log is written, or the clocks right"
            yield Finding(Level.WARNING, self.name, f"its last line is {ahead} ahead of this machine's clock", remedy)
        elif now - max(self.latest, self.last_change if now - self.latest < SILENT else 0) > SILENT:
            since = _span(now - self.latest)
            yield Finding(Level.WARNING, self.name, f"no mail for {since}: is this the log that is written now?")

    def _hidden(self) -> Iterator[Finding]:
        if self.formats == {"postfix"} and self.ids[True] > self.ids[False]:
            sentence = "queue IDs are short, and used again within days: a trace may show two messages as one"
            yield Finding(Level.NOTE, self.name, sentence, "postconf -e enable_long_queue_ids=yes")
        for relay, number in self.filtered.most_common(1):
            if number >= SAMPLES:
                sentence = f"mail passes {relay}, whose replies do not say as what it goes on: it counts twice"
                remedy = "let the content filter answer 'queued as ID', or read the log behind it alone"
                yield Finding(Level.WARNING, self.name, sentence, remedy)


def _span(seconds: float) -> str:
    """A time span as a person would say it."""
    for size, unit in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            number = round(seconds / size)
            return f"{number} {unit}{'s' if number > 1 else ''}"
    return f"{seconds:.0f} seconds"
