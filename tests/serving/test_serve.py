"""`serve`, as Prometheus and its users see it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.conftest import LOGS, Run
from tests.servers.exporter import OPEN_METRICS, Exporter
from tests.servers.postfix import Postfix
from tests.servers.prometheus import Prometheus
from tests.servers.smtp import FateServer

SENT = (
    "Nov  4 03:00:0{n} mx1 postfix/smtp[1]: 4A1B2C3D4{n}: to=<a@dest.example>, relay=mx.google.com[192.0.2.1]:25,"
    " delay=1, delays=0/0/0/1, dsn={dsn}, status={status} (host mx.google.com[192.0.2.1] said: 550 {dsn} no)\n"
)
BY_CLASS = 'mail_bounces_by_class_total{{class="{0}",kind="{1}",mta="postfix"}}'

BACKLOG = BY_CLASS.replace("mail_bounces_by_class", "bouncemeter_backlog_bounces")


def line(n: int, dsn: str, status: str) -> str:
    return SENT.format(n=n, dsn=dsn, status=status)


def test_every_page_answers() -> None:
    with Exporter("--from-start", LOGS / "postfix" / "relay.log") as exporter:
        assert exporter.status("/-/healthy") == 200
        assert exporter.status("/nowhere") == 404
        assert 'href="/metrics"' in exporter.page("/")
        assert exporter.value(BY_CLASS.format("5.1", "hard")) == 3
        assert exporter.value(BACKLOG.format("5.1", "hard")) == 3
        assert "queue_id" not in exporter.page()
        open_metrics = exporter.page(accept=OPEN_METRICS)
        assert open_metrics.endswith("# EOF\n")
        assert '# {queue_id="' in open_metrics
    assert any("Serving metrics at http://127.0.0.1:" in sentence for sentence in exporter.said)
    assert any(sentence.startswith("bouncemeter: Read 190 lines of postfix:") for sentence in exporter.said)


def test_all_three_servers_are_served_at_once() -> None:
    with Exporter("--from-start", *(LOGS / name for name in ("postfix", "exim", "exchange"))) as exporter:
        page = exporter.page()
    for mta in ("postfix", "exim", "exchange"):
        assert f'mail_bounces_by_class_total{{class="5.1",kind="hard",mta="{mta}"}}' in page
        # Every class is there from the start, so that increase() sees the first bounce.
        assert f'mail_bounces_by_class_total{{class="4.6",kind="soft",mta="{mta}"}} 0.0' in page


def test_only_lines_written_after_the_start_are_counted(tmp_path: Path) -> None:
    log = tmp_path / "mail.log"
    log.write_text(line(1, "5.1.1", "bounced") + line(2, "5.7.1", "bounced")[:60])
    with Exporter(log) as exporter:
        assert exporter.value(BY_CLASS.format("5.1", "hard")) == 0
        with log.open("a") as writer:
            writer.write(line(2, "5.7.1", "bounced")[60:])
            writer.write(line(3, "4.2.2", "deferred")[:80])
        exporter.wait_for_value(BY_CLASS.format("5.7", "hard"), 1)
        assert exporter.value(BY_CLASS.format("4.2", "soft")) == 0
        with log.open("a") as writer:
            writer.write(line(3, "4.2.2", "deferred")[80:])
        exporter.wait_for_value(BY_CLASS.format("4.2", "soft"), 1)
        assert exporter.value(BACKLOG.format("4.2", "soft")) == 0
        assert exporter.value(BY_CLASS.format("5.1", "hard")) == 0
        name = f'{{source="{log}"}}'
        assert exporter.value(f"bouncemeter_source_offset_bytes{name}") == log.stat().st_size
        assert exporter.value(f"bouncemeter_source_size_bytes{name}") == log.stat().st_size


def test_a_log_that_is_empty_at_first_is_followed(tmp_path: Path) -> None:
    log = tmp_path / "mail.log"
    log.touch()
    with Exporter(log) as exporter:
        log.write_text(line(1, "5.1.1", "bounced"))
        exporter.wait_for_value(BY_CLASS.format("5.1", "hard"), 1)


def test_a_new_file_in_a_directory_is_read_from_its_start(tmp_path: Path) -> None:
    (tmp_path / "one.log").write_text(line(1, "5.1.1", "bounced"))
    with Exporter(tmp_path) as exporter:
        (tmp_path / "two.log").write_text(line(2, "5.1.2", "bounced"))
        exporter.wait_for_value(BY_CLASS.format("5.1", "hard"), 1)


def test_the_new_log_is_followed_after_a_rename(tmp_path: Path) -> None:
    log = tmp_path / "mail.log"
    log.write_text(line(1, "5.1.1", "bounced"))
    with Exporter("--from-start", log) as exporter:
        log.rename(tmp_path / "mail.log.1")
        log.write_text(line(2, "5.1.2", "bounced"))
        exporter.wait_for_value(BY_CLASS.format("5.1", "hard"), 2)


def test_standard_input_is_followed() -> None:
    with Exporter("-", stdin=subprocess.PIPE) as exporter:
        assert exporter.process.stdin is not None
        exporter.process.stdin.write(line(1, "5.1.1", "bounced").encode())
        exporter.process.stdin.flush()
        exporter.wait_for_value(BY_CLASS.format("5.1", "hard"), 1)


def test_the_configuration_file_names_sources_and_address(tmp_path: Path) -> None:
    config = tmp_path / "bouncemeter.toml"
    config.write_text(
        f'from_start = true\nsources = [{{ path = "{LOGS}/exim/relay.log", format = "exim" }}]\n'
        '[web]\ntelemetry_path = "/numbers"\n'
    )
    with Exporter("--config", config) as exporter:
        assert "mail_bounces_total{" in exporter.page("/numbers")
        assert exporter.status("/metrics") == 404


@pytest.mark.parametrize(
    ("words", "sentence", "code"),
    [
        (["/nowhere/mail.log"], "cannot read /nowhere/mail.log: there is no such file", 1),
        (["--web.listen-address", "here", __file__], "'here' is not an address to listen on", 2),
        (["--format-of", "sendmail", __file__], "unknown log format 'sendmail'; installed: exchange, exim, postfix", 1),
        (["--config", "/nowhere.toml"], "cannot read /nowhere.toml", 2),
        (["--ledger.max-age", "soon", __file__], "'soon' is not a duration such as 6d or 36h", 2),
    ],
)
def test_a_wrong_argument_is_answered_by_one_sentence(
    bouncemeter: Run, words: list[str], sentence: str, code: int
) -> None:
    done = bouncemeter("serve", *words, check=False)
    assert done.returncode == code
    assert done.stderr.startswith(f"bouncemeter: {sentence}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("sources = 3", "sources must be a list"),
        ("\nsource = []", ":2: there is no setting source; did you mean sources?"),
        ("listen_address = ':1'", ":1: there is no setting listen_address; did you mean web.listen_address?"),
        ("# [web]\n\n[web]\nlisten_adress = ':1'", ":4: there is no setting web.listen_adress; did you mean"),
        ("web.port = 1", ":1: there is no setting web.port"),
        ("[colours]\nred = 1", ":1: there is no setting colours; the settings are sources"),
        ("[ledger]\nmax_age = 6", "ledger.max_age must be a duration"),
        ('[ledger]\nmax_age = "6 days"', 'ledger.max_age must be a duration such as "6d" or "36h"'),
        ('[ledger]\nmax_messages = "many"', "max_messages must be a number"),
        ("sources = [1]", ":1: sources has a source that is neither a path"),
        ("from_start = 1", "from_start must be true or false"),
        ("[ledger]\nmax_messages = true", ":2: ledger.max_messages must be a number"),
        ("web = 3", ":1: web must be a table"),
        ("\n\nweb = { listen_adress = ':1' }", ":3: there is no setting web.listen_adress"),
        ("\n[ \"web\" ]\n'listen_adress' = ':1'", ":3: there is no setting web.listen_adress"),
        ("[WEB]", ":1: there is no setting WEB; did you mean web?"),
        ("[web]\ntelemetry_path = 'metrics'", ":2: 'metrics' is not a path such as /metrics"),
        ("[web]\ntelemetry_path = '/trace'", ":2: '/trace' is a path of other pages"),
        ("[web]\ntelemetry_path = '/-/ready'", ":2: '/-/ready' is a path of other pages"),
        ("[web]\nlisten_address = 'here'", ":2: 'here' is not an address to listen on"),
        ("sources = [", "is not TOML"),
    ],
)
def test_a_wrong_configuration_is_answered_by_one_sentence(
    bouncemeter: Run, tmp_path: Path, text: str, sentence: str
) -> None:
    config = tmp_path / "bouncemeter.toml"
    config.write_text(text)
    done = bouncemeter("serve", "--config", config, check=False)
    assert done.returncode == 2
    assert str(config) in done.stderr
    assert sentence in done.stderr


def test_every_wrong_setting_is_named_at_once(bouncemeter: Run, tmp_path: Path) -> None:
    config = tmp_path / "bouncemeter.toml"
    config.write_text("source = []\nstate = 3\n[ledger]\nmax_messages = 0\n")
    done = bouncemeter("serve", "--config", config, check=False)
    assert done.stderr.splitlines() == [
        f"bouncemeter: {config}:1: there is no setting source; did you mean sources?",
        f"{config}:2: state must be a file name or false",
        f"{config}:4: ledger.max_messages must be 1 or more",
    ]


def test_flags_and_configuration_limit_the_ledger(tmp_path: Path) -> None:
    log, config = tmp_path / "mail.log", tmp_path / "bouncemeter.toml"
    log.write_text("".join(line(n, "4.2.2", "deferred") for n in (1, 9)))
    config.write_text(f'from_start = true\nsources = ["{log}"]\n[ledger]\nmax_age = "5d"\nmax_messages = 10\n')
    for words, kept in (([], 2), (["--ledger.max-age", "5s"], 1), (["--ledger.max-messages", "1"], 1)):
        with Exporter("--config", config, *words) as exporter:
            assert exporter.value("bouncemeter_ledger_entries") == kept
            assert exporter.value("bouncemeter_ledger_evicted_total") == 2 - kept


@pytest.mark.needs("prometheus")
def test_promtool_accepts_the_metrics() -> None:
    with Exporter("--from-start", *(LOGS / name for name in ("postfix", "exim", "exchange"))) as exporter:
        page = exporter.page()
    found = subprocess.run(
        ["promtool", "check", "metrics"], input=page, capture_output=True, text=True, check=False, timeout=60
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


@pytest.mark.needs("postfix", "prometheus")
def test_a_real_prometheus_shows_the_true_numbers(server_dir: Path) -> None:
    """Postfix is refused, the exporter follows its log, Prometheus scrapes: the query gives the true number."""
    with FateServer() as server, Postfix(server_dir, server.port) as postfix:
        postfix.send("sender@src.test", ["ok-0@dest.test"])
        with Exporter(postfix.log) as exporter, Prometheus(server_dir, exporter.port) as prometheus:
            by_class = 'mail_bounces_by_class_total{class="5.7"}'
            prometheus.wait_for_value(by_class, 0)
            for number in range(20):
                postfix.send("sender@src.test", [f"blocked-{number}@dest.test", f"ok-{number}@dest.test"])
            prometheus.wait_for_value(by_class, 20)
            refused = sum(answer.outcome == "bounced" for answer in server.truth.answers)
            assert prometheus.value('sum(mail_bounces_total{kind="hard"})') == refused == 20
            prometheus.wait_for_value('mail_recipients_total{outcome="delivered"}', 20)
            delivered = server.truth.count("delivered") - 1  # one came before the exporter started
            prometheus.wait_for_value('sum(mail_delivery_attempts_total{outcome="delivered"})', delivered)
            assert (prometheus.value(f"increase({by_class}[1m])") or 0) > 0
            lines = postfix.log.read_text().splitlines()
            for query, word in (
                (by_class, "5.7.1"),
                ('mail_delivery_delay_seconds_bucket{outcome="bounced"}', "5.7.1"),
            ):
                ids = {each["queue_id"] for each in prometheus.exemplars(query)}
                assert ids
                assert ids <= {line.split(": ")[1] for line in lines if word in line}
            found = [*prometheus.exemplars('{__name__=~"mail_.+"}')]
            assert all(list(each) == ["queue_id"] and "@" not in each["queue_id"] for each in found)
