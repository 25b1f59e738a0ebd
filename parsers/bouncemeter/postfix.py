"""Postfix: syslog or `maillog_file`, every delivery agent, every instance name.

Input: one line, such as

    Nov 24 15:55:42 mta postfix/smtp[2904]: BD2052108B2: to=<full@dest.test>, relay=mx.dest.test[192.0.2.1]:25,
    delay=0.02, delays=0/0.01/0/0.01, dsn=4.2.2, status=deferred (host mx.dest.test[192.0.2.1] said: 452 4.2.2 ...)

Output: outcomes, rejections, and the steps of a message through the queue. The other server wrote the text in
parentheses after `status=`: only the reply's code and the next queue ID are read from it.
Source: Postfix's log_adhoc(3), bounce(8), qmgr(8), smtpd(8), cleanup(8), postscreen(8).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import lru_cache

import pyparsing as pp

from bouncemeter.blocks import Columns, Row, UsualReader
from bouncemeter.event import EnhancedCode, Entry, Event, Outcome, Stage, Step, StepKind
from bouncemeter.grammar import (
    address,
    bracketed_address,
    code_of,
    enhanced_code,
    quoted_local_part,
    reply,
    rest,
    syslog_prefix,
    usual_prefix,
)
from bouncemeter.lowering import lowered, lowered_block
from bouncemeter.plugin import LineReader, UnparsedLineError
from bouncemeter.stamps import Clock, Stamps

__all__ = ["PARSER", "PostfixParser"]

# --- the words of the log -------------------------------------------------------------------------------------

queue_id = pp.Regex(r"[0-9A-F]{5,20}(?=:)|[0-9B-DF-HJ-NP-TV-Zb-df-hj-np-tv-z]{10,24}(?=:)")
"""Short: hexadecimal of microseconds and inode. Long: base 52, no vowels (enable_long_queue_ids)."""

number = pp.Regex(r"[0-9]+(?:\.[0-9]+)?")

# With info_log_address_format = internal (the only form before Postfix 3.5) odd addresses are not quoted.
recipient = address | pp.Regex(r".*?(?=>, (?:orig_to=<|relay=))")
sender = address | pp.Regex(r".*?(?=>, (?:size=|status=))")

relay = pp.Regex(r"[^,\s\[]*+(?:\[[^\]\n]*+\])?+(?::[0-9]+)?+(?=, )")
"""`none`, `local`, `mx.dest.test[192.0.2.1]:25`, `mail[private/dovecot-lmtp]`, an IPv6 address in brackets."""

client = pp.Regex(r"[^\s\[]*+\[[^\]\n]*+\](?::[0-9]+)?+")
"""`unknown[192.0.2.1]`; postscreen writes `[192.0.2.1]:41000`."""

other_field = pp.Regex(r"(?!(?:delays?|dsn|status)=)[a-z][a-z_]*+=[^,\s(]*+, ")

text = rest("text")
end = pp.Regex(r"(?![^\n])")

# --- the other server's reply, after the last field -------------------------------------------------------------

host_reply = (
    pp.Opt("delivery temporarily suspended: ")
    + "host "
    + client
    + (pp.Literal(" said: ") | " refused to talk to me: ")
    + reply
)
"""`host mx.dest.test[192.0.2.1] said: 550 5.1.1 ...`."""

remote_reply = lowered(host_reply | reply)

queued_as = lowered(
    pp.Regex(r"(?s:.*)\b(?:queued|forwarded) as ") + pp.Regex("[0-9A-Za-z]{5,24}(?=\\)?$)")("passed_to")
)
"""`250 2.0.0 Ok: queued as 4X1`: the next server's queue ID for the message."""

# --- the forms of a line with a queue ID ---------------------------------------------------------------------------

attempt = (
    "to=<"
    + recipient("recipient")
    + ">, "
    + pp.Opt("orig_to=<" + recipient("original_recipient") + ">, ")
    + "relay="
    + relay("relay")
    + ", "
    + pp.ZeroOrMore(other_field)
    + pp.Opt("delay=" + number("delay") + ", ")
    + pp.ZeroOrMore(other_field)
    + pp.Opt(pp.Regex(r"delays=[0-9./]*+, "))
    + pp.ZeroOrMore(other_field)
)
delivery = (
    attempt
    + pp.Opt("dsn=" + enhanced_code("dsn") + ", ")
    + "status="
    + pp.Word(pp.alphas)("status")
    + pp.Opt(" (" + text)
)

