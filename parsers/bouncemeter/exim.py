"""Exim: the main log, in a file or through syslog, any log_selector, message IDs from before and after 4.97.

Input: one line, such as

    2026-11-24 15:58:10 1xVsuB-0001DU-2n ** a@dest.test R=dns T=smtp H=mx.dest.test [192.0.2.1]: SMTP error from
    remote mail server after RCPT TO:<a@dest.test>: 550 5.1.1 User unknown

Output: outcomes, rejections, and the steps of a message through the queue. The two-character flag after the
message ID gives the outcome. The other server wrote the text after the first free colon and inside `C="..."`:
only the reply's code and the next message ID are read from it. `bouncemeter.exim_grammar` has the forms of the lines.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from operator import itemgetter

from bouncemeter.blocks import Columns, Row, UsualReader
from bouncemeter.event import NOWHERE, EnhancedCode, Entry, Event, Outcome, Stage, Step, StepKind, undefined_code
from bouncemeter.exim_grammar import (
    after_local_part,
    after_syslog,
    after_target,
    another_kind,
    another_kind_after_greeting,
    any_line,
    any_message,
    flagged,
    later_verdict,
    local_reply,
    named,
    outcome_of_unknown_form,
    queue_line,
    queued_as,
    quoted_top,
    rejection,
    rejection_by_rule,
    remote_reply,
    unknown_refusal,
    usual_lines,
    usual_rejection,
    with_any_ident,
)
from bouncemeter.filters import is_discarded
from bouncemeter.grammar import code_in, code_of
from bouncemeter.plugin import LineReader, UnparsedLineError
from bouncemeter.repeats import repeated_events
from bouncemeter.stamps import Clock, Stamps
from bouncemeter.wrappers import values_inside

__all__ = ["PARSER", "EximParser"]

# --- what the log's words mean ------------------------------------------------------------------------------------

NO_TRY = (
    "retry time not reached",
    "retry time not yet reached",
    "some host address lookups failed and retry time not reached",
    "connection limit reached for all hosts",
    "smtp delivery explicitly queued",
    "no host found for existing smtp connection",
    "remote deliver",  # "remote deliveries suppressed" and its variants
    "domain is in queue_",
    "domain matches queue_",
    "domain is held",
    "queue_remote option set",
    "concurrency limit reached for transport",
    "first-pass only routing",
)
"""Deferrals without an attempt, in lower case: the retry time has not come, or the configuration queues the mail. The
number in `defer (-53)` does not help: its meaning differs between versions of Exim."""

LONGEST_NO_TRY = max(map(len, NO_TRY))
"""Characters of an error that tell whether it begins with one of these."""

GAVE_UP = (
    "retry timeout exceeded",
    "have been failing for a long time",
    "for any host after a long failure period",
    "message timed out",
)
"""Exim's words, in lower case, when it gives up after retries; the first may follow the last error."""

STAGES = {
    "RCPT": Stage.RCPT,
    "MAIL": Stage.MAIL,
    "EHLO": Stage.HELO,
    "HELO": Stage.HELO,
    "STARTTLS": Stage.HELO,
    "AUTH": Stage.HELO,
    "ETRN": Stage.HELO,
    "ATRN": Stage.HELO,
    "VRFY": Stage.RCPT,
    "EXPN": Stage.RCPT,
    "connection": Stage.CONNECT,
    "Connection": Stage.CONNECT,
    "call": Stage.CONNECT,
    "sender": Stage.MAIL,
    "recipient": Stage.RCPT,
    "recipients": Stage.RCPT,
    "verify": Stage.RCPT,
}
"""By what was refused; all others come at or after DATA."""

ACL_STAGES = {stage.value: stage for stage in Stage} | {"auth": Stage.HELO, "starttls": Stage.HELO}
"""By the access control list that dropped the connection."""

UNMARKED = frozenset({"ident", "unescaped_name", "unescaped_server_name"})
"""What a client calls itself, where Exim does not mark its end."""

OF_CLIENT = ("queue_id", "relay", "first_sender")
"""What comes before such a name."""

VERDICT = (" F=<", " temporarily rejected ", " rejected ", " dropped by ")
END_OF_GREETING = (") [",)
"""Where the real verdict may begin after such a name, or after a greeting."""

LONGEST_LOCAL_PART = 255
"""Exim accepts no longer one."""

LONGEST_NAME = 512
"""What a client can call itself: Exim writes 127 characters of its user, and 255 of the name in its certificate if it
uses OpenSSL; a command has at most 512 (RFC 5321)."""

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
        found = values_inside(any_line, line)
        if found is None:
            return False
        program = found.get("program")
        if program is None:
            message = found["message"]
            return any_message.matches(message) or usual_rejection.matches(message) or _is_refusal(message)
        return program.startswith("exim") and "/" not in program

    def reader(self, clock: Clock = time.time) -> LineReader:
        """A reader for one file. `clock` supplies the year that syslog leaves out."""
        return _Reader(Stamps(clock))


REFUSED = ("rejected", "refus", "dropped")
"""Every refusal has one of these words: a cheap test before trying its grammars."""

MARKS = (*REFUSED, " => ", " -> ", " >> ", " ** ", " == ", "message repeated ")
"""Any other message of interest contains one of these: a cheap test before trying other grammars."""


_NAMES = usual_lines.names
_CONFIRMATION = _NAMES.index("confirmation")
_STAMP, _ORIGIN, _QUEUE_ID, _FLAG = map(_NAMES.index, ("stamp", "origin", "queue_id", "flag"))
_SENDER, _PEER, _ACCOUNT = map(_NAMES.index, ("arrival_sender", "peer", "account"))
_FAILURE, _NULL_SENDER = map(_NAMES.index, ("failure", "null_sender"))
_delivery = itemgetter(*map(_NAMES.index, ("target", "top", "sender", "relay", "code", "confirmation", "queue_time")))
_failure = itemgetter(*map(_NAMES.index, ("failed", "failed_relay", "error")))


