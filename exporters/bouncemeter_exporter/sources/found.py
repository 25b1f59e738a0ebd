"""Finds this machine's own mail log, for a command that was given none."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cache
from importlib.resources import files
from typing import Any

from bouncemeter_exporter.sources.journal import closed_journal, has_entries, without_entries
from bouncemeter_exporter.sources.lines import SourceError, open_log, read_text
from bouncemeter_exporter.sources.listing import files_of
from bouncemeter_exporter.sources.log import LogReader, UnknownFormatError

__all__ = ["this_machines"]

OLD = 7 * 86_400
"""Seconds without a change after which a log is thought to be left over, if the journal has mail."""

ANSWER = 10
"""Seconds that a mail server has to say where it logs."""

UNKNOWN = ""
"""The format of an empty log."""

SBIN = ("/usr/sbin", "/sbin", "/usr/local/sbin")
"""Where mail servers' programs are; a user's PATH may lack these."""


def this_machines(say: Callable[[str], None]) -> list[str]:
    """The names of this machine's mail logs: of each format the one that changed last, or the journal.

    Args:
        say: Called with a sentence that says which, and with one about each log that cannot be read.

    Raises:
        SourceError: There is none that can be read.
    """
    latest: dict[str, tuple[float, str]] = {}
    troubles = []
    for name in _places():
        try:
            changed, mta = _look_at(name)
        except SourceError as error:
            troubles.append(str(error))
            continue
        if mta is not None:
            latest[mta] = max(latest.get(mta, (0.0, "")), (changed, name))
    if len(latest) > 1:
        latest.pop(UNKNOWN, None)
    found = [name for _, name in sorted(latest.values())]
    if not any(time.time() - changed < OLD for changed, _ in latest.values()):
        try:
            found = _journal() or found
        except SourceError as error:
            troubles.append(str(error))
    if not found:
        raise SourceError(
            "; ".join(troubles) or "this machine has no mail log in a usual place or its journal: name one"
        )
    for trouble in troubles:
        say(trouble)
    say(f"no log was named: reading {' and '.join(found)}")
    return found


def _look_at(name: str) -> tuple[float, str | None]:
    """When a log last changed, and its format: `UNKNOWN` if it is empty, none if it is no mail log.

    Raises:
        SourceError: It cannot be read.
    """
    newest, stat = files_of(name, compressed=False)[-1]
    begun = newest if stat.st_size else newest.with_name(f"{newest.name}.1")  # rotated just now
    if not begun.exists():
        return stat.st_mtime, UNKNOWN
    log = LogReader(name, clock=lambda: stat.st_mtime)
    with closing(open_log(begun)) as stream:
        try:
            text, _ = next(read_text(stream, name))
            log.read(text)
            log.end()
        except UnknownFormatError:
            return stat.st_mtime, None
    return stat.st_mtime, log.parser.name if log.parser else UNKNOWN


def _places() -> Iterator[str]:
    """The usual places and those that the mail servers here tell, as far as there may be a log."""
    named = [os.path.expandvars(each) for each in _table()["paths"]]
    seen = set[str]()
    for name in [*named, *_told()]:
        if "$" in name or os.path.realpath(name) in seen:
            continue
        seen.add(os.path.realpath(name))
        try:
            if files_of(name, compressed=False):
                yield name
        except SourceError:
            if os.path.lexists(name):  # not so in a folder that this user may not enter
                yield name


def _told() -> Iterator[str]:
    """Where the mail servers of this machine say that they log."""
    for server in _table()["servers"]:
        program = shutil.which(server["command"][0], path=os.pathsep.join([os.environ.get("PATH", ""), *SBIN]))
        if program is None:
            continue
        try:
            answer = subprocess.run(  # noqa: S603 - not through a shell
                [program, *server["command"][1:]],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                timeout=ANSWER,
            ).stdout.decode("utf-8", "replace")
        except (OSError, subprocess.SubprocessError):
            continue
        if told := re.search(server["answer"], answer):
            yield told[1].replace("%s", "main").replace("%D", "*").replace("%M", "*")


def _journal() -> list[str]:
    """The journal, if it has entries of a mail server.

    Raises:
        SourceError: This user may not see them.
    """
    name = _table()["journal"]["source"]
    try:
        if has_entries(name):
            return [name]
    except SourceError:  # no journalctl, or no journal
        pass
    if closed_journal() is not None:
        raise SourceError(without_entries(name))
    return []


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads((files("bouncemeter_exporter.sources") / "places.toml").read_text("utf-8"))
