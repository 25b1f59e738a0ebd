"""The state that survives a restart: counters, ledger and positions, changed together in one SQLite file.

A commit writes what has changed since the last one, in one transaction that is on the disk when it returns. Scrapes
show only committed numbers, so no crash can take back a number that Prometheus has seen.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from bouncemeter_exporter.counting.counters import Numbers
from bouncemeter_exporter.counting.memory import MessageName, ServerName
from bouncemeter_exporter.counting.message import place
from bouncemeter_exporter.sources.source import Positions

__all__ = ["State", "StateError"]

VERSION = 1
"""The version of the tables below."""

TABLES = """
CREATE TABLE numbers (name TEXT, labels TEXT, value REAL, PRIMARY KEY (name, labels)) WITHOUT ROWID;
CREATE TABLE positions (source TEXT, key TEXT, value TEXT, PRIMARY KEY (source, key)) WITHOUT ROWID;
CREATE TABLE servers (id INTEGER PRIMARY KEY, mta TEXT, host TEXT, now REAL, removes INTEGER);
CREATE TABLE messages (server INTEGER, queue_id TEXT, place REAL, message BLOB, PRIMARY KEY (server, queue_id))
    WITHOUT ROWID;
"""


class StateError(Exception):
    """The state cannot be read or written. Its text is a sentence for the user."""


class State:
    """A state file.

    Args:
        path: The file; created, with its folder, if missing. It holds addresses, so only its owner can read it.

    Raises:
        StateError: The file cannot be created or read, is not a state file, or is in use.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._numbers: Numbers = {}
        self._positions: Mapping[str, Positions] = {}
        self._servers: dict[ServerName, int] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            os.environ.setdefault("SQLITE_TMPDIR", str(path.parent))
            self._database = sqlite3.connect(path, timeout=0, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise StateError(f"cannot keep the state in {path}: {reason}; name a file with --state") from error
        try:
            self._open()
        except sqlite3.OperationalError as error:
            self._database.close()
            if "locked" in str(error):
                raise StateError(f"{path} is in use by another bouncemeter; name another file with --state") from None
            raise StateError(f"cannot keep the state in {path}: {error}; name a file with --state") from error
        except (sqlite3.DatabaseError, ValueError) as error:
            self._database.close()
            raise StateError(f"{path} cannot be read ({error}); move it away to start afresh") from error

    def _open(self) -> None:
        run = self._database.execute
        run("PRAGMA locking_mode = EXCLUSIVE")
        (version,) = run("PRAGMA user_version").fetchone()
        if version not in (0, VERSION):
            raise ValueError(f"its version is {version}, but this bouncemeter needs {VERSION}")
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")
        run("PRAGMA journal_size_limit = 16777216")
        run("BEGIN IMMEDIATE")
        if version == 0:
            for statement in TABLES.split(";"):
                run(statement)
            run(f"PRAGMA user_version = {VERSION}")
        run("COMMIT")
        for name, labels, value in run("SELECT name, labels, value FROM numbers"):
            self._numbers.setdefault(name, {})[tuple(json.loads(labels))] = value  # type: ignore[index]
        found: dict[str, dict[str, str]] = {}
        for source, key, value in run("SELECT source, key, value FROM positions"):
            found.setdefault(source, {})[key] = value
        self._positions = found

    @property
    def numbers(self) -> Numbers:
        """All numbers, as of the last commit."""
        return self._numbers

    @property
    def positions(self) -> Mapping[str, Positions]:
        """Positions by source, as of the last commit."""
        return self._positions

    def servers(self) -> Iterator[tuple[ServerName, tuple[float, bool]]]:
        """The ledger's servers, each with the latest time in its log and whether the log records removals."""
        for number, mta, host, now, removes in self._database.execute("SELECT * FROM servers"):
            self._servers[mta, host] = number
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
    ) -> None:
        """Write what has changed.

        Args:
            numbers: All numbers.
            positions: All positions of the given sources; those of other sources stay.
            servers: All servers.
            messages: The messages that changed; None for a message to forget.

        Raises:
            StateError: The state could not be written, and the file is unchanged.
        """
        known = dict(self._servers)
        try:
            self._database.execute("BEGIN IMMEDIATE")
            self._write_numbers(numbers)
            self._write_positions(positions)
            self._write_servers(servers)
            self._write_messages(messages)
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            self._servers = known
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise StateError(f"cannot write the state to {self.path}: {error}") from error
        self._numbers, self._positions = numbers, {**self._positions, **positions}

    def _write_numbers(self, numbers: Numbers) -> None:
        rows = []
        for name, values in numbers.items():
            before = self._numbers.get(name, {})
            rows += [
                (name, json.dumps(labels), value) for labels, value in values.items() if before.get(labels) != value
            ]
        self._database.executemany("INSERT OR REPLACE INTO numbers VALUES (?, ?, ?)", rows)

    def _write_positions(self, positions: Mapping[str, Positions]) -> None:
        for source, now in positions.items():
            before = self._positions.get(source, {})
            gone = [(source, key) for key in before if key not in now]
            changed = [(source, key, value) for key, value in now.items() if before.get(key) != value]
            self._database.executemany("DELETE FROM positions WHERE source = ? AND key = ?", gone)
            self._database.executemany("INSERT OR REPLACE INTO positions VALUES (?, ?, ?)", changed)

    def _write_servers(self, servers: Mapping[ServerName, tuple[float, bool]]) -> None:
        for server in self._servers.keys() - servers.keys():
            gone = self._servers.pop(server)
            self._database.execute("DELETE FROM servers WHERE id = ?", (gone,))
            self._database.execute("DELETE FROM messages WHERE server = ?", (gone,))
        for server, (now, removes) in servers.items():
            number = self._servers.setdefault(server, max(self._servers.values(), default=0) + 1)
            self._database.execute(
                "INSERT OR REPLACE INTO servers VALUES (?, ?, ?, ?, ?)", (number, *server, now, removes)
            )

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
        self._database.executemany("INSERT OR REPLACE INTO messages VALUES (?, ?, ?, ?)", kept)

    def close(self) -> None:
        """Close the file."""
        self._database.close()
