"""The state that survives a restart: counters, ledger and positions, changed together in one SQLite file.

A commit writes what has changed since the last one, in one transaction that is on the disk when it returns. Scrapes
show only committed numbers, so no crash can take back a number that Prometheus has seen. Each row has a checksum: a
damaged file is told from a good one before anything in it is used.
"""

from __future__ import annotations

import json
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from bouncemeter_exporter.counting.counters import Numbers
from bouncemeter_exporter.counting.memory import MessageName, ServerName
from bouncemeter_exporter.counting.message import place
from bouncemeter_exporter.sources.rotation import identity
from bouncemeter_exporter.sources.source import Positions

__all__ = ["ROWS", "State", "StateError"]

VERSION = 2
"""The version of the tables below. Version 1 had no checksums."""

TABLES = """
CREATE TABLE numbers (name TEXT, labels TEXT, value REAL, crc INTEGER, PRIMARY KEY (name, labels)) WITHOUT ROWID;
CREATE TABLE positions (source TEXT, key TEXT, value TEXT, crc INTEGER, PRIMARY KEY (source, key)) WITHOUT ROWID;
CREATE TABLE servers (id INTEGER PRIMARY KEY, mta TEXT, host TEXT, now REAL, removes INTEGER, crc INTEGER);
CREATE TABLE messages (server INTEGER, queue_id TEXT, place REAL, message BLOB, crc INTEGER,
    PRIMARY KEY (server, queue_id)) WITHOUT ROWID;
"""

ROWS = {
    "numbers": ("name", "labels", "value"),
    "positions": ("source", "key", "value"),
    "servers": ("id", "mta", "host", "now", "removes"),
    "messages": ("server", "queue_id", "place", "message"),
}
"""What the checksum of each table's rows is of."""

RECENT = "recent\n"
"""What stands in the table of positions for the source of the last day's texts. No source can have this name: names are
printable. An older version leaves them alone."""

UNWRITABLE = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_FULL}
"""The errors of a place that cannot be written, rather than of the file."""


class StateError(Exception):
    """The state cannot be read or written. Its text is a sentence for the user."""


