"""`parse`, `report`, `explain` and `codes` as a postmaster runs them."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tests.conftest import LOGS, Run

Json = dict[str, Any]
POSTFIX = LOGS / "postfix" / "relay.log"


RECORD_FIELDS = """
    time mta host outcome kind code class reply_code reason provider queue_id recipient original_recipient sender
    relay delay text stage
"""
REPORT_FIELDS = """
    lines attempts recipients bounces rejections notifications classes codes reasons providers from to
    arrivals hours delays senders accounts recipient_domains relays slowest clients rejection_reasons client_networks
    replies
"""


def on_a_terminal(*words: str) -> str:
    """What a command prints on a terminal of 100 columns."""
    screen, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "bouncemeter_exporter", *words],
        stdout=terminal,
        stderr=terminal,
        stdin=terminal,
        env={**os.environ, "COLUMNS": "100", "TERM": "xterm-256color", "TZ": "UTC"},
    ):
        os.close(terminal)
        printed = b""
        while True:
            try:
                piece = os.read(screen, 65536)
            except OSError:  # the end of the output, on Linux
                break
            if not piece:
                break
            printed += piece
    os.close(screen)
    return printed.decode()


def test_parse_prints_the_documented_fields(parse: Callable[..., list[Json]]) -> None:
    records = parse(POSTFIX)
    assert len(records) == 52
    assert all(list(each) == RECORD_FIELDS.split() for each in records)
    refused = next(each for each in records if each["recipient"] == "multi-4@dest.test")
    assert refused["code"] == "5.7.26"
    assert refused["class"] == "5.7"
    assert refused["kind"] == "hard"
    assert refused["reply_code"] == 550


def test_parse_redacts_addresses(bouncemeter: Run) -> None:
    printed = bouncemeter("parse", "--redact", POSTFIX, LOGS / "exim" / "forms.log").stdout
    records = [json.loads(line) for line in printed.splitlines()]
    for word in ("unknown-1@", "bob@dest", "n o@", "p \\", "ann@local", "nobody"):
        assert word not in printed.replace("<nobody>", "")
    assert {each["recipient"].rpartition("@")[2] for each in records if each["recipient"]} >= {"dest.test", "src.test"}
    again = bouncemeter("parse", "--redact", POSTFIX).stdout.splitlines()
    assert set(again) <= set(printed.splitlines())


def test_parse_reports_unparsed_lines_on_standard_error(bouncemeter: Run) -> None:
    done = bouncemeter("parse", LOGS / "postfix" / "forms.log")
    assert "forms.log: 1 lines look like outcomes and could not be read" in done.stderr


@pytest.mark.parametrize(
    ("ending", "compress"),
    [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress), (".zst", zstandard.compress)],
)
def test_compressed_logs_are_read(
    tmp_path: Path, report: Callable[..., Json], ending: str, compress: Callable[[bytes], bytes]
) -> None:
    log = tmp_path / f"mail.log.1{ending}"
    log.write_bytes(compress(POSTFIX.read_bytes()))
    assert report(log) == report(POSTFIX)


def test_broken_compression_is_answered_by_one_sentence(tmp_path: Path, bouncemeter: Run) -> None:
    log = tmp_path / "mail.log.1.gz"
    log.write_bytes(gzip.compress(POSTFIX.read_bytes())[:-500])
    done = bouncemeter("report", log, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"bouncemeter: cannot read the rest of {log}: ")


def test_standard_input_is_read(bouncemeter: Run, report: Callable[..., Json]) -> None:
    piped = bouncemeter("report", "--format", "json", "-", stdin=POSTFIX.read_bytes()).stdout
    assert json.loads(piped) == report(POSTFIX)


def test_report_adds_up_files_of_different_formats(report: Callable[..., Json]) -> None:
    one = [report(LOGS / "postfix" / "relay.log"), report(LOGS / "exim" / "relay.log")]
    both = report(LOGS / "postfix" / "relay.log", LOGS / "exim" / "relay.log")
    for part in ("lines", "attempts", "recipients", "bounces"):
        assert both[part] == {name: sum(each[part][name] for each in one) for name in both[part]}
    assert list(both) == REPORT_FIELDS.split()


def test_report_follows_a_message_across_two_files(tmp_path: Path, report: Callable[..., Json]) -> None:
    """A deferral and its end in a later file are one recipient, whatever the order of the files in the command."""
    lines = POSTFIX.read_text().splitlines(keepends=True)
    cut = next(n for n, line in enumerate(lines) if line[:15] != lines[0][:15])
    (tmp_path / "mail.log.1").write_text("".join(lines[:cut]))
    (tmp_path / "mail.log").write_text("".join(lines[cut:]))
    whole = report(POSTFIX)
    for split in (report(tmp_path), report(tmp_path / "mail.log", tmp_path / "mail.log.1")):
        assert split["recipients"] == whole["recipients"]
        assert split["codes"] == whole["codes"]


def test_a_directory_may_hold_other_files_too(tmp_path: Path, bouncemeter: Run) -> None:
    (tmp_path / "mail.log").write_bytes(POSTFIX.read_bytes())
    (tmp_path / "dpkg.log").write_text("2026-11-24 16:00:00 status installed postfix:amd64\n" * 10)
    done = bouncemeter("report", "--format", "json", tmp_path)
    assert json.loads(done.stdout)["lines"]["read"] == 190
    assert done.stderr.startswith(f"bouncemeter: {tmp_path}/dpkg.log is not a log of Postfix, Exim or Exchange")


def test_report_is_plain_in_a_pipe_and_coloured_on_a_terminal(bouncemeter: Run) -> None:
    piped = bouncemeter("report", POSTFIX).stdout
    assert "\x1b" not in piped
    assert "hard bounces" in piped
    assert "Multiple authentication checks failed" in piped
    shown = on_a_terminal("report", str(POSTFIX))
    assert "\x1b[1;31m" in shown


def test_long_work_shows_its_progress_on_a_terminal(tmp_path: Path) -> None:
    log = tmp_path / "mail.log"
    log.write_bytes(POSTFIX.read_bytes() + b"Nov 24 15:55:42 mta cron[1]: nothing of interest here\n" * 150_000)
    assert "Reading" in on_a_terminal("report", str(log))


def test_terminal_escapes_in_a_log_are_shown_as_text(tmp_path: Path) -> None:
    line = (
        "Nov 24 15:55:42 mta postfix/smtp[1]: BD2052108B2: to=<a@x>, relay=h[1.1.1.1]:25, delay=1, delays=0/0/0/1,"
        " dsn=5.1.1, status=bounced (host h[1.1.1.1] said: 550 5.1.1 \x1b]0;owned\x07 [red]x[/red])"
    )
    shown = on_a_terminal("explain", line)
    assert "\x1b]0;" not in shown
    assert "\\x1b]0;owned\\x07 [red]x[/red]" in shown
    log = tmp_path / "\x1b]0;x.log"
    log.write_text(line)
    assert "\x1b]0;" not in on_a_terminal("report", str(log))


@pytest.mark.parametrize("command", ["report", "parse"])
def test_a_file_that_is_no_mail_log_is_answered_by_one_sentence(tmp_path: Path, bouncemeter: Run, command: str) -> None:
    other = tmp_path / "access.log"
    other.write_text('127.0.0.1 - - [24/Nov/2026:16:00:00 +0000] "GET / HTTP/1.1" 200 5\n' * 5000)
    done = bouncemeter(command, other, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"bouncemeter: {other} is not a log of Postfix, Exim or Exchange")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["/nowhere/mail.log"], "cannot read /nowhere/mail.log: there is no such file"),
        (["--format-of", "sendmail", "-"], "unknown log format 'sendmail'"),
        (["/nowhere/*.log"], "there is no log in /nowhere/*.log"),
    ],
)
def test_a_wrong_argument_is_answered_by_one_sentence(bouncemeter: Run, words: list[str], sentence: str) -> None:
    done = bouncemeter("report", *words, check=False, stdin=b"")
    assert done.returncode == 1
    assert sentence in done.stderr


def test_an_empty_log_is_not_an_error(tmp_path: Path, report: Callable[..., Json], bouncemeter: Run) -> None:
    (tmp_path / "mail.log").touch()
    assert report(tmp_path / "mail.log")["lines"]["read"] == 0
    assert "no mail ended" in bouncemeter("report", tmp_path / "mail.log").stdout


def test_explain_explains_a_code(bouncemeter: Run) -> None:
    printed = bouncemeter("explain", "5.7.1").stdout
    for words in ("5.7.1", "hard", "Likely causes", "What the postmaster does", "What the sender does", "RFC 3463"):
        assert words in printed


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        ("550-5.7.26 This mail has been blocked because the sender is unauthenticated", "5.7.26"),
        ("550 5.1.1 User unknown", "5.1.1"),
        ("452 4.2.2", "4.2.2"),
        ("550 no such user 5.1.1 here", "5.0.0"),
        ("421", "4.0.0"),
        ("#5.1.1", "5.1.1"),
        ("5.7.606", "5.7.606"),
        ("4.4.7 Message expired", "4.4.7"),
        ("Status: 5.2.2", "5.2.2"),
        ("Diagnostic-Code: smtp; 550 5.1.1 user unknown", "5.1.1"),
        ("Diagnostic-Code: x-postfix; unknown user: 550 5.1.1", "5.1.1"),
        ("Remote Server returned '550 5.1.10 RESOLVER.ADR.RecipientNotFound'", "5.1.10"),
        ("Remote Server returned '< #5.1.1 smtp;550 5.1.1 User unknown>'", "5.1.1"),
        (
            "host mx.test[192.0.2.1] said: 550 5.7.1 blocked using zen.spamhaus.org (in reply to RCPT TO command)",
            "5.7.1",
        ),
        ("<a@d.test>: host mx2.test[192.0.2.1] said: 550-5.1.1 no such account", "5.1.1"),
        ("SMTP error from remote mail server after RCPT TO:<a@b.test>: 552 5.2.2 full", "5.2.2"),
        ('The reason was: "554 5.7.5 no"', "5.7.5"),
    ],
)
def test_explain_explains_a_reply(bouncemeter: Run, reply: str, code: str) -> None:
    assert json.loads(bouncemeter("explain", "--format", "json", reply).stdout)["code"] == code
    assert code in bouncemeter("explain", *reply.split()).stdout


@pytest.mark.parametrize("mta", ["postfix", "exim", "exchange"])
def test_explain_explains_a_whole_line(bouncemeter: Run, mta: str) -> None:
    from bouncemeter.plugin import parsers

    log = sorted((LOGS / mta).glob("*.[lL][oO][gG]"))[0]
    for line in log.read_text("utf-8-sig").splitlines():
        entries = parsers()[mta].reader()(line) if not line.startswith("#") else ()
        if entries and getattr(entries[0], "outcome", "") == "bounced":
            found = json.loads(bouncemeter("explain", "--format", "json", line).stdout)
            assert found["event"]["mta"] == mta
            assert found["code"] == found["event"]["code"]
            assert "recipient" in bouncemeter("explain", line).stdout
            return
    raise AssertionError("no such line")


def test_explain_reads_several_lines_from_standard_input(bouncemeter: Run) -> None:
    reply = (
        "Diagnostic-Code: smtp; 550-5.7.26 Your email has been blocked because the sender is\n"
        "    550-5.7.26 unauthenticated. Gmail requires all senders to authenticate\n"
        "    550 5.7.26 with either SPF or DKIM.\n"
    )
    for words in ([], ["-"]):
        found = json.loads(bouncemeter("explain", "--format", "json", *words, stdin=reply.encode()).stdout)
        assert (found["code"], found["reason"]) == ("5.7.26", "authentication")


@pytest.mark.parametrize("text", ["5.7", "5.7.x", "#5.7"])
def test_explain_explains_a_class(bouncemeter: Run, text: str) -> None:
    printed = bouncemeter("explain", text).stdout
    assert printed.startswith("5.7.x  31 registered codes\nhard")
    assert "5.7.26  Multiple authentication checks failed\n" in printed
    assert json.loads(bouncemeter("explain", "--format", "json", text).stdout)["class"] == "5.7"


def test_explain_says_whose_code_it_is_and_where_that_is_documented(bouncemeter: Run) -> None:
    printed = bouncemeter("explain", "5.7.606").stdout
    for words in ("From           microsoft\n", "banned", "sender.office.com", "Exchange Online"):
        assert words in printed
    assert (
        json.loads(bouncemeter("explain", "--format", "json", "5.7.606").stdout)["providers"][0]["provider"]
        == "microsoft"
    )


def test_a_success_has_no_remedies_of_failures(bouncemeter: Run) -> None:
    printed = bouncemeter("explain", "2.1.5").stdout
    assert "success" in printed
    assert "What the" not in printed
    assert "Reason" not in printed


@pytest.mark.parametrize("command", ["parse", "report", "codes", "explain 5.7.1"])
@pytest.mark.parametrize("closed", [True, False])
def test_an_output_that_cannot_be_written_is_one_sentence(command: str, *, closed: bool) -> None:
    words = [sys.executable, "-m", "bouncemeter_exporter", *command.split()]
    words += [str(LOGS / "postfix" / "relay.log")] if command in ("parse", "report") else []
    where = ">&-" if closed else ">/dev/full"
    done = subprocess.run(["sh", "-c", f'exec "$@" {where}', "sh", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    why = "it is closed" if closed else "No space left on device"
    assert done.stderr == f"bouncemeter: cannot write the output: {why}\n"


def test_output_goes_into_a_file_while_a_bar_is_on_the_terminal(tmp_path: Path) -> None:
    log, output = tmp_path / "mail.log", tmp_path / "output"
    line = (LOGS / "postfix" / "relay.log").read_text()
    log.write_text(line * (4_500_000 // len(line)))
    main, terminal = pty.openpty()
    try:
        with output.open("wb") as file:
            done = subprocess.run(
                [sys.executable, "-m", "bouncemeter_exporter", "parse", log], stdout=file, stderr=terminal, check=False
            )
    finally:
        os.close(terminal)
        os.close(main)
    assert done.returncode == 0
    assert len(output.read_text().splitlines()) > 5000


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["rules", "export", "--hard-bounce-ratio", "1.5", "DIR"], "1.5 is not in the range 0<=x<=1"),
        (["rules", "export", "--policy-flood", "inf", "DIR"], "inf is not in the range 0<=x<="),
        (["rules", "export", "--policy-flood", "nan", "DIR"], "nan is not a number"),
        (["rules", "export", "--runbook-url", "", "DIR"], "'' is not a URL"),
        (["grafana", "export", "--mail-to", "me", "DIR"], "'me' is not an address"),
        (["grafana", "export", "--scrape-interval", "0s", "DIR"], "'0s' is not a duration"),
        (["rules", "export", "--grafana-url", "nonsense", "DIR"], "'nonsense' is not a URL"),
        (["grafana", "export", "--prometheus-url", "localhost:9090", "DIR"], "'localhost:9090' is not a URL"),
        (["serve", "--web.telemetry-path", "metrics", __file__], "'metrics' is not a path such as /metrics"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(
    bouncemeter: Run, tmp_path: Path, words: list[str], sentence: str
) -> None:
    done = bouncemeter(*[str(tmp_path) if each == "DIR" else each for each in words], check=False)
    assert done.returncode == 2
    assert sentence in " ".join(done.stderr.replace("│", " ").split())
    assert not list(tmp_path.iterdir())


def test_an_empty_log_says_so(bouncemeter: Run, tmp_path: Path) -> None:
    log = tmp_path / "mail.log"
    log.touch()
    assert bouncemeter("report", log).stderr == f"bouncemeter: {log} is empty\n"


def test_defaults_are_in_the_help() -> None:
    shown = on_a_terminal("serve", "--help")
    for default in (":19525", "/metrics", "from its end", "6d", "1000000"):
        assert default in shown, default


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("report --format-of ", {"exchange", "exim", "postfix"}),
        ("serve --format-of po", {"postfix"}),
        ("explain 5.7.2", {"5.7.2", *(f"5.7.{number}" for number in range(20, 30))}),
        ("explain 4", {"4.0", "4.2.2"}),
        ("report --format ", {"text", "json"}),
        ("gra", {"grafana"}),
    ],
)
def test_a_shell_completes_commands_formats_and_codes(words: str, found: set[str]) -> None:
    line = f"bouncemeter {words}"
    done = subprocess.run(
        [Path(sys.executable).with_name("bouncemeter")],
        env={
            **os.environ,
            "_BOUNCEMETER_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split(" ")) - 1),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert found <= set(done.stdout.split())
    assert "report" not in done.stdout


def test_there_are_no_blanks_at_the_ends_of_lines_in_a_pipe(bouncemeter: Run) -> None:
    for words in (
        ["explain", "5.7.1"],
        ["codes"],
        ["report", LOGS / "postfix"],
        ["trace", "CAFE721229B", LOGS / "postfix"],
    ):
        assert " \n" not in bouncemeter(*words).stdout, words


@pytest.mark.parametrize(
    "text", ["hello", "6.1.1", "5.99", "3.7.x", "999 no", "Nov 24 15:55:42 mta postfix/qmgr[1]: BD2052108B2: removed"]
)
def test_explain_says_when_there_is_nothing_to_explain(bouncemeter: Run, text: str) -> None:
    done = bouncemeter("explain", text, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def test_codes_lists_the_catalogue(bouncemeter: Run) -> None:
    rows = json.loads(bouncemeter("codes", "--format", "json").stdout)
    assert len(rows) == 162
    assert list(rows[0])[:7] == ["code", "kind", "title", "meaning", "causes", "remedy", "reference"]
    guide = json.loads(bouncemeter("codes", "--guide", "--format", "json").stdout)
    assert len(guide) == 89
    assert bouncemeter("codes", "--guide").stdout.count("\n") == 90


def test_the_version_option_prints_the_package_version(bouncemeter: Run) -> None:
    from importlib.metadata import version

    assert bouncemeter("--version").stdout == f"bouncemeter {version('bouncemeter')}\n"


@pytest.mark.parametrize("command", ["parse", "report", "explain", "codes", "serve"])
def test_the_help_of_every_command_has_examples(bouncemeter: Run, command: str) -> None:
    printed = bouncemeter(command, "--help").stdout
    assert "Examples" in printed
    assert f"bouncemeter {command}" in printed


def test_a_closed_pipe_is_not_an_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m bouncemeter_exporter parse {POSTFIX} {POSTFIX} | head -1",
        shell=True,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr
