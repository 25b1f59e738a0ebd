"""Rows of Exchange's SMTP protocol logs: a reply, and in an earlier row of its session the command that it answers.

Input: a row's fields by name. Output: from send logs, an outcome for every recipient; from receive logs, our own
refusals. `exchange.toml` lists the connectors within an organisation.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import pyparsing as pp

from bouncemeter.event import Event, Outcome, Stage, Step, StepKind
from bouncemeter.exchange_tracking import INTERNAL_CONNECTORS, MTA, is_failed_login, is_no_mailbox, is_probe, smtp_reply
from bouncemeter.grammar import bracketed_address, code_of, regex
from bouncemeter.lowering import lowered
from bouncemeter.stamps import Stamps

__all__ = ["ProtocolRows"]

command = lowered(
    regex("(?i:RCPT|MAIL)")("verb") + regex(" (?i:TO|FROM): ?<") + bracketed_address("address") + ">"
    | regex("(?i:BDAT)")("verb") + regex(" [0-9]+") + pp.Opt(regex(" (?i:LAST)")("last"))
    | regex("[A-Za-z][A-Za-z0-9-]*")("verb")
)
record = lowered(
    regex("sending message with RecordId ")
    + pp.Word(pp.nums)("record")
    + pp.Opt(regex(" and InternetMessageId ") + regex(r"[^\n]{1,200}")("message"))
)
# Exchange 2007 and 2010 write the number in the column before.
SENDING = "sending message"
record_number = lowered(regex("[0-9]+$")("record"))

STAGES = {
    "MAIL": Stage.MAIL,
    "RCPT": Stage.RCPT,
    "DATA": Stage.DATA,
    "BDAT": Stage.DATA,
    "CHUNK": Stage.DATA,
    "END": Stage.DATA,
    "": Stage.CONNECT,
}
"""By the refused command; all others come before MAIL."""

_FAILURES = {"4": Outcome.DEFERRED, "5": Outcome.BOUNCED}

MAX_SESSIONS = 10_000
MAX_COMMANDS = 1_000
"""How many sessions of a protocol log may be open at a time, and how many commands of one may be unanswered; past
that, the oldest is forgotten."""


@dataclass(slots=True)
class _Session:
    """One SMTP session.

    Attributes:
        commands: Sent but not yet answered: verb and address.
        accepted: Recipients accepted and waiting for the end of the data.
        record: The message's internal ID, if the log names it.
        message: Its Message-ID, if the log names it.
        refused_mail: The reply to MAIL, if it was a refusal: it decides for every recipient.
        continued: The digits of a reply whose last line has not come yet.
        line_by_line: The log has a row for each line of a reply.
    """

    commands: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=MAX_COMMANDS))
    accepted: list[str] = field(default_factory=list)
    sender: str | None = None
    record: str | None = None
    message: str | None = None
    refused_mail: str | None = None
    continued: str = ""
    line_by_line: bool = False


class ProtocolRows:
    """Reads the rows of one SMTP protocol log.

    Args:
        stamps: Converts time stamps to times.

    Attributes:
        receiving: Whether it is a receive log.
    """

    def __init__(self, stamps: Stamps) -> None:
        self.receiving = False
        self._stamps = stamps
        self._sessions: OrderedDict[str, _Session] = OrderedDict()

    def memory(self) -> list[Any]:
        """The open sessions."""
        sessions = [[name, {**asdict(each), "commands": list(each.commands)}] for name, each in self._sessions.items()]
        return [self.receiving, sessions]

    def recall(self, memory: list[Any]) -> None:
        """Continue from what `memory` returned."""
        self.receiving, sessions = memory
        for name, fields in sessions:
            fields["commands"] = deque(map(tuple, fields["commands"]), MAX_COMMANDS)
            self._sessions[name] = _Session(**fields)

    def entries(self, row: dict[str, str]) -> Iterator[Event]:
        """The outcomes that a row decides."""
        name, event, data = row["session-id"], row.get("event", ""), row.get("data", "")
        session = self._sessions.get(name)
        if session is None:
            session = self._sessions[name] = _Session()
            if len(self._sessions) > MAX_SESSIONS:
                self._sessions.popitem(last=False)
        command_event, reply_event = ("<", ">") if self.receiving else (">", "<")
        if event == command_event:
            parts = command.values(data)
            if parts is not None:
                self._command(session, parts)
        elif event == reply_event:
            yield from self._answer(session, row, data)
        elif event == "*":
            self._note_record(session, row, data)
        elif event == "-":
            del self._sessions[name]
            if not self.receiving:
                yield from self._disconnected(session, row)

    def message_id(self, row: dict[str, str]) -> Step | None:
        """The Message-ID of the message that a row says comes next; see `bouncemeter.plugin.MessageIDReader`."""
        session = self._sessions.get(row["session-id"])
        if row.get("event") != "*" or session is None or not session.record or not session.message:
            return None
        time, identity = self._stamps.seconds(row.get("date-time")), f"{session.record} {session.message}"
        return Step(StepKind.NAMED, MTA, session.record, time, related=session.message, identity=identity)

    def _disconnected(self, session: _Session, row: dict[str, str]) -> Iterator[Event]:
        """The outcomes of recipients that wait for an answer as the connection ends."""
        text = session.refused_mail or "disconnected before the reply to the recipient"
        outcome = _FAILURES[session.refused_mail[0]] if session.refused_mail else Outcome.DEFERRED
        for verb, recipient in session.commands:
            if verb == "RCPT":
                yield from self._outcome(session, row, outcome, recipient, text)
        for recipient in session.accepted:
            yield from self._outcome(
                session, row, Outcome.DEFERRED, recipient, "disconnected before the reply to the data"
            )

    @staticmethod
    def _note_record(session: _Session, row: dict[str, str], data: str) -> None:
        """Note which message comes next."""
        context = row.get("context", "")
        sending = record_number.values(data) if context == SENDING else record.values(context) or record.values(data)
        if sending:
            session.record, session.message = sending["record"], sending.get("message")

    def _command(self, session: _Session, parts: dict[str, str]) -> None:
        verb = parts["verb"].upper()
        if verb == "MAIL":
            session.sender, session.refused_mail = parts.get("address"), None
            session.accepted = []
        elif verb == "BDAT" and "last" not in parts:
            verb = "CHUNK"
        session.commands.append((verb, parts.get("address", "")))

    def _answer(self, session: _Session, row: dict[str, str], data: str) -> Iterator[Event]:
        if _is_further_line(session, data):
            return  # the first line decided
        verb, recipient = session.commands.popleft() if session.commands else ("", "")
        if data.startswith("3") and verb in ("DATA", "AUTH"):
            session.commands.appendleft(("END" if verb == "DATA" else verb, ""))
            return
        if self.receiving:
            yield from self._our_answer(session, row, verb, recipient, data)
        else:
            yield from self._their_answer(session, row, verb, recipient, data)

    def _our_answer(
        self, session: _Session, row: dict[str, str], verb: str, recipient: str, data: str
    ) -> Iterator[Event]:
        if data[:1] in ("4", "5") and verb != "AUTH" and not is_failed_login(data):
            for refusal in self._outcome(session, row, Outcome.REJECTED, recipient or None, data):
                refusal.stage = STAGES.get(verb, Stage.HELO)
                yield refusal

    def _their_answer(
        self, session: _Session, row: dict[str, str], verb: str, recipient: str, data: str
    ) -> Iterator[Event]:
        failure = _FAILURES.get(data[:1])
        match verb:
            case "MAIL":
                session.refused_mail = data if failure else None
            case "RCPT":
                decisive = session.refused_mail or data
                failure = _FAILURES.get(decisive[:1])
                if failure:
                    yield from self._outcome(session, row, failure, recipient, decisive)
                else:
                    session.accepted.append(recipient)
            case "DATA" | "END" | "BDAT":
                yield from self._end_of_data(session, row, failure, data)
            case "CHUNK" if failure:
                yield from self._end_of_data(session, row, failure, data)

    def _end_of_data(
        self, session: _Session, row: dict[str, str], failure: Outcome | None, data: str
    ) -> Iterator[Event]:
        accepted, session.accepted = session.accepted, []
        if failure or row.get("connector-id", "").lower() not in INTERNAL_CONNECTORS:
            for recipient in accepted:
                yield from self._outcome(session, row, failure or Outcome.DELIVERED, recipient, data)

    def _outcome(
        self, session: _Session, row: dict[str, str], outcome: Outcome, recipient: str | None, data: str
    ) -> Iterator[Event]:
        """The outcome of a recipient, unless it or the sender is a probe."""
        if is_probe(session.sender or "") or is_no_mailbox(recipient or ""):
            return
        code, reply_code = code_of(smtp_reply.values(data) or {}, outcome)
        yield Event(
            mta=MTA,
            outcome=outcome,
            code=code,
            time=self._stamps.seconds(row.get("date-time")),
            reply_code=reply_code,
            queue_id=session.record or (None if self.receiving else row["session-id"]),
            identity=f"{session.record} {session.message}" if session.record and session.message else None,
            recipient=recipient,
            sender=session.sender,
            relay=row.get("remote-endpoint") or None,
            text=data,
        )


def _is_further_line(session: _Session, data: str) -> bool:
    """Whether a row continues a reply of several lines. Some versions write all lines of a reply in one row, others a
    row for each; a line may imitate the last line of the reply, so what a session did first decides."""
    digits, separator = data[:3], data[3:4]
    if session.continued and digits == session.continued:
        session.line_by_line = True
        session.continued = digits if separator == "-" else ""
        return True
    whole = separator != "-" or (not session.line_by_line and f" {digits} " in f"{data} ")
    session.continued = "" if whole else digits
    return False