class _Reader(UsualReader):
    mta = "exim"
    any_line = any_line
    lines = usual_lines
    columns = Columns.of(
        _NAMES,
        arrival="arrival_sender",
        sender="arrival_sender",
        removal="completed",
        outcome="flag",
        recipient="target",
        original_recipient="top",
        delay="queue_time",
    )
    delivered = frozenset({"=>", "->", ">>"})
    at_once = (_FAILURE, _NULL_SENDER)

    def message_id(self, line: str, /) -> Step | None:
        """The Message-ID in a line; see `bouncemeter.plugin.MessageIDReader`."""
        prefix = values_inside(any_line, line)
        if prefix is None or not _is_exim(prefix):
            return None
        found = named.values(prefix["message"])
        if found is None:
            return None
        about = found["queue_id"], self.stamps.seconds(prefix.get("stamp")), prefix.get("host")
        return Step(StepKind.NAMED, PARSER.name, *about, related=found["message_id"])

    def _line(self, line: str) -> Sequence[Entry]:
        prefix = values_inside(any_line, line, self._unwrap)
        if prefix is None or not _is_exim(prefix):
            return ()
        return self._message(prefix.get("stamp"), prefix.get("host"), prefix["message"])

    def look_closer(self, row: Row) -> Sequence[Entry]:
        stamp, origin, message = row[self.columns.stamp], row[self.columns.origin], row[-1]
        return self._message(stamp, self.host_of(origin), message) if stamp else self._line(message)

    def _message(self, stamp: str | None, host: str | None, message: str) -> Sequence[Entry]:
        usual = usual_rejection.texts(message)
        if usual is not None:
            return self._refusal(stamp, host, None, Stage.RCPT, *usual)
        found = _quoted_target(message) or queue_line.values(message)
        if found is not None:
            return self._queue_line(found, stamp, host)
        if not any(mark in message for mark in MARKS):
            return ()
        found = rejection_by_rule.values(message) or rejection.values(message) or _after_any_ident(message)
        if found is not None:
            return self._rejection(found, stamp, host)
        repeated = repeated_events(message, lambda inside: self._after_syslog(stamp, host, inside))
        if repeated is not None:
            return repeated
        if outcome_of_unknown_form.matches(message):
            raise UnparsedLineError("it records an outcome in an unknown form")
        if unknown_refusal.matches(message):
            raise UnparsedLineError("it records a refusal in an unknown form")
        return ()

    def _after_syslog(self, stamp: str | None, host: str | None, message: str) -> Sequence[Entry]:
        """Read what follows the prefix of syslog: Exim's own stamp or process ID may come first."""
        found = after_syslog.values(message) or {}
        return self._message(found.get("stamp", stamp), host, found.get("message", message))

    def entries_of(self, row: Row) -> Sequence[Entry]:
        host = self.host_of(row[_ORIGIN])
        if row[_FLAG]:
            target, top, sender, relay, code, text, delay = _delivery(row)
            reply_code = int(text[:3]) if text else None
            recipient, original = _recipients(target, top or None)
            about = (self.stamps.seconds(row[_STAMP]), host, reply_code, row[_QUEUE_ID], recipient, original)
            went = (sender or None, relay or None, _seconds(delay) if delay else None, text or None)
            known = EnhancedCode.parse(code) if code else undefined_code(Outcome.DELIVERED, reply_code)
            return (Event(PARSER.name, Outcome.DELIVERED, known, *about, *went, None, _passed_to(text)),)
        if row[_FAILURE]:
            target, relay, text = _failure(row)
            message = (row[_QUEUE_ID], row[_STAMP], host)
            return self._event(row[_FAILURE], *message, text, target, None, None, relay or None, None)
        sender = row[_SENDER] or row[_NULL_SENDER]
        return self._step(row[_QUEUE_ID], row[_STAMP], host, sender, row[_PEER], row[_ACCOUNT])

    def is_ours(self, origin: str) -> bool:
        return origin.rpartition(" ")[2].startswith("exim")

    def passed_to(self, row: Row) -> str | None:
        return _passed_to(row[_CONFIRMATION])

    def seconds(self, delay: str) -> float:
        return _seconds(delay)

    def _queue_line(self, found: dict[str, str], stamp: str | None, host: str | None) -> Sequence[Entry]:
        if "flag" in found:
            return self._outcome(found, stamp, host)
        if "discarded" in found:
            return ()
        get = found.get
        return self._step(found["queue_id"], stamp, host, get("arrival_sender"), get("relay"), get("account"))

    def _step(
        self,
        queue_id: str,
        stamp: str | None,
        host: str | None,
        sender: str | None,
        peer: str | None,
        account: str | None,
    ) -> Sequence[Entry]:
        """What an arrival's line says, or, without a sender, the line that records that a message left the queue."""
        return (
            Step(
                what=StepKind.ARRIVED if sender else StepKind.REMOVED,
                mta=PARSER.name,
                queue_id=queue_id,
                time=self.stamps.seconds(stamp),
                host=host,
                sender="" if sender == "<>" else sender or None,
                peer=peer or None,
                account=account or None,
            ),
        )

    def _outcome(self, found: dict[str, str], stamp: str | None, host: str | None) -> Sequence[Entry]:
        get = found.get
        text = get("text") or get("confirmation") or get("system_error")
        delay = get("queue_time")
        return self._event(
            found["flag"],
            found["queue_id"],
            stamp,
            host,
            text,
            get("target"),
            get("top"),
            get("sender"),
            get("relay"),
            _seconds(delay) if delay else None,
        )

    def _event(
        self,
        flag: str,
        queue_id: str,
        stamp: str | None,
        host: str | None,
        text: str | None,
        target: str | None,
        top: str | None,
        sender: str | None,
        relay: str | None,
        delay: float | None,
    ) -> Sequence[Entry]:
        """What the line of an attempt says; nothing if there was none."""
        refused_by, digits, enhanced = remote_reply.texts(text or "") or (None, None, None)
        outcome = self._outcome_of(flag, text or "", digits or "")
        if outcome is None:
            return ()
        code, reply_code = code_in(digits, enhanced, outcome)
        recipient, original = _recipients(target, top) if target else (None, None)
        if relay is None:
            relay = refused_by or (target if target and target[0] in "|/" else None)
        return (
            Event(
                PARSER.name,
                outcome,
                code,
                self.stamps.seconds(stamp),
                host,
                reply_code,
                queue_id,
                recipient,
                original,
                sender,
                relay,
                delay,
                text,
                None,
                _passed_to(text or "") if outcome is Outcome.DELIVERED else None,
            ),
        )

    @staticmethod
    def _outcome_of(flag: str, text: str, reply_code: str) -> Outcome | None:
        match flag:
            case "=>" | "->" | ">>":
                return Outcome.DELIVERED
            case "==":
                return None if text.lstrip(" :")[:LONGEST_NO_TRY].lower().startswith(NO_TRY) else Outcome.DEFERRED
            case "**":
                # A remote server can write Exim's words for giving up into its 5xx reply, which is final by itself.
                gave_up = not reply_code.startswith("5") and any(words in text.lower() for words in GAVE_UP)
                return Outcome.EXPIRED if gave_up else Outcome.BOUNCED
            case _:  # *> is a delivery that -N suppressed
                return None

    def _rejection(self, values: dict[str, str], stamp: str | None, host: str | None) -> Sequence[Entry]:
        found = _without_forged_verdict(values)
        get, command = found.get, found.get("command", "")
        stage = STAGES.get(command) or ACL_STAGES.get(command, Stage.DATA)
        sender, text = get("first_sender", get("sender", get("mail"))), get("text") or None
        who = get("relay"), sender, get("temporarily"), get("recipient")
        return self._refusal(stamp, host, get("queue_id"), stage, *who, text)

    def _refusal(
        self,
        stamp: str | None,
        host: str | None,
        queue_id: str | None,
        stage: Stage,
        client: str | None,
        sender: str | None,
        temporarily: str | None,
        recipient: str | None,
        text: str | None,
    ) -> Sequence[Entry]:
        code = _refusal_code(text or "", "4" if temporarily else "5")
        about = self.stamps.seconds(stamp), host, None, queue_id, recipient, None
        return (Event(PARSER.name, Outcome.REJECTED, code, *about, sender, client, None, text, stage),)


