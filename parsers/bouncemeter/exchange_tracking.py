"""Rows of Exchange's message tracking log: what each event means for each recipient.

Input: a row's fields by name. Output: an outcome for every recipient, our own refusals, and the steps of a message.
`exchange.toml` lists the events, and the words by which a refusal, an expiry or a discarded message is recognised.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

import pyparsing as pp

from bouncemeter.event import Entry, Event, Outcome, Stage, Step, StepKind
from bouncemeter.grammar import code_of, quoted_local_part, reply
from bouncemeter.lowering import lowered, lowered_list
from bouncemeter.plugin import UnparsedLineError
from bouncemeter.stamps import Stamps
from bouncemeter.tables import table

__all__ = [
    "EVENTS",
    "INTERNAL_CONNECTORS",
    "MTA",
    "TrackingRows",
    "is_failed_login",
    "is_no_mailbox",
    "is_probe",
    "smtp_reply",
]

MTA = "exchange"
"""The value of the label `mta`."""

_DATA = table("exchange")
OUTCOMES = {event: Outcome(outcome) for event, outcome in _DATA["outcomes"].items()}
STEPS = {event: StepKind(step) for event, step in _DATA["steps"].items()}
EVENTS = OUTCOMES.keys() | STEPS.keys()
"""The events that say something about a message or a recipient."""
EXPIRY_CODES = frozenset(_DATA["expiry"]["codes"])
EXPIRY_WORDS = tuple(_DATA["expiry"]["words"])
DISCARD_WORDS = tuple(_DATA["discarded"]["words"])
INTERNAL_CONNECTORS = frozenset(_DATA["internal"]["connectors"])
INTERNAL_PREFIXES = tuple(_DATA["internal"]["prefixes"])
RECEIVE_PREFIXES = tuple(_DATA["receiving"]["prefixes"])
AGENT_STAGES = {agent: Stage(stage) for agent, stage in _DATA["agents"].items()}
RESUMED_SOURCES = frozenset(_DATA["poison"]["resumed_sources"])
RESUMED_WORDS = tuple(_DATA["poison"]["resumed_words"])
PROBE_SENDERS = tuple(_DATA["probes"]["senders"])
PROBE_RECIPIENTS = (*PROBE_SENDERS, *_DATA["probes"]["recipients"])
LOGIN_REPLIES = tuple(_DATA["logins"]["replies"])
LOGIN_WORDS = tuple(_DATA["logins"]["words"])

MAX_ARRIVED = 10_000
"""Arrivals that are remembered, to tell a refusal at the door from one of mail that was let in."""

MAX_NAME = 200
"""Characters of a Message-ID, which the sender chooses, that are part of a message's identity."""

NO_NETWORK_ID = "00000000-0000-0000-0000-000000000000"

# --- lists in a field ---------------------------------------------------------------------------------------------

one_recipient = pp.Regex(rf'(?:{quoted_local_part}|[^;"])++') | pp.Regex(r"[^;]++")
recipients = lowered_list(pp.ZeroOrMore(one_recipient + pp.Suppress(pp.Opt(";"))))

# A status may contain `;` itself: it ends where the next one begins, with a reply's digits or a bracket. One may be
# empty.
no_status = pp.Regex("(?=;)")
one_status = pp.Regex(r"\[\{(?s:.)*?\}\](?=;(?:\[\{|[2-5][0-9]{2}[ -]|;|$)|$)") | pp.Regex(
    r"(?:[^;]|;(?!\[\{|[2-5][0-9]{2}[ -]|;|$))++"
)
statuses = lowered_list(pp.ZeroOrMore((no_status | one_status) + pp.Suppress(pp.Opt(";"))))

# [{LED=550 5.1.1 ...};{MSG=};{FQDN=mx.dest.test};{IP=192.0.2.1};{LRT=...}]: last error, where, when.
status_name = pp.Regex("LED|LRT|MSG|FQDN|IP")
status_value = pp.Regex(r"(?s:.)*?(?=\};\{(?:LED|LRT|MSG|FQDN|IP)=|\}\]$)")
status_part = pp.Suppress("{") + pp.Group(status_name + pp.Suppress("=") + status_value) + pp.Suppress("}")
status = lowered_list(pp.Suppress("[") + status_part + pp.ZeroOrMore(pp.Suppress(";") + status_part))

smtp_reply = lowered(reply)

# MessageLatency of an export: hours, minutes, seconds.
latency = lowered(
    pp.Regex("[0-9]{1,2}")("hours") + ":" + pp.Regex("[0-9]{2}")("minutes") + ":" + pp.Regex(r"[0-9.]+$")("seconds")
)


