"""The pages below `/trace`: what they say, who may see them, and that they cost others nothing."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import bcrypt
import pytest
from bouncemeter_exporter.config import SourceConfig
from bouncemeter_exporter.serving import tracing
from bouncemeter_exporter.serving.metrics import Snapshot
from bouncemeter_exporter.serving.stories import Stories
from bouncemeter_exporter.serving.tracing import BusyError, Tracing, TracingError, is_queue_id, logs_of

from tests.conftest import Run
from tests.servers.browser import Browser
from tests.servers.exporter import Exporter
from tests.servers.net import wait_until

HOSTILE = "<script>alert(1)</script> & \u202e " + "x" * 300

LOG = """\
2026-11-25T10:00:00+00:00 mx1 postfix/smtpd[1]: 4A1B2C3D57: client=client.test[192.0.2.1]
2026-11-25T10:00:00+00:00 mx1 postfix/qmgr[1]: 4A1B2C3D57: from=<news@src.test>, size=1, nrcpt=1 (queue active)
2026-11-25T10:00:01+00:00 mx1 postfix/smtp[1]: 4A1B2C3D57: to=<ann@dest.test>, relay=mx.dest.test[192.0.2.2]:25, \
delay=1, delays=0/0/0/1, dsn=5.7.1, status=bounced (host mx.dest.test[192.0.2.2] said: 550 5.7.1 HOSTILE)
2026-11-25T10:00:01+00:00 mx1 postfix/bounce[1]: 4A1B2C3D57: sender non-delivery notification: 5B1B2C3D57
2026-11-25T10:00:01+00:00 mx1 postfix/qmgr[1]: 5B1B2C3D57: from=<>, size=1, nrcpt=1 (queue active)
2026-11-25T10:00:01+00:00 mx1 postfix/qmgr[1]: 4A1B2C3D57: removed
2026-11-25T10:00:02+00:00 mx1 postfix/smtp[1]: 5B1B2C3D57: to=<news@src.test>, relay=mx.src.test[192.0.2.3]:25, \
delay=1, delays=0/0/0/1, dsn=2.0.0, status=sent (250 ok)
2026-11-25T10:00:02+00:00 mx1 postfix/qmgr[1]: 5B1B2C3D57: removed
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log, of which the message is in a rotated part."""
    path = tmp_path / "mail.log"
    path.with_name("mail.log.1").write_text(LOG.replace("HOSTILE", HOSTILE))
    path.write_text(LOG.replace("4A1B", "4A2B").replace("5B1B", "5B2B"))
    return path


@pytest.fixture
def exporter(log: Path) -> Iterator[Exporter]:
    with Exporter("--web.trace", log) as found:
        yield found


def fetch(url: str, **headers: str) -> tuple[int, str]:
    """The status and the text of a page."""
    request = urllib.request.Request(url, headers={name.replace("_", "-"): each for name, each in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_a_message_s_page_tells_its_story(exporter: Exporter) -> None:
    page = exporter.page("/trace/4A1B2C3D57")
    assert "ann@dest.test" in page
    assert "550 5.7.1 &lt;script&gt;alert(1)&lt;/script&gt; &amp; \\x202e" in page
    assert "<script" not in page
    assert 'href="/trace/5B1B2C3D57"' in page
    assert "a bounce message" in page
    assert "It is the catch-all of refusals" in page
    with urllib.request.urlopen(f"http://127.0.0.1:{exporter.port}/trace/4A1B2C3D57") as answer:
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none';")


@pytest.mark.parametrize(
    ("path", "status", "sentence"),
    [
        ("/trace", 200, "Trace a message"),
        ("/trace/", 200, "Trace a message"),
        ("/trace?queue_id=4A2B2C3D57", 200, "ann@dest.test"),
        ("/trace/4A9B2C3D57", 404, "The logs that are kept say nothing about 4A9B2C3D57."),
        ("/trace/--help", 400, "'--help' is not a queue ID"),
        ("/trace/..%2F..%2Fetc", 400, "is not a queue ID"),
        ("/trace/" + "A" * 200, 400, "is not a queue ID"),
        ("/trace?recipient=ann@dest.test", 200, "4A2B2C3D57"),
        ("/trace?recipient=@nowhere.test", 404, "say nothing about @nowhere.test."),
        ("/trace?recipient=--help", 404, "say nothing about --help."),
        ("/trace?sender=news@src.test", 200, "2 messages"),
        ("/trace?reply=550+5.7.1", 200, "2 messages"),
        ("/trace?recipient=" + "a" * 400, 400, "cannot look for"),
        ("/trace?recipient=a%0Ab", 400, "cannot look for"),
        ("/trace?format=json", 400, "cannot look for"),
    ],
)
def test_nothing_but_a_queue_id_reaches_the_command(exporter: Exporter, path: str, status: int, sentence: str) -> None:
    found, text = fetch(f"http://127.0.0.1:{exporter.port}{path}")
    assert found == status
    assert sentence.replace("'", "&#x27;") in text or sentence in text


@pytest.mark.parametrize("text", ["", "-A1B2", "A B", "4A1B\n", "4A1B2C3D57;x", "é" * 5, "a@b.test", "x" * 65])
def test_what_is_no_queue_id(text: str) -> None:
    assert not is_queue_id(text)


def test_the_page_is_off_by_default(log: Path) -> None:
    with Exporter(log) as exporter:
        assert exporter.status("/trace") == 404
        assert exporter.status("/trace/4A1B2C3D57") == 404
        assert "/trace" not in exporter.page("/")


def test_the_status_page_leads_to_messages(log: Path) -> None:
    now = time.strftime("%Y-%m-%dT%H:%M", time.gmtime())
    log.write_text(LOG.replace("2026-11-25T10:00", now))
    with Exporter("--web.trace", "--from-start", log) as exporter:
        assert exporter.page("/").count('href="/trace/4A1B2C3D57"') == 2  # of the code, and of the refusal
        assert 'href="/trace?code=5.7.1"' in exporter.page("/")


def test_the_latest_messages_are_found_by_the_labels_of_bounces(log: Path) -> None:
    with Exporter("--web.trace", "--from-start", log) as exporter:
        for query in ("code=5.7.1", "class=5.7&reason=policy", "kind=hard&provider=other"):
            assert 'href="/trace/4A2B2C3D57"' in exporter.page(f"/trace?{query}")
        assert "None since bouncemeter was started" in exporter.page("/trace?code=5.1.1")
        assert 'href="/trace?reply=5.1.1"' in exporter.page("/trace?code=5.1.1")
        assert "&lt;b&gt;" in exporter.page("/trace?code=%3Cb%3E")


@pytest.mark.parametrize("address", [":0", "0.0.0.0:0", "[::]:0"])
def test_addresses_are_not_shown_to_everybody(bouncemeter: Run, log: Path, address: str) -> None:
    done = bouncemeter("serve", "--no-state", "--web.trace", "--web.listen-address", address, log, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("bouncemeter: --web.trace shows addresses: it needs basic_auth_users or ")
    assert done.stderr.count("\n") == 1


class Protected(Exporter):
    """An exporter behind a password, which is ready when it says so."""

    def status(self, path: str) -> int:
        return 200 if any("Read " in sentence for sentence in self.said) else 0


def test_behind_a_password_it_is_shown_on_every_address(tmp_path: Path, log: Path) -> None:
    hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
    config, settings = tmp_path / "web.yml", tmp_path / "bouncemeter.toml"
    config.write_text(f'basic_auth_users: {{ann: "{hashed}"}}\n')
    settings.write_text(f'[web]\ntrace = true\nconfig_file = "{config}"\n')
    with Protected("--config", settings, log, listen="0.0.0.0:{}") as exporter:
        url = f"http://127.0.0.1:{exporter.port}/trace/4A1B2C3D57"
        right = {"Authorization": "Basic YW5uOnNlY3JldA=="}
        assert fetch(url)[0] == 401
        assert fetch(url, Host="mx1.example.org", **right)[0] == 200
        config.write_text("{}\n")  # what was shut stays shut
        assert fetch(url)[0] == 401
        assert fetch(url, **right)[0] == 200


def test_no_other_site_sees_a_message(exporter: Exporter) -> None:
    url = f"http://127.0.0.1:{exporter.port}/trace/4A1B2C3D57"
    assert fetch(url, Host="attacker.test")[0] == 403  # a name that points here
    assert fetch(url, Host=f"localhost:{exporter.port}")[0] == 200
    assert fetch(url, Sec_Fetch_Site="cross-site", Sec_Fetch_Dest="image")[0] == 403
    assert fetch(url, Sec_Fetch_Site="cross-site", Sec_Fetch_Dest="document")[0] == 200  # a link


def test_the_logs_are_files_with_their_rotated_copies_and_journals(tmp_path: Path, log: Path) -> None:
    log.with_name("mail.log.2.gz").touch()
    log.with_name("mail.log.offset").touch()
    sources = [str(log), "-", "udp:127.0.0.1:514", "journal:postfix", str(tmp_path / "*.txt"), str(tmp_path)]
    logs, nothing = logs_of([SourceConfig(each) for each in sources])
    names = ["mail.log.2.gz", "mail.log.1", "mail.log", "*.txt"]
    assert logs == [
        *(str(tmp_path / each) for each in names[:3]),
        "journal:postfix",
        *(str(tmp_path / "*.txt"),),
        str(tmp_path),
    ]
    assert nothing == ["-", "udp:127.0.0.1:514"]


# --- a command of the test's own ----------------------------------------------------------------------------------


def no_snapshot() -> Snapshot:
    """A search needs none."""
    raise AssertionError


def searching(tmp_path: Path, code: str) -> Tracing:
    """Searches that run some Python, which finds its arguments in `words`."""
    script = tmp_path / "search.py"
    script.write_text(f"import json, os, sys, time\nwords = sys.argv[1:]\n{code}\n")
    log = tmp_path / "mail.log"
    log.touch()
    return Tracing([SourceConfig(str(log))], [sys.executable, str(script)])


def test_a_search_has_the_lowest_priority_and_its_text_is_no_option(tmp_path: Path) -> None:
    code = "time.sleep(0.5)\nprint(json.dumps({'words': words, 'nice': os.getpriority(os.PRIO_PROCESS, 0)}))"
    found = searching(tmp_path, code).find("recipient", "--help")
    assert found is not None
    assert found["nice"] == 19
    options = ["--format", "json", "--by", "recipient", "--top", "50", "--", "--help"]
    assert found["words"] == [*options, str(tmp_path / "mail.log")]


def test_a_search_that_takes_too_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "TIME", 1.0)
    code = "time.sleep(600)"
    begun = time.monotonic()
    with pytest.raises(TracingError, match="took longer than 1 s"):
        searching(tmp_path, code).message("4A1B2C3D57")
    assert time.monotonic() - begun < 120


def test_an_answer_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(TracingError, match="too long for a page"):
        searching(tmp_path, "while True: print('x' * 100_000)").message("4A1B2C3D57")


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (
            "sys.exit('bouncemeter: cannot read /var/log/mail.log: permission denied')",
            "cannot read /var/log/mail.log: p",
        ),
        ("sys.stderr.write('x' * 1_000_000 + '\\n│ No such option: --by │\\n'); sys.exit(2)", "No such option: --by$"),
        ("os.kill(os.getpid(), 9)", "exit code -9"),
    ],
)
def test_a_search_that_fails_says_why(tmp_path: Path, code: str, sentence: str) -> None:
    with pytest.raises(TracingError, match=sentence):
        searching(tmp_path, code).message("4A1B2C3D57")


def test_few_searches_run_and_few_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "PATIENCE", 2.0)
    search = searching(tmp_path, "time.sleep(600)")
    stories, answers = Stories(search, no_snapshot), list[int]()
    threads = [
        threading.Thread(target=lambda: answers.append(stories.answer("/trace/4A1B2C3D57", "")[0])) for _ in range(20)
    ]
    for each in threads:
        each.start()
    wait_until(lambda: len(answers) == 18, 20, "the others are sent away")
    assert set(answers) == {503}
    assert len(search._running) == 2
    search.close()
    for each in threads:
        each.join(20)
    assert len(answers) == 20
    with pytest.raises(BusyError):
        search.message("4A1B2C3D57")


def test_found_messages_are_listed(tmp_path: Path) -> None:
    message = {
        "queue_id": "4A1B2C3D57",
        "queue_ids": ["4A1B2C3D57", "4A1B2C3D58"],
        "time": "2026-11-25T10:00:00Z",
        "mta": "postfix",
        "host": "mx1",
        "sender": "news@src.test",
        "recipients": [{"recipient": f"<b>{number}@dest.test", "outcome": "bounced"} for number in range(30)],
        "outcomes": {"bounced": 30},
        "code": "5.7.1",
        "text": HOSTILE,
    }
    found = {"by": "recipient", "messages": [message, {**message, "queue_id": None, "queue_ids": []}], "more": 7}
    stories = Stories(searching(tmp_path, f"print({json.dumps(found)!r})"), no_snapshot)
    status, page = stories.answer("/trace", f"recipient={quote('ann@dest.test')}")
    assert status == 200
    assert "2 messages, and 7 earlier ones" in page
    assert 'href="/trace/4A1B2C3D58"' in page
    assert "&lt;b&gt;1@dest.test" in page
    assert "<b>1@" not in page
    assert "<script" not in page


def test_stopping_ends_a_search(tmp_path: Path) -> None:
    """A search keeps the exporter neither from answering a scrape nor from stopping."""
    large = tmp_path / "large.log"
    large.write_text(LOG * 60_000)
    with Exporter("--web.trace", large) as exporter:
        asked = threading.Thread(target=fetch, args=(f"http://127.0.0.1:{exporter.port}/trace/ABCDEF",), daemon=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(threading, "excepthook", lambda _: None)  # the connection breaks off
            asked.start()
            wait_until(lambda: bool(children(exporter.process.pid)), 120, "a search has begun")
            child = children(exporter.process.pid)[0]
            assert exporter.value(f'bouncemeter_source_up{{source="{large}"}}') == 1
            assert child in children(exporter.process.pid)  # it was answered before the search ended
            exporter.process.send_signal(signal.SIGTERM)
            assert exporter.process.wait(timeout=10) == 0
            asked.join(10)
        assert not Path(f"/proc/{child}").exists()


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            found += [int(each) for each in (task / "children").read_text().split()]
        except OSError:
            continue
    return found


@pytest.mark.needs("chromium")
def test_a_browser_shows_a_story_at_every_width(exporter: Exporter, tmp_path: Path) -> None:
    browser = Browser(tmp_path)
    for path in ("/trace", "/trace/4A1B2C3D57"):
        text = exporter.page(path)
        for width in (360, 768, 1400):
            layout = browser.layout(text, width)
            assert (layout.content, layout.scrolling) == (width, 0)
    shown, complaints = browser.visit(f"http://127.0.0.1:{exporter.port}/trace/4A1B2C3D57")
    assert "ann@dest.test" in shown
    assert complaints == ""
