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
from operator import itemgetter

import pyparsing as pp

from bouncemeter.blocks import Columns, Row, UsualReader
from bouncemeter.event import EnhancedCode, Entry, Event, Outcome, Step, StepKind
from bouncemeter.filters import FILTERS, filter_step, passed_to, verdicts
from bouncemeter.grammar import (
    address,
    code_of,
    enhanced_code,
    iso_stamp,
    origin,
    regex,
    reply,
    rest,
    rfc5424_prefix,
    syslog_stamp,
    usual_prefix,
)
from bouncemeter.lowering import lowered, lowered_block
from bouncemeter.plugin import LineReader, UnparsedLineError
from bouncemeter.refusals import client, limited, queue_id, refusal_in
from bouncemeter.repeats import any_line, repeated_events
from bouncemeter.stamps import Clock, Stamps
from bouncemeter.wrappers import stream_prefix, values_inside, wrapped_prefix

__all__ = ["PARSER", "PostfixParser"]

# --- the words of the log -------------------------------------------------------------------------------------

number = regex(r"[0-9]+(?:\.[0-9]+)?")

# With info_log_address_format = internal (the only form before Postfix 3.5) odd addresses are not quoted.
recipient = address | regex(r".*?(?=>, (?:orig_to=<|relay=))")
bare_address = regex(r"[^<>,\s]++(?=, )")

relay = regex(r"[^,\s\[]*+(?:\[[^\]\n]*+\])?+(?::[0-9]+)?+(?=, )")
"""`none`, `local`, `mx.dest.test[192.0.2.1]:25`, `mail[private/dovecot-lmtp]`, an IPv6 address in brackets."""

other_field = regex(r"(?!(?:delays?|dsn|status)=)[a-z][a-z_]*+=[^,\s(]*+, ")

text = rest("text")
end = regex(r"(?![^\n])")

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

# --- the forms of a line with a queue ID ---------------------------------------------------------------------------

addressees = "to=<" + recipient("recipient") + ">, " + pp.Opt("orig_to=<" + recipient("original_recipient") + ">, ")
bare_addressees = (
    "to=" + bare_address("recipient") + ", " + pp.Opt("orig_to=" + bare_address("original_recipient") + ", ")
)
details = (
    "relay="
    + relay("relay")
    + ", "
    + pp.ZeroOrMore(other_field)
    + pp.Opt("delay=" + number("delay") + ", ")
    + pp.ZeroOrMore(other_field)
    + pp.Opt(regex(r"delays=[0-9./]*+, "))
    + pp.ZeroOrMore(other_field)
)
ending = pp.Opt("dsn=" + enhanced_code("dsn") + ", ") + "status=" + pp.Word(pp.alphas)("status") + pp.Opt(" (" + text)
delivery = addressees + details + ending

# A sender may imitate what follows it. These forms end where they end in Postfix's source, whatever the sender holds.
nrcpt = r"(?:, nrcpt=[0-9]++)?+(?: \(queue [a-z]++\))?+(?![^\n])"
sender = regex(rf"(?:{address.pattern})(?=>, size=[0-9]++{nrcpt})|.*(?=>, size=[0-9]++{nrcpt})")
queued = "from=<" + sender("sender") + ">, size=" + number("size")

given_up = r"(?:force-)?+expired, returned to sender(?![^\n])"
expiry = (
    "from=<"
    + regex(rf".*(?=>, status={given_up})")("sender")
    + ">, status="
    + regex(r"(?:force-)?+expired")("expired")
    + ", "
    + text
)

login = pp.Opt(regex(r", sasl_method=[^,\s]*+")) + pp.Opt(", sasl_username=" + regex(r"[^,\s]++")("account"))

# A client that may log in writes `sasl_sender` itself, so no earlier queue ID is read after it.
arrival = "client=" + client("peer") + login + pp.Opt(", orig_queue_id=" + pp.Word(pp.alphanums)("related"))

earlier_id = r"(?: orig_id=[0-9A-Za-z]++)?+(?![^\n])"
submission = (
    regex(r"uid=[0-9]+")("uid")
    + " from=<"
    + pp.Opt(regex(rf".*(?=>{earlier_id})")("sender") + ">" + pp.Opt(" orig_id=" + pp.Word(pp.alphanums)("related")))
)

notification = (
    regex(r"(?:sender|postmaster) (?:non-delivery|delay|delivery status)")("notification")
    + " notification: "
    + pp.Word(pp.alphanums)("related")
)

removal = (pp.Literal("removed") | "requeued")("removed") + end
"""postsuper(1) writes `requeued`: the message returns with another queue ID, and `orig_id=`."""

queue_line = lowered(
    queue_id("queue_id") + ": " + (delivery | queued | expiry | arrival | submission | notification | removal)
)

named = lowered(queue_id("queue_id") + ": message-id=" + rest("message_id"))
"""cleanup(8) writes the header's text without the white space before it, and a question mark for each line feed."""

