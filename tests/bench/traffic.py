"""A day of mail as log lines of Postfix, Exim or Exchange, seeded so that every run reads the same lines.

About a quarter of the lines are outcomes, as in logs of real servers. Their forms are those of `tests/logs`.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from typing import NamedTuple

from bouncemeter.exchange import LAYOUTS

START = datetime(2026, 11, 1, tzinfo=UTC)

RELAYS = [
    ("gmail-smtp-in.l.google.com", "142.250.102.26", "gmail.com", 40),
    ("outlook-com.olc.protection.outlook.com", "52.101.8.42", "outlook.com", 20),
    ("mta5.am0.yahoodns.net", "67.195.228.94", "yahoo.com", 10),
    ("mx01.mail.icloud.com", "17.57.155.25", "icloud.com", 5),
    *((f"mx{n}.customer{n}.example", f"198.51.100.{n % 250 + 1}", f"customer{n}.example", 1) for n in range(200)),
]

ACCEPTED = [
    "250 2.0.0 OK  1732446000 a640c23a62f3a-aa5f2e8b1d5si1180123966b.123 - gsmtp",
    "250 2.6.0 <{id}@sender.example> [InternalId=12884902, Hostname=AM6PR01MB.prod.exchangelabs.com] Queued mail",
    "250 ok dirdel",
    "250 2.0.0 Ok: queued as {id}",
]

SOFT = [
    ("4.2.2", "452 4.2.2 The recipient's inbox is out of storage space."),
    ("4.7.1", "450 4.7.1 <{to}>: Recipient address rejected: Greylisted, see http://postgrey.example/help"),
    ("4.7.28", "421-4.7.28 Gmail has detected an unusual rate of unsolicited mail originating from your IP address."),
    ("4.7.0", "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume"),
    ("4.4.1", ""),
]

HARD = [
    ("5.1.1", "550-5.1.1 The email account that you tried to reach does not exist. Please try double-checking it"),
    ("5.7.1", "550 5.7.1 Service unavailable, Client host [192.0.2.1] blocked using Spamhaus. see spamhaus.org/query"),
    ("5.7.26", "550-5.7.26 This mail has been blocked because the sender is unauthenticated."),
    (
        "5.4.1",
        "550 5.4.1 Recipient address rejected: Access denied. [AM7EUR03FT.eop-EUR03.prod.protection.outlook.com]",
    ),
    ("5.2.2", "552 5.2.2 <{to}>: mailbox full"),
]

ROUTERS = "R=dnslookup T=remote_smtp"
Later = Callable[[float, str], None]


def day(mta: str, lines: int, seed: int = 1) -> Iterator[str]:
    """Lines of a log in order of time.

    Args:
        mta: `postfix`, `exim` or `exchange`.
        lines: The number of lines, without the header of a log of Exchange.
        seed: Another seed gives another day.
    """
    stamp = {"postfix": "%b %e %H:%M:%S ", "exim": "%Y-%m-%d %H:%M:%S ", "exchange": "%Y-%m-%dT%H:%M:%S.000Z,"}[mta]
    second, shown = -1, ""
    for moment, line in islice(traffic(mta, lambda _: 86400 / lines * 4, seed), lines):
        if int(moment) != second:
            second = int(moment)
            shown = (START + timedelta(seconds=second)).strftime(stamp)
        yield f"{shown}{line}"


class Recipient(NamedTuple):
    """A recipient: where its mail goes, what happens to it, and when.

    Attributes:
        to: The address.
        relay: Name and address of the other server.
        end: `sent`, `bounced` or `expired`.
        attempts: The time of each attempt; the last one is the end.
        soft, hard: Code and reply of a deferral and of a refusal for good.
    """

    to: str
    relay: str
    end: str
    attempts: list[float]
    soft: tuple[str, str]
    hard: tuple[str, str]


Fate = Callable[[random.Random, float], Recipient]
"""Chooses the recipient of mail that arrives now, and what happens to it."""


def traffic(
    mta: str, pause: Callable[[float], float], seed: int, fate: Fate | None = None, begin: float = 0.0
) -> Iterator[tuple[float, str]]:
    """Endless lines of a log in order, each with its time in seconds.

    Args:
        mta: `postfix`, `exim` or `exchange`.
        pause: The average number of seconds between two messages, at a given time.
        seed: Another seed gives other traffic.
        fate: What happens to recipients.
        begin: The time of the first lines.
    """
    chance = random.Random(seed)
    scheduled: list[tuple[float, int, str]] = []
    message = {"postfix": postfix, "exim": exim, "exchange": exchange}[mta]
    number, now = 0, begin

    def later(moment: float, line: str) -> None:
        nonlocal number
        number += 1
        heapq.heappush(scheduled, (moment, number, line))

    while True:
        now += chance.expovariate(1 / pause(now))
        message(chance, now, later, fate or recipient)
        while scheduled and scheduled[0][0] <= now:
            moment, _, line = heapq.heappop(scheduled)
            yield moment, line


def ending(chance: random.Random) -> tuple[str, int]:
    """How a recipient ends, and after how many deferrals."""
    drawn = chance.random()
    if drawn < 0.90:
        return "sent", 0
    if drawn < 0.94:
        return "bounced", 0
    return ("sent", chance.randint(1, 4)) if drawn < 0.99 else ("expired", chance.randint(2, 6))


def recipient(chance: random.Random, now: float) -> Recipient:
    """A recipient of a message that arrives now."""
    host, address, domain, _ = chance.choices(RELAYS, [each[3] for each in RELAYS])[0]
    to = f"user{chance.randrange(100000)}@{domain}"
    end, deferrals = ending(chance)
    tries = attempts(chance, now, deferrals)
    return Recipient(to, f"{host}[{address}]", end, tries, chance.choice(SOFT), chance.choice(HARD))


def attempts(chance: random.Random, now: float, deferrals: int) -> list[float]:
    """The times of a recipient's attempts. Each pause is twice as long as the one before."""
    first = now + chance.uniform(0.5, 20)
    return [first + 600 * (2**turn - 1) for turn in range(deferrals + 1)]


