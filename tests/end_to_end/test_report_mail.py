"""The daily mail, from the log to the mailbox: `report --format mail` into a real mail server's `-t`."""

from __future__ import annotations

import mailbox
import subprocess
from contextlib import closing
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path

import pytest

from tests.conftest import LOGS, Run
from tests.servers.exim import Exim
from tests.servers.net import free_port, wait_until


@pytest.mark.needs("exim")
def test_the_daily_mail_arrives(bouncemeter: Run, server_dir: Path) -> None:
    words = ("--format", "mail", "--to", "ann@local.test", "--to", "bob@local.test", "--from", "report@local.test")
    printed = bouncemeter("report", *words, LOGS / "postfix" / "relay.log").stdout
    with Exim(server_dir / "exim", free_port()) as exim:
        command = [str(exim.binary), "-C", str(exim.config), "-t", "-odf"]
        subprocess.run(command, input=printed.encode(), check=True, timeout=120, capture_output=True)
        for name in ("ann", "bob"):
            box = server_dir / "exim" / "mailboxes" / name
            wait_until(lambda box=box: box.exists() and box.stat().st_size > 0, 60, "nothing arrives")  # type: ignore[misc]
            with closing(mailbox.mbox(box)) as opened:
                (raw,) = opened
            found = BytesParser(EmailMessage, policy=policy.default).parsebytes(raw.as_bytes())
            assert found["To"] == "ann@local.test, bob@local.test"
            assert "11 hard and 9 soft bounces" in found["Subject"]
            for kind in ("plain", "html"):
                part = found.get_body((kind,))
                assert part is not None
                assert "mailbox_full" in part.get_content()
