"""`bouncemeter check` says whether all will be well."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import LOGS, Run
from tests.servers.alertmanager import Alertmanager
from tests.servers.exporter import Exporter
from tests.servers.net import free_port, wait_until
from tests.servers.prometheus import Prometheus

Json = dict[str, Any]
Check = Callable[..., tuple[int, list[Json]]]

DELIVERED = (
    "{stamp} mta postfix/smtp[1]: {id}: to=<{to}>, relay={relay}, delay=1, delays=0/0/0/1, dsn=2.0.0,"
    " status=sent ({reply})\n"
)


def stamp(ago: float = 0) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() - ago))


def delivered(number: int, relay: str, reply: str = "250 ok", ago: float = 0, letter: str = "A") -> str:
    return DELIVERED.format(
        stamp=stamp(ago), id=f"4{letter}{number:08X}", to=f"u{number}@dest.test", relay=relay, reply=reply
    )


@pytest.fixture
def check(bouncemeter: Run, tmp_path: Path) -> Check:
    """The exit code of `bouncemeter check`, and its findings."""
    settings = tmp_path / "free.toml"
    settings.write_text(f'[web]\nlisten_address = "127.0.0.1:{free_port()}"\n')

    def run(*words: str | Path) -> tuple[int, list[Json]]:
        config = [] if "--config" in words else ["--config", settings]
        done = bouncemeter("check", "--format", "json", *words, *config, check=False)
        return done.returncode, json.loads(done.stdout)

    return run


def said(findings: list[Json], level: str) -> list[str]:
    return [f"{each['about']}: {each['sentence']}" for each in findings if each["level"] == level]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "mail.log"
    path.write_text("".join(delivered(number, "mx.dest.test[192.0.2.1]:25") for number in range(5)))
    return path


def test_all_is_well(check: Check, log: Path, bouncemeter: Run) -> None:
    log.write_text(log.read_text().replace(": 4A", ": 4Nz9Qk3bT1z"))
    code, found = check(log)
    assert code == 0
    assert {each["level"] for each in found} == {"ok"}
    assert f"{log}: a log of postfix: 5 lines, 5 outcomes, all understood" in said(found, "ok")
    printed = bouncemeter("check", log, check=False).stdout
    assert f"ok      {log}: a log of postfix" in printed
    assert printed.splitlines()[-1] == "All is well."


def test_what_is_not_understood_is_shown(check: Check, log: Path) -> None:
    with log.open("a") as writer:
        for number in range(5):
            writer.write(f"{stamp()} mta postfix/smtp[1]: 4A{number}: to=<x@dest.test>, status=bounced (\x1b[31m no\n")
    code, found = check(log)
    assert code == 1
    (warning,) = [each for each in found if each["level"] == "warning"]
    assert warning["sentence"] == "a log of postfix: 10 lines, 10 outcomes, 5 of them (50.00%) not understood"
    assert len(warning["samples"]) == 3
    assert "parse --unparsed" in warning["remedy"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "it is empty"),
        (f"{stamp(3 * 86400)} mta postfix/qmgr[1]: 4A1B2C3D57: removed\n", "no outcome of any mail yet"),
        (delivered(1, "h[192.0.2.1]:25", ago=3 * 86400), "no mail for 3 days: is this the log that is written now?"),
        (delivered(1, "h[192.0.2.1]:25", ago=-7200), "its last line is 2 hours ahead of this machine's clock"),
        ("Nov 24 15:55:42 mta cron[1]: nothing\n", "is not a log of Postfix, Exim or Exchange"),
        (
            "Nov 24 15:55:42 mta postfix/qmgr[1]: 4A1B2C3D57: removed\n",
            f"its time stamps have neither year nor zone: taken as {time.gmtime().tm_year} by its last change",
        ),
        ("2026-11-24 15:55:42 1xVsuB-0001DU-2n Completed\n", "its time stamps have no zone: taken as local time, UTC"),
        ("\n".join(delivered(n, "h[192.0.2.1]:25").strip() for n in range(3)), "queue IDs are short"),
    ],
    ids=["empty", "no outcome", "silent", "ahead", "other", "no year", "no zone", "short IDs"],
)
def test_what_may_be_wrong_with_a_log(check: Check, log: Path, content: str, sentence: str) -> None:
    log.write_text(content)
    _, found = check(log)
    assert [each for each in found if sentence in each["sentence"]], found


def test_a_filter_that_cannot_be_followed(check: Check, log: Path) -> None:
    def through(reply: str) -> str:
        first = (delivered(number, "127.0.0.1[127.0.0.1]:10024", reply, 20) for number in range(5))
        return "".join(first) + "".join(delivered(number, "mx[192.0.2.1]:25", letter="B") for number in range(5))

    log.write_text(through("250 ok"))
    code, found = check(log)
    assert code == 1
    assert "mail passes 127.0.0.1[127.0.0.1]:10024, whose replies do not say" in said(found, "warning")[0]
    log.write_text(through("250 2.0.0 Ok: queued as 4B00000000"))
    assert not said(check(log)[1], "warning")


def test_only_the_end_of_a_large_log_is_read(check: Check, log: Path) -> None:
    with log.open("w") as writer:
        writer.write("Nov 24 15:55:42 mta postfix/anvil[1]: statistics: of before\n" * 400_000)
        writer.writelines(delivered(number, "h[192.0.2.1]:25") for number in range(1000))
    code, found = check(log)
    assert code == 0
    assert "1,000 outcomes, all understood" in said(found, "ok")[1]
    (lines,) = re.findall(r": ([0-9,]+) lines, 1,000 outcomes", "".join(said(found, "ok")))
    assert int(lines.replace(",", "")) < 200_000


def test_every_wrong_setting_is_found(check: Check, log: Path, tmp_path: Path) -> None:
    config = tmp_path / "bouncemeter.toml"
    config.write_text(f'source = []\n[web]\nlisten_adress = ":1"\nlisten_address = "127.0.0.1:{free_port()}"\n')
    code, found = check(log, "--config", config)
    assert code == 2
    assert said(found, "wrong") == [
        f"{config}:1: there is no setting source; did you mean sources?",
        f"{config}:3: there is no setting web.listen_adress; did you mean web.listen_address?",
    ]


def test_an_address_that_is_taken(check: Check, log: Path, tmp_path: Path) -> None:
    config = tmp_path / "bouncemeter.toml"
    with socket.create_server(("127.0.0.1", 0)) as other:
        config.write_text(f'[web]\nlisten_address = "127.0.0.1:{other.getsockname()[1]}"\n')
        code, found = check(log, "--config", config)
        assert code == 2
        assert "cannot listen there: Address already in use" in said(found, "wrong")[0]
    with Exporter(log) as exporter:
        config.write_text(f'[web]\nlisten_address = "127.0.0.1:{exporter.port}"\n')
        code, found = check(log, "--config", config)
        assert code == 0
        assert "a bouncemeter serves there already" in said(found, "ok")[-1]


def test_addresses_of_syslog(check: Check) -> None:
    assert check("udp:bad")[0] == 2
    port = free_port()
    assert check(f"tcp:127.0.0.1:{port}")[0] == 0
    with socket.create_server(("127.0.0.1", port)):
        code, found = check(f"tcp:127.0.0.1:{port}")
    assert code == 1
    assert "Address already in use" in said(found, "warning")[0]


def test_the_state(check: Check, log: Path, tmp_path: Path) -> None:
    config, state = tmp_path / "bouncemeter.toml", tmp_path / "state.db"

    def sentence(path: Path) -> tuple[int, Json]:
        config.write_text(f'state = "{path}"\n[web]\nlisten_address = "127.0.0.1:{free_port()}"\n')
        code, found = check(log, "--config", config)
        (one,) = [each for each in found if each["about"] == str(path)]
        return code, one

    assert sentence(state)[1]["sentence"] == "the state can be written; there is none yet"
    with Exporter("--state", state, "--from-start", log):
        pass
    before = state.read_bytes()
    assert sentence(state) == (0, {**sentence(state)[1], "level": "ok"})
    assert sentence(state)[1]["sentence"] == f"the state can be written, and goes on with {log}"
    assert state.read_bytes() == before
    state.write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    code, one = sentence(state)
    assert (code, one["level"]) == (2, "wrong")
    assert one["sentence"].startswith(f"{state} cannot be read")
    code, one = sentence(log / "state.db")
    assert (code, one["sentence"]) == (2, f"the state cannot be written: {log} is no folder")


def test_who_may_connect(check: Check, log: Path, tmp_path: Path) -> None:
    config, web = tmp_path / "bouncemeter.toml", tmp_path / "web.yml"
    config.write_text(f'[web]\nlisten_address = "127.0.0.1:{free_port()}"\nconfig_file = "{web}"\n')
    assert check(log, "--config", config)[0] == 2
    web.write_text("basic_auth_users: {prom: hello}\n")
    assert "basic_auth_users" in said(check(log, "--config", config)[1], "wrong")[0]
    web.write_text("http_server_config: {}\n")
    code, found = check(log, "--config", config)
    assert code == 0
    assert f"{web}: the web configuration is right" in said(found, "ok")


@pytest.mark.needs("prometheus", "alertmanager")
def test_a_real_prometheus_is_asked(
    check: Check, log: Path, tmp_path: Path, server_dir: Path, bouncemeter: Run
) -> None:
    def ask(prometheus: Prometheus) -> tuple[int, list[str], list[str]]:
        code, found = check(log, "--prometheus", f"http://127.0.0.1:{prometheus.port}")
        return code, said(found, "wrong"), said(found, "warning")

    code, found = check(log, "--prometheus", f"http://127.0.0.1:{free_port()}")
    assert code == 2
    assert "cannot ask Prometheus: [Errno 111] Connection refused" in said(found, "wrong")[0]

    for name in ("nothing", "scraping", "all"):
        (server_dir / name).mkdir()
    with Prometheus(server_dir / "nothing", free_port()) as prometheus:
        wait_until(lambda: "cannot scrape" in str(ask(prometheus)[1]), 120, "the target that is down is not told")
        code, wrong, warnings = ask(prometheus)
        assert code == 2
        assert "connection refused" in wrong[0]
        assert "none of bouncemeter's alerts is loaded" in warnings[0]
        assert "knows no Alertmanager" in warnings[1]

    bouncemeter("rules", "export", server_dir / "rules")
    with Exporter(log) as exporter, Alertmanager(server_dir) as alertmanager:
        more = (
            f"rule_files: [{server_dir}/rules/*.rules.yml]\n"
            f'alerting: {{alertmanagers: [{{static_configs: [{{targets: ["127.0.0.1:{alertmanager.port}"]}}]}}]}}\n'
        )
        with Prometheus(server_dir / "all", exporter.port, more=more) as prometheus:
            wait_until(lambda: ask(prometheus)[0] == 0, 180, "not all is well")
            findings = check(log, "--prometheus", f"http://127.0.0.1:{prometheus.port}")[1]
            told = "\n".join(said(findings, "ok"))
            assert f"has the metrics of 1 bouncemeter: 127.0.0.1:{exporter.port}" in told
            assert "alerts are loaded" in told
            assert f"sends alerts to http://127.0.0.1:{alertmanager.port}" in told


def test_serve_checks_first(log: Path, bouncemeter: Run) -> None:
    with Exporter("--check", log) as exporter:
        pass
    assert any(line.endswith("5 outcomes, all understood") for line in exporter.said)
    log.write_text("nothing\n")
    done = bouncemeter("serve", "--check", "--no-state", "--web.listen-address", "127.0.0.1:0", log, check=False)
    assert done.returncode == 1
    assert "is not a log of Postfix" in done.stderr
    assert done.stderr.endswith("bouncemeter: not started\n")


@pytest.mark.needs("another user")
def test_root_is_told_what_the_services_user_may_not_read(log: Path) -> None:
    from bouncemeter_exporter.sources.permission import may_user

    log.chmod(0o640)
    os.chown(log, 0, 4)
    for folder in log.parents:
        if not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    assert may_user("nobody", log) == "usermod -aG adm nobody"
    log.chmod(0o644)
    assert may_user("nobody", log) == ""
    assert may_user("no-such-user", log) == ""


def test_addresses_that_would_be_shown_to_everybody_are_reported(bouncemeter: Run, tmp_path: Path) -> None:
    log, config = tmp_path / "mail.log", tmp_path / "bouncemeter.toml"
    log.write_text((LOGS / "postfix" / "relay.log").read_text())
    for address, wrong in ((f":{free_port()}", True), (f"127.0.0.1:{free_port()}", False)):
        config.write_text(f'state = false\n[web]\ntrace = true\nlisten_address = "{address}"\n')
        done = bouncemeter("check", "--config", config, log, check=False)
        assert ("--web.trace shows addresses: it needs basic_auth_users" in done.stdout + done.stderr) is wrong
