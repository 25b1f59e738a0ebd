"""The HTTP server: no client can keep Prometheus out, and unauthorised clients stay out."""

from __future__ import annotations

import base64
import os
import signal
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from itertools import count
from pathlib import Path
from statistics import median

import bcrypt
import pytest
import trustme
from bouncemeter_exporter.serving.access import Access, Turns, WebConfigError
from bouncemeter_exporter.serving.http import takes_gzip

from tests.conftest import LOGS, Run
from tests.servers.exporter import OPEN_METRICS, Exporter
from tests.servers.net import wait_until
from tests.servers.prometheus import Prometheus

LOG = LOGS / "postfix" / "relay.log"


@contextmanager
def connections(port: int, number: int, first: bytes = b"") -> Iterator[list[socket.socket]]:
    """Connections that send some bytes and then nothing."""
    with ExitStack() as stack:
        opened = []
        for _ in range(number):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            client.sendall(first)
            opened.append(client)
        yield opened


def answer(port: int, request: bytes) -> bytes:
    """The server's whole answer to a request."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=15) as client, suppress(OSError):
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)
        while block := client.recv(65_536):
            received += block
    return received


@pytest.mark.parametrize("first", [b"", b"GET /metrics HTTP/1.1\r\nX-Slow: ", b"GET /metrics HTTP/1.1\r\n\r\n"])
def test_thousands_of_connections_do_not_keep_a_scrape_out(tmp_path: Path, first: bytes) -> None:
    log = tmp_path / "mail.log"
    log.write_text(LOG.read_text())
    with Exporter("--from-start", log) as exporter, connections(exporter.port, 800, first):
        for _ in range(3):
            assert "mail_bounces_total{" in exporter.page(timeout=10)  # Prometheus waits so long
        # The exporter goes on reading the log.
        lines = exporter.value(f'bouncemeter_lines_total{{mta="postfix",result="other",source="{log}"}}')
        assert lines is not None
        with log.open("a") as writer:
            writer.write("Nov  4 03:00:00 mx1 postfix/smtpd[1]: connect from a[192.0.2.1]\n")
        exporter.wait_for_value(f'bouncemeter_lines_total{{mta="postfix",result="other",source="{log}"}}', lines + 1)
        assert len(list(Path(f"/proc/{exporter.process.pid}/task").iterdir())) < 300


@pytest.mark.slow
def test_a_slow_request_is_cut_off() -> None:
    with Exporter(LOG) as exporter, socket.create_connection(("127.0.0.1", exporter.port)) as client:
        sent, start = 0, time.monotonic()
        with suppress(OSError):
            for _ in range(600):
                client.sendall(b"G")
                sent += 1
                time.sleep(0.5)
        assert time.monotonic() - start > 5
        assert sent < 600


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n", b""),
        (b"GET / HTTP/1.1\r\n" + b"X-A: " + b"y" * 20_000_000 + b"\r\n\r\n", b""),
        (b"GET / HTTP/1.1\r\n" + b"X-A: y\r\n" * 200_000 + b"\r\n", b""),
        (b"\x16\x03\x01\x02\x00" + bytes(500), b"400"),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", b"501"),
        (b"GET /metrics HTTP/1.1\r\nContent-Length: 500000000000\r\n\r\nGET /metrics HTTP/1.1\r\n\r\n", b"200"),
        (b"GET /../../etc/passwd HTTP/1.1\r\n\r\n", b"404"),
        (b"GET http://[::1 HTTP/1.1\r\n\r\n", b"400"),
    ],
    ids=range(8),
)
def test_a_request_of_any_kind_is_answered_or_cut_off(request_bytes: bytes, status: bytes) -> None:
    with Exporter(LOG) as exporter:
        received = answer(exporter.port, request_bytes)
        assert received.count(b"HTTP/1.1 200") <= 1
        assert status in received.split(b"\r\n")[0]
        assert b"root:" not in received
        assert exporter.status("/-/healthy") == 200
        status_text = Path(f"/proc/{exporter.process.pid}/status").read_text()
        assert int(status_text.split("VmHWM:")[1].split()[0]) < 120_000


def test_clients_that_do_not_read_their_answers_block_nobody() -> None:
    with (
        Exporter("--from-start", LOGS / "postfix") as exporter,
        connections(exporter.port, 300, b"GET /metrics HTTP/1.1\r\n\r\n" * 50),
    ):
        assert "mail_bounces_total{" in exporter.page()


# --- TLS and passwords ------------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate = ca.issue_cert("127.0.0.1", "localhost")
    certificate.private_key_pem.write_to_path(tmp_path / "server.key")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
    return ca


def client_context(folder: Path, certificate: trustme.LeafCert | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    if certificate is not None:
        certificate.configure_cert(context)
    return context


def fetch(port: int, context: ssl.SSLContext | None, password: str | None = None) -> int:
    """The status of the metrics page, 0 if there is no connection."""
    scheme = "https" if context else "http"
    request = urllib.request.Request(f"{scheme}://127.0.0.1:{port}/metrics")
    if password is not None:
        request.add_header("Authorization", f"Basic {base64.b64encode(password.encode()).decode()}")
    try:
        with urllib.request.urlopen(request, context=context, timeout=10) as page:
            return int(page.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return 0


class Served(Exporter):
    """An exporter behind TLS, which is ready when its messages say so."""

    def status(self, path: str) -> int:
        return 200 if any("Read " in sentence for sentence in self.said) else 0


TLS = "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n"
MUTUAL = f"{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n"


def test_tls_is_set_up_by_the_exporter_toolkits_file(tmp_path: Path, authority: trustme.CA) -> None:
    web = tmp_path / "web.yml"
    web.write_text(f"{TLS}  min_version: TLS13\nhttp_server_config:\n  headers:\n    X-Frame-Options: deny\n")
    with Served("--web.config.file", web, LOG) as exporter:
        assert any("Serving metrics at https://" in sentence for sentence in exporter.said)
        assert fetch(exporter.port, client_context(tmp_path)) == 200
        assert fetch(exporter.port, None) == 0
        old = client_context(tmp_path)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        assert fetch(exporter.port, old) == 0
        with connections(exporter.port, 400):  # without a handshake
            assert fetch(exporter.port, client_context(tmp_path)) == 200


def test_a_renewed_certificate_is_used_without_a_restart(tmp_path: Path, authority: trustme.CA) -> None:
    web = tmp_path / "web.yml"
    web.write_text(TLS)
    with Served("--web.config.file", web, LOG) as exporter:
        assert fetch(exporter.port, client_context(tmp_path)) == 200
        (tmp_path / "server.pem").write_text("no certificate")
        assert fetch(exporter.port, client_context(tmp_path)) == 200
        other = trustme.CA()
        certificate = other.issue_cert("127.0.0.1")
        certificate.private_key_pem.write_to_path(tmp_path / "server.key")
        certificate.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
        assert fetch(exporter.port, client_context(tmp_path)) == 0
        other.cert_pem.write_to_path(tmp_path / "ca.pem")
        assert fetch(exporter.port, client_context(tmp_path)) == 200
    assert any("the previous settings stay in force" in sentence for sentence in exporter.said)


def test_only_clients_with_a_certificate_for_the_right_name_get_in(tmp_path: Path, authority: trustme.CA) -> None:
    web = tmp_path / "web.yml"
    web.write_text(f"{MUTUAL}  client_allowed_sans: [prometheus.test]\n")
    right, wrong = authority.issue_cert("prometheus.test"), authority.issue_cert("other.test")
    with Served("--web.config.file", web, LOG) as exporter:
        assert fetch(exporter.port, client_context(tmp_path, right)) == 200
        assert fetch(exporter.port, client_context(tmp_path, wrong)) == 0
        assert fetch(exporter.port, client_context(tmp_path, trustme.CA().issue_cert("prometheus.test"))) == 0
        assert fetch(exporter.port, client_context(tmp_path)) == 0


def test_only_clients_with_the_right_password_get_in(tmp_path: Path) -> None:
    web = tmp_path / "web.yml"
    hashed = bcrypt.hashpw(b"right:with colon", bcrypt.gensalt(5)).decode()
    web.write_text(f"basic_auth_users:\n  prometheus: {hashed}\n  other: {hashed.replace('$2b$', '$2y$')}\n")
    with Served("--web.config.file", web, LOG) as exporter:
        assert fetch(exporter.port, None) == 401
        assert fetch(exporter.port, None, "prometheus:right:with colon") == 200
        assert fetch(exporter.port, None, "other:right:with colon") == 200
        for wrong in (
            "prometheus:",
            "prometheus:right",
            "nobody:right:with colon",
            "prometheus",
            "",
            "\xff:",
            "p:" + "x" * 100,
        ):
            assert fetch(exporter.port, None, wrong) == 401


@pytest.mark.needs("prometheus")
def test_a_real_prometheus_scrapes_with_a_certificate_and_a_password(
    tmp_path: Path, server_dir: Path, authority: trustme.CA
) -> None:
    web = tmp_path / "web.yml"
    web.write_text(f"{MUTUAL}basic_auth_users:\n  prom: {bcrypt.hashpw(b'secret', bcrypt.gensalt(5)).decode()}\n")
    client = authority.issue_cert("prometheus.test")
    client.private_key_pem.write_to_path(tmp_path / "client.key")
    client.cert_chain_pems[0].write_to_path(tmp_path / "client.pem")
    files = {"ca_file": "ca.pem", "cert_file": "client.pem", "key_file": "client.key"}
    names = ", ".join(f"{name}: {tmp_path / file}" for name, file in files.items())
    secure = f"    scheme: https\n    tls_config: {{{names}}}\n    basic_auth: {{username: prom, password: secret}}\n"
    with (
        Served("--web.config.file", web, "--from-start", LOG) as exporter,
        Prometheus(server_dir, exporter.port, more=secure) as prometheus,
    ):
        prometheus.wait_for_value('sum(mail_bounces_by_class_total{class="5.1"})', 3)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("tls_server_config: 3", "tls_server_config must be a table"),
        ("tls_server_config:\n  cert_file: server.pem", "cert_file and key_file are needed"),
        ("tls_server_config:\n  cert_file: a.pem\n  key_file: b.key", "No such file or directory"),
        (f"{TLS}  client_auth_type: Sometimes", "client_auth_type: 'Sometimes' is not supported"),
        (f"{TLS}  client_auth_type: RequireAndVerifyClientCert", "client_ca_file is needed to verify clients"),
        (f"{TLS}  curve_preferences: [X]", "there is no setting tls_server_config.curve_preferences"),
        ("basic_auth_users:\n  a: plain", "basic_auth_users.a: not a bcrypt hash"),
        ("http_server_config:\n  headers:\n    Server: x", "http_server_config.headers: Server cannot be set"),
        ("users: {}", "there is no setting users"),
        ("a: [", "not YAML"),
        ("- a", "not a table of settings"),
    ],
)
def test_a_wrong_web_configuration_is_answered_by_one_sentence(
    bouncemeter: Run, tmp_path: Path, authority: trustme.CA, text: str, sentence: str
) -> None:
    web = tmp_path / "web.yml"
    web.write_text(text)
    done = bouncemeter("serve", "--no-state", "--web.config.file", web, LOG, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"bouncemeter: {web}: ")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


def test_cipher_suites_are_set_by_their_go_names(tmp_path: Path, authority: trustme.CA) -> None:
    web = tmp_path / "web.yml"
    suites = "[TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_AES_128_GCM_SHA256]"
    web.write_text(f"{TLS}  max_version: TLS12\n  cipher_suites: {suites}\n")
    with Served("--web.config.file", web, LOG) as exporter:
        other = client_context(tmp_path)
        other.set_ciphers("ECDHE+CHACHA20")
        assert fetch(exporter.port, client_context(tmp_path)) == 200
        assert fetch(exporter.port, other) == 0


def test_a_scrape_shows_the_age_of_the_moment(tmp_path: Path) -> None:
    """Scrapes may share a rendered page, but not an old one: the age of the oldest recipient grows."""
    log = tmp_path / "mail.log"
    stamp = time.strftime("%b %e %H:%M:%S", time.gmtime())
    delivery = "to=<a@b.test>, relay=mx[192.0.2.1]:25, dsn=4.2.2, status=deferred (no)"
    log.write_text(f"{stamp} mx1 postfix/smtp[1]: 4A1B2C3D41: {delivery}\n")
    with Exporter("--from-start", log) as exporter:
        ages = []

        def older() -> bool:
            ages.append(exporter.value('mail_deferred_oldest_seconds{mta="postfix"}') or 0)
            return ages[-1] > ages[0] + 1.5

        wait_until(older, 10, f"stays as old as it was: {ages}")


# --- what a client's words may cost -----------------------------------------------------------------------------


def head(exporter: Exporter, **headers: str) -> dict[str, str]:
    """The headers of the answer to a scrape."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(f"http://127.0.0.1:{exporter.port}/metrics", headers=named)
    with urllib.request.urlopen(request, timeout=30) as answered:
        return dict(answered.headers)


