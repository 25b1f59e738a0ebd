"""Exim: the main log, in a file or through syslog, any log_selector, message IDs from before and after 4.97.

Input: one line, such as

    2026-11-24 15:58:10 1xVsuB-0001DU-2n ** a@dest.test R=dns T=smtp H=mx.dest.test [192.0.2.1]: SMTP error from
    remote mail server after RCPT TO:<a@dest.test>: 550 5.1.1 User unknown

Output: outcomes, rejections, and the steps of a message through the queue. The two-character flag after the
message ID gives the outcome. The other server wrote the text after the first free colon and inside `C="..."`:
only the reply's code and the next message ID are read from it.
Source: "The Exim log files" in the Exim specification, and the text of log lines of Exim 4.50 to 4.98.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import pyparsing as pp

from bouncemeter.blocks import Columns, Row, UsualReader
from bouncemeter.event import Entry, Event, Outcome, Stage, Step, StepKind
from bouncemeter.grammar import (
    bracketed_address,
    code_of,
    enhanced_code,
    exim_stamp,
    quoted_local_part,
    reply,
    rest,
    syslog_prefix,
)
from bouncemeter.lowering import lowered, lowered_block
from bouncemeter.plugin import LineReader, UnparsedLineError
from bouncemeter.stamps import Clock, Stamps

__all__ = ["PARSER", "EximParser"]

# --- the start of a line ----------------------------------------------------------------------------------------

message_id = pp.Regex(r"[0-9A-Za-z]{6}-(?:[0-9A-Za-z]{11}-[0-9A-Za-z]{4}|[0-9A-Za-z]{6}-[0-9A-Za-z]{2})(?= )")
"""`1xVsuB-0001DU-2n`; since 4.97 `1abcDE-000000005vi-0000`."""

own_start = exim_stamp("stamp") + " " + pp.Opt(pp.Regex(r"\[[0-9]+\] "))
long_line_part = pp.Regex(r"\[1[/\\][0-9]+\] ")
"""Exim splits a long line for syslog; the first part has all the fields."""

start = own_start | syslog_prefix + pp.Opt(long_line_part) + pp.Opt(own_start)

# --- addresses --------------------------------------------------------------------------------------------------

# Exim writes a local part that needs quotes without them, in lower case, and the quoted form follows:
# `a b@dest.test <"A b"@dest.test>`. If the two agree, neither is somebody's free text.
# A local part has at most 64 characters (RFC 5321); nobody else has written into the line up to there.
unquoted = pp.Regex(
    r'(?=[^"\n]{1,322}+(?<= <)"(?P<local_part>[^"\\\n]{1,64})"@(?P<domain>[^\s<>]{1,255})>)'
    r"(?i:(?P=local_part)@(?P=domain))"
    r'(?= <")'
)
# A local part with a quote or backslash in it: the two forms agree up to there.
escaped = pp.Regex(r'(?P<head>[^"\\\n]{0,64}+)(?=["\\])[^\n]{1,320}?(?= <"(?i:(?P=head))\\)')
quoted = pp.Regex(rf"{quoted_local_part}@[^\s<>:]++(?= [<(]|:| [A-Z]| (?:routing )?+defer |$)")
plain = pp.Regex(r'(?![|/])(?:[^\s<>":]++|:(?=[^\s]))++(?= [<(]|:| [A-Z][A-Za-z0-9]*+[= ]| (?:routing )?+defer | :|$)')
blackhole = pp.Literal(":blackhole:")
# A pipe, a file, or anything odd: the address that led there follows in brackets.
special = pp.Regex(r"[^\n]{1,1024}?(?= <[^<>\n]*>(?: |$))")

target = (
    (unquoted | escaped | blackhole | quoted | plain | special)("target")
    + pp.Opt(pp.Regex(r" \([^()\n]*+\)"))
    + pp.Opt(" <" + bracketed_address("top") + ">")
)

# --- fields: R=router, T=transport, H=host [ip]:port, C="reply", QT=3s ... -----------------------------------------

host_name = pp.Regex(r"(?:[^\s\[\]()]++ )?+(?:\([^()\n]*+\) )?+(?:DS )?+\[[^\[\]\n]*+\](?::[0-9]+)?+")
host = " H=" + (host_name | pp.Regex(r"[^\s\[\]:]++"))("relay") + pp.Opt("*")
interval = pp.Regex(r"(?:[0-9]+w)?(?:[0-9]+d)?(?:[0-9]+h)?(?:[0-9]+m)?(?:[0-9.]+s)?(?![0-9A-Za-z])")
queue_time = " QT=" + interval("queue_time")
confirmation = ' C="' + pp.Regex(r'(?:[^"\\\n]++|\\.)*+')("confirmation") + '"'
sender_field = pp.Regex(" [FP]=<") + bracketed_address("sender") + ">"
# The name in a certificate (DN=) may contain quotes: it ends at a quote before the next field, the error or the end.
# The host comes before it, so the name cannot fake one.
other_field = pp.Regex(
    r" (?!(?:H|QT|C)=)[A-Za-z][A-Za-z0-9]*+\*?+="
    r'(?:"(?:[^"\n]++|"(?! (?!H=)[A-Z][A-Za-z0-9]*+\*?+=| ?:|$))*+"|<[^<>\n]*+>|(?:[^\s:]++|:(?=[^\s]))*+)'
)
flag_word = pp.Regex(r" (?:L[-.]?|K|TFO\*?|PRDR|DS|NOTLS|-K)(?= |:|$)")
one_field = queue_time | confirmation | sender_field | other_field | flag_word
fields = pp.ZeroOrMore(one_field) + pp.Opt(host) + pp.ZeroOrMore(one_field)

# A system error comes before the host, a reply after it: `defer (111): Connection refused H=mx.test [192.0.2.1]`.
system_error = ": " + pp.Regex(r"[A-Z][A-Za-z '/]{0,80}?(?= H=)")("system_error")
deferral = pp.Regex(r" (?:routing )?+defer \(-?[0-9]+\)") + pp.Opt(system_error) + fields

# With log_selector +deliver_time a failure ends in `DT=`, after the error.
text = pp.Regex(r" ?: ?") + pp.Regex(r"(?:[^ \n]++| (?!DT=[0-9.]++s$))*+")("text")

# --- the forms of a line with a message ID ----------------------------------------------------------------------

flag = pp.Literal("=>") | "->" | ">>" | "*>" | "**" | "=="
outcome = flag("flag") + " " + target + fields + pp.Opt(deferral) + (text | rest("text"))

arrival = (
    pp.Literal("<= ")("arrived") + pp.Regex(rf"<>|{quoted_local_part}\S*+|\S++")("arrival_sender") + pp.Opt(fields)
)

completion = pp.Literal("Completed")("completed")

queue_line = lowered(message_id("queue_id") + " " + (outcome | arrival | completion))

# --- rejections -------------------------------------------------------------------------------------------------

client = pp.Opt("H=") + host_name("relay")
mail_from = "<" + bracketed_address("mail") + ">"
temporarily = pp.Regex("(?:excess )?temporarily ")("temporarily")
refusal = " " + pp.Opt(temporarily) + "rejected "
command = (
    (pp.Literal("RCPT")("command") + " <" + bracketed_address("recipient") + ">")
    | (pp.Literal("MAIL")("command") + " " + mail_from)
    | pp.Word(pp.alphas)("command")
)
# By an access control list or the scanner: who, then what was refused.
by_rule = (client | pp.Regex("[UF]=\\S+")) + fields + refusal + command + pp.Regex(r"[^:\n]*+") + pp.Opt(text)
# By Exim itself: what was refused, then who.
of_message = "rejected from " + mail_from + pp.Opt(" " + client) + pp.Regex(r"[^:\n]*+") + text
of_command = (
    "rejected "
    + pp.Word(pp.alphas.upper())("command")
    + (pp.Literal(" from ") | " command " | " FROM:" + mail_from + " ")
    + client
    + pp.Regex(r"[^:\n]*+")
    + text
)
who = pp.Opt(" " + client) + rest("text")
of_address = (
    "unqualified "
    + (
        pp.Literal("sender")("command") + " rejected: " + mail_from
        | pp.Literal("recipient")("command") + " rejected: <" + bracketed_address("recipient") + ">"
    )
    + who
)
of_recipients = (
    "too many "
    + pp.Literal("recipients")("command")
    + ": "
    + (temporarily | pp.Literal("message "))
    + "rejected: sender="
    + mail_from
    + who
)
of_synchronization_error = (
    pp.Literal("SMTP protocol synchronization error (")
    + pp.Regex(r"[^()\n]*+\): rejected ")
    + (
        pp.Literal("connection")("command") + " from" + who
        | '"' + pp.Word(pp.alphas)("command") + pp.Regex(r'[^"\n]*+"') + who
    )
)
# Turned away before a greeting: `refused connection from H=...`, `Connection from [ip] refused: too many connections`.
of_connection = pp.Opt(temporarily) + "refused " + pp.Literal("connection")("command") + " from" + who | pp.Literal(
    "Connection"
)("command") + " from " + client + pp.Literal(" refused: ")("temporarily") + rest("text")

rejection = lowered(
    pp.Opt(message_id("queue_id") + " ")
    + (by_rule | of_message | of_command | of_address | of_recipients | of_synchronization_error | of_connection)
)

# --- the other server's reply -----------------------------------------------------------------------------------

smtp_command = (
    pp.Regex(r"(?:pipelined )?(?:RCPT TO|MAIL FROM):<") + bracketed_address + pp.Regex(r">[^:\n]*+")
) | pp.Regex(r"[^:\n]*+")
remote_reply = lowered(
    pp.Opt(
        pp.Regex(r"(?:SMTP|LMTP) error (?:from remote mail(?:er| server) )?after ")
        + smtp_command
        + ": "
        + pp.Opt("host " + host_name("relay") + ": ")
    )
    + reply
)

queued_as = lowered(pp.Regex(r"(?s:.*) id=") + pp.Regex("[0-9A-Za-z-]{16,23}$")("passed_to"))
"""`250 OK id=1xVsuB-0001DU-2n`: the next Exim's message ID for the message."""

