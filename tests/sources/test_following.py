# mypy: disable-error-code="func-returns-value"
"""Files through every rotation: each line is read once, whatever happens while the exporter runs or is down."""

from __future__ import annotations

import gzip
import importlib
import os
import random
import select
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bouncemeter.event import Event
from bouncemeter_exporter.sources import file, files
from bouncemeter_exporter.sources.files import FollowedFiles
from bouncemeter_exporter.sources.source import Positions

Lines = list[int]


def line(number: int) -> str:
    return (
        f"Nov  4 03:00:00 mx1 postfix/smtp[1]: 4A1B2C3D4{number % 10}: to=<u{number}@dest.example>,"
        " relay=mx.google.com[192.0.2.1]:25, delay=1, delays=0/0/0/1, dsn=5.1.1, status=bounced (no)\n"
    )


def readable(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


class Follower:
    """Follows a source over one run after another, and keeps the numbers of the lines read."""

    def __init__(self, argument: Path | str, *, from_start: bool = True) -> None:
        self.argument, self.from_start = str(argument), from_start
        self.read: Lines = []
        self.said: list[str] = []
        self.positions: Positions = {}
        self.counted: Counter[tuple[str, str]] = Counter()
        self._source: FollowedFiles | None = None
        self._uncommitted: Lines = []
        self._busy = True
        FOLLOWERS.append(self)

    @property
    def source(self) -> FollowedFiles:
        if self._source is None:
            self._source = FollowedFiles(
                self.argument,
                parser=None,
                from_start=self.from_start,
                say=self.said.append,
                positions=self.positions,
                lines=self.counted,
            )
        return self._source

    def poll(self) -> Lines:
        """Read until nothing is left, and commit it. Return all lines read so far."""
        quiet = 0
        while quiet < 3:
            quiet = 0 if self.turn() else quiet + 1
        return self.commit()

    def turn(self) -> int:
        """Read once, without a commit. Return how many lines were read. If nothing was read just before, the source
        has said that there may be more."""
        watch = self._source.watch() if self._source is not None else None
        told = self._busy or watch is None or readable(watch)
        blocks = list(self.source.poll())
        self._busy = bool(blocks)
        found = [
            int(entry.recipient[1:].partition("@")[0])
            for entries in blocks
            for entry in entries
            if isinstance(entry, Event) and entry.recipient is not None
        ]
        assert told or not found
        self._uncommitted += found
        return len(found)

    def commit(self) -> Lines:
        """Commit what was read. Return all lines read so far."""
        self.read += self._uncommitted
        self._uncommitted = []
        self.positions = dict(self.source.positions())
        self.counted = self.source.lines()
        return self.read

    def stop(self) -> None:
        """End the process; only what was committed last is kept."""
        self._uncommitted = []
        if self._source is not None:
            self._source.close()
            self._source = None


FOLLOWERS: list[Follower] = []


@pytest.fixture(autouse=True)
def _look_each_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(files, "LOOKING", 1e9)
    yield
    while FOLLOWERS:
        FOLLOWERS.pop().stop()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "mail.log"


def write(path: Path, *numbers: int) -> None:
    with path.open("a") as file:
        file.writelines(map(line, numbers))


def compress_by(module: str, ending: str) -> Callable[[Path], None]:
    def run(path: Path) -> None:
        packed = path.with_name(path.name + ending)
        packed.write_bytes(importlib.import_module(module).compress(path.read_bytes()))
        shutil.copystat(path, packed)
        path.unlink()

    return run


def make_room(log: Path) -> None:
    """`.2` becomes `.3`, `.1` becomes `.2`."""
    for number in range(len(list(log.parent.iterdir())), 0, -1):
        for ending in ("", ".gz"):
            old = log.with_name(f"{log.name}.{number}{ending}")
            if old.exists():
                old.rename(log.with_name(f"{log.name}.{number + 1}{ending}"))


def rename(log: Path) -> None:
    """As logrotate does without `create`."""
    make_room(log)
    log.rename(log.with_name(f"{log.name}.1"))


def compress(path: Path) -> None:
    with path.open("rb") as plain, gzip.open(path.with_name(f"{path.name}.gz"), "wb") as packed:
        shutil.copyfileobj(plain, packed)
    shutil.copystat(path, path.with_name(f"{path.name}.gz"))
    path.unlink()


def copy_and_truncate(log: Path) -> None:
    """As logrotate does with `copytruncate`."""
    make_room(log)
    shutil.copy2(log, log.with_name(f"{log.name}.1"))
    os.truncate(log, 0)


def perform(follower: Follower, act: Callable[[], object], *, running: bool) -> None:
    """Do something while the exporter runs, or while it is down."""
    if not running:
        follower.stop()
    act()


@pytest.mark.parametrize("running", [True, False], ids=["running", "down"])
class TestRotation:
    """The cases of docs/following.md, each while the exporter runs and while it is down."""

    def test_rename_and_create(self, log: Path, running: bool) -> None:
        write(log, 1, 2)
        follower = Follower(log)
        follower.poll()
        perform(follower, lambda: (write(log, 3), rename(log), write(log, 4)), running=running)
        assert follower.poll() == [1, 2, 3, 4]

    def test_lines_written_to_the_old_file_after_the_rename(self, log: Path, running: bool) -> None:
        write(log, 1)
        follower = Follower(log)
        follower.poll()
        perform(follower, lambda: (rename(log), write(log, 3)), running=running)
        follower.poll()
        write(log.with_name("mail.log.1"), 2)
        assert sorted(follower.poll()) == [1, 2, 3]

    def test_the_new_file_comes_later(self, log: Path, running: bool) -> None:
        write(log, 1)
        follower = Follower(log)
        follower.poll()
        perform(follower, lambda: (write(log, 2), rename(log)), running=running)
        assert follower.poll() == [1, 2]
        perform(follower, lambda: write(log, 3), running=running)
        assert follower.poll() == [1, 2, 3]

    def test_copytruncate(self, log: Path, running: bool) -> None:
        write(log, 1, 2)
        follower = Follower(log)
        follower.poll()
        perform(follower, lambda: (write(log, 3), copy_and_truncate(log)), running=running)
        assert follower.poll() == [1, 2, 3]
        perform(follower, lambda: write(log, 4), running=running)
        assert follower.poll() == [1, 2, 3, 4]

    def test_copytruncate_and_the_log_has_grown_past_its_old_position(self, log: Path, running: bool) -> None:
        write(log, 1)
        follower = Follower(log)
        follower.poll()
        perform(follower, lambda: (write(log, 2), copy_and_truncate(log), write(log, 3, 4, 5, 6)), running=running)
        assert follower.poll() == [1, 2, 3, 4, 5, 6]

    @pytest.mark.parametrize(
        ("module", "ending"), [("gzip", ".gz"), ("bz2", ".bz2"), ("lzma", ".xz"), ("zstandard", ".zst")]
    )
    @pytest.mark.parametrize("size", [2, 3000])
    def test_compression_at_once(self, log: Path, running: bool, module: str, ending: str, size: int) -> None:
        compress = compress_by(module, ending)
        write(log, *range(size))
        follower = Follower(log)
        follower.poll()
        perform(
            follower,
            lambda: (write(log, size), rename(log), compress(log.with_name("mail.log.1")), write(log, size + 1)),
            running=running,
        )
        assert follower.poll() == list(range(size + 2))

    def test_several_rotations(self, log: Path, running: bool) -> None:
        write(log, 1)
        follower = Follower(log)
        follower.poll()

        def rotations() -> None:
            for number in (2, 4, 6):
                write(log, number)
                rename(log)
                write(log, number + 1)
                if number > 2:
                    compress(log.with_name("mail.log.2"))

        perform(follower, rotations, running=running)
        assert follower.poll() == [1, 2, 3, 4, 5, 6, 7]

    def test_several_rotations_by_date(self, log: Path, running: bool) -> None:
        write(log, 1)
        follower = Follower(log)
        follower.poll()

        def rotations() -> None:
            for day, number in enumerate((2, 4, 6), 21):
                write(log, number)
                log.rename(log.with_name(f"mail.log-202611{day}"))
                os.utime(log.with_name(f"mail.log-202611{day}"), (1e9 + day, 1e9 + day))
                write(log, number + 1)
            compress(log.with_name("mail.log-20261121"))

        perform(follower, rotations, running=running)
        assert follower.poll() == [1, 2, 3, 4, 5, 6, 7]

    def test_a_lost_unread_rest_is_reported(self, log: Path, running: bool) -> None:
        write(log, 1)
        follower = Follower(log)
        follower.poll()
        perform(follower, lambda: (write(log, 2), log.unlink(), write(log, 3)), running=running)
        # An open file stays readable after its name is gone.
        assert follower.poll() == ([1, 2, 3] if running else [1, 3])
        assert bool(follower.said) is not running

    def test_replaced_by_a_shorter_file(self, log: Path, running: bool) -> None:
        write(log, 1, 2, 3)
        follower = Follower(log)
        follower.poll()

        def replace() -> None:
            write(log.with_name("other"), 4)
            log.with_name("other").replace(log)

        perform(follower, replace, running=running)
        assert follower.poll() == [1, 2, 3, 4]

    def test_put_back_by_an_editor_or_a_restore(self, log: Path, running: bool) -> None:
        write(log, 1, 2)
        follower = Follower(log)
        follower.poll()

        def put_back() -> None:
            shutil.copy2(log, log.with_name("copy"))
            log.with_name("copy").replace(log)
            write(log, 3)

        perform(follower, put_back, running=running)
        assert follower.poll() == [1, 2, 3]

    def test_a_log_that_vanishes_and_comes_back(self, log: Path, running: bool) -> None:
        write(log, 1)
        follower = Follower(log)
        follower.poll()
        perform(follower, lambda: log.rename(log.with_name("elsewhere")), running=running)
        assert follower.poll() == [1]
        assert not follower.source.up
        perform(
            follower,
            lambda: (write(log.with_name("elsewhere"), 2), log.with_name("elsewhere").rename(log)),
            running=running,
        )
        assert follower.poll() == [1, 2]
        assert follower.source.up

    def test_the_end_was_lost_in_a_crash_of_the_machine(self, log: Path, running: bool) -> None:
        write(log, *range(1, 21))
        follower = Follower(log)
        follower.poll()
        perform(follower, lambda: os.truncate(log, log.stat().st_size - len(line(20))), running=running)
        follower.poll()
        write(log, 21)
        assert follower.poll() == list(range(1, 22))

    def test_a_symbolic_link_with_a_new_target(self, log: Path, running: bool) -> None:
        one, two = log.with_name("mail-1"), log.with_name("mail-2")
        write(one, 1)
        log.symlink_to(one)
        follower = Follower(log)
        follower.poll()

        def turn() -> None:
            write(one, 2)
            write(two, 3)
            log.unlink()
            log.symlink_to(two)

        perform(follower, turn, running=running)
        assert follower.poll() == [1, 2, 3]

    def test_an_inode_that_is_reused(self, log: Path, running: bool) -> None:
        """The same inode has other content of the same length."""
        write(log, 1, 2)
        follower = Follower(log)
        follower.poll()

        def overwrite() -> None:
            with log.open("r+") as file:
                file.write(line(3) + line(4))

        perform(follower, overwrite, running=running)
        assert follower.poll() == [1, 2, 3, 4]

    def test_a_partial_last_line(self, log: Path, running: bool) -> None:
        log.write_text(line(1) + line(2)[:50])
        follower = Follower(log)
        assert follower.poll() == [1]

        def complete() -> None:
            with log.open("a") as file:
                file.write(line(2)[50:])

        perform(follower, complete, running=running)
        assert follower.poll() == [1, 2]

    def test_a_line_completed_after_the_rename(self, log: Path, running: bool) -> None:
        log.write_text(line(1) + line(2)[:50])
        follower = Follower(log)
        follower.poll()

        def complete() -> None:
            rename(log)
            with log.with_name("mail.log.1").open("a") as file:
                file.write(line(2)[50:])
            write(log, 3)

        perform(follower, complete, running=running)
        assert follower.poll() == [1, 2, 3]

    def test_a_directory_with_its_rotated_files(self, log: Path, running: bool) -> None:
        write(log, 1)
        follower = Follower(log.parent)
        follower.poll()
        perform(follower, lambda: (write(log, 2), rename(log), write(log, 3)), running=running)
        follower.poll()
        perform(
            follower,
            lambda: (write(log, 4), rename(log), compress(log.with_name("mail.log.2")), write(log, 5)),
            running=running,
        )
        assert follower.poll() == [1, 2, 3, 4, 5]

    def test_a_pattern(self, log: Path, running: bool) -> None:
        write(log, 1)
        follower = Follower(f"{log.parent}/mail.log*")
        follower.poll()
        perform(follower, lambda: (write(log, 2), rename(log), write(log, 3)), running=running)
        assert follower.poll() == [1, 2, 3]

    def test_lines_from_before_the_first_start_are_not_read(self, log: Path, running: bool) -> None:
        write(log, 1, 2)
        follower = Follower(log, from_start=False)
        follower.poll()
        perform(follower, lambda: write(log, 3), running=running)
        assert follower.poll() == [3]
        perform(follower, lambda: (write(log, 4), rename(log), write(log, 5)), running=running)
        assert follower.poll() == [3, 4, 5]

    def test_an_empty_log_that_is_rotated(self, log: Path, running: bool) -> None:
        log.touch()
        follower = Follower(log)
        follower.poll()
        time.sleep(0.05)  # it was seen empty in two ticks of the clock of files
        follower.poll()
        perform(follower, lambda: (write(log, 1), rename(log), write(log, 2)), running=running)
        assert follower.poll() == [1, 2]

    def test_an_empty_log_that_is_filled_in_the_tick_of_the_last_look(
        self, log: Path, running: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        log.touch()
        tick = log.stat().st_mtime_ns
        follower = Follower(log)
        for _ in range(2):
            tick += 10_000_000
            monkeypatch.setattr(time, "clock_gettime_ns", lambda _, now=tick: now)
            follower.turn()
            follower.turn()
        follower.commit()

        def fill() -> None:
            write(log, 1)
            os.utime(log, ns=(tick, tick))
            rename(log)
            write(log, 2)

        perform(follower, fill, running=running)
        assert follower.poll() == [1, 2]

    @pytest.mark.needs("another user")
    def test_permission_lost_and_regained(self, log: Path, running: bool) -> None:
        write(log, 1)
        log.parent.chmod(0o755)
        for parent in log.parents:
            if parent.stat().st_mode & 0o005 != 0o005:
                parent.chmod(0o755)
        follower = Follower(log)
        follower.poll()
        os.seteuid(65534)
        try:

            def lose() -> None:
                os.seteuid(0)
                write(log, 2)
                rename(log)
                write(log, 3)
                log.chmod(0)
                os.seteuid(65534)

            perform(follower, lose, running=running)
            follower.poll()
            assert follower.poll() in ([1], [1, 2])
            assert not follower.source.up
            assert len(follower.said) == 1
            assert "Permission denied" in follower.said[0]
            os.seteuid(0)
            log.chmod(0o644)
            os.seteuid(65534)
            assert follower.poll() == [1, 2, 3]
            assert follower.source.up
            assert len(follower.said) == 2
            assert "again" in follower.said[1]
        finally:
            os.seteuid(0)


def test_an_archive_half_read_at_a_crash_is_read_on_under_its_next_name(log: Path) -> None:
    write(log, 0)
    follower = Follower(log)
    follower.poll()
    follower.stop()
    write(log, *range(1, 20_000))
    rename(log)
    write(log, 20_000)
    follower.turn()
    assert 1000 < len(follower.commit()) < 19_000
    follower.stop()
    rename(log)
    compress(log.with_name("mail.log.2"))
    write(log, 20_001)
    assert follower.poll() == list(range(20_002))


def test_a_file_in_a_directory_that_is_not_a_log_is_left_alone(log: Path) -> None:
    write(log, 1)
    (log.parent / "paniclog").write_text("nothing of a known form\n" * 3000)
    follower = Follower(log.parent)
    assert follower.poll() == [1]
    write(log, 2)
    assert follower.poll() == [1, 2]
    assert len(follower.said) == 1
    assert "paniclog is not a log of" in follower.said[0]


def test_a_directory_of_thousands_of_files_is_followed(tmp_path: Path) -> None:
    files = [tmp_path / f"MAIL{number:04}.LOG" for number in range(1500)]
    for number, path in enumerate(files):
        write(path, number)
        os.utime(path, (1e9 + number, 1e9 + number))
    follower = Follower(tmp_path)
    while len(follower.poll()) < len(files):
        pass
    assert follower.read == list(range(1500))
    assert len(list(Path("/proc/self/fd").iterdir())) < 200
    write(files[0], 1500)
    write(files[1499], 1501)
    assert follower.poll()[1500:] == [1500, 1501]
    follower.stop()
    write(files[700], 1502)
    assert follower.poll()[1502:] == [1502]


def test_a_log_that_is_copied_and_truncated_while_its_predecessor_is_worked_off(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "TURN", 2000)
    write(log, 0)
    follower = Follower(log)
    follower.poll()
    follower.stop()
    write(log, *range(1, 50))
    copy_and_truncate(log)
    write(log, *range(50, 60))
    follower.turn()
    copy_and_truncate(log)
    write(log, 60)
    follower.turn()
    copy_and_truncate(log)
    assert follower.poll() == list(range(61))


def test_a_rotated_log_without_a_successor_costs_nothing_and_is_remembered(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file, "LINGER", 0.05)
    write(log, 0)
    follower = Follower(log)
    follower.poll()
    rename(log)
    follower.poll()
    follower.stop()
    assert follower.poll() == [0]
    time.sleep(0.1)
    follower.poll()
    assert list(follower.source.poll()) == []  # or the exporter would never wait
    write(log, 1)
    rename(log)
    write(log, 2)
    assert follower.poll() == [0, 1, 2]


@pytest.mark.parametrize("named", ["relative", "through a link"])
@pytest.mark.parametrize("running", [True, False])
def test_a_name_that_is_not_the_real_one_reads_each_rotated_file_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str, *, running: bool
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    log = folder / "mail.log"
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(folder)
    write(log, 0)
    follower = Follower("mail.log" if named == "relative" else tmp_path / "link" / "mail.log")
    follower.poll()
    for number in range(1, 5):
        write(log, number)
        perform(follower, lambda: rotate(log, "rename, compress"), running=running)
        follower.poll()
        time.sleep(0.01)  # file times are only accurate to some milliseconds
    write(log, 5)
    assert follower.poll() == list(range(6))


def test_a_directory_that_was_empty_at_the_first_start_is_read_whole_later(tmp_path: Path) -> None:
    follower = Follower(tmp_path, from_start=False)
    assert follower.poll() == []
    follower.stop()
    write(tmp_path / "mail.log", 1)
    assert follower.poll() == [1]


SCHEMES = [f"{how}{packed}" for how in ("rename", "copy") for packed in ("", ", compress", ", compress at once")]


def rotate(log: Path, scheme: str) -> None:
    """Rotate a log by a scheme: rename or copy, and compress the one before, or this one; create no other, perhaps."""
    if scheme.startswith("rename"):
        rename(log)
        if "nocreate" not in scheme:
            log.touch()
    else:
        copy_and_truncate(log)
    packed = log.with_name("mail.log.1" if "at once" in scheme else "mail.log.2")
    if "compress" in scheme and packed.exists():
        compress(packed)


@pytest.mark.parametrize("seed", range(int(os.environ.get("ROTATIONS", "40"))))
@pytest.mark.parametrize("kind", ["file", "directory"])
def test_whatever_happens_each_line_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, seed: int
) -> None:
    """Random writes, rotations of every kind, and kills with or without a commit, several in a row while nobody reads,
    and while a backlog is worked off."""
    chance = random.Random(seed)
    monkeypatch.setattr(files, "TURN", chance.choice([300, 2000, 20_000, files.TURN]))
    log = tmp_path / "mail.log"
    follower = Follower(log if kind == "file" else tmp_path)
    # In a followed directory, a copy is one more log: its lines would be read too.
    scheme = chance.choice([*SCHEMES, "rename, nocreate"] if kind == "file" else ["rename", "rename, compress"])
    written = 0
    write(log, written)
    follower.poll()
    for act in chance.choices(["write", "turn", "commit", "poll", "rotate", "kill"], [6, 8, 3, 1, 4, 2], k=60):
        match act:
            case "write":
                more = chance.choice([1, 3, 40])
                write(log, *range(written + 1, written + more + 1))
                written += more
            case "turn":
                for _ in range(chance.choice([1, 1, 6])):
                    follower.turn()
            case "commit":
                follower.commit()
            case "poll":
                follower.poll()
            case "kill":
                follower.stop()
            case "rotate" if log.exists() and (
                log.stat().st_size or ("nocreate" not in scheme and chance.random() < 0.3)
            ):
                rotate(log, scheme)
        if act in ("turn", "commit", "poll"):
            time.sleep(0.01)  # file times are only accurate to some milliseconds
    follower.poll()
    follower.poll()
    follower.stop()
    assert Counter(follower.read) == Counter(range(written + 1)), follower.said


@pytest.mark.needs("logrotate")
def test_the_real_logrotate(tmp_path: Path) -> None:
    """The real logrotate, with its usual settings and a writer that keeps the file open as syslog does."""
    for number, settings in enumerate(
        [
            "create",
            "copytruncate",
            "create\ncompress",
            "create\ncompress\ndelaycompress",
            "create\ndateext\ndateformat -%Y%m%d-%s",
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        log, config = folder / "mail.log", folder / "rotate.conf"
        config.write_text(f"su root root\n{log} {{\nrotate 9\nsize 1\nmissingok\n{settings}\n}}\n")
        config.chmod(0o644)
        write(log, 0)
        follower = Follower(log)
        for step in range(1, 9):
            write(log, 2 * step - 1)
            if step % 3:
                follower.poll()
            else:
                follower.stop()
            subprocess.run(["logrotate", "--force", "--state", folder / "state", config], check=True)
            write(log, 2 * step)
            if "dateext" in settings:
                time.sleep(1.1)  # the date is only accurate to a second
        assert follower.poll() == list(range(17)), settings
