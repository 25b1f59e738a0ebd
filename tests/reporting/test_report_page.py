"""A report as a page and as a mail: one file, at every width in a real browser; no text of a log is markup."""

from __future__ import annotations

import email
import email.policy
import re
from email.message import EmailMessage
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.bench.traffic import day
from tests.conftest import LOGS, Run
from tests.servers.browser import Browser

WIDTHS = (360, 768, 1400)
HOSTILE = (
    "2026-11-24T01:10:00+00:00 mx1 postfix/smtpd[1]: AAAA1: client=pc.src.test[192.0.2.9], sasl_method=PLAIN,"
    " sasl_username=<script>alert(1)</script>\n"
    '2026-11-24T01:10:00+00:00 mx1 postfix/qmgr[1]: AAAA1: from=<"><img/src=x>@src.test>, size=1, nrcpt=1'
    " (queue active)\n"
    "2026-11-24T01:10:01+00:00 mx1 postfix/smtp[1]: AAAA1: to=<x@dest.test>, relay=mx.dest.test[192.0.2.1]:25, delay=1,"
    " delays=0/0/0/1, dsn=5.7.1, status=bounced (host mx.dest.test[192.0.2.1] said: 550 5.7.1"
    " </td></table><script>alert(1)</script><img src=http://evil.test/x onerror=alert(1)> \x1b[31m\u202e & &amp; "
    + "x"
    * 600
    + ")\n"
    "2026-11-24T01:10:01+00:00 mx1 postfix/qmgr[1]: AAAA1: removed\n"
)


class Markup(HTMLParser):
    """The elements of a page, which are well-formed, and the places that it names."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.places: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.places += [value or "" for name, value in attrs if name in ("src", "href", "action", "data")]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag not in ("meta", "br"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


def check_alone(page: str) -> None:
    """A page needs no script and nothing from anywhere else."""
    markup = Markup(page)
    assert not markup.elements & {"script", "img", "iframe", "link", "object"}
    assert markup.places == []
    style = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert not re.search(r"url\(|@import", "".join(style))


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few hours of mail, and a hostile message."""
    found = tmp_path_factory.mktemp("log") / "mail.log"
    found.write_text("".join(f"{line}\n" for line in day("postfix", 8000)) + HOSTILE)
    return found


@pytest.fixture
def page(log: Path, bouncemeter: Run) -> str:
    return bouncemeter("report", "--format", "html", log).stdout


@pytest.fixture
def mail(log: Path, bouncemeter: Run) -> EmailMessage:
    printed = bouncemeter("report", "--format", "mail", "--to", "post@src.test", "--from", "mx@src.test", log).stdout
    found = email.message_from_string(printed, policy=email.policy.default)
    assert isinstance(found, EmailMessage)
    return found


def test_a_page_is_one_file_and_says_what_is_in_the_log(page: str) -> None:
    check_alone(page)
    for text in ("Mail bounces in", "mailbox_full", "What the codes mean", "Postmaster:", "&lt;script&gt;alert(1)"):
        assert text in page
    assert "\\x1b[31m\\x202e" in page.replace("\\u202e", "\\x202e")


@pytest.mark.parametrize("name", ["postfix/relay.log", "exim/relay.log", "exim/refusals.log"])
def test_a_page_of_any_log_is_well_formed(name: str, bouncemeter: Run) -> None:
    check_alone(bouncemeter("report", "--format", "html", LOGS / name).stdout)


def test_a_page_of_no_mail_is_well_formed(tmp_path: Path, bouncemeter: Run) -> None:
    log = tmp_path / "mail.log"
    log.write_text("Nov  4 03:00:01 mx1 postfix/master[1]: daemon started -- version 3.7.11\n")
    page = bouncemeter("report", "--format", "html", log).stdout
    check_alone(page)
    assert "no mail ended" in page


@pytest.mark.needs("chromium")
@pytest.mark.parametrize("dark", [False, True])
def test_a_page_fits_every_width(page: str, dark: bool, server_dir: Path) -> None:
    browser = Browser(server_dir)
    for width in WIDTHS:
        layout = browser.layout(page, width, dark=dark)
        assert layout.content <= layout.width == width, layout
        assert (layout.background == "rgb(20,23,29)") is dark


@pytest.mark.needs("chromium")
def test_a_mail_fits_every_width(mail: EmailMessage, server_dir: Path) -> None:
    body = mail.get_body(("html",))
    assert body is not None
    browser = Browser(server_dir)
    for width in WIDTHS:
        layout = browser.layout(body.get_content(), width)
        assert layout.content <= layout.width == width, layout


def test_a_mail_has_text_and_markup(mail: EmailMessage) -> None:
    assert mail["To"] == "post@src.test"
    assert mail["From"] == "mx@src.test"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert re.search(r": [\d,]+ hard and [\d,]+ soft bounces, \d{4}-\d\d-\d\d", mail["Subject"])
    plain, markup = mail.get_body(("plain",)), mail.get_body(("html",))
    assert plain is not None
    assert markup is not None
    assert "mailbox_full" in plain.get_content()
    assert "\x1b" not in plain.get_content()
    check_alone(markup.get_content())
    assert "var(" not in markup.get_content()  # programs that show mail know no variables
    assert max(map(len, mail.as_bytes().splitlines())) <= 998  # RFC 5322


def test_a_mail_cannot_be_given_other_headers(bouncemeter: Run, log: Path) -> None:
    for address in ("a@b.test\nBcc: c@d.test", "two words", "", "pöst@x.test"):
        done = bouncemeter("report", "--format", "mail", "--to", address, log, check=False)
        assert done.returncode == 2, address
        assert done.stdout == ""


def test_a_mail_needs_an_address(bouncemeter: Run, log: Path) -> None:
    done = bouncemeter("report", "--format", "mail", log, check=False)
    assert (done.returncode, done.stderr) == (2, "bouncemeter: --format mail needs --to ADDRESS\n")
    done = bouncemeter("report", "--to", "a@b.test", log, check=False)
    assert (done.returncode, done.stderr) == (2, "bouncemeter: --to and --from are for --format mail\n")
