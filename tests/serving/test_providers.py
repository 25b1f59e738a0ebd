"""Providers that the configuration adds count at SIGHUP, also for servers that took mail before."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.servers.exporter import Exporter


def ordinary(number: int) -> str:
    """A message that arrives, is delivered and leaves."""
    start, name = "Nov 24 15:00:00 mx1 postfix", f"{number:X}0000F"
    return (
        f"{start}/smtpd[1]: {name}: client=app1[192.0.2.7]\n"
        f"{start}/smtp[2]: {name}: to=<a@dest.example>, relay=mx.partner.example[192.0.2.1]:25, delay=1,"
        " delays=0/0/0/1, dsn=2.0.0, status=sent (250 ok)\n"
        f"{start}/qmgr[3]: {name}: removed\n"
    )


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
def test_a_provider_added_at_sighup_counts_for_a_server_that_is_known(tmp_path: Path) -> None:
    config, log = tmp_path / "bouncemeter.toml", tmp_path / "mail.log"
    config.write_text("")
    log.write_text("".join(map(ordinary, range(16, 19))))
    series = 'mail_recipients_total{{mta="postfix",outcome="delivered",provider="{}"}}'
    with Exporter("--config", config, "--from-start", log) as exporter:
        exporter.wait_for_value(series.format("other"), 3)
        said = len(exporter.said)
        config.write_text('[providers.partner]\nhosts = ["mx.partner.example"]\n')
        os.kill(exporter.process.pid, signal.SIGHUP)
        while len(exporter.said) == said:
            time.sleep(0.05)
        with log.open("a") as more:
            more.write("".join(map(ordinary, range(19, 24))))
        exporter.wait_for_value(series.format("partner"), 5)
        assert exporter.value(series.format("other")) == 3