local_reply = lowered(pp.FollowedBy(pp.Regex("[45]")) + reply)
"""A text from our own configuration may begin with the reply to send."""

# --- the usual lines of a log, and which other lines may matter ------------------------------------------------------

end = pp.Regex(r"(?![^\n])")
usual_field = pp.Regex(r' (?!(?:H|QT|C)=)[A-Za-z][A-Za-z0-9]*+\*?+=(?!["<])\S++(?<!:)')
usual_target = pp.NotAny(pp.Regex(r'(?:[^\n<]++|<(?!"))*+<"')) + pp.FollowedBy(pp.Regex(r"[^\s@]++@")) + plain("target")
success = pp.FollowedBy(pp.Regex(r"2[0-9]{2}(?![0-9])") + pp.Opt(pp.Regex(r"[ -]") + enhanced_code("code")))
usual_delivery = (
    (pp.Literal("=>") | "->" | ">>")("flag")
    + " "
    + usual_target
    + pp.Opt(" <" + pp.Regex('[^<>"\n]++')("top") + ">")
    + pp.Opt(pp.Regex(" [FP]=<") + pp.Regex('[^<>"\n]++')("sender") + ">")
    + pp.ZeroOrMore(usual_field)
    + pp.Opt(" H=" + host_name("relay") + pp.Opt("*"))
    + pp.ZeroOrMore(usual_field)
    + pp.Opt(' C="' + success + pp.Regex(r'(?:[^"\\\n]++|\\.)*+')("confirmation") + '"')
    + pp.Opt(queue_time)
    + pp.ZeroOrMore(usual_field)
    + end
)
usual_arrival = (
    "<= "
    + pp.Regex(r'(?!<>)[^\s"]++')("arrival_sender")
    + pp.ZeroOrMore(usual_field)
    + (" H=" + host_name("peer") | end)
)