@lru_cache(maxsize=1024)
def _refusal_code(text: str, digit: str) -> EnhancedCode:
    """The code of a refusal: that of the text from the configuration, if Exim sends it."""
    reply_values = local_reply.values(text) or {}
    if not all(value.startswith(digit) for value in reply_values.values()):
        reply_values = {}  # Exim does not send a reply that contradicts the verdict
    return code_of({"reply_code": f"{digit}50", **reply_values}, Outcome.REJECTED)[0]


def _passed_to(text: str) -> str | None:
    """The message ID that a reply names; `NOWHERE` if a filter discarded the message."""
    if is_discarded(text):
        return NOWHERE
    return (queued_as.values(text) or {}).get("passed_to") if " id=" in text else None


def _is_refusal(message: str) -> bool:
    return any(mark in message for mark in REFUSED) and (
        rejection_by_rule.matches(message) or rejection.matches(message)
    )


def _is_exim(prefix: dict[str, str]) -> bool:
    return prefix.get("program", "exim").startswith("exim")


def _without_forged_verdict(found: dict[str, str]) -> dict[str, str]:
    """The values of a rejection, without what the client's user, certificate or greeting imitated.

    None of the three has more than some hundred characters. Within them the last complete verdict is the real one.

    Raises:
        UnparsedLineError: The line may as well be of another kind, with a client that imitates a rejection.
    """
    text = _after_command(found)
    later = None if UNMARKED.isdisjoint(found) else _last_verdict(text, VERDICT)
    if later is None and ")" in found.get("relay", ""):
        if any(another_kind_after_greeting.matches(text[place:]) for place in _places(text, END_OF_GREETING[0])):
            raise UnparsedLineError("it records a refusal, or the client's greeting imitates one")
        later = _last_verdict(text, END_OF_GREETING)
    if later is not None:
        found = {name: found[name] for name in (*OF_CLIENT, "ident") if name in found} | later
    ident = found.get("ident")
    if ident is not None and another_kind.matches(f"{ident} {found.get('command', '')}{_after_command(found)}"):
        raise UnparsedLineError("it records a refusal, or the client's user imitates one")
    return found