def memory(exporter: Exporter) -> int:
    """The memory of an exporter, in kilobytes."""
    return int(Path(f"/proc/{exporter.process.pid}/status").read_text().split("VmRSS:")[1].split()[0])


def test_no_words_of_a_client_make_memory_grow() -> None:
    with (
        Exporter("--from-start", LOGS / "postfix") as exporter,
        closing(HTTPConnection("127.0.0.1", exporter.port)) as to,
    ):

        def ask(numbers: range) -> None:
            for number in numbers:
                accept = f"application/openmetrics-text;version={number}.0.0;charset={number};escaping=x{number}"
                more = {
                    "Accept": accept,
                    "Accept-Encoding": f"gzip;q=0.{number}",
                    f"X-{number}": "x",
                    "Authorization": "x",
                }
                to.request("GET", f"/metrics?{number}", headers=more)
                assert to.getresponse().read()

        ask(range(1, 300))
        before = memory(exporter)
        ask(range(300, 3300))
        assert memory(exporter) - before < 4000


@pytest.mark.parametrize(
    ("accepted", "compressed"),
    [
        ("gzip", True),
        ("GZIP;q=0.5, identity", True),
        ("deflate, *", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000, *", False),
        ("*;q=0", False),
        ("identity", False),
        ("xgzip", False),
        ("", False),
    ],
)
def test_compression_is_as_the_client_accepts_it(accepted: str, compressed: bool) -> None:
    assert takes_gzip(accepted) == compressed


def test_the_answer_names_its_own_type_and_encoding() -> None:
    with Exporter(LOG) as exporter:
        plain = head(exporter, Accept="text/plain;version=1.0.0;escaping=allow-utf-8", Accept_Encoding="gzip;q=0")
        assert plain["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert "Content-Encoding" not in plain
        other = head(exporter, Accept="application/openmetrics-text;version=7.0.0", Accept_Encoding="gzip")
        assert other["Content-Type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
        assert other["Content-Encoding"] == "gzip"


@pytest.mark.slow
def test_scrapes_on_a_kept_connection_do_not_wait_for_nagle() -> None:
    with Exporter(LOG) as exporter, closing(HTTPConnection("127.0.0.1", exporter.port)) as to:
        times = []
        for _ in range(100):
            began = time.monotonic()
            to.request("GET", "/-/healthy")
            to.getresponse().read()
            times.append(time.monotonic() - began)
        assert median(times) < 0.035  # all would take 40 ms or more; on a busy machine some do


def test_the_process_is_measured() -> None:
    with Exporter(LOG) as exporter:
        assert (exporter.value("process_cpu_seconds_total") or 0) > 0
        assert (exporter.value("process_resident_memory_bytes") or 0) > 1e7
        assert "process_start_time_seconds" in exporter.page(accept=OPEN_METRICS)


@pytest.mark.parametrize("address", ["[::]:{}", ":{}"])
def test_every_address_of_both_protocols_is_listened_on(address: str) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this system has no IPv6")
    with Exporter(LOG, listen=address) as exporter:
        for host in ("127.0.0.1", "::1"):
            with socket.create_connection((host, exporter.port), timeout=5) as client:
                client.sendall(b"GET /-/healthy HTTP/1.0\r\n\r\n")
                assert client.recv(100).startswith(b"HTTP/1.1 200")


# --- guessing ---------------------------------------------------------------------------------------------------


def web_with(tmp_path: Path, cost: int, *names: str) -> Path:
    """A web configuration whose users have the password `right`."""
    web = tmp_path / "web.yml"
    hashed = bcrypt.hashpw(b"right", bcrypt.gensalt(cost)).decode()
    web.write_text("basic_auth_users:\n" + "".join(f"  {name}: {hashed}\n" for name in names))
    return web


@pytest.mark.slow
@pytest.mark.parametrize("scraped_before", [True, False])
def test_guessing_keeps_no_right_password_waiting(tmp_path: Path, *, scraped_before: bool) -> None:
    over = threading.Event()

    def guess(port: int, number: int) -> None:
        with closing(HTTPConnection("127.0.0.1", port, timeout=60)) as to:
            for turn in count():
                if over.is_set():
                    return
                words = base64.b64encode(f"prometheus:{number}-{turn}".encode()).decode()
                with suppress(OSError, HTTPException):
                    to.request("GET", "/metrics", headers={"Authorization": f"Basic {words}"})
                    to.getresponse().read()

    with Served("--web.config.file", web_with(tmp_path, 12, "prometheus"), LOG) as exporter:
        if scraped_before:
            assert fetch(exporter.port, None, "prometheus:right") == 200
        guessers = [threading.Thread(target=guess, args=(exporter.port, number)) for number in range(200)]
        for each in guessers:
            each.start()
        time.sleep(3)
        times = []
        for _ in range(3):
            began = time.monotonic()
            assert fetch(exporter.port, None, "prometheus:right") == 200
            times.append(time.monotonic() - began)
        over.set()
        for each in guessers:
            each.join(timeout=120)
    assert sorted(times)[1] < 5, times  # without turns: a minute


def test_turns_go_round_clients_and_the_newest_comes_first() -> None:
    turns, order = Turns(), list[str]()

    def come(name: str) -> threading.Thread:
        def run() -> None:
            with turns.turn(name[0]) as admitted:
                order.append(name if admitted else f"-{name}")

        thread = threading.Thread(target=run)
        thread.start()
        wait_until(lambda: turns.waiting == len(threads) + 1, 10, "does not wait")
        return thread

    threads: list[threading.Thread] = []
    with turns.turn("first"):
        for name in ("a1", "a2", "b1", "a3"):
            threads.append(come(name))  # noqa: PERF401 - each waits for the one before
    for each in threads:
        each.join(timeout=10)
    assert order == ["a3", "b1", "a2", "a1"]


def test_time_does_not_tell_a_known_name_from_an_unknown_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by a clock: the costs of all hashes that are made for an answer are the same in sum."""
    web, said = tmp_path / "web.yml", list[str]()
    hashes = {name: bcrypt.hashpw(b"right", bcrypt.gensalt(cost)) for name, cost in (("cheap", 4), ("dear", 7))}
    web.write_text("basic_auth_users:\n" + "".join(f"  {name}: {each.decode()}\n" for name, each in hashes.items()))
    access = Access(web, said.append)
    rounds = list[int]()
    original = bcrypt.hashpw

    def counted(password: bytes, salt: bytes) -> bytes:
        rounds.append(2 ** int(salt[4:6]))
        return original(password, salt)

    monkeypatch.setattr(bcrypt, "hashpw", counted)
    for name in ("cheap", "dear", "unknown"):
        rounds.clear()
        words = base64.b64encode(f"{name}:wrong".encode()).decode()
        assert not access.allows(f"Basic {words}", "192.0.2.1")
        assert sum(rounds) == 2**7, name


# --- what was shut stays shut -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("", "basic_auth_users and tls_server_config"),
        ("basic_auth_users:\n", "basic_auth_users and tls_server_config"),
        (TLS, "basic_auth_users and client_auth_type and client_allowed_sans"),
        ("USERS", "tls_server_config"),
        (f"{MUTUAL}USERS", "client_allowed_sans"),
        (None, ""),
    ],
)
def test_what_was_shut_stays_shut_until_a_restart(
    tmp_path: Path, authority: trustme.CA, text: str | None, lost: str
) -> None:
    web, said = tmp_path / "web.yml", list[str]()
    users = f"basic_auth_users:\n  prom: {bcrypt.hashpw(b'right', bcrypt.gensalt(4)).decode()}\n"
    web.write_text(f"{MUTUAL}  client_allowed_sans: [prometheus.test]\n{users}")
    access = Access(web, said.append)
    if text is None:
        web.unlink()
    else:
        web.write_text(text.replace("USERS", users))
        os.utime(web, (1, 1))
    assert not access.allows(None, "192.0.2.1")
    assert access.tls
    assert access.context().verify_mode is ssl.CERT_REQUIRED
    assert len(said) == 1
    assert said[0].startswith(f"{web}: without {lost}, which" if lost else f"{web}: No such file")
    assert said[0].endswith("; the previous settings stay in force")


def test_the_missing_file_is_named(tmp_path: Path, authority: trustme.CA) -> None:
    web = tmp_path / "web.yml"
    web.write_text(TLS)
    for name in ("server.pem", "server.key"):
        (tmp_path / name).rename(tmp_path / "away")
        with pytest.raises(WebConfigError) as raised:
            Access(web, print)
        assert str(raised.value) == f"{web}: {tmp_path / name}: No such file or directory"
        (tmp_path / "away").rename(tmp_path / name)


def test_sighup_reads_the_configuration_again_and_ends_nothing(tmp_path: Path) -> None:
    config, log, web = tmp_path / "bouncemeter.toml", tmp_path / "mail.log", web_with(tmp_path, 4, "prom")
    sent = (
        "Nov  4 03:00:00 mx1 postfix/smtp[1]: 4A1B2C3D4{}: to=<a@d.test>, relay=mx.partner.test[192.0.2.1]:25, delay=1,"
        " dsn=2.0.0, status=sent (250 ok)\n"
    )
    log.write_text(sent.format(1))
    config.write_text(f'[web]\nconfig_file = "{web}"\n')
    with Served("--config", config, "--from-start", log) as exporter:

        def hang_up(sentence: str) -> None:
            exporter.process.send_signal(signal.SIGHUP)
            wait_until(lambda: f"bouncemeter: {sentence}" in exporter.said, 120, f"not said: {exporter.said}")

        config.write_text(f'[web]\nconfig_file = "{web}"\n[providers.partner]\nhosts = ["mx.partner.test"]\n')
        hang_up("Read the configuration again.")
        with log.open("a") as writer:
            writer.write(sent.format(2))
        partner = 'mail_recipients_total{mta="postfix",outcome="delivered",provider="partner"} 1.0'

        def counted() -> bool:
            words = base64.b64encode(b"prom:right").decode()
            request = urllib.request.Request(
                f"http://127.0.0.1:{exporter.port}/metrics", headers={"Authorization": f"Basic {words}"}
            )
            with urllib.request.urlopen(request, timeout=30) as page:
                return partner in page.read().decode()

        wait_until(counted, 120, "the new provider is not known")
        config.write_text(f'max_age = "6d"\n[web]\nconfig_file = "{web}"\n')
        unknown = f"{config}:1: there is no setting max_age; did you mean ledger.max_age?"
        hang_up(f"{unknown}; the previous settings stay in force")
        config.write_text(f'[web]\nconfig_file = "{web}"\n[ledger]\nmax_age = "5d"\n')
        hang_up("Read the configuration again. At a restart will change: max_age")
        config.unlink()
        hang_up(f"cannot read {config}: No such file or directory; the previous settings stay in force")
        assert exporter.process.poll() is None