class TrackingRows:
    """Reads the rows of one message tracking log.

    Args:
        stamps: Converts time stamps to times.

    Attributes:
        version: The server's version, from the header: `15.02.1118.007`; empty if there is none.
    """

    def __init__(self, stamps: Stamps) -> None:
        self.version = ""
        self._stamps = stamps
        self._host: str | None = None
        self._sends_external = False
        self._arrived: OrderedDict[str | None, None] = OrderedDict()

    def memory(self) -> list[str | bool | None]:
        """What it must remember after a restart; of arrivals that was only to be a moment."""
        return [self.version, self._host, self._sends_external]

    def recall(self, memory: list[str | bool | None]) -> None:
        """Continue from what `memory` returned."""
        version, host, sends_external = memory
        self.version, self._host = str(version), None if host is None else str(host)
        self._sends_external = bool(sends_external)

    def entries(self, row: dict[str, str]) -> Iterator[Entry]:
        """The entries of a row.

        Raises:
            UnparsedLineError: An outcome names no message.
        """
        event, source = row["event-id"].upper(), row.get("source", "").upper()
        self._sends_external |= event == "SENDEXTERNAL"
        if event not in EVENTS or is_probe(_sender(row) or ""):
            return
        queue_id, identity = _names(row)
        at_the_door = queue_id is None or _is_receive_connector(row)
        if event == "FAIL" and source in ("SMTP", "AGENT") and at_the_door and identity not in self._arrived:
            yield from self._refusals(row)
            return
        self._host = _writer(row, event, source, is_new=self._is_new(row)) or self._host
        if event in STEPS:
            if event == "RECEIVE" and identity is not None:
                self._arrived[identity] = None
                if len(self._arrived) > MAX_ARRIVED:
                    self._arrived.popitem(last=False)
            yield from self._steps(row, STEPS[event])
            return
        if queue_id is None and identity is None:
            raise UnparsedLineError(f"its event {event} names no message")
        outcome = OUTCOMES[event]
        if event == "POISONMESSAGE" and _is_resumed(row, source):
            yield from self._steps(row, StepKind.RESUMED)
        elif event in ("SEND", "SENDEXTERNAL") and self._is_internal(row, event):
            yield from self._steps(row, StepKind.PASSED_ON)
        else:
            yield from self._outcomes(row, outcome, source)

    # --- outcomes -----------------------------------------------------------------------------------------------

    def _outcomes(self, row: dict[str, str], outcome: Outcome, source: str) -> Iterator[Entry]:
        """One entry for each recipient of a row, except probes."""
        for recipient, recipient_status in _recipients(row):
            parts = _status_parts(recipient_status)
            text = parts.get("LED", recipient_status)
            code, reply_code = code_of(smtp_reply.values(text) or {}, outcome)
            if outcome is Outcome.BOUNCED and (code.digit == 2 or (source != "SMTP" and _is_discarded(text))):
                yield self._step(row, StepKind.DROPPED, recipient)
                continue
            moment = self._stamps.seconds(row.get("date-time"))
            event = self._event(row, _expired(outcome, source, text, str(code)), text)
            event.code, event.reply_code, event.recipient = code, reply_code, recipient
            event.original_recipient = row.get("related-recipient-address") or None
            event.relay = _peer(parts, row, outcome)
            if event.outcome in (Outcome.DELIVERED, Outcome.EXPIRED):
                event.delay = self._delay(row, moment)
            yield event

    def _refusals(self, row: dict[str, str]) -> Iterator[Entry]:
        """Mail that an agent of our own server did not let in: it has no message yet, or none that was accepted."""
        host = _short_name(row.get("server-hostname")) or _short_name(row["connector-id"].partition("\\")[0])
        for recipient, recipient_status in _recipients(row):
            text = _status_parts(recipient_status).get("LED", recipient_status)
            if is_failed_login(text):
                continue
            self._host = host or self._host
            code, reply_code = code_of(smtp_reply.values(text) or {}, Outcome.REJECTED)
            if code.digit == 2 or _is_discarded(text):
                yield self._step(row, StepKind.DROPPED, recipient)
                continue
            event = self._event(row, Outcome.REJECTED, text)
            event.code, event.reply_code, event.recipient = code, reply_code, recipient
            event.relay = _named_host(row.get("client-hostname", ""), row.get("client-ip", ""))
            event.stage = _stage(row, recipient)
            yield event

    def _event(self, row: dict[str, str], outcome: Outcome, text: str) -> Event:
        queue_id, identity = _names(row)
        code, reply_code = code_of({}, outcome)
        return Event(
            mta=MTA,
            outcome=outcome,
            code=code,
            reply_code=reply_code,
            time=self._stamps.seconds(row.get("date-time")),
            host=self._host,
            queue_id=queue_id,
            identity=identity,
            sender=_sender(row),
            text=text or None,
        )

    def _delay(self, row: dict[str, str], moment: float | None) -> float | None:
        """Seconds from the message's entry into the organisation: custom-data's E2ELatency, else message-info."""
        for item in row.get("custom-data", "").split(";"):
            name, _, value = item.partition("=")
            if name == "S:E2ELatency" and value.replace(".", "", 1).isdecimal():
                return float(value)
        parts = latency.values(row.get("message-latency", ""))
        if parts is not None and parts["seconds"].replace(".", "", 1).isdecimal():
            return int(parts["hours"]) * 3600 + int(parts["minutes"]) * 60 + float(parts["seconds"])
        entered = self._stamps.seconds(row.get("message-info", "")[:24].partition(";")[0])
        return None if entered is None or moment is None else max(0.0, round(moment - entered, 3))

    # --- steps --------------------------------------------------------------------------------------------------

    def _steps(self, row: dict[str, str], what: StepKind) -> Iterator[Step]:
        """One step for the message, or one for each recipient that the row is about."""
        event, about = row["event-id"].upper(), list[str]()
        here, related = (
            [each for each in recipients.items(row.get(name, "")) if not is_no_mailbox(each)]
            for name in ("recipient-address", "related-recipient-address")
        )
        if what in (StepKind.ARRIVED, StepKind.RESUMED):
            yield self._step(row, what, None)
        elif event in ("REDIRECT", "RESOLVE", "ORAR"):
            # Which of the two columns has the new address differs: the one whose outcome follows is counted.
            if related and {each.lower() for each in here} != {each.lower() for each in related}:
                about = here + related
        elif event == "EXPAND":
            members = {each.lower() for each in here}
            about = [each for each in related if each.lower() not in members]
        else:
            about = here
        for recipient in about:
            yield self._step(row, what, recipient)

    def _step(self, row: dict[str, str], what: StepKind, recipient: str | None) -> Step:
        if row["event-id"].upper() == "TRANSFER" and row.get("reference"):
            row = {**row, "internal-message-id": row["reference"]}  # the copy's recipients leave this message
        queue_id, identity = _names(row)
        return Step(
            what=what,
            mta=MTA,
            queue_id=queue_id or "",
            identity=identity,
            time=self._stamps.seconds(row.get("date-time")),
            host=self._host,
            sender=_sender(row),
            peer=row.get("client-ip") or None,
            recipient=recipient,
        )

    # --- what depends on the version ----------------------------------------------------------------------------

    def _version(self, row: dict[str, str]) -> tuple[int, int]:
        """The first two numbers of the server's version: 14 is Exchange 2010, 15 is 2013 and later."""
        major, _, rest = (self.version or row.get("schema-version", "")).partition(".")
        minor = rest.partition(".")[0]
        if major.isdecimal() and len(major) < 5:
            return int(major), int(minor) if minor.isdecimal() and len(minor) < 5 else 0
        return (15 if "network-message-id" in row else 14), 0

    def _is_new(self, row: dict[str, str]) -> bool:
        return self._version(row) >= (15, 0)

    def _is_internal(self, row: dict[str, str], event: str) -> bool:
        """Whether a SEND or SENDEXTERNAL went to a server of the same organisation. Where SENDEXTERNAL is written,
        every SEND did; only the first builds of 2013 did not write it yet."""
        entity = None
        for item in row.get("custom-data", "").split(";"):
            name, _, value = item.partition("=")
            if name == "S:ToEntity":
                entity = value
        if event == "SEND":
            if self._sends_external or self._version(row) >= (15, 1):
                return True
            if self._is_new(row):
                return entity != "Internet"
        if entity is not None:
            return entity != "Internet"
        connector = row.get("connector-id", "").lower()
        return connector in INTERNAL_CONNECTORS or connector.startswith(INTERNAL_PREFIXES)