def _after_command(found: dict[str, str]) -> str:
    """What follows the refused command and its address in the line of a rejection."""
    address = found.get("recipient", found.get("mail", ""))
    text = found.get("argument", "").removeprefix(f" <{address}>")
    return f"{text}: {found['text']}" if "text" in found else text


def _after_any_ident(message: str) -> dict[str, str] | None:
    """The values of a rejection of a client with an ident that ends where only the last verdict can tell."""
    found = with_any_ident.values(message) if " U=" in message else None
    later = _last_verdict(found["ident"], VERDICT) if found is not None else None
    return None if found is None or later is None else found | later


def _last_verdict(text: str, marks: tuple[str, ...]) -> dict[str, str] | None:
    """The values of the last verdict in a text, from the first mark on that leads to it; None if there is none. Exim
    always names the sender when it refuses a recipient."""
    head, last, begin = text[: 2 * LONGEST_NAME], dict[str, str](), -1
    for place in sorted((place for mark in marks for place in _places(text, mark)), reverse=True):
        found = later_verdict.values(head[place:])
        if found is None or (found.get("command") == "RCPT" and "sender" not in found):
            continue
        if last and any(found.get(name) != last.get(name) for name in ("command", "argument", "text")):
            break
        last, begin = found, place
        if "relay" in found:
            break
    return later_verdict.values(text[begin:]) if last else None


def _places(text: str, mark: str) -> Iterator[int]:
    """Where a mark is in a text that a name may begin."""
    place = text.find(mark, 0, LONGEST_NAME)
    while place >= 0:
        yield place
        place = text.find(mark, place + 1, LONGEST_NAME)


def _quoted_target(message: str) -> dict[str, str] | None:
    """The values of an outcome's line whose recipient needs quotes; None for any other line.

    Exim writes the local part without its quotes, and the quoted form after it, in angle brackets. The local part may
    imitate all that follows an address, so its end is the last place where both forms agree.
    """
    if '"' not in message or (begin := flagged.values(message)) is None:
        return None
    start = len(begin["queue_id"]) + len(begin["flag"]) + 2
    limit = start + 3 * LONGEST_LOCAL_PART
    place, found = message.find(" <", start, limit), None
    while place >= 0:
        top = quoted_top.values(message[place : place + 4 * LONGEST_LOCAL_PART])
        if top is not None and _agrees(message[start:place], top["local_part"]):
            found = place, f"{top['local_part']}@{top['domain']}"
        place = message.find(" <", place + 1, limit)
    if found is None:
        return None
    place, address = found
    target = message[start:place]
    more = after_target[begin["flag"]].values(message[place + len(address) + 3 :])
    return {**begin, "target": target, "top": address, **(more or {})}


def _agrees(target: str, local_part: str) -> bool:
    """Whether a target is what Exim writes for a quoted local part, with a domain after it or without."""
    plain, escaped = "", False
    for character in local_part:
        if escaped or character not in '"\\':
            plain, escaped = plain + character, False
        else:
            escaped = character == "\\"
    if len(plain) > LONGEST_LOCAL_PART or not target.lower().startswith(plain.lower()):
        return False
    return after_local_part.matches(target[len(plain) :])


def _recipients(target_text: str, top: str | None) -> tuple[str, str | None]:
    """The address tried and, if it differs, the original address."""
    if top is None:
        return target_text, None
    quoted_form = quoted_top.values(f" <{top}>") if '"' in top else None
    in_quotes = quoted_form is not None and _agrees(target_text, quoted_form["local_part"])
    if target_text[0] in "|/:>" or target_text.startswith("save ") or in_quotes:
        # A file or pipe for that address; or the address itself, in quotes.
        return top, None
    if "@" not in target_text and top.lower().startswith(f"{target_text}@".lower()):
        return top, None  # a local mailbox
    return target_text, top


PARSER = EximParser()
