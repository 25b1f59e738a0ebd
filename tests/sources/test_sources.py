"""Sources other than files: FIFOs, the journal and syslog, with real journald files and a real rsyslog."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from itertools import pairwise
from pathlib import Path

import pytest
from bouncemeter_exporter.sources.lines import MAX_LINE
from bouncemeter_exporter.sources.source import LineCounts
from bouncemeter_exporter.sources.syslog import MAX_CONNECTIONS, Frames, StreamSocket, syslog_source
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import Run
from tests.servers.exporter import Exporter
from tests.servers.net import free_port, wait_until
from tests.servers.rsyslog import Rsyslog

BOUNCES = 'mail_bounces_by_class_total{class="5.1",kind="hard",mta="postfix"}'


def message(number: int, reply: str = "no") -> str:
    return (
        f"4A1B2C{number:04X}: to=<a@dest.example>, relay=mx.google.com[192.0.2.1]:25, delay=1, delays=0/0/0/1,"
        f" dsn=5.1.1, status=bounced (host mx.google.com[192.0.2.1] said: 550 5.1.1 {reply})"
    )


def events(source: str) -> str:
    return f'bouncemeter_lines_total{{mta="postfix",result="event",source="{source}"}}'


# --- FIFOs ------------------------------------------------------------------------------------------------------


def test_a_fifo_is_read_while_its_writers_come_and_go(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with Exporter(pipe) as exporter:
        for number in range(3):
            with pipe.open("w") as writer:
                writer.write(f"Nov  4 03:00:00 mx1 postfix/smtp[1]: {message(number)}\n")
            exporter.wait_for_value(BOUNCES, number + 1)
        pipe.unlink()
        exporter.wait_for_value(f'bouncemeter_source_up{{source="{pipe}"}}', 0)
        os.mkfifo(pipe)
        exporter.wait_for_value(f'bouncemeter_source_up{{source="{pipe}"}}', 1)
        with pipe.open("w") as writer:
            writer.write(f"Nov  4 03:00:00 mx1 postfix/smtp[1]: {message(9)}\n")
        exporter.wait_for_value(BOUNCES, 4)


# --- the journal ------------------------------------------------------------------------------------------------


class JournalFile:
    """A journal, written by systemd-journal-remote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries = 0

    def write(self, *messages: str | bytes, program: str = "postfix/smtp") -> None:
        parts = []
        for text in messages:
            self.entries += 1
            moment = 1_793_761_200_000_000 + self.entries * 1_000_000
            data = text.encode() if isinstance(text, str) else text
            parts.append(
                f"__REALTIME_TIMESTAMP={moment}\n__MONOTONIC_TIMESTAMP={self.entries}\n"
                f"_BOOT_ID=0123456789abcdef0123456789abcdef\n_HOSTNAME=mx1\nSYSLOG_IDENTIFIER={program}\n_PID=7\n".encode()
                + b"MESSAGE\n"
                + len(data).to_bytes(8, "little")
                + data
                + b"\n\n"
            )
        subprocess.run(
            ["systemd-journal-remote", f"--output={self.folder}/{self.entries:06}.journal", "-"],
            input=b"".join(parts),
            check=True,
            capture_output=True,
        )


@pytest.mark.needs("journal")
def test_a_real_journal_continues_at_its_cursor(tmp_path: Path) -> None:
    folder, state = tmp_path / "journal", tmp_path / "state.db"
    folder.mkdir()
    journal = JournalFile(folder)
    source = f"journal:{folder}"
    journal.write(message(1), "BD2052108B2: removed")
    with Exporter("--state", state, source) as exporter:
        # Entries from before the first start are not read.
        journal.write(message(2), message(3, "a forged line\nNov  4 03:00:00 mx1 postfix/smtp[1]: " + message(99)))
        exporter.wait_for_value(BOUNCES, 2)
        journal.write(message(4).encode() + b" \xff\x00 of no encoding")
        exporter.wait_for_value(BOUNCES, 3)
    journal.write(*(message(number) for number in range(10, 30)))
    with Exporter("--state", state, source) as exporter:
        exporter.wait_for_value(BOUNCES, 23)
        assert exporter.value(events(source)) == 23
        assert exporter.value(f'bouncemeter_source_up{{source="{source}"}}') == 1
    with Exporter("--from-start", source) as exporter:
        exporter.wait_for_value(BOUNCES, 24)