queued = "from=<" + sender("sender") + ">, size=" + number("size")

expiry = "from=<" + sender("sender") + ">, status=" + pp.Regex(r"(?:force-)?+expired")("expired") + ", " + text

login = pp.Regex(r", sasl_[a-z]++=[^,\s]*+")

arrival = (
    "client=" + client("peer") + pp.ZeroOrMore(login) + pp.Opt(", orig_queue_id=" + pp.Word(pp.alphanums)("related"))
)

submission = (
    pp.Regex(r"uid=[0-9]+")("uid")
    + " from=<"
    + pp.Opt(address("sender") + ">" + pp.Opt(" orig_id=" + pp.Word(pp.alphanums)("related")))
)

notification = (
    pp.Regex(r"(?:sender|postmaster) (?:non-delivery|delay|delivery status)")("notification")
    + " notification: "
    + pp.Word(pp.alphanums)("related")
)

removal = (pp.Literal("removed") | "requeued")("removed") + end
"""postsuper(1) writes `requeued`: the message returns with another queue ID, and `orig_id=`."""

queue_line = lowered(
    queue_id("queue_id") + ": " + (delivery | queued | expiry | arrival | submission | notification | removal)
)

# --- rejections: who was refused, our reply, why, the envelope --------------------------------------------------

envelope = (
    "; from=<" + bracketed_address("sender") + ">" + pp.Opt(pp.Regex(",? to=<") + bracketed_address("recipient") + ">")
)

# The offending name or address comes first, in brackets, and may itself imitate an envelope.
offender = pp.Regex(rf'<(?:{quoted_local_part}[^<>]*+|[^<>"]*+)>: ')
why = pp.Combine(pp.Opt(offender) + pp.Regex(r"(?:[^;]++|;(?! (?:from=<|proto=)))*+"))

smtpd_rejection = (
    pp.Regex(r"(?:proxy-|milter-)?reject: ")
    + (pp.Word(pp.alphas.upper() + "-") | "connect")("stage")
    + pp.Opt(" from " + client("relay"))
    + ": "
    + pp.Opt((reply | enhanced_code("code")) + " ")
    + why("text")
    + pp.Opt(envelope)
)

# A header or body line is the sender's own text, then an envelope follows; our verdict comes after the last envelope.
content_rejection = pp.Regex(r"reject: (?:(?:mime-|nested-)?header|body|content|mime-error) ")("content") + (
    pp.Regex(r"(?s:.)*(?<=: )(?=[45]\.[0-9]{1,3}\.[0-9]{1,3} )") + enhanced_code("code") + " " + text | text
)

rejection = lowered((pp.Literal("NOQUEUE") | queue_id("queue_id")) + ": " + (content_rejection | smtpd_rejection))
bare_rejection = lowered(smtpd_rejection)

# --- the usual lines of a log, and which other lines may matter ------------------------------------------------------

usual_delivery = (
    attempt
    + "dsn="
    + enhanced_code("dsn")
    + ", status="
    + (pp.Literal("sent") | "deferred" | "bounced")("status")
    + " ("
    + pp.NotAny("forwarded as ")
    + text
)
usual_queued = pp.NotAny(pp.Literal("from=<>") | "from=<double-bounce@") + queued
usual_arrival = "client=" + client("peer") + pp.ZeroOrMore(login) + end
usual_removal = pp.Literal("removed")("removed") + end

usual_lines = lowered_block(
    start=usual_prefix,
    forms=queue_id("queue_id") + ": " + (usual_delivery | usual_queued | usual_arrival | usual_removal),
    candidates=pp.Regex(
        r"(?:(?:[^:\n]++|:(?! ))*+: )?"
        r"(?:to=<|from=<|client=|uid=|(?:milter-|proxy-)?+reject: |(?:sender|postmaster) |requeued)"
    ),
)

# --- a whole line -------------------------------------------------------------------------------------------------

any_line = lowered(syslog_prefix + rest("message"))

# --- what the log's words mean ------------------------------------------------------------------------------------