usual_lines = lowered_block(
    start=exim_stamp("stamp") + " " + pp.Opt(pp.Regex(r"\[[0-9]+\] ")),
    forms=message_id("queue_id") + " " + (usual_delivery | usual_arrival | completion),
    candidates=message_id + " " + (flag | "<= ") | rejection.grammar,
)

# --- a whole line -------------------------------------------------------------------------------------------------

any_line = lowered(start + rest("message"))

# --- what the log's words mean ------------------------------------------------------------------------------------

NO_TRY = (
    "retry time not reached",
    "remote deliver",  # "remote deliveries suppressed" and its variants
    "domain is in queue_",
    "domain matches queue_",
    "domain is held",
    "queue_remote option set",
    "concurrency limit reached for transport",
    "first-pass only routing",
)
"""Deferrals without an attempt: the retry time has not come, or the configuration queues the mail. The number in
`defer (-53)` does not help: its meaning differs between versions of Exim."""

GAVE_UP = (
    "retry timeout exceeded",
    "have been failing for a long time",
    "for any host after a long failure period",
    "message timed out",
)
"""Exim's words when it gives up after retries; the first may follow the last error."""

STAGES = {
    "RCPT": Stage.RCPT,
    "MAIL": Stage.MAIL,
    "EHLO": Stage.HELO,
    "HELO": Stage.HELO,
    "STARTTLS": Stage.HELO,
    "AUTH": Stage.HELO,
    "ETRN": Stage.HELO,
    "VRFY": Stage.RCPT,
    "EXPN": Stage.RCPT,
    "connection": Stage.CONNECT,
    "Connection": Stage.CONNECT,
    "sender": Stage.MAIL,
    "recipient": Stage.RCPT,
    "recipients": Stage.RCPT,
}
"""By what was refused; all others come at or after DATA."""

