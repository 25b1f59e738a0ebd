"""The settings that the pages recommend, on real servers."""

from __future__ import annotations

import re
import smtplib
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.servers.exim import Exim
from tests.servers.net import free_port, wait_for, wait_until
from tests.servers.postfix import Postfix
from tests.servers.smtp import FateServer

Report = Callable[..., dict[str, Any]]


def settings(page: str) -> list[str]:
    """The blocks of settings on a page."""
    return re.findall(r"^```ini\n(.*?)^```$", (ROOT / "docs" / page).read_text(), flags=re.MULTILINE | re.DOTALL)


def talk_early(port: int) -> str:
    """Greet before the server does, as a bot would, and return its answer to RCPT TO."""
    with socket.create_connection(("127.0.0.1", port), timeout=120) as client, client.makefile("rb") as answers:
        client.sendall(b"HELO bot.test\r\n")
        for command in (b"MAIL FROM:<bot@bot.test>\r\n", b"RCPT TO:<ok-3@dest.test>\r\n"):
            while not (line := answers.readline()).startswith(b"250 "):
                assert line
            client.sendall(command)
        return answers.readline().decode()


@pytest.mark.needs("postfix")
def test_postfix_with_the_settings_of_its_page(server_dir: Path, report: Report) -> None:
    inbound, screened, filtered = free_port(), free_port(), free_port()
    services = (
        f"127.0.0.1:{inbound} inet n - n - - smtpd -o content_filter=smtp:[127.0.0.1]:{filtered}\n"
        f"127.0.0.1:{filtered} inet n - n - - smtpd\n"  # another Postfix's smtpd(8) as a filter that knows XFORWARD
        f"127.0.0.1:{screened} inet n - n - 1 postscreen\n"
        "smtpd pass - - n - - smtpd\n"
    )
    own = (
        "postscreen_access_list =\npostscreen_greet_wait = 4s\npostscreen_greet_ttl = 1s\n"
        f"postscreen_cache_map = btree:{server_dir}/data/postscreen\n"
    )
    with FateServer() as server:
        postfix = Postfix(server_dir, server.port, own + "".join(settings("postfix.md")), services)
        with postfix:
            wait_for(inbound)
            wait_for(filtered)
            assert talk_early(screened).startswith("550 5.5.1")
            with smtplib.SMTP("127.0.0.1", inbound, local_hostname="client.test", timeout=120) as client:
                client.sendmail(
                    "sender@src.test", ["ok-1@dest.test", "unknown-2@dest.test"], "Subject: test\n\nHello.\n"
                )
            postfix.drain()
            wait_until(lambda: postfix.log.read_text().count(": removed") == 3, 120, "a message is not removed")
    log = postfix.log.read_text()
    assert re.search(r"client=localhost\[127\.0\.0\.1\], orig_queue_id=[0-9A-Za-z]{12,}, ", log)
    found = report(postfix.log)
    assert found["recipients"] == {"delivered": 1, "bounced": 1, "expired": 0, "waiting": 0}
    assert found["rejections"] == 1
    assert found["lines"]["unparsed"] == 0


@pytest.mark.needs("exim")
def test_exim_with_the_settings_of_its_page(server_dir: Path, report: Report) -> None:
    with FateServer() as server, Exim(server_dir, server.port, settings("exim.md")[0]) as exim:
        exim.send("sender@src.test", ["ok-1@dest.test", "unknown-2@dest.test"])
        exim.drain()
    log = exim.log.read_text()
    stamp = r"^[0-9-]{10} [0-9:]{8}\.[0-9]{3} [+-][0-9]{4} "
    assert re.search(rf"{stamp}\S+ => ok-1@dest\.test F=<sender@src\.test> .* QT=[0-9.]+s$", log, re.MULTILINE)
    found = report(exim.log)
    assert found["recipients"] == {"delivered": 1, "bounced": 1, "expired": 0, "waiting": 0}
    assert found["lines"]["unparsed"] == 0
