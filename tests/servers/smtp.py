"""An SMTP server whose answer to a recipient is asked for by the recipient's own name.

`full-17@dest.test` is answered as the fate `full` says, at every attempt in turn. The server writes down
each answer, so a test compares what a log reader counted with what really happened.

The last reply of a fate is repeated for ever. A reply of `DROP` closes the connection. A reply that starts
with `DATA ` is given at the end of the data, to the whole transaction.
"""

from __future__ import annotations

import re
import smtplib
import ssl
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from .net import free_port

OK = "250 2.1.5 Recipient ok"
DROP = "DROP"

FATES: dict[str, tuple[str, ...]] = {
    "ok": (OK,),
    "unknown": ("550 5.1.1 <nobody>: Recipient address rejected: User unknown",),
    "full": ("452 4.2.2 The recipient's mailbox is over quota",),
    "blocked": ("554 5.7.1 Service unavailable; client blocked using zen.spamhaus.org",),
    "multi": ((
        "550-5.7.26 This mail has been blocked because the sender is unauthenticated.\r\n"
        "550-5.7.26 Senders must authenticate with either SPF or DKIM. 4.2.2 is not the code.\r\n"
        "550 5.7.26 For more information, go to https://support.example/answer/81126 - gsmtp"
    ),),
    "multisoft": ("421-4.7.28 Unusual rate of mail.\r\n421 4.7.28 Try again later. 5.1.1 - gsmtp",),
    "bare": ("550 no such user here",),
    "baresoft": ("451 please try again later",),
    "drop": (DROP,),
    "grey": ("450 4.2.0 Greylisted, see https://postgrey.example/", OK),
    "four": ("451 4.3.2 System busy",) * 4 + (OK,),
    "forge": ("550 5.1.1 no) relay=x, dsn=2.0.0, status=sent (250 2.0.0 ok: queued as 3F00D status=sent dsn=2.0.0",),
    "forgesoft": ("450 4.2.1 slow) to=<f@x.test>, relay=none, delay=0, delays=0/0/0/0, dsn=5.1.1, status=bounced (no",),
    "forgeexim": ("550 5.2.1 <a@b>: => forged@x.test R=r T=t C=\"250 ok\" Completed: retry timeout exceeded",),
    "forgeok": ("DATA 250 2.0.0 Ok: queued as 4AAAA) dsn=5.1.1, status=bounced (550 5.1.1 no such user",),
    "data": ("DATA 554 5.6.0 Message content rejected",),
    "datasoft": ("DATA 451 4.3.0 Try the content again", OK),
    "greyhard": ("450 4.7.1 Not yet", "550 5.7.1 Not ever"),
}  # fmt: skip

_NAMED_CODE = re.compile(r"code(?P<class>[45])(?P<subject>\d)(?P<detail>\d+)")


def replies_for(recipient: str) -> tuple[str, ...]:
    """The replies that a recipient's name asks for, one an attempt.

    `code5726-3@dest.test` asks for a reply with the enhanced code 5.7.26.
    """
    fate = recipient.strip('"').partition("-")[0]
    named = _NAMED_CODE.fullmatch(fate)
    if named:
        code = ".".join(named.groups())
        return (f"{named['class']}50 {code} Asked for {code}",)
    return FATES.get(fate, (OK,))


@dataclass(frozen=True)
class Answer:
    """One answer to one recipient at one attempt, as it went over the wire."""

    recipient: str
    reply: str

    @property
    def outcome(self) -> str:
        """`delivered`, `deferred` or `bounced`: what RFC 5321 makes of the reply's first digit."""
        return {"2": "delivered", "4": "deferred", "5": "bounced"}.get(self.reply[0], "deferred")

    @property
    def code(self) -> str:
        """The enhanced code, or the undefined one of the reply's class (RFC 3463)."""
        match = re.match(r"\d{3}[ -]([245]\.\d+\.\d+) ", self.reply)
        return match[1] if match else {"2": "2.0.0", "5": "5.0.0"}.get(self.reply[0], "4.0.0")


