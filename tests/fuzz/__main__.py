"""A coverage-guided fuzzer for every parser and source: `python -m tests.fuzz TARGET [libFuzzer's flags]`.

A target takes bytes and raises if one of these does not hold: a line is read or reported as unparsed; a stream gives
the same lines however it is cut; nothing grows beyond its bound; what is stored reads back unchanged.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["bouncemeter", "bouncemeter_exporter"]):
    import bouncemeter.exchange
    import bouncemeter.exim
    import bouncemeter.postfix
    from bouncemeter.event import Entry, Event
    from bouncemeter.plugin import BlockReader, Parser, Remembering, UnparsedLineError
    from bouncemeter_exporter.counting.counters import Counters
    from bouncemeter_exporter.counting.ledger import Ledger
    from bouncemeter_exporter.counting.message import pack, unpack
    from bouncemeter_exporter.records import record
    from bouncemeter_exporter.reporting.explain import NothingToExplainError, understand
    from bouncemeter_exporter.reporting.terminal import printable
    from bouncemeter_exporter.sources import journal, rotation, syslog
    from bouncemeter_exporter.sources.lines import Lines

CLOCK = 1_795_000_000.0
LOGS = Path(__file__).parent.parent / "logs"


def parse(parser: Parser) -> Callable[[bytes], None]:
    """Lines of a log, through parser, ledger and counters."""

    def target(data: bytes) -> None:
        lines = Lines()
        read, ledger, counters = parser.reader(lambda: CLOCK), Ledger(recording=True), Counters()
        whole = lines.feed(data) + lines.end()
        one_by_one = list[Entry]()
        for line in whole.split("\n")[:-1]:
            parser.recognises(line)
            try:
                entries = read(line)
            except UnparsedLineError:
                continue
            one_by_one += entries
            for entry in entries:
                counters.count(entry, ledger.facts(entry))
                if isinstance(entry, Event):
                    record(entry)
                    assert not any(each < " " for each in printable(entry.text or ""))
        if isinstance(read, BlockReader):
            block = read.block(whole)
            assert list(block) == one_by_one
            Ledger().count(block, Counters())
        if isinstance(read, Remembering):
            other = parser.reader(lambda: CLOCK)
            assert isinstance(other, Remembering)
            other.recall(read.memory())
            assert other.memory() == read.memory()
        again = Ledger()
        again.memory.restore(
            ledger.memory.servers().items(),
            [(name, kept) for name, kept in ledger.memory.changes() if kept is not None],
        )
        assert again.memory.waiting == ledger.memory.waiting
        for _, kept in ledger.memory.changes():
            assert kept is None or pack(unpack(kept)) == kept

    return target


def cut(data: bytes) -> None:
    """A stream of bytes into lines, whole and in pieces."""
    whole, pieces = Lines(), Lines()
    size = 1 + (data[0] if data else 0)
    parts = [pieces.feed(data[place : place + size]) for place in range(0, len(data), size)]
    assert whole.feed(data) + whole.end() == "".join(parts) + pieces.end()


def frames(data: bytes) -> None:
    """A syslog connection."""
    whole, pieces = syslog.Frames(), syslog.Frames()
    size = 1 + (data[0] if data else 0)
    found = whole.feed(data)
    assert found == [each for place in range(0, len(data), size) for each in pieces.feed(data[place : place + size])]
    assert all("\n" not in syslog.line_of(each) for each in found)


def entry(data: bytes) -> None:
    """Output of journalctl."""
    for line in journal.lines_of(data):
        assert "\n" not in line[1]


def position(data: bytes) -> None:
    """The position of a file, as the state stores it."""
    try:
        found = rotation.Position.parse(data.decode("utf-8", "replace"))
    except ValueError:
        return
    assert rotation.Position.parse(str(found)) == found


def explained(data: bytes) -> None:
    """Text given to `explain`."""
    try:
        understand(data.decode("utf-8", "backslashreplace")).as_json()
    except NothingToExplainError:
        return


TARGETS: dict[str, Callable[[bytes], None]] = {
    "postfix": parse(bouncemeter.postfix.PARSER),
    "exim": parse(bouncemeter.exim.PARSER),
    "exchange": parse(bouncemeter.exchange.PARSER),
    "lines": cut,
    "syslog": frames,
    "journal": entry,
    "position": position,
    "explain": explained,
}

if __name__ == "__main__":
    name = sys.argv.pop(1)
    corpus = Path(".fuzz") / name  # the next run continues with what this one found
    corpus.mkdir(parents=True, exist_ok=True)
    seeds = [str(LOGS / name)] if (LOGS / name).is_dir() else []
    atheris.Setup([sys.argv[0], f"-artifact_prefix={corpus}/", *sys.argv[1:], str(corpus), *seeds], TARGETS[name])
    atheris.Fuzz()
