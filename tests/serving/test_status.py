"""The status page, as people see it."""

from __future__ import annotations

import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import bcrypt
import pytest
from bouncemeter.plugin import parser
from bouncemeter_exporter.counting.counters import Counters
from bouncemeter_exporter.counting.ledger import Ledger
from bouncemeter_exporter.grafana.rules import thresholds
from bouncemeter_exporter.serving.metrics import take_snapshot
from bouncemeter_exporter.serving.status import Limit, StatusPage

from tests.servers.browser import Browser
from tests.servers.exporter import Exporter

WIDTHS = (360, 768, 1400)


class Page(HTMLParser):
    """What a page says: its texts, the rows of its tables by caption, and its links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.tiles: dict[str, int] = {}
        self.links: list[str] = []
        self.text = ""
        self._caption, self._path = "", list[str]()
        self.feed(text)
        for number, words in re.findall(r"<b[^>]*>([0-9,]+)</b><span>([a-z ]+)<br>", text):
            self.tiles[words] = int(number.replace(",", ""))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("meta", "br"):
            return
        self._path.append(tag)
        if tag == "h2":
            self._caption = ""
        elif tag == "tr":
            self.tables.setdefault(self._caption, []).append([])
        elif tag in ("td", "th"):
            self.tables[self._caption][-1].append("")
        elif tag == "a":
            self.links.append(dict(attrs)["href"] or "")

    def handle_endtag(self, tag: str) -> None:
        assert self._path.pop() == tag  # the markup is well-formed

    def handle_data(self, data: str) -> None:
        if "style" in self._path:
            return
        self.text += data
        if "h2" in self._path:
            self._caption += data
        elif "tr" in self._path:
            self.tables[self._caption][-1][-1] += data


def line(seconds_ago: float, queue_id: str, code: str, status: str, said: str = "no") -> str:
    stamp = (datetime.now(UTC) - timedelta(seconds=seconds_ago)).isoformat()
    return (
        f"{stamp} mx1 postfix/smtp[1]: {queue_id}: to=<ann@dest.example>, relay=mx.dest.example[192.0.2.1]:25, delay=1,"
        f" delays=0/0/0/1, dsn={code}, status={status} (host mx.dest.example[192.0.2.1] said: 550 {code} {said})\n"
    )


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of the last day, and of the day before."""
    path = tmp_path / "mail.log"
    path.write_text(
        line(100_000, "4A1B2C3D01", "5.7.1", "bounced")
        + line(20_000, "4A1B2C3D02", "5.7.26", "bounced", "DMARC")
        + line(10_000, "4A1B2C3D03", "4.2.2", "deferred")
        + line(30, "4A1B2C3D04", "2.0.0", "sent")
        + line(20, "4A1B2C3D05", "5.1.1", "bounced", "<script>alert(1)</script>")
        + line(10, "4A1B2C3D06", "5.7.1", "bounced", "listed by Spamhaus")
    )
    return path


@pytest.fixture
def exporter(log: Path) -> Iterator[Exporter]:
    with Exporter("--from-start", log) as found:
        yield found


def test_the_page_says_what_happened(exporter: Exporter, log: Path) -> None:
    page = Page(exporter.page("/"))
    assert page.tiles == {
        "delivered": 1,
        "hard bounces": 2,
        "soft bounces": 0,
        "given up after retries": 0,
        "rejected by this server": 0,
        "waiting now": 1,
    }
    assert "3 last day" in page.text
    codes = {row[0]: row[2:] for row in page.tables["Top codes"][1:]}
    assert codes == {
        "5.7.1": ["hard", "blocklisted", "1", "1", "other"],
        "5.7.26": ["hard", "authentication", "0", "1", "other"],
        "5.1.1": ["hard", "user_unknown", "1", "1", "other"],
        "4.2.2": ["soft", "mailbox_full", "0", "1", "other"],
    }
    assert "Bad destination mailbox address" in page.tables["Top codes"][1 + list(codes).index("5.1.1")][1]
    (waiting,) = (rows for caption, rows in page.tables.items() if caption.startswith("Who waits"))
    assert waiting[1:] == [["4.2.2", "Mailbox full", "other", "1"]]
    refusals = page.tables["Last refusals for policy or security (5.7)"][1:]
    assert [row[1:4] for row in refusals] == [
        ["4A1B2C3D06", "postfix", "5.7.1"],
        ["4A1B2C3D02", "postfix", "5.7.26"],
    ]
    size = f"{log.stat().st_size / 1000:.1f} kB"
    assert page.tables["Sources"][1][:6] == [str(log), "postfix", "6", "0", f"{size} of {size}", "0 B"]
    assert {"/metrics", "/-/healthy", "/-/ready"} <= set(page.links)
    assert [row[0] for row in page.tables["Sources"]].count("policy_flood") == 1  # the thresholds have no heading
    assert "ann@dest.example" not in exporter.page("/")
    assert "script" not in exporter.page("/")


