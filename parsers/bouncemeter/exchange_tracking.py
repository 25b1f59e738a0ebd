"""Rows of Exchange's message tracking log: what each event means for each recipient.

Input: a row's fields by name. Output: an outcome for every recipient, our own refusals, and the steps of a message.
`exchange.toml` lists the events, and the words by which a refusal, an expiry or a discarded message is recognised.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import pyparsing as pp

from bouncemeter.event import Entry, Event, Outcome, Stage, Step, StepKind
from bouncemeter.grammar import code_of, quoted_local_part, regex, reply
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
EVENTS = OUTCOMES.keys() | STEPS.keys() | {"RESUBMIT"}
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

MAX_RESUBMITTED = 1_000
"""Messages that are remembered because they go on under another ID."""

MAX_NAME = 200
"""Characters of a Message-ID, which the sender chooses, that are part of a message's identity."""

NO_NETWORK_ID = "00000000-0000-0000-0000-000000000000"

# --- lists in a field ---------------------------------------------------------------------------------------------

one_recipient = regex(rf'(?:{quoted_local_part}|[^;"])++') | regex(r"[^;]++")
recipients = lowered_list(pp.ZeroOrMore(one_recipient + pp.Suppress(pp.Opt(";"))))

# A status may contain `;` itself: it ends where the next one begins, with a reply's digits or a bracket. One may be
# empty.
no_status = regex("(?=;)")
one_status = regex(r"\[\{(?s:.)*?\}\](?=;(?:\[\{|[2-5][0-9]{2}[ -]|;|$)|$)") | regex(
    r"(?:[^;]|;(?!\[\{|[2-5][0-9]{2}[ -]|;|$))++"
)
statuses = lowered_list(pp.ZeroOrMore((no_status | one_status) + pp.Suppress(pp.Opt(";"))))

# [{LED=550 5.1.1 ...};{MSG=};{FQDN=mx.dest.test};{IP=192.0.2.1};{LRT=...}]: last error, where, when.
status_name = regex("LED|LRT|MSG|FQDN|IP")
status_value = regex(r"(?s:.)*?(?=\};\{(?:LED|LRT|MSG|FQDN|IP)=|\}\]$)")
status_part = pp.Suppress("{") + pp.Group(status_name + pp.Suppress("=") + status_value) + pp.Suppress("}")
status = lowered_list(pp.Suppress("[") + status_part + pp.ZeroOrMore(pp.Suppress(";") + status_part))

smtp_reply = lowered(reply)

# MessageLatency of an export: hours, minutes, seconds.
latency = lowered(
    regex("[0-9]{1,2}")("hours") + ":" + regex("[0-9]{2}")("minutes") + ":" + regex(r"[0-9.]+$")("seconds")
)


