"""Microsoft Exchange: message tracking logs (2007 to 2019 and SE) and SMTP protocol logs.

Input: one line of CSV, under a `#Fields:` line that a file may repeat anywhere. Output: an outcome for every
recipient of a row, rejections, and the steps of a message. In a protocol log an outcome is a reply; its
recipient is in an earlier row of the same session.
`exchange.toml` lists the columns and events.
"""

from __future__ import annotations

import json
import time
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

import pyparsing as pp

from bouncemeter.event import Entry, Event, Outcome, Stage, Step, StepKind
from bouncemeter.grammar import bracketed_address, code_of, quoted_local_part, reply
from bouncemeter.lowering import lowered, lowered_list
from bouncemeter.plugin import LineReader, UnparsedLineError
from bouncemeter.stamps import Clock, Stamps
from bouncemeter.tables import table

__all__ = ["PARSER", "ExchangeParser"]

_DATA = table("exchange")
LAYOUTS: dict[int, list[str]] = {int(length): names for length, names in _DATA["layouts"].items()}
OUTCOMES = {event: Outcome(outcome) for event, outcome in _DATA["outcomes"].items()}
STEPS = {event: StepKind(step) for event, step in _DATA["steps"].items()}
EXPIRY_CODES = frozenset(_DATA["expiry"]["codes"])
EXPIRY_WORDS = tuple(_DATA["expiry"]["words"])
INTERNAL_CONNECTORS = frozenset(_DATA["internal"]["connectors"])
INTERNAL_PREFIXES = tuple(_DATA["internal"]["prefixes"])

# --- a row: comma-separated values, quotes doubled --------------------------------------------------------------

quoted_field = pp.Regex(r'"(?:[^"]|"")*+"(?=,|$)')
plain_field = pp.Regex(r"[^,]*+")
row_field = quoted_field | plain_field
more_fields = pp.ZeroOrMore(pp.Suppress(",") + row_field)
row = lowered_list(row_field + more_fields)

fields_line = lowered_list(pp.Suppress(pp.Regex(r"#Fields: ?")) + row_field + more_fields)

stamp = pp.Regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?Z")
first_field = lowered(stamp("stamp") + ",")

# --- lists in a field ---------------------------------------------------------------------------------------------

one_recipient = pp.Regex(rf'(?:{quoted_local_part}|[^;"])++') | pp.Regex(r"[^;]++")
recipients = lowered_list(pp.ZeroOrMore(one_recipient + pp.Suppress(pp.Opt(";"))))

# A status may contain `;` itself: it ends where the next one begins, with a reply's digits or a bracket.
one_status = pp.Regex(r"\[\{(?s:.)*?\}\](?=;(?:\[\{|[2-5][0-9]{2}[ -]|;|$)|$)") | pp.Regex(
    r"(?:[^;]|;(?!\[\{|[2-5][0-9]{2}[ -]|;|$))++"
)
statuses = lowered_list(pp.ZeroOrMore(one_status + pp.Suppress(pp.Opt(";"))))

# [{LED=550 5.1.1 ...};{MSG=};{FQDN=mx.dest.test};{IP=192.0.2.1};{LRT=...}]: last error, where, when.
status_name = pp.Regex("LED|LRT|MSG|FQDN|IP")
status_value = pp.Regex(r"(?s:.)*?(?=\};\{(?:LED|LRT|MSG|FQDN|IP)=|\}\]$)")
status_part = pp.Suppress("{") + pp.Group(status_name + pp.Suppress("=") + status_value) + pp.Suppress("}")
status = lowered_list(pp.Suppress("[") + status_part + pp.ZeroOrMore(pp.Suppress(";") + status_part))

smtp_reply = lowered(reply)

# --- the SMTP dialogue of a protocol log ----------------------------------------------------------------------------

command = lowered(
    pp.Regex("(?i:RCPT|MAIL)")("verb") + pp.Regex(" (?i:TO|FROM): ?<") + bracketed_address("address") + ">"
    | pp.Regex("(?i:BDAT)")("verb") + pp.Regex(" [0-9]+") + pp.Opt(pp.Regex(" (?i:LAST)")("last"))
    | pp.Regex("[A-Za-z][A-Za-z0-9-]*")("verb")
)
record = lowered(pp.Regex("sending message with RecordId ") + pp.Word(pp.nums)("record"))