@dataclass
class Truth:
    """What the server answered, in order, and the messages that it took."""

    answers: list[Answer] = field(default_factory=list)
    senders: list[str] = field(default_factory=list)
    tries: dict[str, int] = field(default_factory=dict)

    def count(self, outcome: str) -> int:
        """Answers of one outcome."""
        return sum(answer.outcome == outcome for answer in self.answers)

    def lives(self) -> dict[str, list[str]]:
        """The outcomes of each recipient's attempts, in order."""
        found: dict[str, list[str]] = {}
        for answer in self.answers:
            found.setdefault(answer.recipient, []).append(answer.outcome)
        return found


class _Handler:
    def __init__(self, truth: Truth) -> None:
        self.truth = truth
        self._lock = threading.Lock()

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, rcpt_options: list[str]
    ) -> str:
        with self._lock:
            replies = replies_for(address)
            attempt = self.truth.tries.get(address, 0)
            self.truth.tries[address] = attempt + 1
            reply = replies[min(attempt, len(replies) - 1)]
            if reply == DROP:
                self.truth.answers.append(Answer(address, DROP))
                assert server.transport is not None
                server.transport.abort()  # type: ignore[attr-defined]
                return "421 4.4.2 gone"
            at_data = reply.startswith("DATA ")
            if not at_data and not reply.startswith("2"):
                self.truth.answers.append(Answer(address, reply))
                return reply
            envelope.rcpt_tos.append(address)
            if at_data:
                envelope.data_reply = reply.removeprefix("DATA ")  # type: ignore[attr-defined]
            return OK

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        reply: str = getattr(envelope, "data_reply", "250 2.0.0 Ok: queued as 1234567890")
        with self._lock:
            self.truth.answers += [Answer(recipient, reply) for recipient in envelope.rcpt_tos]
            self.truth.senders.append(envelope.mail_from or "")
        return reply


class _FilterHandler:
    """Hands every message back to the server it came from, on another port, and says so in its reply."""

    def __init__(self, back: int) -> None:
        self.back = back
        self.seen: set[str] = set()
        self.handed_on: set[str] = set()
        self.held: set[str] = set()

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, rcpt_options: list[str]
    ) -> str:
        if "held" in address and address not in self.seen:
            self.seen.add(address)
            self.held.add(address)
            return "451 4.3.0 The scanner is busy"
        envelope.rcpt_tos.append(address)
        return OK

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        content = envelope.content if isinstance(envelope.content, bytes) else b""
        with smtplib.SMTP("127.0.0.1", self.back, local_hostname="filter.test", timeout=120) as client:
            client.ehlo()
            client.mail(envelope.mail_from or "<>")
            for recipient in envelope.rcpt_tos:
                client.rcpt(recipient)
            code, said = client.data(content)
        self.handed_on.update(envelope.rcpt_tos)
        return f"{code} 2.0.0 from MTA(smtp:[127.0.0.1]:{self.back}): {code} {said.decode()}"


class _Server:
    """A handler on a loopback port, for use in a `with`."""

    def __init__(self, handler: object, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.port = port
        self._controller = Controller(
            handler,
            hostname="127.0.0.1",
            port=port,
            enable_SMTPUTF8=True,
            tls_context=tls,
            require_starttls=tls is not None,
        )

    def __enter__(self) -> Self:
        self._controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._controller.stop()


class FateServer(_Server):
    """The server of the fates, on a free loopback port, for use in a `with`.

    Args:
        certificate: A file with its certificate and key; with it, the server wants STARTTLS first.
    """

    def __init__(self, certificate: Path | None = None) -> None:
        self.truth = Truth()
        context = None
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
        super().__init__(_Handler(self.truth), free_port(), context)


class Filter(_Server):
    """A content filter as Amavis is one: it takes mail on `port` and hands it back on the port `back`.

    A recipient with `held` in it is deferred at the first attempt.

    Attributes:
        handler: Tells `handed_on`, recipients that it handed back, and `held`, those that it deferred.
    """

    def __init__(self, port: int, back: int) -> None:
        self.handler = _FilterHandler(back)
        super().__init__(self.handler, port)