def postfix(chance: random.Random, now: float, later: Later, fate: Fate) -> None:
    """One message, from the client's connection to its removal."""
    queue_id = f"{chance.randrange(16**10, 16**11):X}"
    client = f"client{chance.randrange(500)}.example[192.0.2.{chance.randrange(250)}]"
    qmgr = "mx1 postfix/qmgr[88]:"
    smtpd, smtp = f"mx1 postfix/smtpd[{chance.randrange(9999)}]:", f"mx1 postfix/smtp[{chance.randrange(9999)}]:"
    sender = f"list{chance.randrange(40)}@sender.example" if chance.random() < 0.97 else ""
    later(now, f"{smtpd} connect from {client}")
    if chance.random() < 0.15:
        bad = f"unknown[203.0.113.{chance.randrange(250)}]"
        later(
            now,
            f"{smtpd} NOQUEUE: reject: RCPT from {bad}: 554 5.7.1 <nobody@sender.example>: Relay access denied;"
            " from=<spam@bad.example> to=<nobody@sender.example> proto=ESMTP helo=<bad>",
        )
    later(now, f"{smtpd} {queue_id}: client={client}")
    later(now + 0.1, f"mx1 postfix/cleanup[77]: {queue_id}: message-id=<{queue_id}@sender.example>")
    recipients = 1 if chance.random() < 0.75 else chance.randint(2, 5)
    later(now + 0.2, f"{qmgr} {queue_id}: from=<{sender}>, size=12345, nrcpt={recipients} (queue active)")
    if chance.random() < 0.4:
        later(now + 0.2, f"{smtpd} disconnect from {client} ehlo=1 mail=1 rcpt={recipients} data=1 quit=1 commands=5")

    def attempt(at: float, to: str, relay: str, status: tuple[str, str]) -> None:
        delays = f"delay={at - now:.2f}, delays=0.1/0.01/1/0.2"
        later(at, f"{smtp} {queue_id}: to=<{to}>, relay={relay}, {delays}, {status[0]} ({status[1]})")

    last = now
    for _ in range(recipients):
        to, server, end, tries, soft, hard = fate(chance, now)
        relay = f"{server}:25"
        if chance.random() < 0.5:
            later(
                tries[0] - 0.2,
                f"{smtp} Trusted TLS connection established to {relay}: TLSv1.3 with cipher TLS_AES_256_GCM_SHA384",
            )
        status = ("dsn=2.0.0, status=sent", chance.choice(ACCEPTED).format(id=queue_id, to=to))
        if end == "bounced":
            code, reply = hard[0], hard[1].format(to=to)
            status = (f"dsn={code}, status=bounced", f"host {server} said: {reply} (in reply to RCPT TO command)")
        code, reply = soft[0], soft[1].format(to=to)
        answer = f"host {server} said: {reply}" if reply else f"connect to {relay}: Connection timed out"
        for at, again in pairwise(tries):
            attempt(at, to, relay, (f"dsn={code}, status=deferred", answer))
            later(again - 1, f"{qmgr} {queue_id}: from=<{sender}>, size=12345, nrcpt=1 (queue active)")
        if end == "expired":
            later(tries[-1], f"{qmgr} {queue_id}: from=<{sender}>, status=expired, returned to sender")
        else:
            attempt(tries[-1], to, relay, status)
        last = max(last, tries[-1])
    later(last + 0.1, f"{qmgr} {queue_id}: removed")


DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def exim(chance: random.Random, now: float, later: Later, fate: Fate) -> None:
    """One message, from its arrival to `Completed`."""
    queue_id = "-".join("".join(chance.choices(DIGITS, k=size)) for size in (6, 6, 2))
    client = f"client{chance.randrange(500)}.example [192.0.2.{chance.randrange(250)}]"
    sender = f"list{chance.randrange(40)}@sender.example" if chance.random() < 0.97 else "<>"
    for _ in range(chance.choice((0, 1, 1, 2))):
        later(now, f"no host name found for IP address 203.0.113.{chance.randrange(250)}")
    if chance.random() < 0.3:
        bad = f"H=(bad) [203.0.113.{chance.randrange(250)}]"
        later(now, f"{bad} F=<spam@bad.example> rejected RCPT <nobody@sender.example>: relay not permitted")
    later(now, f"SMTP connection from {client} closed by QUIT")
    later(now, f"{queue_id} <= {sender} H={client} P=esmtps S=12345 id={queue_id}@sender.example")
    last = now
    for _ in range(1 if chance.random() < 0.75 else chance.randint(2, 5)):
        to, server, end, tries, (_, soft), (_, hard) = fate(chance, now)
        relay = f"H={server.replace('[', ' [')}"
        tls = "X=TLS1.3:ECDHE_X25519__ECDSA_SECP256R1_SHA256__AES_256_GCM:256 CV=yes"
        refused = f"SMTP error from remote mail server after RCPT TO:<{to}>: "
        answer = refused + soft.format(to=to) if soft else "Connection timed out"
        *deferrals, at = tries
        for moment in deferrals:
            later(moment, f"{queue_id} == {to} {ROUTERS} defer (-44) {relay}: {answer}")
        if end == "sent":
            words = chance.choice(ACCEPTED).format(id=queue_id, to=to)
            later(at, f'{queue_id} => {to} {ROUTERS} {relay} {tls} C="{words}"')
        elif end == "bounced":
            later(at, f"{queue_id} ** {to} {ROUTERS} {relay} {tls}: {refused}{hard.format(to=to)}")
        else:
            later(at, f"{queue_id} ** {to}: retry timeout exceeded")
        last = max(last, at)
    later(last + 0.1, f"{queue_id} Completed")


COLUMNS = LAYOUTS[30]
EXCHANGE_HEADER = [
    "#Software: Microsoft Exchange Server",
    "#Version: 15.02.1118.007",
    "#Log-type: Message Tracking Log",
    f"#Fields: {','.join(COLUMNS)}",
]
"""How each message tracking log begins."""


def exchange(chance: random.Random, now: float, later: Later, fate: Fate) -> None:
    """One message, from its arrival to the end of its last recipient."""
    number = chance.randrange(10**14)
    sender = f"list{chance.randrange(40)}@sender.example" if chance.random() < 0.97 else "<>"
    common = {
        "internal-message-id": str(number),
        "message-id": f"<{number}@sender.example>",
        "network-message-id": f"6b1d5a7c-0001-4c1e-8001-{number:012x}",
        "message-subject": chance.choice(("Minutes", '"Offer, version ""2"""')),
        "sender-address": sender,
        "return-path": sender,
        "schema-version": "15.02.1118.007",
    }

    def row(at: float, source: str, event: str, **fields: str) -> None:
        named = {name.replace("_", "-"): text for name, text in fields.items()}
        found = {**common, **named, "source": source, "event-id": event}
        later(at, ",".join(found.get(name, "") for name in COLUMNS[1:]))

    client = f"192.0.2.{chance.randrange(250)}"
    row(now, "SMTP", "HARECEIVE", client_hostname="EX02", server_hostname="EX01")
    row(now, "SMTP", "RECEIVE", client_ip=client, server_hostname="EX01", connector_id="EX01\\Default EX01")
    row(now + 0.2, "AGENT", "AGENTINFO", server_hostname="EX01")
    last = now
    for _ in range(1 if chance.random() < 0.75 else chance.randint(2, 5)):
        to, server, end, tries, (_, soft), (_, hard) = fate(chance, now)
        name, _, address = server.rstrip("]").partition("[")
        peer = {"recipient_address": to, "connector_id": "Internet Send Connector"}

        def failed(reply: str, host: str = f"{{FQDN={name}}};{{IP={address}}}") -> str:
            return f'"[{{LED={reply}}};{{MSG=}};{host}]"'

        *deferrals, at = tries
        for moment in deferrals:
            status = failed(soft.format(to=to) or "451 4.4.0 Primary target IP address did not answer")
            row(moment, "SMTP", "DEFER", server_hostname="EX01", recipient_status=status, **peer)
        if end == "sent":
            there = {"client_hostname": "EX01", "server_hostname": name, "server_ip": address}
            latency = f"S:E2ELatency={at - now:.3f};S:ToEntity=Internet"
            row(at, "SMTP", "SENDEXTERNAL", recipient_status="250 2.1.5 Ok", custom_data=latency, **there, **peer)
        elif end == "bounced":
            status = failed(hard.format(to=to))
            row(at, "SMTP", "FAIL", server_hostname="EX01", recipient_status=status, **peer)
        else:
            expired = "550 4.4.7 QUEUE.Expired; message expired"
            row(at, "QUEUE", "FAIL", server_hostname="EX01", recipient_status=expired, **peer)
        last = max(last, at)
    row(last + 0.1, "SMTP", "HADISCARD", client_hostname="EX02", server_hostname="EX01")