STAGES = {"MAIL": Stage.MAIL, "RCPT": Stage.RCPT, "DATA": Stage.DATA, "BDAT": Stage.DATA, "": Stage.CONNECT}
"""By the refused command; all others come before MAIL."""

_FAILURES = {"4": Outcome.DEFERRED, "5": Outcome.BOUNCED}

MAX_SESSIONS = 10_000
MAX_COMMANDS = 1_000
"""How many sessions of a protocol log may be open at a time, and how many commands of one may be unanswered; past
that, the oldest is forgotten."""


class ExchangeParser:
    """Exchange's message tracking and protocol logs; see `bouncemeter.plugin.Parser`."""

    name = "exchange"

    def recognises(self, line: str) -> bool:
        """Whether a line is a header, or a row with a time and as many columns as a known version has."""
        line = line.removeprefix("\ufeff")
        if line.startswith(("#Software: Microsoft Exchange", "#Log-type: Message Tracking", "#Fields: date-time,")):
            return True
        return first_field.matches(line) and len(_columns(line)) in LAYOUTS

    def reader(self, clock: Clock = time.time) -> LineReader:
        """A reader for one file: it remembers the `#Fields:` line, the server's name and the open SMTP sessions."""
        return _Reader(Stamps(clock))


def _columns(line: str) -> list[str]:
    """The fields of a row, unquoted."""
    return [
        text[1:-1].replace('""', '"') if len(text) > 1 and text[0] == text[-1] == '"' else text
        for text in row.items(line)
    ]


@dataclass(slots=True)
class _Session:
    """One SMTP session of a protocol log.

    Attributes:
        commands: Sent but not yet answered: verb and address.
        accepted: Recipients accepted and waiting for the end of the data.
        refused_mail: The reply to MAIL, if it was a refusal: it decides for every recipient.
        continued: The digits of a reply whose last line has not come yet.
    """

    commands: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=MAX_COMMANDS))
    accepted: list[str] = field(default_factory=list)
    sender: str | None = None
    record: str | None = None
    refused_mail: str | None = None
    continued: str = ""