def is_probe(sender: str) -> bool:
    """Whether a sender is a health probe."""
    return sender.lower().startswith(PROBE_SENDERS)


def is_no_mailbox(recipient: str) -> bool:
    """Whether a recipient is a health probe or the arbitration mailbox."""
    return recipient.lower().startswith(PROBE_RECIPIENTS)


def is_failed_login(text: str) -> bool:
    """Whether a reply of ours refuses a login, not mail."""
    return text.startswith(LOGIN_REPLIES) or any(words in text for words in LOGIN_WORDS)


def _names(row: dict[str, str]) -> tuple[str | None, str | None]:
    """A message's queue ID, and what tells it from all others of its server. Small internal IDs begin again with the
    service that wrote them; in 2013 and later, the network message ID stays the same in all services and copies."""
    queue_id = row.get("internal-message-id", "")
    queue_id = "" if queue_id.strip("0") == "" else queue_id
    network, message = row.get("network-message-id", ""), row.get("message-id", "")[:MAX_NAME]
    if network and network != NO_NETWORK_ID:
        return queue_id or None, f"{network} {message}"
    return queue_id or None, f"{queue_id} {message}" if message else None


def _recipients(row: dict[str, str]) -> Iterator[tuple[str | None, str]]:
    """The recipients of a row, each with its status; None and the whole status if it names none."""
    names: Sequence[str | None] = recipients.items(row.get("recipient-address", "")) or [None]
    whole = row.get("recipient-status", "")
    given = [whole]
    if len(names) > 1:
        given = statuses.items(whole) + [""] * whole.endswith(";") or [""]
    for position, recipient in enumerate(names):
        if recipient is None or not is_no_mailbox(recipient):
            yield recipient, given[min(position, len(given) - 1)]


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