OUTCOMES = {
    "sent": Outcome.DELIVERED,
    "deferred": Outcome.DEFERRED,
    "SOFTBOUNCE": Outcome.DEFERRED,
    "bounced": Outcome.BOUNCED,
}
PROBES = frozenset({"deliverable", "undeliverable"})
"""The words after `status=` for address probes, which are not mail."""

STAGES = {
    "CONNECT": Stage.CONNECT,
    "connect": Stage.CONNECT,
    "HELO": Stage.HELO,
    "EHLO": Stage.HELO,
    "STARTTLS": Stage.HELO,
    "AUTH": Stage.HELO,
    "ETRN": Stage.HELO,
    "MAIL": Stage.MAIL,
    "RCPT": Stage.RCPT,
    "VRFY": Stage.RCPT,
}
"""By the refused command; all others come at or after DATA."""

DOUBLE_BOUNCE = "double-bounce@"
"""The sender of Postfix's own mail about bounces (double_bounce_sender): treated as the empty sender."""

_AGENTS = """
    anvil bounce cleanup defer discard dnsblog error flush lmtp local master oqmgr pickup pipe postdrop postlog
    postlogd postmap postfix-script postqueue postscreen postsuper proxymap qmgr qmqpd retry scache sendmail showq
    smtp smtpd spawn tlsmgr tlsproxy trace trivial-rewrite verify virtual
"""
AGENTS = frozenset(_AGENTS.split())
"""The programs of Postfix, as they name themselves in the log."""

MARKS = (": to=<", "reject: ")
"""Any other message of interest contains one of these: a cheap test before trying other grammars."""


class PostfixParser:
    """Postfix's log; see `bouncemeter.plugin.Parser`."""

    name = "postfix"
    each_line_alone = True

    def recognises(self, line: str) -> bool:
        """Whether a line is from any Postfix program: `postfix/smtp`, `postfix-out/qmgr`, `mx1/relay/smtp`."""
        found = any_line.values(line)
        return found is not None and _is_postfix(found["program"])

    def reader(self, clock: Clock = time.time) -> LineReader:
        """A reader for one file. `clock` supplies the year that syslog leaves out."""
        return _Reader(Stamps(clock))


def _passed_to(text: str) -> str | None:
    """The queue ID that a reply names."""
    return (queued_as.values(text) or {}).get("passed_to") if " as " in text else None


def _delivery(
    status: str,
    text: str,
    dsn: str | None,
    time: float | None,
    host: str | None,
    queue_id: str,
    recipient: str,
    original_recipient: str | None,
    relay: str,
    delay: float | None,
) -> Event:
    if status not in OUTCOMES:
        raise UnparsedLineError(f"status={status} is not a known Postfix outcome")
    outcome = OUTCOMES[status]
    reply_values = remote_reply.values(text) or {}
    if dsn:
        reply_values["code"] = dsn
    code, reply_code = code_of(reply_values, outcome)
    return Event(
        PARSER.name,
        outcome,
        code,
        time,
        host,
        reply_code,
        queue_id,
        recipient,
        original_recipient,
        relay=relay,
        delay=delay,
        text=text,
        passed_to=_passed_to(text) if outcome is Outcome.DELIVERED else None,
        forwarded=relay == "local" and text.startswith("forwarded as "),
    )


@lru_cache(maxsize=256)
def _is_postfix(program: str) -> bool:
    if program == "postfix":  # rsyslog sends RFC 5424 with the program's name cut off at the slash
        return True
    instance, slash, agent = program.rpartition("/")
    return bool(instance and slash and agent in AGENTS)


@lru_cache(maxsize=1024)
def _host(origin: str) -> str:
    return origin.partition(" ")[0]


_NAMES = usual_lines.names
_TEXT = _NAMES.index("text")