class State:
    """A state file.

    Args:
        path: The file; created, with its folder, if missing. It holds addresses, so only its owner can read it.
        say: Called with each sentence the user should see.

    Raises:
        StateError: The file cannot be created or read, is not a state file, is damaged, or is in use.
    """

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        self.path, self._say = path, say
        self._numbers: Numbers = {}
        self._positions: Mapping[str, Positions] = {}
        self._servers: dict[ServerName, int] = {}
        self._written: dict[ServerName, tuple[float, bool]] = {}
        self._connect()

    def _connect(self) -> None:
        path = self.path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists() and not path.stat().st_size:
                self._say(f"{path} has no bytes, so there is nothing to go on from: starting afresh")
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            os.environ.setdefault("SQLITE_TMPDIR", str(path.parent))
            self._database = sqlite3.connect(path, timeout=0, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise StateError(f"cannot keep the state in {path}: {reason}; name a file with --state") from error
        try:
            self._open()
            self._identity = identity(path.stat())
        except (sqlite3.Error, ValueError, TypeError) as error:
            self._database.close()
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise StateError(f"{path} is in use by another bouncemeter; name another file with --state") from None
            if code in UNWRITABLE:
                raise StateError(f"cannot keep the state in {path}: {error}; name a file with --state") from error
            # What SQLite says of a damaged table or row means little to anybody else.
            why = "it is damaged" if isinstance(error, sqlite3.OperationalError) else str(error)
            raise StateError(f"{path} cannot be read ({why}); move it away to start afresh") from error

    def _open(self) -> None:
        run = self._database.execute
        self._database.create_function("row_crc", -1, _crc, deterministic=True)
        run("PRAGMA locking_mode = EXCLUSIVE")
        (version,) = run("PRAGMA user_version").fetchone()
        self._check(version)
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")
        run("PRAGMA journal_size_limit = 16777216")
        run("BEGIN IMMEDIATE")
        self._upgrade(version)
        run("COMMIT")
        for table, columns in ROWS.items():
            wrong = run(f"SELECT 1 FROM {table} WHERE crc IS NOT row_crc({', '.join(columns)}) LIMIT 1")  # noqa: S608
            if wrong.fetchone():
                raise ValueError(f"it is damaged: a row of the table {table} is not what was written")
        self._numbers, found = {}, dict[str, dict[str, str]]()
        for name, labels, value in run("SELECT name, labels, value FROM numbers"):
            self._numbers.setdefault(name, {})[tuple(json.loads(labels))] = value  # type: ignore[index]
        for source, key, value in run("SELECT source, key, value FROM positions"):
            found.setdefault(source, {})[key] = value
        self._positions = found

    def _check(self, version: int) -> None:
        """Make sure that it is a state file, and sound.

        Raises:
            ValueError: It is not.
        """
        if version not in (0, 1, VERSION):
            raise ValueError(f"its version is {version}, but this bouncemeter needs {VERSION}")
        tables = {name for (name,) in self._database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        if tables != (set(ROWS) if version else set()):
            raise ValueError("it is the database of another program")
        (found,) = self._database.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise ValueError(f"it is damaged: {' '.join(found.split())}")

    def _upgrade(self, version: int) -> None:
        """Make the tables, or give those of version 1 their checksums."""
        run = self._database.execute
        if version == 0:
            for statement in TABLES.split(";"):
                run(statement)
        elif version == 1:
            for table, columns in ROWS.items():
                run(f"ALTER TABLE {table} ADD COLUMN crc INTEGER")
                run(f"UPDATE {table} SET crc = row_crc({', '.join(columns)})")  # noqa: S608 - our own names
        if version != VERSION:
            run(f"PRAGMA user_version = {VERSION}")

    @property
    def numbers(self) -> Numbers:
        """All numbers, as of the last commit."""
        return self._numbers

    @property
    def positions(self) -> Mapping[str, Positions]:
        """Positions by source, as of the last commit."""
        return {source: each for source, each in self._positions.items() if source != RECENT}

    @property
    def recent(self) -> Mapping[str, str]:
        """The last day's texts, as of the last commit."""
        return self._positions.get(RECENT, {})

    def servers(self) -> Iterator[tuple[ServerName, tuple[float, bool]]]:
        """The ledger's servers, each with the latest time in its log and whether the log records removals."""
        for number, mta, host, now, removes in self._database.execute(
            "SELECT id, mta, host, now, removes FROM servers"
        ):
            self._servers[mta, host], self._written[mta, host] = number, (now, bool(removes))
            yield (mta, host), (now, bool(removes))

    def messages(self) -> Iterator[tuple[MessageName, bytes]]:
        """The ledger's messages, ordered by their `place`."""
        rows = self._database.execute(
            "SELECT mta, host, queue_id, message FROM messages JOIN servers ON server = id ORDER BY place"
        )
        return (((mta, host, queue_id), message) for mta, host, queue_id, message in rows)

    def commit(
        self,
        numbers: Numbers,
        positions: Mapping[str, Positions],
        servers: Mapping[ServerName, tuple[float, bool]],
        messages: Iterable[tuple[MessageName, bytes | None]],
        recent: Mapping[str, str] | None = None,
    ) -> None:
        """Write what has changed.

        Args:
            numbers: All numbers.
            positions: All positions of the given sources; those of other sources stay.
            servers: All servers.
            messages: The messages that changed; None for a message to forget.
            recent: The last day's texts; None leaves them as they are.

        Raises:
            StateError: The state could not be written, and the file is unchanged.
        """
        if recent is not None:
            positions = {**positions, RECENT: recent}
        self._write_again_if_gone()
        known, known_servers = dict(self._servers), dict(self._written)
        try:
            self._database.execute("BEGIN IMMEDIATE")
            self._write_numbers(numbers)
            self._write_positions(positions)
            self._write_servers(servers)
            self._write_messages(messages)
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            self._servers, self._written = known, known_servers
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise StateError(f"cannot write the state to {self.path}: {error}") from error
        self._numbers, self._positions = numbers, {**self._positions, **positions}

    def _write_again_if_gone(self) -> None:
        """If the file was deleted, write it again as of the last commit.

        Raises:
            StateError: It could not be written, or another file is there.
        """
        try:
            if identity(self.path.stat()) == self._identity:
                return
            raise StateError(f"another file was put at {self.path} while it was in use")
        except FileNotFoundError:
            pass
        except OSError as error:
            raise StateError(f"cannot write the state to {self.path}: {error.strerror}") from error
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            self._database.execute("VACUUM INTO ?", (str(self.path),))
        except (OSError, sqlite3.Error) as error:
            with suppress(OSError):
                self.path.unlink()
            raise StateError(f"cannot write the state to {self.path}: {error}") from error
        self._database.close()
        self._connect()
        self._say(f"{self.path} was deleted while in use: it was written again")

    def _write_numbers(self, numbers: Numbers) -> None:
        rows, gone = [], []
        for name, values in numbers.items():
            before = self._numbers.get(name, {})
            gone += [(name, json.dumps(labels)) for labels in before.keys() - values.keys()]
            rows += [
                (name, json.dumps(labels), float(value))
                for labels, value in values.items()
                if before.get(labels) != value
            ]
        self._database.executemany("DELETE FROM numbers WHERE name = ? AND labels = ?", gone)
        self._database.executemany(_insert("numbers"), rows)

    def _write_positions(self, positions: Mapping[str, Positions]) -> None:
        for source, now in positions.items():
            before = self._positions.get(source, {})
            gone = [(source, key) for key in before if key not in now]
            changed = [(source, key, value) for key, value in now.items() if before.get(key) != value]
            self._database.executemany("DELETE FROM positions WHERE source = ? AND key = ?", gone)
            self._database.executemany(_insert("positions"), changed)

    def _write_servers(self, servers: Mapping[ServerName, tuple[float, bool]]) -> None:
        for server in self._servers.keys() - servers.keys():
            gone = self._servers.pop(server)
            self._written.pop(server, None)
            self._database.execute("DELETE FROM servers WHERE id = ?", (gone,))
            self._database.execute("DELETE FROM messages WHERE server = ?", (gone,))
        unused = max(self._servers.values(), default=0) + 1
        for server, (now, removes) in servers.items():
            if self._written.get(server) == (now, removes):
                continue
            self._written[server] = now, removes
            number = self._servers.setdefault(server, unused)
            unused = max(unused, number + 1)
            self._database.execute(_insert("servers"), (number, *server, float(now), int(removes)))

    def _write_messages(self, messages: Iterable[tuple[MessageName, bytes | None]]) -> None:
        gone, kept = [], []
        for (mta, host, queue_id), message in messages:
            number = self._servers.get((mta, host))
            if number is None:  # the server was forgotten, with all its messages
                continue
            if message is None:
                gone.append((number, queue_id))
            else:
                kept.append((number, queue_id, place(message), message))
        self._database.executemany("DELETE FROM messages WHERE server = ? AND queue_id = ?", gone)
        self._database.executemany(_insert("messages"), kept)

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def _insert(table: str) -> str:
    """The statement that writes a row with its checksum."""
    places = ", ".join(f"?{number}" for number in range(1, len(ROWS[table]) + 1))
    return f"INSERT OR REPLACE INTO {table} VALUES ({places}, row_crc({places}))"  # noqa: S608 - our own names


def _crc(*values: str | bytes | float | None) -> int:
    """A checksum of a row."""
    crc = 0
    for each in values:
        crc = zlib.crc32(each if isinstance(each, bytes) else repr(each).encode(), crc)
    return crc