@pytest.mark.needs("journal")
@pytest.mark.parametrize("words", [[], ["--from-start"]])
def test_a_journal_without_entries_is_down_and_says_so(tmp_path: Path, words: list[str]) -> None:
    folder = tmp_path / "journal"
    folder.mkdir()
    with Exporter(*words, f"journal:{folder}") as exporter:
        assert exporter.value(f'bouncemeter_source_up{{source="journal:{folder}"}}') == 0
        assert [line for line in exporter.said if "no entries" in line] == [
            f"bouncemeter: journal:{folder}: the journal has no entries"
        ]
        JournalFile(folder).write(message(1))
        exporter.wait_for_value(f'bouncemeter_source_up{{source="journal:{folder}"}}', 1)


@pytest.mark.needs("journal")
def test_journalctl_is_restarted_when_it_ends(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    folder.mkdir()
    journal = JournalFile(folder)
    journal.write(message(1))
    with Exporter("--from-start", f"journal:{folder}") as exporter:
        exporter.wait_for_value(BOUNCES, 1)
        subprocess.run(["pkill", "-P", str(exporter.process.pid), "journalctl"], check=True)
        exporter.wait_for_value(f'bouncemeter_source_up{{source="journal:{folder}"}}', 0)
        journal.write(message(2))
        exporter.wait_for_value(BOUNCES, 2)
    assert any("journalctl ended; restarting it in" in sentence for sentence in exporter.said)


@pytest.mark.needs("journal")
def test_a_missing_journal_is_reported(bouncemeter: Run) -> None:
    done = bouncemeter("serve", "--no-state", "journal:/nowhere/journal", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("bouncemeter: cannot read journal:/nowhere/journal: ")


# --- syslog -----------------------------------------------------------------------------------------------------


@pytest.mark.needs("rsyslog")
def test_a_real_rsyslog_is_read_over_udp_tcp_and_a_unix_socket(server_dir: Path) -> None:
    udp, lines, counted, unix = free_port(), free_port(), free_port(), server_dir / "log.sock"
    sources = [f"udp:127.0.0.1:{udp}", f"tcp:127.0.0.1:{lines}", f"tcp:127.0.0.1:{counted}", f"unix:{unix}"]
    to = 'action(type="omfwd" target="127.0.0.1"'
    tcp = f'{to} protocol="tcp"'
    actions = [
        f'{to} protocol="udp" port="{udp}" template="RSYSLOG_TraditionalForwardFormat")',
        f'{tcp} port="{lines}" template="RSYSLOG_SyslogProtocol23Format")',
        f'{tcp} port="{counted}" TCP_Framing="octet-counted" template="RSYSLOG_TraditionalForwardFormat")',
        f'module(load="omuxsock")\n$OMUxSockSocket {unix}\n*.* :omuxsock:',
    ]
    with Exporter(*sources) as exporter, Rsyslog(server_dir, actions) as rsyslog:
        for number in range(20):
            rsyslog.log("postfix/smtp[7]", message(number, "no (really)"))
        for source in sources:
            exporter.wait_for_value(events(source), 20)
            assert exporter.value(f'bouncemeter_source_dropped_total{{source="{source}"}}') == 0
        # Each message comes over all four ways, and its recipient bounces once.
        assert exporter.value(BOUNCES) == 20
    assert not unix.exists()


def test_datagrams_that_the_kernel_drops_are_counted() -> None:
    port = free_port()
    source = f"udp:127.0.0.1:{port}"
    with Exporter(source) as exporter, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(("127.0.0.1", port))
        exporter.process.send_signal(signal.SIGSTOP)
        for number in range(30_000):
            sender.send(f"<22>Nov  4 03:00:00 mx1 postfix/smtp[1]: {message(number % 60_000)}".encode())
        exporter.process.send_signal(signal.SIGCONT)

        def all_known() -> bool:
            taken = exporter.value(events(source)) or 0
            dropped = exporter.value(f'bouncemeter_source_dropped_total{{source="{source}"}}') or 0
            return taken + dropped == 30_000 and dropped > 0

        wait_until(all_known, 30, "not every datagram is accounted for")


def test_an_address_in_use_is_reported(bouncemeter: Run) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        done = bouncemeter("serve", "--no-state", f"udp:127.0.0.1:{port}", check=False)
    assert done.returncode == 1
    assert done.stderr == f"bouncemeter: cannot listen on udp:127.0.0.1:{port}: Address already in use\n"


def test_a_line_feed_in_a_datagram_does_not_begin_a_line() -> None:
    port = free_port()
    source = f"udp:127.0.0.1:{port}"
    with Exporter(source) as exporter, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        forged = f"no)\nNov  4 03:00:00 mx1 postfix/smtp[1]: {message(2)}"
        sender.sendto(f"<22>Nov  4 03:00:00 mx1 postfix/smtp[1]: {message(1, forged)}\n".encode(), ("127.0.0.1", port))
        exporter.wait_for_value(events(source), 1)
        time.sleep(0.6)
        assert exporter.value(BOUNCES) == 1


def test_a_new_connection_replaces_an_old_one_at_the_limit() -> None:
    port = free_port()
    source = syslog_source(f"tcp:127.0.0.1:{port}", None, LineCounts())
    assert isinstance(source, StreamSocket)
    clients = []
    for _ in range(MAX_CONNECTIONS + 20):
        clients.append(socket.create_connection(("127.0.0.1", port)))
        list(source.poll())
    assert len(list(source.descriptors())) == MAX_CONNECTIONS + 1
    clients[-1].sendall(f"<22>Nov  4 03:00:00 mx1 postfix/smtp[1]: {message(1)}\n".encode())
    wait_until(lambda: [each for entries in source.poll() for each in entries] != [], 5, "the last client is not read")
    source.close()
    for client in clients:
        client.close()


MESSAGE = st.binary(max_size=60).map(lambda text: b"<22>" + text.replace(b"\n", b" ").replace(b"\0", b"0"))


@pytest.mark.parametrize(
    ("stream", "found"),
    [
        (b"<22>a\n<22>b", [b"<22>a", b"<22>b"]),
        (b"<22>a\0<22>b\0", [b"<22>a", b"<22>b"]),
        (b"<22>a\0<22>b", [b"<22>a", b"<22>b"]),
        (b"<22>a\0\0<22>b\n<22>c\0", [b"<22>a", b"<22>b\n<22>c"]),
        (b"<22>a\0b\n<22>c\0<22>d\n", [b"<22>a\0b", b"<22>c\0<22>d"]),
        (b"\0\0<22>a\n\0<22>b\n", [b"<22>a", b"<22>b"]),
        (b"<22>a\0", [b"<22>a"]),
        (b"5 <22>a6 <22>b", [b"<22>a"]),
        (b"5 <22>a<22>b", [b"<22>a", b"<22>b"]),
    ],
)
def test_what_ends_a_message(stream: bytes, found: list[bytes]) -> None:
    whole, pieces = Frames(), Frames()
    assert [each for each in [*whole.feed(stream), *whole.end()] if each] == found
    cut = [each for place in range(len(stream)) for each in pieces.feed(stream[place : place + 1])]
    assert [each for each in [*cut, *pieces.end()] if each] == found


def test_a_last_message_without_an_end_counts_when_the_connection_is_closed() -> None:
    port = free_port()
    source = f"tcp:127.0.0.1:{port}"
    with Exporter(source) as exporter:
        for end in (b"", b"\0", b"\n"):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(f"<22>Nov  4 03:00:00 mx1 postfix/smtp[1]: {message(1)}".encode() + end)
        exporter.wait_for_value(events(source), 3)


@given(
    st.lists(st.tuples(MESSAGE, st.booleans()), max_size=20),
    st.lists(st.integers(0, 2000), max_size=20),
)
def test_messages_are_the_same_however_the_stream_is_cut(messages: list[tuple[bytes, bool]], cuts: list[int]) -> None:
    stream = b"".join(b"%d %s" % (len(each), each) if counted else each + b"\n" for each, counted in messages)
    places = sorted({0, *(min(cut, len(stream)) for cut in cuts), len(stream)})
    frames = Frames()
    found = [each for begin, end in pairwise(places) for each in frames.feed(stream[begin:end])]
    assert found == [each for each, _ in messages]


@pytest.mark.parametrize("counted", [True, False])
def test_a_message_that_is_too_long_is_cut_and_the_next_is_read(counted: bool) -> None:
    long = b"<22>" + b"x" * 5_000_000
    stream = b"%d %s" % (len(long), long) if counted else long + b"\n"
    frames, found = Frames(), []
    for place in range(0, len(stream), 40_000):
        found += frames.feed(stream[place : place + 40_000])
        assert len(frames._buffer) <= MAX_LINE + 40_000
    found += frames.feed(b"<22>next\n")
    assert found == [long[:MAX_LINE], b"<22>next"]
