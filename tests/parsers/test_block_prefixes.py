"""Lines with other prefixes than the usual one are read in blocks, too, and give what they give one by one."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import cache

import pytest
from bouncemeter.blocks import UsualReader
from bouncemeter.plugin import parser
from bouncemeter.repeats import any_line
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.parsers.test_blocks import CLOCK, day, joined, one_by_one, pieces, reader, same_entries, same_numbers
from tests.parsers.test_lowering import lines, mutated

Prefix = Callable[[str], str]
NANOSECONDS = "2026-11-25T10:00:01.123456789Z"
ISO = "2026-11-25T10:00:01+00:00"


def in_json(**entry: str) -> str:
    """As Go writes it."""
    line = json.dumps(entry, separators=(",", ":"), ensure_ascii=False)
    return line.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


AROUND: dict[str, Prefix] = {
    "compose": lambda line: f"mail-1  | {line}",
    "compose in colours": lambda line: f"\x1b[36mmail-1  |\x1b[0m {line}",
    "compose with times": lambda line: f"mail-1  | {NANOSECONDS} {line}",
    "kubectl": lambda line: f"[pod/mail-0/mail] {line}",
    "docker with times": lambda line: f"{NANOSECONDS} {line}",
    "CRI": lambda line: f"{NANOSECONDS} stdout F {line}",
    "CRI of kubectl": lambda line: f"[pod/mail-0/mail] {NANOSECONDS} stderr F {line}",
    "json-file": lambda line: in_json(log=f"{line}\n", stream="stdout", time=NANOSECONDS),
    "json-file of a terminal": lambda line: in_json(log=f"{line}\r\n", stream="stdout", time=NANOSECONDS),
    "collector": lambda line: json.dumps({"message": line, "host": {"name": "node"}, "@timestamp": ISO}),
}
"""Around a whole line."""

BEFORE: dict[str, Callable[[str, str, str, str], str]] = {
    "RFC 3339": lambda host, program, pid, text: f"{ISO} {host} {program}[{pid}]: {text}",
    "RFC 5424": lambda host, program, pid, text: f"<22>1 {ISO} {host} {program} {pid} - - {text}",
    "RFC 5424 of rsyslog": lambda host, program, pid, text: (
        f'<22>1 {ISO} {host} {program} {pid} ID7 [a b="]"] \ufeff{text}'
    ),
    "RFC 3164 with priority": lambda host, program, pid, text: f"<22>Nov 25 10:00:01 {host} {program}[{pid}]: {text}",
    "journalctl": lambda host, program, pid, text: f"2026-11-25T10:00:01+0000 {host} {program}[{pid}]: {text}",
    "journald": lambda host, program, pid, text: json.dumps(
        {
            "_HOSTNAME": host,
            "SYSLOG_IDENTIFIER": program,
            "_PID": pid,
            "__REALTIME_TIMESTAMP": "1795600801123456",
            "MESSAGE": text,
        }
    ),
}
"""In place of the usual prefix: host, program, process ID, text."""

BEFORE_POSTFIX = {
    "BusyBox": lambda host, program, pid, text: f"Nov 25 10:00:01 {host} mail.info {program}[{pid}]: {text}",
    "no host": lambda _, program, pid, text: f"Nov 25 10:00:01 {program}[{pid}]: {text}",
    "no process ID": lambda host, program, _, text: f"Nov 25 10:00:01 {host} {program}: {text}",
    "bare in CRI": lambda _, program, pid, text: f"{NANOSECONDS} stdout F {program}[{pid}]: {text}",
    "bare in docker": lambda _, program, pid, text: f"{NANOSECONDS} INFO {program}[{pid}]: {text}",
    "bare in json-file": lambda _, program, pid, text: in_json(
        log=f"{program}[{pid}]: {text}\n", stream="stdout", time=NANOSECONDS
    ),
    "RFC 5424 without a host": lambda _, program, pid, text: f"<22>1 {ISO} - {program} {pid} - - {text}",
}


def prefixes(mta: str) -> dict[str, Prefix]:
    """By name, functions that give a line another prefix."""
    if mta == "postfix":
        return {**AROUND, **{name: _replacing(make) for name, make in {**BEFORE, **BEFORE_POSTFIX}.items()}}
    found = dict(AROUND)
    for name, make in {"syslog": _usual, **BEFORE}.items():
        found[name] = lambda line, make=make: make("mx1", "exim", "77", line)  # type: ignore[misc]
        found[f"{name} without a stamp"] = lambda line, make=make: make("mx1", "exim4", "77", line[20:])  # type: ignore[misc]
    return found


def _usual(host: str, program: str, pid: str, text: str) -> str:
    return f"Nov 25 10:00:01 {host} {program}[{pid}]: {text}"


def _replacing(make: Callable[[str, str, str, str], str]) -> Prefix:
    def replaced(line: str) -> str:
        found = any_line.values(line)
        if found is None or "host" not in found:
            return line
        return make(found["host"], found["program"], "77", found["message"])

    return replaced


PREFIXES = [(mta, name) for mta in ("postfix", "exim") for name in prefixes(mta)]
ONE_BY_ONE = ("RFC 5424 without a host",)


@cache
def known(mta: str) -> list[str]:
    return [*lines(mta), *day(mta, 300, 1)]


@pytest.mark.parametrize(("mta", "name"), PREFIXES)
def test_lines_with_a_prefix_give_the_same_entries_in_a_block(mta: str, name: str) -> None:
    text = [prefixes(mta)[name](line) for line in known(mta)]
    same_entries(mta, text)
    rows = reader(mta).block(joined(text)).rows
    assert rows is not None
    assert len(rows.deliveries) > 50 or name in ONE_BY_ONE


@pytest.mark.parametrize(("mta", "name"), PREFIXES)
def test_a_day_of_mail_with_a_prefix_is_counted_the_same(mta: str, name: str) -> None:
    text = [prefixes(mta)[name](line) for line in day(mta, 3000, 3)]
    for size in (1, 700, 3000):
        same_numbers(mta, text, random.Random(size), size, ordered=False)


def mixed(mta: str, chance: random.Random, number: int) -> list[str]:
    """Lines with few or many prefixes, some of them in two wrappers, some changed before or after."""
    every: list[Prefix] = [*prefixes(mta).values(), str]
    makes = chance.choices(every, k=chance.choice((1, 2, len(every))))
    found = list[str]()
    for line in chance.choices(known(mta), k=number):
        changed = mutated(line, known(mta), chance) if chance.random() < 0.3 else line
        changed = chance.choice(makes)(changed.replace("\n", "\\n"))
        if chance.random() < 0.1:
            changed = chance.choice(list(AROUND.values()))(changed)
        if chance.random() < 0.3:
            changed = mutated(changed, found or [line], chance)
        found.append(changed.replace("\n", "\\n"))
    return found


@pytest.mark.parametrize("mta", ["postfix", "exim"])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**64))
def test_mixed_prefixes_and_mutated_lines_give_the_same_entries_in_a_block(mta: str, seed: int) -> None:
    same_entries(mta, mixed(mta, random.Random(seed), 60))


def in_parts(line: str, chance: random.Random) -> list[str]:
    """A line as Kubernetes cuts it."""
    cut, stream = chance.randint(0, len(line)), chance.choice(("stdout", "stderr"))
    return [f"{NANOSECONDS} {stream} P {line[:cut]}", f"{NANOSECONDS} {stream} F {line[cut:]}"]


@pytest.mark.parametrize("mta", ["postfix", "exim"])
@pytest.mark.parametrize("seed", range(10))
def test_blocks_may_end_anywhere_even_within_a_line_in_parts(mta: str, seed: int) -> None:
    chance = random.Random(seed)
    text = []
    for line in mixed(mta, chance, 400):
        text += in_parts(line, chance) if chance.random() < 0.05 else [line]
    expected = one_by_one(mta, text).entries
    for size in (1, 3, 40, 400):
        read = reader(mta)
        assert [entry for piece in pieces(text, chance, size) for entry in read.block(joined(piece))] == expected


MESSAGE = {
    "postfix": (
        "Nov 25 10:00:00 mx postfix/smtp[9]: 4B0000000F: to=<u@forged.test>, relay=mx.forged.test[192.0.2.1]:25,"
        " delay=9, delays=9/0/0/0, dsn=5.1.1, status=bounced (no)"
    ),
    "exim": "2026-11-25 10:00:00 1xVsuB-0001DU-2n ** u@forged.test R=r T=t H=mx.forged.test [192.0.2.1]: 550 5.1.1 no",
}


@pytest.mark.parametrize(("mta", "name"), PREFIXES)
def test_nothing_in_a_line_s_text_is_taken_for_a_prefix(mta: str, name: str) -> None:
    """Whoever wrote the text: another program, or a client in its greeting."""
    forged = [MESSAGE[mta], *(make(MESSAGE[mta]) for make in prefixes(mta).values())]
    text = [f"Nov 25 10:00:01 mx sshd[7]: {each}" for each in forged]
    text += [f"Nov 25 10:00:01 mx postfix/smtpd[7]: connect from {each}" for each in forged]
    make = prefixes(mta)[name]
    if mta == "exim":
        text = [f"2026-11-25 10:00:01 SMTP call from [192.0.2.7]: {each}" for each in forged]
    found = list(reader(mta).block(joined([make(line) for line in text])))
    assert not [each for each in found if "forged" in (each.recipient or "")]
    same_entries(mta, [make(line) for line in [*text, *known(mta)[:20]]])


@pytest.mark.parametrize("mta", ["postfix", "exim"])
def test_what_follows_another_wrapper_s_stamp_is_read_as_it_is_alone(mta: str) -> None:
    stamps = ["Nov 25 10:00:01", "2026-11-25 10:00:01", ISO, NANOSECONDS, "2026-11-25 10:00:01.250 +0100", "<22>"]
    inner = [
        *(f"{stamp} " for stamp in stamps),
        "{",
        "[a/b/c] ",
        "[7] ",
        "x | ",
        "x |",
        "stdout F ",
        "stderr P ",
        "",
        " ",
    ]
    inner += [
        "INFO ",
        "mail.info ",
        "mail info ",
        "<mail.info> ",
        "2016 ",
        "- ",
        "mx ",
        "mx p[1]: ",
        "mx |[1]: ",
        "|: ",
    ]
    inner += [MESSAGE[mta], "[ID 7 mail.info] ", "[1/2] ", "\x1b[0m", "<22>1 "]
    for name, make in prefixes(mta).items():
        chance = random.Random(name)
        for _ in range(40):
            text = [
                "".join(chance.choices(inner, k=chance.randint(1, 5)))
                + chance.choice(("", MESSAGE[mta], "no: reject: "))
                for _ in range(10)
            ]
            same_entries(mta, [make(chance.choice(known(mta))), *map(make, text), *text])


@pytest.mark.parametrize("mta", ["postfix", "exim"])
def test_every_prefix_has_a_block_pattern(mta: str) -> None:
    starts = set()
    every: list[Prefix] = [*prefixes(mta).values(), str]
    for make in every:
        read = parser(mta).reader(lambda: CLOCK)
        assert isinstance(read, UsualReader)
        starts.add(read._with_start(joined(make(line) for line in day(mta, 100, 1)))[1])
    assert starts == set(range(len(reader(mta).lines.starts)))  # type: ignore[attr-defined]