class _Reader:
    def __init__(self, stamps: Stamps) -> None:
        self._stamps = stamps
        self._names: list[str] | None = None
        self._sessions: OrderedDict[str, _Session] = OrderedDict()
        self._receiving = False
        self._host: str | None = None

    def __call__(self, line: str) -> Sequence[Entry]:
        line = line.removeprefix("\ufeff")
        if line.startswith("#"):
            self._header(line)
            return ()
        if not line:
            return ()
        columns = _columns(line)
        names = self._names or LAYOUTS.get(len(columns))
        if names is None or len(columns) < min(9, len(names)):
            raise UnparsedLineError(f"its {len(columns)} columns fit neither a #Fields: line nor a known version")
        found = dict(zip(names, columns, strict=False))
        if "event-id" in found:
            return list(self._tracking_row(found))
        if "session-id" in found:
            return list(self._protocol_row(found))
        return ()

    def memory(self) -> str:
        """The header and the open sessions; see `bouncemeter.plugin.Remembering`."""
        sessions = [[name, {**asdict(each), "commands": list(each.commands)}] for name, each in self._sessions.items()]
        return json.dumps([self._names, self._receiving, self._host, sessions])

    def recall(self, memory: str) -> None:
        """Continue from what `memory` returned."""
        try:
            self._names, self._receiving, self._host, sessions = json.loads(memory)
            for name, fields in sessions:
                fields["commands"] = deque(map(tuple, fields["commands"]), MAX_COMMANDS)
                self._sessions[name] = _Session(**fields)
        except (TypeError, KeyError) as error:
            raise ValueError(f"not the memory of an Exchange log reader: {error}") from error

    def _header(self, line: str) -> None:
        if line.startswith("#Log-type:"):
            self._receiving = "SMTP Receive" in line
        elif line.startswith("#Fields:"):
            self._names = [name.strip() for name in fields_line.items(line)]

    # --- message tracking ---------------------------------------------------------------------------------------

    def _tracking_row(self, found: dict[str, str]) -> Iterator[Entry]:
        event = found["event-id"].upper()
        self._host = _writer(found, event) or self._host
        if event in STEPS:
            yield from self._steps(found, STEPS[event])
        outcome = OUTCOMES.get(event)
        if outcome is None:
            return
        if not found.get("internal-message-id"):
            raise UnparsedLineError(f"its event {event} has no internal-message-id")
        if event in ("SEND", "SENDEXTERNAL") and _is_internal(found):
            yield from self._steps(found, StepKind.PASSED_ON)
            return
        names = recipients.items(found.get("recipient-address", ""))
        whole = found.get("recipient-status", "")
        given = [whole] if len(names) < 2 else statuses.items(whole)
        for position, recipient in enumerate(names or [None]):
            recipient_status = given[min(position, len(given) - 1)] if given else ""
            yield self._tracked_outcome(found, outcome, recipient, recipient_status)

    def _tracked_outcome(
        self, found: dict[str, str], outcome: Outcome, recipient: str | None, recipient_status: str
    ) -> Event:
        parts = _status_parts(recipient_status)
        text = parts.get("LED", recipient_status)
        code, reply_code = code_of(smtp_reply.values(text) or {}, outcome)
        if outcome is Outcome.BOUNCED and (str(code) in EXPIRY_CODES or _says_expired(text, str(code))):
            outcome = Outcome.EXPIRED
        moment = self._stamps.seconds(found.get("date-time"))
        return Event(
            mta=PARSER.name,
            outcome=outcome,
            code=code,
            time=moment,
            host=self._host,
            reply_code=reply_code,
            queue_id=found["internal-message-id"],
            recipient=recipient,
            original_recipient=found.get("related-recipient-address") or None,
            sender=_sender(found),
            relay=_peer(parts, found, outcome),
            delay=self._delay(found, moment) if outcome in (Outcome.DELIVERED, Outcome.EXPIRED) else None,
            text=text or None,
        )

    def _steps(self, found: dict[str, str], what: StepKind) -> Iterator[Step]:
        """One step for the message, or one for each recipient that the row is about."""
        about: Sequence[str | None] = [None]
        message = found.get("internal-message-id", "")
        if what is not StepKind.ARRIVED:
            moved = "related-recipient-address" if found["event-id"] in ("EXPAND", "REDIRECT", "RESOLVE") else ""
            about = recipients.items(found.get(moved or "recipient-address", ""))
            if found["event-id"] == "TRANSFER":
                message = found.get("reference", "")
        for recipient in about:
            yield Step(
                what=what,
                mta=PARSER.name,
                queue_id=message,
                time=self._stamps.seconds(found.get("date-time")),
                host=self._host,
                sender=_sender(found),
                peer=found.get("client-ip") or None,
                recipient=recipient,
            )

    def _delay(self, found: dict[str, str], moment: float | None) -> float | None:
        """Seconds from the message's entry into the organisation: custom-data's E2ELatency, else message-info."""
        for item in found.get("custom-data", "").split(";"):
            name, _, value = item.partition("=")
            if name == "S:E2ELatency" and value.replace(".", "", 1).isdecimal():
                return float(value)
        entered = self._stamps.seconds(found.get("message-info", "")[:24].partition(";")[0])
        return None if entered is None or moment is None else max(0.0, round(moment - entered, 3))

    # --- protocol logs ------------------------------------------------------------------------------------------

    def _protocol_row(self, found: dict[str, str]) -> Iterator[Entry]:
        name, event, data = found["session-id"], found.get("event", ""), found.get("data", "")
        session = self._sessions.get(name)
        if session is None:
            session = self._sessions[name] = _Session()
            if len(self._sessions) > MAX_SESSIONS:
                self._sessions.popitem(last=False)
        command_event, reply_event = ("<", ">") if self._receiving else (">", "<")
        if event == command_event:
            parts = command.values(data)
            if parts is not None:
                self._command(session, parts)
        elif event == reply_event:
            yield from self._answer(session, found, data)
        elif event == "*":
            sending = record.values(found.get("context", ""))
            session.record = sending["record"] if sending else session.record
        elif event == "-":
            del self._sessions[name]
            if not self._receiving:
                for recipient in session.accepted:
                    yield self._protocol_outcome(
                        session, found, Outcome.DEFERRED, recipient, "disconnected before the reply to the data"
                    )

    def _command(self, session: _Session, parts: dict[str, str]) -> None:
        verb = parts["verb"].upper()
        if verb == "MAIL":
            session.sender, session.refused_mail = parts.get("address"), None
            session.accepted = []
        elif verb == "BDAT" and "last" not in parts:
            verb = "CHUNK"
        session.commands.append((verb, parts.get("address", "")))

    def _answer(self, session: _Session, found: dict[str, str], data: str) -> Iterator[Event]:
        further_line = bool(session.continued) and data.startswith(session.continued)
        whole = data[3:4] != "-" or f" {data[:3]} " in data  # newer versions write all lines of a reply in one row
        session.continued = "" if whole else data[:3]
        if further_line:
            return  # the first line decided
        verb, recipient = session.commands.popleft() if session.commands else ("", "")
        if self._receiving:
            if data[:1] in ("4", "5"):
                refusal = self._protocol_outcome(session, found, Outcome.REJECTED, recipient or None, data)
                refusal.stage = STAGES.get(verb, Stage.HELO)
                yield refusal
            return
        failure = _FAILURES.get(data[:1])
        match verb:
            case "MAIL":
                session.refused_mail = data if failure else None
            case "RCPT":
                decisive = session.refused_mail or data
                failure = _FAILURES.get(decisive[:1])
                if failure:
                    yield self._protocol_outcome(session, found, failure, recipient, decisive)
                else:
                    session.accepted.append(recipient)
            case "DATA" if data.startswith("3"):
                session.commands.appendleft(("END", ""))
            case "DATA" | "END" | "BDAT":
                yield from self._end_of_data(session, found, failure, data)
            case "CHUNK" if failure:
                yield from self._end_of_data(session, found, failure, data)

    def _end_of_data(
        self, session: _Session, found: dict[str, str], failure: Outcome | None, data: str
    ) -> Iterator[Event]:
        accepted, session.accepted = session.accepted, []
        if failure or found.get("connector-id", "").lower() not in INTERNAL_CONNECTORS:
            for recipient in accepted:
                yield self._protocol_outcome(session, found, failure or Outcome.DELIVERED, recipient, data)

    def _protocol_outcome(
        self, session: _Session, found: dict[str, str], outcome: Outcome, recipient: str | None, data: str
    ) -> Event:
        code, reply_code = code_of(smtp_reply.values(data) or {}, outcome)
        return Event(
            mta=PARSER.name,
            outcome=outcome,
            code=code,
            time=self._stamps.seconds(found.get("date-time")),
            reply_code=reply_code,
            queue_id=session.record or (None if self._receiving else found["session-id"]),
            recipient=recipient,
            sender=session.sender,
            relay=found.get("remote-endpoint") or None,
            text=data,
        )


