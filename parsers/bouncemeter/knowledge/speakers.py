"""Whose words a text is: a reply of the other server, a reply that it passes on, or our own server's error.

Each of them has phrases of its own. What our own server puts before a reply is no part of it, and what a command of
ours printed says nothing about the mail.
"""

from __future__ import annotations

import re

from bouncemeter.event import EnhancedCode
from bouncemeter.knowledge.phrases import MAX_TEXT
from bouncemeter.patterns import compiled
from bouncemeter.tables import table

__all__ = ["MAIL", "command_of", "exit_status_reason", "inner_reply", "is_own_fault", "own_error"]

MAIL = "MAIL"
"""The command that names the sender: what is said of an address in reply to it is about the sender's."""

_COMMAND = re.compile(
    r"\(in reply to ([A-Z]+)[A-Za-z ]{0,40}\)?$"  # Postfix puts it behind the reply, Exim before it
    r"|\A(?:SMTP|LMTP) error from remote mail(?:er| server)? after (?:pipelined )?([A-Z]+)\b"
)
_PREFIX = compiled(r"(?:delivery temporarily suspended: |delivery via \S{1,300}+: )++")
_OUTPUT = re.compile(r"\.? ?Command output: | from command: ")
_EXIT_STATUS = re.compile(
    r"Command died with status ([0-9]{1,3})\b"
    r"|Child process of .{1,300}? (?:transport|filter) .{0,300}?returned ([0-9]{1,3})\b"
)
# Exim's own words for a fault of its configuration or of a command, before words that others may have chosen.
_OWN_FAULT = re.compile(
    r"(?:[A-Z][a-z ]{1,60}: )?(?:failed to (?:expand|open) |Malformed value |Expansion of |Tainted |lookup of "
    r"|Child process of )"
)
_INNER_REPLY = re.compile(
    r"(?:\bwith|\breturned|\breplied|\bresponded|\bsaid|\bresponse|\breply|\berror)(?: was| is)?:? ?"
    r"(?P<quote>[\"'\u201c\u2018]+)(?=[245][0-9]{2}[ -])"
)
_REPLY = re.compile(r"([245][0-9]{2})(?:[ -]#?([245]\.[0-9]{1,3}\.[0-9]{1,3})(?![0-9.]))?")


def command_of(text: str) -> str | None:
    """The SMTP command that a text says was refused, in capital letters: `MAIL`, `RCPT`; None if it says nothing."""
    found = _COMMAND.search(text)
    return (found[1] or found[2]) if found is not None else None


def own_error(text: str) -> str:
    """What our own server says when no reply came: without Postfix's prefixes, and without what a command printed."""
    text = text[:MAX_TEXT]
    if (prefix := _PREFIX.match(text)) is not None:
        text = text[prefix.end() :]
    return _OUTPUT.split(text, maxsplit=1)[0]


def exit_status_reason(text: str) -> str | None:
    """The reason that a command's exit status gives (sysexits.h); None if no command failed."""
    found = _EXIT_STATUS.search(text[:MAX_TEXT])
    if found is None:
        return None
    reason: str = table("knowledge/reasons")["exit_statuses"].get(found[1] or found[2], "system_error")
    return reason


def is_own_fault(text: str) -> bool:
    """Whether Exim says that its own configuration or a command of ours failed, whatever words follow."""
    return _OWN_FAULT.match(text) is not None


def inner_reply(text: str) -> tuple[EnhancedCode, int, str] | None:
    """The reply that a reply quotes, as Exchange does: its code, its three digits and its text; None if there is none.

    `451 4.4.0 Primary target IP address responded with: "451 5.7.3 STARTTLS is required"`.
    """
    if not any(quote in text for quote in "\"'\u201c\u2018"):
        return None
    *_, found = [None, *_INNER_REPLY.finditer(text[:MAX_TEXT], 4)]  # the last is the innermost
    digits = _REPLY.match(text, found.end()) if found is not None else None
    if found is None or digits is None:
        return None
    inner = text[found.end() : MAX_TEXT]
    closing = {"\u201c": "\u201d", "\u2018": "\u2019"}.get(found["quote"][0], found["quote"][0])
    inner = inner[: inner.index(closing)] if closing in inner else inner
    reply_code = int(digits[1])
    code = EnhancedCode.parse(digits[2]) if digits[2] else EnhancedCode(reply_code // 100, 0, 0)
    return code, reply_code, inner