bare_delivery_line = lowered(queue_id("queue_id") + ": " + bare_addressees + details + ending)
"""Some collectors take the brackets out."""

# --- outcomes and refusals of no known form -------------------------------------------------------------------------

any_queue_id = regex(r"(?!warning:)[^\s:]++")
"""`NOQUEUE`, or a queue ID of a form that is not known."""

outcome_of_unknown_form = lowered(
    pp.Opt(any_queue_id + ": ")
    + (
        regex(r"to=(?=.*, (?:status|dsn|relay)=|<)")
        | regex(r"from=<.*>, status=[a-z-]*+(?:,[^<>=\n]*+)?+(?![^\n])")
        | regex(r"(?:milter-|proxy-)?reject: ")
        | regex(rf"warning: (?:{limited}) limit exceeded: ")
    )
)
nameless_refusal = lowered(regex(r".*: (?:milter-|proxy-)?reject: [A-Z-]++ from [^\s\[]*+\["))

# --- the usual lines of a log, and which other lines may matter ------------------------------------------------------

usual_delivery = (
    addressees
    + details
    + "dsn="
    + enhanced_code("dsn")
    + ", status="
    + (pp.Literal("sent") | "deferred" | "bounced")("status")
    + " ("
    + pp.NotAny("forwarded as ")
    + text
)
usual_queued = (
    pp.NotAny(pp.Literal("from=<>") | "from=<double-bounce@")
    + "from=<"
    + address("sender")
    + ">, size="
    + number("size")
    + regex(r", nrcpt=[0-9]++ \(queue active\)(?![^\n])")
)
usual_arrival = "client=" + client("peer") + login + end
usual_removal = pp.Literal("removed")("removed") + end

usual_lines = lowered_block(
    starts=[
        usual_prefix(syslog_stamp("stamp"), origin("origin")),
        rfc5424_prefix(iso_stamp("stamp"), origin("origin")),
        wrapped_prefix,
        stream_prefix,
    ],
    forms=queue_id("queue_id") + ": " + (usual_delivery | usual_queued | usual_arrival | usual_removal),
    candidates=regex(
        r"(?:(?:[^:\n]++|:(?! ))*+: )?"
        r"(?:to=|from=<|client=|uid=|reject: |milter-reject: |proxy-reject: |sender |postmaster |requeued"
        rf"|message repeated |{limited}|{verdicts})"
    ),
)

# --- what the log's words mean ------------------------------------------------------------------------------------

OUTCOMES = {
    "sent": Outcome.DELIVERED,
    "deferred": Outcome.DEFERRED,
    "SOFTBOUNCE": Outcome.DEFERRED,
    "bounced": Outcome.BOUNCED,
}
PROBES = frozenset({"deliverable", "undeliverable"})
"""The words after `status=` for address probes, which are not mail."""

DOUBLE_BOUNCE = "double-bounce@"
"""The sender of Postfix's own mail about bounces (double_bounce_sender): treated as the empty sender."""

_AGENTS = """
    anvil bounce cleanup defer discard dnsblog error flush lmtp local master oqmgr pickup pipe postdrop postlog
    postlogd postmap postfix-script postqueue postscreen postsuper proxymap qmgr qmqpd retry scache sendmail showq
    smtp smtpd spawn tlsmgr tlsproxy trace trivial-rewrite verify virtual
"""
AGENTS = frozenset(_AGENTS.split())
"""The programs of Postfix, as they name themselves in the log."""

MARKS = (": to=", ", status=", "message repeated ")
"""Any other message of interest, but a refusal, contains one of these: a cheap test before trying other grammars."""


class PostfixParser:
    """Postfix's log; see `bouncemeter.plugin.Parser`."""

    name = "postfix"
    each_line_alone = True

    def recognises(self, line: str) -> bool:
        """Whether a line is from any Postfix program: `postfix/smtp`, `postfix-out/qmgr`, `mx1/relay/smtp`."""
        found = values_inside(any_line, line)
        return found is not None and _is_postfix(found["program"])

    def reader(self, clock: Clock = time.time) -> LineReader:
        """A reader for one file. `clock` supplies the year that syslog leaves out."""
        return _Reader(Stamps(clock))


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
        passed_to=passed_to(text) if outcome is Outcome.DELIVERED else None,
        forwarded=relay == "local" and text.startswith("forwarded as "),
    )


@lru_cache(maxsize=256)
def _is_postfix(program: str) -> bool:
    if program == "postfix":  # rsyslog sends RFC 5424 with the program's name cut off at the slash
        return True
    instance, slash, agent = program.rpartition("/")
    return bool(instance and slash and agent in AGENTS)


def _program(origin: str) -> str:
    return origin.rpartition(" ")[2]