def _status_parts(recipient_status: str) -> dict[str, str]:
    """The parts of a bracketed status: the first last error, the last host. The error is the other server's
    text and could imitate the parts after it, but not those that Exchange wrote before and after it."""
    parts: dict[str, str] = {}
    if not recipient_status.startswith("[{"):
        return parts
    for name, value in status.groups(recipient_status):
        if name != "LED" or name not in parts:
            parts[name] = value
    return parts


def _says_expired(text: str, code: str) -> bool:
    return text.partition(code)[2].lstrip().startswith(EXPIRY_WORDS)


def _writer(found: dict[str, str], event: str) -> str | None:
    """The short name of the server that wrote a row: an internal-message-id is unique only on that server. It is the
    client in rows about outcomes, and the server in all others; a row may leave either out."""
    ours, other = found.get("server-hostname"), found.get("client-hostname")
    if event in OUTCOMES:
        ours, other = other, ours
    name = ours or other
    return name if not name or name[:1].isdigit() else name.partition(".")[0].upper()


def _is_internal(found: dict[str, str]) -> bool:
    """Whether a SEND went to a server of the same organisation."""
    for item in found.get("custom-data", "").split(";"):
        name, _, value = item.partition("=")
        if name == "S:ToEntity":
            return value != "Internet"
    connector = found.get("connector-id", "").lower()
    return connector in INTERNAL_CONNECTORS or connector.startswith(INTERNAL_PREFIXES)


def _sender(found: dict[str, str]) -> str | None:
    """The envelope sender: the empty string for `<>`."""
    path = found.get("return-path") or found.get("sender-address")
    return "" if path == "<>" else path or None


def _peer(parts: dict[str, str], found: dict[str, str], outcome: Outcome) -> str | None:
    name, address = parts.get("FQDN", ""), parts.get("IP", "")
    if not (name or address) and outcome is Outcome.DELIVERED:
        name, address = found.get("server-hostname", ""), found.get("server-ip", "")
    return f"{name}[{address}]" if name and address else name or address or None


PARSER = ExchangeParser()
