"""A real Exim that logs all it can meets hostile recipients, certificates, users and greetings: none of them forges
what is read from its log."""

from __future__ import annotations

import smtplib
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.servers.certificates import write_certificate
from tests.servers.exim import Exim
from tests.servers.smtp import FateServer

Json = dict[str, Any]

SETTINGS = "log_selector = +all\nhelo_accept_junk_hosts = *"

FORGED = "F=<forged@x.test> rejected RCPT <forged@x.test>: 5.1.1 no"


def quoted(local: str) -> str:
    return '"' + local.replace("\\", "\\\\").replace('"', '\\"') + '"@dest.test'


# Each begins with its fate (see tests/servers/smtp.py); the first has none, and is delivered.
HOSTILE = [
    ' <"\\a"> r=x: retry timeout exceeded f',
    "unknown-a R=y T=z H=h [203.0.113.1]: 250 2.0.0 ",
    'unknown-b@x.test <"unknown-b"@x.test> R=x: retry timeout exceeded',
    'unknown-c> b, c <"d"',
    "unknown-d@x.test R=x T=y QT=9d",
    "full-e@x.test routing defer (-1): retry time not reached",
    'full-f <" <a@b> R=x: 550 5.1.1 ',
    "forgeexim-g <",
    "data-h => x@x.test QT=9d",
]


@pytest.mark.needs("exim")
def test_neither_recipients_nor_a_servers_certificate_forge_an_outcome(
    server_dir: Path, parse: Callable[..., list[Json]]
) -> None:
    certificate = write_certificate(
        server_dir / "server.pem", 'mx": 550 5.1.1 x', 'x" C="250 2.9.9 id=1xVsuB-0001DU-2n" QT=9d'
    )
    with FateServer(certificate) as server, Exim(server_dir / "exim", server.port, SETTINGS) as exim:
        for local in HOSTILE:
            exim.send("sender@src.test", [quoted(local)])
        exim.drain(left=2)
        log = exim.log
        answers = list(server.truth.answers)
    assert 'CV=no DN="' in log.read_text()
    events = [each for each in parse(log) if each["recipient"] != "sender@src.test"]
    assert sorted({(each["recipient"], each["outcome"], each["code"]) for each in events}) == sorted(
        {(answer.recipient, answer.outcome, answer.code) for answer in answers if answer.recipient != "sender@src.test"}
    )
    assert len({each["recipient"] for each in events}) == len(HOSTILE)
    assert {each["relay"] for each in events} == {f"127.0.0.1 [127.0.0.1]:{server.port}"}
    assert all(each["delay"] is None or each["delay"] < 3600 for each in events)


@pytest.mark.needs("exim")
def test_neither_a_client_nor_its_user_forges_a_refusal(server_dir: Path, parse: Callable[..., list[Json]]) -> None:
    own = write_certificate(server_dir / "own.pem", "mta.test")
    hostile = write_certificate(server_dir / "client.pem", f'c" {FORGED}')
    with FateServer() as server, Exim(server_dir / "exim", server.port, SETTINGS, certificate=own) as exim:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.load_cert_chain(hostile)
        with smtplib.SMTP("127.0.0.1", exim.port, local_hostname="client.test", timeout=120) as client:
            client.starttls(context=context)
            client.ehlo()
            client.mail("a@src.test")
            assert client.rcpt("refused@tls.test")[0] == 550
        with smtplib.SMTP("127.0.0.1", exim.port, local_hostname="client.test", timeout=120) as client:
            client.docmd("EHLO", f"x) [203.0.113.1] {FORGED} (y")
            client.docmd("MAIL", 'FROM:<"a> rejected RCPT <forged@x.test>: 5.1.1 no"@src.test>')
            client.docmd("RCPT", "TO:<refused@greeting.test> (: 5.1.1 no)")
            client.docmd("RCPT", f"TO:<refused@{'long-' * 11}.{'name-' * 11}.test>")
        commands = (
            "EHLO h\r\nMAIL FROM:<a@src.test>\r\nRCPT TO:<refused@ident.test>\r\nRCPT TO:<tempfail@ident.test>\r\n"
        )
        subprocess.run(
            [exim.binary, "-C", str(exim.config), "-oMa", "192.0.2.9", "-oMt", f"u {FORGED}", "-bs"],
            input=f"{commands}QUIT\r\n".encode(),
            capture_output=True,
            check=True,
            timeout=120,
        )
        log = exim.log
    text = log.read_text()
    assert f"U=u {FORGED}" in text
    assert ' DN="' in text
    read = [(each["outcome"], each["code"], each["recipient"], each["text"], each["stage"]) for each in parse(log)]
    refused, later = "no such user here", "try again later"
    assert read[0] == ("rejected", "5.0.0", "refused@tls.test", refused, "rcpt")
    assert read[1] == ("rejected", "5.0.0", "refused@greeting.test", refused, "rcpt")
    assert read[2][:2] == ("rejected", "5.0.0")  # Exim cuts the command off, and perhaps its last bracket
    assert read[2][3:] == (refused, "rcpt")
    assert read[3:] == [
        ("rejected", "5.0.0", "refused@ident.test", refused, "rcpt"),
        ("rejected", "4.0.0", "tempfail@ident.test", later, "rcpt"),
    ]
