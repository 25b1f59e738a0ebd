"""Finds the message behind `last message repeated 3 times`, which syslog daemons write in place of equal lines.

Input: a log's lines in order. Output: the same lines, but each such line that certainly repeats a known message in the
form that rsyslog uses, `message repeated 3 times: [ ...]`. It is certain if the line before it is from the same host
(and, where the daemon names it, of the same program with the same beginning). Any other such line stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyparsing as pp

from bouncemeter.event import Entry, Event
from bouncemeter.grammar import own_stamp, regex, rest, syslog_prefix
from bouncemeter.lowering import lowered

__all__ = ["MARK", "Repeats", "any_line", "repeated_events"]

any_line = lowered(syslog_prefix + rest("message"))
"""A whole line: what syslog put before the message, and the message."""

repeated_message = lowered(
    regex("message repeated ") + regex("[0-9]{1,6}")("number") + regex(r" times: \[ ?") + rest("message")
)
"""What rsyslog writes in place of equal messages (`$RepeatedMsgReduction on`)."""

MAX_REPEATS = 10_000
"""Outcomes that a line counts at most: one that says that it was repeated may hold another that says so."""


def repeated_events(message: str, read: Callable[[str], Sequence[Entry]]) -> Sequence[Entry] | None:
    """The outcomes of a message that a syslog daemon says was repeated; None if it says no such thing.

    Args:
        message: The daemon's message.
        read: Reads the message that was repeated.
    """
    found = repeated_message.values(message)
    if found is None:
        return None
    events = [each for each in read(found["message"].removesuffix("]")) if isinstance(each, Event)]
    return events * min(int(found["number"]), MAX_REPEATS // max(1, len(events)))


_end = regex(r" times?(?: ---)?(?![^\n])")
_number = regex("[0-9]{1,6}")
# syslogd of BSD, Solaris, macOS and Linux; of a message from elsewhere, the host is that one.
_last_message = (
    pp.Opt(regex("<[0-9]{1,3}>"))
    + own_stamp("stamp")
    + " "
    + pp.Opt(pp.NotAny(regex("last message |--- ")) + regex(r"[^\s\[\]]{1,255}")("host") + " ")
    + pp.Opt("--- ")
    + "last message repeated "
    + _number("number")
    + _end
)
# syslog-ng names the program, and gives the first characters of the message.
_quoted = (
    pp.Opt(" ")
    + "Last message '"
    + regex(r".{0,200}(?=' repeated [0-9])")("beginning")
    + "' repeated "
    + _number("number")
    + " times"
)

_repeat = lowered(_last_message)
_quoted_repeat = lowered(_quoted)

MARK = "ast message "
"""What each such line contains."""


class Repeats:
    """The repeated messages of one log."""

    def __init__(self) -> None:
        self._last = ""

    def resolved(self, line: str) -> str:
        """The next line of the log."""
        if MARK not in line:
            self._last = line
            return line
        found = _repeat.values(line)
        if found is None and (own := any_line.values(line)) is not None:
            quoted = _quoted_repeat.values(own.pop("message"))
            found = {**own, **quoted} if quoted is not None else None
        if found is None:
            self._last = line
            return line
        return self._repeated(found) or line

    def resolved_block(self, text: str) -> str:
        """The next lines of the log, each with its line feed."""
        if MARK in text:
            return "".join(f"{self.resolved(line)}\n" for line in text.split("\n")[:-1])
        if text:
            self._last = text[text.rfind("\n", 0, -1) + 1 : -1]
        return text

    def _repeated(self, found: dict[str, str]) -> str | None:
        last = any_line.values(self._last)
        if last is None or "stamp" not in last or "stamp" not in found or last.get("host") != found.get("host"):
            return None
        message = last["message"]
        if (
            not message.startswith(found.get("beginning", ""))
            or found.get("program", last["program"]) != last["program"]
        ):
            return None
        origin = f"{last['host']} {last['program']}" if "host" in last else last["program"]
        return f"{found['stamp']} {origin}[0]: message repeated {found['number']} times: [ {message}]"