_UNITS = {"w": 604800.0, "d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}


def _seconds(interval_text: str) -> float:
    """Exim's `1h2m3s` or `0.123s`, in seconds."""
    total, digits = 0.0, ""
    for character in interval_text:
        if character in _UNITS:
            total += float(digits) * _UNITS[character]
            digits = ""
        else:
            digits += character
    return total


class EximParser:
    """Exim's main log; see `bouncemeter.plugin.Parser`."""

    name = "exim"
    each_line_alone = True

    def recognises(self, line: str) -> bool:
        """Whether a line is from Exim's own log, or from the program `exim` in syslog."""
        found = any_line.values(line)
        if found is None:
            return False
        program = found.get("program")
        if program is None:
            message = found["message"]
            return _any_message.matches(message) or rejection.matches(message)
        return program.startswith("exim") and "/" not in program

    def reader(self, clock: Clock = time.time) -> LineReader:
        """A reader for one file. `clock` supplies the year that syslog leaves out."""
        return _Reader(Stamps(clock))


_any_message = lowered(message_id + " " | pp.Regex(r"exim [0-9.]+ daemon started|(?:Start|End) queue run: pid="))

MARKS = ("rejected", "refused", " => ", " -> ", " >> ", " ** ", " == ")
"""Any other message of interest contains one of these: a cheap test before trying other grammars."""


_NAMES = usual_lines.names
_CONFIRMATION = _NAMES.index("confirmation")


class _Reader(UsualReader):
    mta = "exim"
    lines = usual_lines
    columns = Columns.of(
        _NAMES,
        origin=None,
        arrival="arrival_sender",
        sender="arrival_sender",
        removal="completed",
        outcome="flag",
        recipient="target",
        original_recipient="top",
        delay="queue_time",
    )
    delivered = frozenset({"=>", "->", ">>"})

    def __call__(self, line: str, /) -> Sequence[Entry]:
        prefix = any_line.values(line)
        return self._message(prefix, prefix["message"]) if prefix is not None and _is_exim(prefix) else ()

    def look_closer(self, row: Row) -> Sequence[Entry]:
        return self._message({"stamp": row[0]}, row[-1]) if row[0] else self(row[-1])

    def _message(self, prefix: dict[str, str], message: str) -> Sequence[Entry]:
        found = queue_line.values(message)
        if found is not None:
            return self._queue_line({**prefix, **found})
        if not any(mark in message for mark in MARKS):
            return ()
        found = rejection.values(message)
        if found is not None:
            return (self._rejection(found, prefix, message),)
        if _looks_like_an_outcome.matches(message):
            raise UnparsedLineError("it records an outcome in an unknown form")
        return ()

    def entries_of(self, row: Row) -> Sequence[Entry]:
        found = {name: text for name, text in zip(_NAMES, row, strict=True) if text}
        if "peer" in found:
            found["relay"] = found["peer"]
        return self._queue_line(found)

    def passed_to(self, row: Row) -> str | None:
        return _passed_to(row[_CONFIRMATION])

    def seconds(self, delay: str) -> float:
        return _seconds(delay)

    def _queue_line(self, found: dict[str, str]) -> Sequence[Entry]:
        if "flag" in found:
            return self._outcome(found)
        sender = found.get("arrival_sender")
        return (
            Step(
                what=StepKind.REMOVED if sender is None else StepKind.ARRIVED,
                mta=PARSER.name,
                queue_id=found["queue_id"],
                time=self.stamps.seconds(found.get("stamp")),
                host=found.get("host"),
                sender="" if sender == "<>" else sender,
                peer=found.get("relay"),
            ),
        )

    def _outcome(self, found: dict[str, str]) -> Sequence[Entry]:
        text = found.get("text") or found.get("confirmation") or found.get("system_error")
        outcome = self._outcome_of(found, text or "")
        if outcome is None:
            return ()
        reply_values = remote_reply.values(text or "") or {}
        code, reply_code = code_of(reply_values, outcome)
        recipient, original = _recipients(found["target"], found.get("top"))
        file_or_command = found["target"] if found["target"][0] in "|/" else None
        delay = found.get("queue_time")
        return (
            Event(
                mta=PARSER.name,
                outcome=outcome,
                code=code,
                time=self.stamps.seconds(found.get("stamp")),
                host=found.get("host"),
                reply_code=reply_code,
                queue_id=found["queue_id"],
                passed_to=_passed_to(text or "") if outcome is Outcome.DELIVERED else None,
                recipient=recipient,
                original_recipient=original,
                sender=found.get("sender"),
                relay=found.get("relay", reply_values.get("relay", file_or_command)),
                delay=_seconds(delay) if delay else None,
                text=text,
            ),
        )

    @staticmethod
    def _outcome_of(found: dict[str, str], text: str) -> Outcome | None:
        match found["flag"]:
            case "=>" | "->" | ">>":
                return Outcome.DELIVERED
            case "==":
                return None if text.startswith(NO_TRY) else Outcome.DEFERRED
            case "**":
                # A remote server can write Exim's words for giving up into its 5xx reply, which is final by itself.
                refused = (remote_reply.values(text) or {}).get("reply_code", "").startswith("5")
                gave_up = not refused and any(words in text for words in GAVE_UP)
                return Outcome.EXPIRED if gave_up else Outcome.BOUNCED
            case _:  # *> is a delivery that -N suppressed
                return None

    def _rejection(self, found: dict[str, str], prefix: dict[str, str], message: str) -> Event:
        text = found.get("text", "").lstrip(" :") or message
        reply_values = local_reply.values(text) or {"reply_code": "450" if "temporarily" in found else "550"}
        return Event(
            mta=PARSER.name,
            outcome=Outcome.REJECTED,
            code=code_of(reply_values, Outcome.REJECTED)[0],
            time=self.stamps.seconds(prefix.get("stamp")),
            host=prefix.get("host"),
            queue_id=found.get("queue_id"),
            recipient=found.get("recipient"),
            sender=found.get("sender", found.get("mail")),
            relay=found.get("relay"),
            text=text,
            stage=STAGES.get(found.get("command", ""), Stage.DATA),
        )


def _passed_to(text: str) -> str | None:
    """The message ID that a reply names."""
    return (queued_as.values(text) or {}).get("passed_to") if " id=" in text else None


def _is_exim(prefix: dict[str, str]) -> bool:
    return prefix.get("program", "exim").startswith("exim")


_looks_like_an_outcome = lowered(message_id + " " + flag + " ")


def _recipients(target_text: str, top: str | None) -> tuple[str, str | None]:
    """The address tried and, if it differs, the original address."""
    if top is None:
        return target_text, None
    if target_text[0] in "|/:>" or target_text.startswith("save ") or top.startswith('"'):
        # A file or pipe for that address; or the address itself, in quotes.
        return top, None
    if "@" not in target_text and top.lower().startswith(f"{target_text}@".lower()):
        return top, None  # a local mailbox
    return target_text, top


PARSER = EximParser()