def test_the_page_shows_what_comes_within_seconds(exporter: Exporter, log: Path) -> None:
    with log.open("a") as writer:
        writer.write(line(0, "4A1B2C3D07", "5.7.1", "bounced"))
    end = time.monotonic() + 20
    while Page(exporter.page("/")).tiles["hard bounces"] != 3:
        assert time.monotonic() < end
        time.sleep(0.1)


def test_the_day_is_still_there_after_a_restart(log: Path, tmp_path: Path) -> None:
    state, seen = tmp_path / "state.db", []
    for _ in range(2):
        with Exporter("--state", state, "--from-start", log) as exporter:
            page = Page(exporter.page("/"))
            seen.append((page.tiles, page.tables["Top codes"]))
    assert seen[0] == seen[1]


def test_a_fresh_installation_does_not_look_broken(tmp_path: Path) -> None:
    log = tmp_path / "mail.log"
    log.touch()
    with Exporter(log) as exporter:
        page = Page(exporter.page("/"))
    assert "No mail in the last day yet." in page.text
    assert "No bounces in the last day." in page.text
    assert page.tables["Sources"][1] == [str(log), "not known yet", "0", "0", "0 B of 0 B", "0 B", "none yet"]


def test_the_page_loads_itself_again_and_is_for_no_cache_and_no_frame(exporter: Exporter) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{exporter.port}/") as answer:
        headers, text = answer.headers, answer.read().decode()
    assert '<meta http-equiv="refresh" content="30">' in text
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'sha256-")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"


class Protected(Exporter):
    """An exporter behind a password, which is ready when it says so."""

    def status(self, path: str) -> int:
        return 200 if any("Read " in sentence for sentence in self.said) else 0


def test_the_page_has_the_same_protection_as_the_metrics(tmp_path: Path, log: Path) -> None:
    hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
    config = tmp_path / "web.yml"
    config.write_text(
        f'basic_auth_users: {{ann: "{hashed}"}}\n'
        "http_server_config: {headers: {X-Frame-Options: SAMEORIGIN, Content-Security-Policy: default-src *}}\n"
    )
    with Protected("--web.config.file", config, log) as exporter:
        url = f"http://127.0.0.1:{exporter.port}/"
        with pytest.raises(urllib.error.HTTPError, match="401") as refused:
            urllib.request.urlopen(url)
        refused.value.close()
        request = urllib.request.Request(url, headers={"Authorization": "Basic YW5uOnNlY3JldA=="})
        with urllib.request.urlopen(request) as answer:
            assert answer.headers.get_all("Content-Security-Policy") == ["default-src *"]
            assert answer.headers.get_all("X-Frame-Options") == ["SAMEORIGIN"]


def test_a_hostile_log_makes_no_large_page() -> None:
    """A day of refusals with all codes and reasons that a remote server can think of."""
    counters, ledger, now = Counters(), Ledger(), time.time()
    read = parser("postfix").reader()
    for number in range(4000):
        for entry in read(
            line(number * 20, f"A{number:09}", f"5.{number % 9}.{number % 990}", "bounced", str(number))[:-1]
        ):
            counters.count(entry, ledger.facts(entry))
    counters.recent.texts()
    snapshot = take_snapshot(counters, ledger.memory, [], {**counters.numbers(), "lines": {}, "dropped": {}})
    limits = [Limit(name, each.text, each.value) for name, each in thresholds().items()]
    page = StatusPage(lambda: snapshot, [], lambda: None, lambda: True, "/metrics", limits)
    begun = time.process_time()
    assert len(page.render()) < 60_000
    assert time.process_time() - begun < 1
    assert time.time() >= now


@pytest.mark.needs("chromium")
def test_a_browser_shows_it_at_every_width(exporter: Exporter, tmp_path: Path) -> None:
    browser, text = Browser(tmp_path), exporter.page("/")
    backgrounds = set()
    for dark in (False, True):
        for width in WIDTHS:
            layout = browser.layout(text, width, dark=dark)
            assert (layout.width, layout.content, layout.scrolling) == (width, width, 0)
            backgrounds.add(layout.background)
    assert len(backgrounds) == 2
    shown, complaints = browser.visit(f"http://127.0.0.1:{exporter.port}/")
    assert "Top codes" in shown
    assert complaints == ""