class _About:
    """What a row is about.

    Attributes:
        event, source: As in the row, in capitals.
        time: In seconds since 1970 UTC.
        queue_id, identity, sender: As in `bouncemeter.event.Event`.
        receiving: Whether its connector takes mail in.
        nameless: Whether it has neither a connector nor an ID, though it could have one.
    """

    __slots__ = ("event", "identity", "nameless", "queue_id", "receiving", "sender", "source", "time")

    def __init__(self, row: dict[str, str], event: str, time: float | None) -> None:
        self.event, self.source, self.time = event, row.get("source", "").upper(), time
        self.queue_id, self.identity = _names(row)
        self.sender = _sender(row)
        connector = row.get("connector-id", "")
        self.receiving = "\\" in connector or connector.lower().startswith(RECEIVE_PREFIXES)
        self.nameless = not connector and self.queue_id is None and "internal-message-id" in row

    @property
    def at_the_door(self) -> bool:
        """Whether a failure can be a refusal of incoming mail. Mail without an ID was never let in."""
        return self.source in ("SMTP", "AGENT") and (self.receiving or self.nameless)


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
        self._resubmitted: OrderedDict[str, str] = OrderedDict()

    def memory(self) -> list[Any]:
        """What it must remember after a restart; of arrivals that was only to be a moment."""
        return [self.version, self._host, self._sends_external, list(self._resubmitted.items())]

    def recall(self, memory: list[Any]) -> None:
        """Continue from what `memory` returned."""
        version, host, sends_external, resubmitted = (*memory, [])[:4]  # older memories end before it
        self.version, self._host = str(version), None if host is None else str(host)
        self._sends_external = bool(sends_external)
        self._resubmitted = OrderedDict((str(new), str(old)) for new, old in resubmitted)

    def entries(self, row: dict[str, str]) -> Iterator[Entry]:
        """The entries of a row.

        Raises:
            UnparsedLineError: An outcome names no message.
        """
        event = row["event-id"].upper()
        if event not in EVENTS:
            return iter(())
        about = _About(row, event, self._stamps.seconds(row.get("date-time")))
        if about.sender and is_probe(about.sender):
            return iter(())
        if event == "RESUBMIT":
            self._note_resubmission(row, about)
            return iter(())
        about.identity = self._resubmitted.get(about.identity or "", about.identity)
        if event == "FAIL" and about.at_the_door and about.identity not in self._arrived:
            return self._refusals(row, about)
        self._host = self._writer(row, about) or self._host
        return self._meaning(row, about)

    def message_id(self, row: dict[str, str]) -> Step | None:
        """The Message-ID of a row's message; see `bouncemeter.plugin.MessageIDReader`."""
        event, name = row["event-id"].upper(), row.get("message-id")
        if event not in EVENTS or not name:
            return None
        about = _About(row, event, self._stamps.seconds(row.get("date-time")))
        about.identity = self._resubmitted.get(about.identity or "", about.identity)
        named = self._step(about, StepKind.NAMED, None)
        named.related = name
        return named

    def _note_resubmission(self, row: dict[str, str], about: _About) -> None:
        """Note that a message goes on under another ID. The network message ID of 2013 and later stays the same."""
        before = row.get("reference", "").partition(";")[0]
        if not before or row.get("network-message-id") or about.identity is None:
            return
        old = _names({**row, "internal-message-id": before})[1]
        if old is not None:
            self._resubmitted[about.identity] = self._resubmitted.get(old, old)
            if len(self._resubmitted) > MAX_RESUBMITTED:
                self._resubmitted.popitem(last=False)

    def _meaning(self, row: dict[str, str], about: _About) -> Iterator[Entry]:
        """The entries of a row about a message of ours."""
        event = about.event
        if event == "RECEIVE":
            self._arrived[about.identity] = None
            if len(self._arrived) > MAX_ARRIVED:
                self._arrived.popitem(last=False)
        if event in STEPS:
            return self._steps(row, about, STEPS[event])
        if about.queue_id is None and about.identity is None:
            where = row.get("source-context") or row.get("recipient-address")  # a file of the pickup directory
            if not where:
                raise UnparsedLineError(f"its event {event} names no message")
            about.identity = f"{row.get('date-time')} {where[:MAX_NAME]}"
        self._sends_external |= event == "SENDEXTERNAL"
        if event == "POISONMESSAGE" and _is_resumed(row, about.source):
            return self._steps(row, about, StepKind.RESUMED)
        if event in ("SEND", "SENDEXTERNAL") and self._is_internal(row, event):
            return self._steps(row, about, StepKind.PASSED_ON)
        return self._outcomes(row, about)

    # --- outcomes -----------------------------------------------------------------------------------------------

    def _outcomes(self, row: dict[str, str], about: _About) -> Iterator[Entry]:
        """One entry for each recipient of a row, except probes."""
        outcome = OUTCOMES[about.event]
        for recipient, recipient_status in _recipients(row):
            parts = _status_parts(recipient_status)
            text = parts.get("LED", recipient_status)
            if not text and about.event.startswith("MODERAT"):
                text = about.event  # moderation has no reply, only an event
            code, reply_code = code_of(smtp_reply.values(text) or {}, outcome)
            ended = outcome
            if outcome is Outcome.BOUNCED:
                if code.digit == 2 or (about.source != "SMTP" and _is_discarded(text)):
                    yield self._step(about, StepKind.DROPPED, recipient)
                    continue
                if _is_expired(about.source, text, str(code)):
                    ended = Outcome.EXPIRED
            yield Event(
                mta=MTA,
                outcome=ended,
                code=code,
                time=about.time,
                host=self._host,
                reply_code=reply_code,
                queue_id=about.queue_id,
                identity=about.identity,
                recipient=recipient,
                original_recipient=row.get("related-recipient-address") or None,
                sender=about.sender,
                relay=_peer(parts, row, outcome),
                delay=self._delay(row, about.time) if ended in (Outcome.DELIVERED, Outcome.EXPIRED) else None,
                text=text or None,
            )

    def _refusals(self, row: dict[str, str], about: _About) -> Iterator[Entry]:
        """Mail that an agent of our own server did not let in: it has no message yet, or none that was accepted."""
        host = _short_name(row.get("server-hostname"))
        self._host = host or _short_name(row.get("connector-id", "").rpartition("\\")[0]) or self._host
        for recipient, recipient_status in _recipients(row):
            text = _status_parts(recipient_status).get("LED", recipient_status)
            code, reply_code = code_of(smtp_reply.values(text) or {}, Outcome.REJECTED)
            if is_failed_login(text):
                continue
            if code.digit == 2 or _is_discarded(text):
                yield self._step(about, StepKind.DROPPED, recipient)
                continue
            yield Event(
                mta=MTA,
                outcome=Outcome.REJECTED,
                code=code,
                time=about.time,
                host=self._host,
                reply_code=reply_code,
                queue_id=about.queue_id,
                identity=about.identity,
                recipient=recipient,
                sender=about.sender,
                relay=_named_host(row.get("client-hostname", ""), row.get("client-ip", "")),
                text=text or None,
                stage=_stage(row, recipient),
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

    def _steps(self, row: dict[str, str], about: _About, what: StepKind) -> Iterator[Step]:
        """One step for the message, or one for each recipient that the row is about."""
        if what in (StepKind.ARRIVED, StepKind.RESUMED):
            yield self._step(about, what, None, row.get("client-ip") or None)
            return
        here, related = (
            [each for each in recipients.items(row.get(name, "")) if not is_no_mailbox(each)]
            for name in ("recipient-address", "related-recipient-address")
        )
        if about.event in ("REDIRECT", "RESOLVE", "ORAR"):
            # Which of the two columns has the new address differs: the one whose outcome follows is counted.
            same = not related or {each.lower() for each in here} == {each.lower() for each in related}
            here = [] if same else here + related
        elif about.event == "EXPAND":
            members = {each.lower() for each in here}
            here = [each for each in related if each.lower() not in members]
        elif about.event == "TRANSFER" and (before := row.get("reference", "").partition(";")[0]):
            # The copy's recipients leave the message that it was made from.
            about = _About({**row, "internal-message-id": before}, about.event, about.time)
            about.identity = self._resubmitted.get(about.identity or "", about.identity)
        for recipient in here:
            yield self._step(about, what, recipient)

    def _step(self, about: _About, what: StepKind, recipient: str | None, peer: str | None = None) -> Step:
        return Step(
            what=what,
            mta=MTA,
            queue_id=about.queue_id or "",
            identity=about.identity,
            time=about.time,
            host=self._host,
            sender=about.sender,
            peer=peer,
            recipient=recipient,
        )

    # --- what depends on the version ----------------------------------------------------------------------------

    def _version(self, row: dict[str, str]) -> tuple[int, int]:
        """The first two numbers of the server's version: 14 is Exchange 2010, 15 is 2013 and later."""
        return _numbers(self.version or row.get("schema-version", "")) or (15 if "network-message-id" in row else 14, 0)

    def _writer(self, row: dict[str, str], about: _About) -> str | None:
        """The short name of the server that wrote a row. It is the client in rows about outcomes, and the server in all
        others, among them those about incoming mail; a row may leave either out. From 2013 on, rows of a delivery to a
        mailbox name the writer as the server."""
        ours, other = row.get("server-hostname"), row.get("client-hostname")
        as_client = about.event in OUTCOMES and about.source != "AGENT" and not about.receiving
        if as_client and (about.source != "STOREDRIVER" or not self._is_new(row)):
            ours, other = other, ours
        return _short_name(ours or other)

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
            if entity is not None or self._is_new(row):
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


@lru_cache(maxsize=64)
def _numbers(version: str) -> tuple[int, int] | None:
    """The first two numbers of a version such as 15.02.1118.007; None if it has none."""
    parts = version.split(".")[:2]
    if len(parts) < 2 or not all(each.isdecimal() and len(each) < 5 for each in parts):
        return None
    return int(parts[0]), int(parts[1])


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


def _is_expired(source: str, text: str, code: str) -> bool:
    """Whether a failure is an expiry; a message that the service found too old at its start is one."""
    words = text.partition(code)[2].lstrip()
    return source == "BOOTLOADER" or code in EXPIRY_CODES or words.startswith(EXPIRY_WORDS)


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