class _Reader(UsualReader):
    mta = "postfix"
    lines = usual_lines
    columns = Columns.of(_NAMES, arrival="peer", removal="removed", outcome="status", code="dsn")
    delivered = frozenset({"sent"})

    def __call__(self, line: str, /) -> Sequence[Entry]:
        prefix = any_line.values(line)
        if prefix is None:
            if ": to=<" in line and " status=" in line:
                raise UnparsedLineError("it has no program name before the message")
            return ()
        return self._message(prefix, prefix["message"]) if _is_postfix(prefix["program"]) else ()

    def look_closer(self, row: Row) -> Sequence[Entry]:
        stamp, origin, *_, message = row
        return self._message({"stamp": stamp, "host": self.host_of(origin)}, message) if stamp else self(message)

    def _message(self, prefix: dict[str, str], message: str) -> Sequence[Entry]:
        found = queue_line.values(message)
        if found is not None:
            return self._queue_line({**prefix, **found})
        if not any(mark in message for mark in MARKS):
            return ()
        found = rejection.values(message) or bare_rejection.values(message)
        if found is not None:
            return (self._rejection(found, prefix),)
        verb = message.partition(": ")[2]
        if verb.startswith(("to=<", "reject: ", "milter-reject: ", "proxy-reject: ")):
            raise UnparsedLineError("it records an outcome in an unknown form")
        return ()

    def entries_of(self, row: Row) -> Sequence[Entry]:
        stamp, origin, queue_id, recipient, original, relay, delay, dsn, status, text, sender, _, peer, _, _ = row
        host, time = self.host_of(origin), self.stamps.seconds(stamp)
        if status:
            about = (time, host, queue_id, recipient, original or None, relay, float(delay) if delay else None)
            return (_delivery(status, text.removesuffix(")"), dsn, *about),)
        what = StepKind.QUEUED if sender else StepKind.ARRIVED if peer else StepKind.REMOVED
        return (Step(what, PARSER.name, queue_id, time, host, sender or None, peer or None),)

    def host_of(self, origin: str) -> str:
        return _host(origin)

    def is_ours(self, origin: str) -> bool:
        return _is_postfix(origin.partition(" ")[2])

    def passed_to(self, row: Row) -> str | None:
        return _passed_to(row[_TEXT].removesuffix(")"))

    def seconds(self, delay: str) -> float:
        return float(delay)

    def _queue_line(self, found: dict[str, str]) -> Sequence[Entry]:
        time, host = self.stamps.seconds(found.get("stamp")), found.get("host")
        if "status" in found:
            if found["status"] in PROBES:
                return ()
            delay = float(found["delay"]) if "delay" in found else None
            about = (time, host, found["queue_id"], found["recipient"], found.get("original_recipient") or None)
            text = found.get("text", "").removesuffix(")")
            return (_delivery(found["status"], text, found.get("dsn"), *about, found["relay"], delay),)
        if "expired" in found:
            return (
                Event(
                    mta=PARSER.name,
                    outcome=Outcome.EXPIRED,
                    code=EnhancedCode(4, 4, 7),
                    time=time,
                    host=host,
                    queue_id=found["queue_id"],
                    sender=found["sender"],
                    text=found["text"],
                ),
            )
        what = next(what for mark, what in _STEPS.items() if mark in found)
        sender = found.get("sender")
        if sender is not None and sender.startswith(DOUBLE_BOUNCE):
            sender = ""
        return (
            Step(what, PARSER.name, found["queue_id"], time, host, sender, found.get("peer"), found.get("related")),
        )

    def _rejection(self, found: dict[str, str], prefix: dict[str, str]) -> Event:
        stage = STAGES.get(found.get("stage", ""), Stage.DATA)
        if stage is Stage.CONNECT and "code" not in found:
            found.setdefault("reply_code", "421")  # postscreen(8) sends this reply, but does not log it
        code, reply_code = code_of(found, Outcome.REJECTED)
        return Event(
            mta=PARSER.name,
            outcome=Outcome.REJECTED,
            code=code,
            time=self.stamps.seconds(prefix.get("stamp")),
            host=prefix.get("host"),
            reply_code=reply_code,
            queue_id=found.get("queue_id"),
            recipient=found.get("recipient"),
            sender=found.get("sender"),
            relay=found.get("relay"),
            text=found["text"],
            stage=stage,
        )


_STEPS = {
    "size": StepKind.QUEUED,
    "peer": StepKind.ARRIVED,
    "uid": StepKind.ARRIVED,
    "notification": StepKind.NOTIFIED,
    "removed": StepKind.REMOVED,
}
"""The value that identifies a form, and its step."""

PARSER = PostfixParser()