def _expired(outcome: Outcome, source: str, text: str, code: str) -> Outcome:
    """The outcome of a row, or expiry if it is one: a message found too old at the start counts as well."""
    if outcome is not Outcome.BOUNCED:
        return outcome
    words = text.partition(code)[2].lstrip()
    expired = source == "BOOTLOADER" or code in EXPIRY_CODES or words.startswith(EXPIRY_WORDS)
    return Outcome.EXPIRED if expired else outcome


def _is_receive_connector(row: dict[str, str]) -> bool:
    """Whether a row's connector takes mail in: it has the name of its server before its own."""
    connector = row.get("connector-id", "")
    return "\\" in connector or connector.lower().startswith(RECEIVE_PREFIXES)


def _is_discarded(text: str) -> bool:
    """Whether our own server put the message into quarantine, or deleted it, in place of a delivery."""
    return any(words in text for words in DISCARD_WORDS)


def _is_resumed(row: dict[str, str], source: str) -> bool:
    """Whether a POISONMESSAGE was taken out of the poison queue, not put into it."""
    context = row.get("source-context", "").lower()
    return source in RESUMED_SOURCES or any(words in context for words in RESUMED_WORDS)


def _stage(row: dict[str, str], recipient: str | None) -> Stage:
    """The stage of the dialogue at which our own server refused: the agent's, else by what was known."""
    context = row.get("source-context", "").lower()
    for agent, stage in AGENT_STAGES.items():
        if agent in context:
            return stage
    if row.get("message-id"):
        return Stage.DATA
    if recipient:
        return Stage.RCPT
    return Stage.MAIL if row.get("sender-address") or row.get("return-path") else Stage.CONNECT


def _short_name(host: str | None) -> str | None:
    """The short name of one of our servers; None for an address."""
    return None if not host or host[:1].isdigit() or ":" in host else host.partition(".")[0].upper()


def _writer(row: dict[str, str], event: str, source: str, *, is_new: bool) -> str | None:
    """The short name of the server that wrote a row. It is the client in rows about outcomes, and the server in all
    others, among them those about incoming mail; a row may leave either out. From 2013 on, rows of a delivery to a
    mailbox name the writer as the server."""
    ours, other = row.get("server-hostname"), row.get("client-hostname")
    sent = source != "AGENT" and not _is_receive_connector(row) and not (is_new and source == "STOREDRIVER")
    if event in OUTCOMES and sent:
        ours, other = other, ours
    return _short_name(ours or other)


def _sender(row: dict[str, str]) -> str | None:
    """The envelope sender: the empty string for `<>`."""
    path = row.get("return-path") or row.get("sender-address")
    return "" if path == "<>" else path or None


def _peer(parts: dict[str, str], row: dict[str, str], outcome: Outcome) -> str | None:
    name, address = parts.get("FQDN", ""), parts.get("IP", "")
    if not (name or address) and outcome is Outcome.DELIVERED:
        name, address = row.get("server-hostname", ""), row.get("server-ip", "")
    return _named_host(name, address)


def _named_host(name: str, address: str) -> str | None:
    return f"{name}[{address}]" if name and address else name or address or None