_NAMES = usual_lines.names
_TEXT, _STATUS = map(_NAMES.index, ("text", "status"))
_OUTCOME = ("stamp", "origin", "queue_id", "recipient", "original_recipient", "relay", "delay", "dsn", "text")
_outcome_texts = itemgetter(*map(_NAMES.index, _OUTCOME))
_step_texts = itemgetter(*map(_NAMES.index, ("stamp", "origin", "queue_id", "sender", "peer", "account")))


class _Reader(UsualReader):
    mta = "postfix"
    any_line = any_line
    lines = usual_lines
    columns = Columns.of(_NAMES, arrival="peer", removal="removed", outcome="status", code="dsn")
    delivered = frozenset({"sent"})

    def message_id(self, line: str, /) -> Step | None:
        """The Message-ID in a line; see `bouncemeter.plugin.MessageIDReader`."""
        prefix = values_inside(any_line, line)
        if prefix is None or not _is_postfix(prefix["program"]):
            return None
        if prefix["program"].rpartition("/")[2] not in ("cleanup", "postfix"):
            return None
        found = named.values(prefix["message"])
        if found is None:
            return None
        about = found["queue_id"], self.stamps.seconds(prefix.get("stamp")), prefix.get("host")
        return Step(StepKind.NAMED, PARSER.name, *about, related=found["message_id"])

    def look_closer(self, row: Row) -> Sequence[Entry]:
        stamp, origin, *_, message = row
        if not stamp:
            return self._line(message)
        prefix = {"stamp": stamp, "program": _program(origin)}
        if (host := self.host_of(origin)) is not None:
            prefix["host"] = host
        return self._program_message(prefix, message)

    def _line(self, line: str) -> Sequence[Entry]:
        prefix = any_line.values(line)
        if prefix is None:
            inner = self._unwrap(line)
            line = line if inner is None else inner
            prefix = any_line.values(line)
        if prefix is None:
            if (": to=" in line and ", status=" in line) or nameless_refusal.matches(line):
                raise UnparsedLineError("it has no program name before the message")
            return ()
        return self._program_message(prefix, prefix["message"])

    def _program_message(self, prefix: dict[str, str], message: str) -> Sequence[Entry]:
        if _is_postfix(prefix["program"]):
            return self._message(prefix, message)
        if prefix["program"] in FILTERS:
            step = filter_step(message, self.stamps.seconds(prefix.get("stamp")), prefix.get("host"), PARSER.name)
            return (step,) if step is not None else ()
        return ()

    def _message(self, prefix: dict[str, str], message: str) -> Sequence[Entry]:
        found = queue_line.values(message)
        if found is not None:
            return self._queue_line({**prefix, **found})
        if "reject: " in message or " limit exceeded: " in message:
            refusal = refusal_in(message, self.stamps.seconds(prefix.get("stamp")), prefix.get("host"))
            if refusal is not None:
                return (refusal,)
        elif not any(mark in message for mark in MARKS):
            return ()
        found = bare_delivery_line.values(message)
        if found is not None:
            return self._queue_line({**prefix, **found})
        repeated = repeated_events(message, lambda inside: self._message(prefix, inside))
        if repeated is not None:
            return repeated
        if outcome_of_unknown_form.matches(message):
            raise UnparsedLineError("it records an outcome in an unknown form")
        return ()

    def entries_of(self, row: Row) -> Sequence[Entry]:
        if status := row[_STATUS]:
            stamp, origin, queue_id, recipient, original, relay, delay, dsn, text = _outcome_texts(row)
            host, time = self.host_of(origin), self.stamps.seconds(stamp)
            about = (time, host, queue_id, recipient, original or None, relay, float(delay) if delay else None)
            return (_delivery(status, text.removesuffix(")"), dsn, *about),)
        stamp, origin, queue_id, sender, peer, account = _step_texts(row)
        host, time = self.host_of(origin), self.stamps.seconds(stamp)
        what = StepKind.QUEUED if sender else StepKind.ARRIVED if peer else StepKind.REMOVED
        return (Step(what, PARSER.name, queue_id, time, host, sender or None, peer or None, account=account or None),)

    def is_ours(self, origin: str) -> bool:
        return _is_postfix(_program(origin)) or self.is_filter(origin)

    def is_filter(self, origin: str) -> bool:
        return _program(origin) in FILTERS

    def passed_to(self, row: Row) -> str | None:
        return passed_to(row[_TEXT].removesuffix(")"))

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
        who, account = (time, host, sender, found.get("peer")), found.get("account", found.get("uid"))
        return (Step(what, PARSER.name, found["queue_id"], *who, found.get("related"), account=account),)


_STEPS = {
    "size": StepKind.QUEUED,
    "peer": StepKind.ARRIVED,
    "uid": StepKind.ARRIVED,
    "notification": StepKind.NOTIFIED,
    "removed": StepKind.REMOVED,
}
"""The value that identifies a form, and its step."""

PARSER = PostfixParser()
