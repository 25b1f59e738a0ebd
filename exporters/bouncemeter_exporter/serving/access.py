"""TLS and basic authentication, from a file in the format that Prometheus' exporters share (exporter-toolkit).

The file, and the files that it names, are read again when they change: renewing a certificate needs no restart.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import secrets
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from bouncemeter_exporter.sources.address import resolve

__all__ = ["Access", "Turns", "WebConfigError", "check_trace", "is_loopback"]

CLIENT_AUTHENTICATION = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
VERSIONS = {
    "TLS10": ssl.TLSVersion.TLSv1,
    "TLS11": ssl.TLSVersion.TLSv1_1,
    "TLS12": ssl.TLSVersion.TLSv1_2,
    "TLS13": ssl.TLSVersion.TLSv1_3,
}
HEADERS = {
    "Strict-Transport-Security",
    "X-Content-Type-Options",
    "X-Frame-Options",
    "X-XSS-Protection",
    "Content-Security-Policy",
}

MAX_WAITING = 256
"""Passwords that may wait for being checked."""

SALT = b"kAGqq/QguRpcrzWj56G9tO"
"""A salt for hashes that are made only to take as long as others."""


class WebConfigError(Exception):
    """The web configuration is wrong. Its text names the file and the setting."""


class Access:
    """Who may connect, and how. Without a file, everybody may, without TLS.

    Args:
        path: The file.
        say: Called with a sentence when a changed file is wrong; the previous settings stay in force.

    Raises:
        WebConfigError: The file, or a file that it names, cannot be read, or a setting is wrong.
    """

    def __init__(self, path: Path | None, say: Callable[[str], None]) -> None:
        self._path, self._say = path, say
        self._lock, self._turns = threading.Lock(), Turns()
        self._users: dict[str, bytes] = {}
        self._right: dict[str, bytes] = {}
        self._secret = secrets.token_bytes(32)
        self._context: ssl.SSLContext | None = None
        self._allowed_names: frozenset[str] = frozenset()
        self._files: tuple[Path, ...] = (path,) if path else ()
        self._seen: tuple[int, ...] = ()
        self.headers: dict[str, str] = {}
        if path is not None:
            self._load(path)

    @property
    def tls(self) -> bool:
        """Whether connections are encrypted."""
        return self._context is not None

    @property
    def asks_who(self) -> bool:
        """Whether only those get in who have a password, or a client certificate that was verified."""
        asks_certificate = self._context is not None and self._context.verify_mode is ssl.CERT_REQUIRED
        return bool(self._users) or asks_certificate

    def context(self) -> ssl.SSLContext:
        """The TLS settings for a new connection."""
        self._refresh()
        assert self._context is not None  # noqa: S101
        return self._context

    def check_certificate(self, connection: ssl.SSLSocket) -> None:
        """Check the names in a client's certificate, if only some names are allowed.

        Raises:
            PermissionError: The certificate has none of the allowed names.
        """
        if self._allowed_names:
            certificate: dict[str, Any] = connection.getpeercert() or {}
            names = {value for _, value in certificate.get("subjectAltName", ())}
            if not self._allowed_names & names:
                raise PermissionError("the client's certificate has none of client_allowed_sans")

    def allows(self, authorization: str | None, client: str) -> bool:
        """Whether a request with this `Authorization` header is allowed.

        Args:
            authorization: The header.
            client: The client's address: clients take turns.
        """
        self._refresh()
        if not self._users:
            return True
        scheme, _, encoded = (authorization or "").partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            name, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return False
        return bool(colon) and self._knows(name, password.encode(), client)

    def close(self) -> None:
        """Check no password any more: Python must not end while bcrypt runs."""
        self._turns.close()

    def _knows(self, name: str, password: bytes, client: str) -> bool:
        """Whether a user has this password. The right one of each user is remembered: bcrypt is slow on purpose."""
        users = self._users
        known = users.get(name)
        seen = hmac.digest(self._secret, repr((name, known, password)).encode(), "sha256")
        if known is not None and hmac.compare_digest(self._right.get(name, b""), seen):
            return True
        # One at a time: guessing passwords must not take all cores.
        with self._turns.turn(client) as admitted:
            if not admitted:
                return False
            right = _matches(password, known) if known is not None else False
            _take_time(password, known, max(map(_cost, users.values())))
        if right:
            self._right[name] = seen
        return right

    def reload(self) -> bool:
        """Read the file again, changed or not. Returns whether it is right."""
        self._seen = ()
        return self._refresh()

    # --- reading the file ---------------------------------------------------------------------------------------

    def _refresh(self) -> bool:
        """Read the file again if it or a certificate has changed. Returns whether what was read is right."""
        if self._path is None or self._changes() == self._seen:
            return True
        with self._lock:
            if self._changes() == self._seen:
                return True
            try:
                self._load(self._path)
            except WebConfigError as error:
                self._seen = self._changes()
                self._say(f"{error}; the previous settings stay in force")
                return False
            return True

    def _changes(self) -> tuple[int, ...]:
        return tuple(map(_changed, self._files))

    def _load(self, path: Path) -> None:
        try:
            settings = self._read(path)
            tls = _table(settings, "tls_server_config")
            http = _table(settings, "http_server_config")
            users = _table(settings, "basic_auth_users")
            _reject_unknown(settings, "")
            http.pop("http2", None)  # the server speaks HTTP/1.1, as every client does
            headers = _headers(_table(http, "headers"))
            _reject_unknown(http, "http_server_config.")
            hashes = _hashes(users)
            context, names, files = _context(tls, path.parent)
            if opened := self._opened(hashes, context, names):
                raise ValueError(f"without {opened}, which it had until now; a restart would open that")  # noqa: TRY301
        except OSError as error:
            where = f"{path}: {error.filename}" if error.filename not in (None, str(path)) else str(path)
            raise WebConfigError(f"{where}: {error.strerror}") from error
        except ValueError as error:
            raise WebConfigError(f"{path}: {error}") from error
        self._right = {name: seen for name, seen in self._right.items() if hashes.get(name) == self._users.get(name)}
        self._users, self._context, self._allowed_names, self.headers = hashes, context, names, headers
        self._files = (path, *files)
        self._seen = self._changes()

    def _opened(self, users: dict[str, bytes], context: ssl.SSLContext | None, names: frozenset[str]) -> str:
        """What was shut until now, and would not be by new settings: an empty or half-written file opens nothing."""
        before = self._context.verify_mode if self._context is not None else ssl.CERT_NONE
        lost = {
            "basic_auth_users": bool(self._users) and not users,
            "tls_server_config": self._context is not None and context is None,
            "client_auth_type": context is not None and context.verify_mode < before,
            "client_allowed_sans": context is not None and bool(self._allowed_names) and not names,
        }
        return " and ".join(name for name, is_lost in lost.items() if is_lost)

    @staticmethod
    def _read(path: Path) -> dict[str, Any]:
        try:
            import yaml  # noqa: PLC0415 - an extra
        except ImportError:
            raise WebConfigError("install bouncemeter[web] for --web.config.file") from None
        try:
            settings = yaml.safe_load(path.read_text("utf-8"))
        except yaml.YAMLError as error:
            raise ValueError(f"not YAML: {' '.join(str(error).split())}") from error
        if not isinstance(settings or {}, dict):
            raise ValueError("not a table of settings")  # noqa: TRY004
        return settings or {}


def check_trace(address: tuple[str, int], access: Access) -> None:
    """Make sure that pages with addresses are not for everybody.

    Raises:
        ValueError: They would be.
        OSError: There is no such address.
    """
    if not access.asks_who and not is_loopback(resolve(*address, socket.SOCK_STREAM)[1][0]):
        raise ValueError(
            "--web.trace shows addresses: it needs basic_auth_users or client_auth_type RequireAndVerifyClientCert in"
            " --web.config.file, or --web.listen-address 127.0.0.1:19525"
        )


def is_loopback(host: str) -> bool:
    """Whether an address is one that only this machine can reach."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _headers(given: dict[str, Any]) -> dict[str, str]:
    for name in given.keys() - HEADERS:
        raise ValueError(f"http_server_config.headers: {name} cannot be set; {', '.join(sorted(HEADERS))} can")
    return {name: " ".join(str(value).split()) for name, value in given.items()}


def _hashes(users: dict[str, Any]) -> dict[str, bytes]:
    """The bcrypt hashes of passwords, by user."""
    hashes = {str(name): str(value).encode() for name, value in users.items()}
    for name, value in hashes.items():
        if not re.fullmatch(rb"\$2[aby]\$(?:0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}", value):
            raise ValueError(f"basic_auth_users.{name}: not a bcrypt hash")
    if hashes:
        _matches(b"", b"$2b$04$" + SALT)  # fails now if bcrypt is missing
    return hashes


def _matches(password: bytes, hashed: bytes) -> bool:
    try:
        import bcrypt  # noqa: PLC0415 - an extra, and slow to import
    except ImportError:
        raise WebConfigError("install bouncemeter[web] for basic_auth_users") from None
    try:
        return hmac.compare_digest(bcrypt.hashpw(password, hashed), hashed)
    except ValueError:  # a password too long for bcrypt, or a malformed hash
        return False


def _cost(hashed: bytes) -> int:
    """The cost of a bcrypt hash: the binary logarithm of its rounds."""
    return int(hashed[4:6])


def _take_time(password: bytes, known: bytes | None, most: int) -> None:
    """Take the rest of the time that the most costly hash takes, so that time tells nothing about a name."""
    costs = [most] if known is None else range(_cost(known), most)  # 2**n + 2**n + 2**(n+1) + ... = 2**most
    for cost in costs:
        _matches(password, b"$2b$%02d$" % cost + SALT)


class Turns:
    """Lets one thread pass at a time: clients in turn, and of one client the newest first, so that neither many
    guesses nor many guessers keep the right password waiting."""

    def __init__(self) -> None:
        self._lock, self._busy, self._closed = threading.Condition(), False, False
        self._waiting: dict[str, list[_Waiting]] = {}

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(map(len, self._waiting.values()))

    @contextmanager
    def turn(self, client: str) -> Iterator[bool]:
        """Wait for one's turn; False if too many wait, and one has to leave.

        Args:
            client: Whose turn.
        """
        if not self._admit(client):
            yield False
            return
        try:
            yield True
        finally:
            self._next()

    def close(self) -> None:
        """Admit nobody any more, and wait for whoever has passed."""
        with self._lock:
            self._closed = True
            while self._waiting:
                self._leave(next(iter(self._waiting)))
            self._lock.wait_for(lambda: not self._busy)

    def _admit(self, client: str) -> bool:
        with self._lock:
            if self._closed:
                return False
            if not self._busy:
                self._busy = True
                return True
            if self.waiting >= MAX_WAITING:
                self._leave(max(self._waiting, key=lambda each: len(self._waiting[each])))
            mine = _Waiting()
            self._waiting.setdefault(client, []).append(mine)
        mine.called.wait()
        return mine.admitted

    def _leave(self, client: str) -> None:
        """Send the oldest of a client away."""
        self._waiting[client].pop(0).called.set()
        if not self._waiting[client]:
            del self._waiting[client]

    def _next(self) -> None:
        with self._lock:
            if not self._waiting:
                self._busy = False
                self._lock.notify_all()
                return
            client = next(iter(self._waiting))
            waiting = self._waiting.pop(client)
            called = waiting.pop()
            if waiting:
                self._waiting[client] = waiting
            called.admitted = True
            called.called.set()


class _Waiting:
    """A thread that waits for its turn."""

    def __init__(self) -> None:
        self.called, self.admitted = threading.Event(), False


def _changed(path: Path) -> int:
    """When a file was last changed, in nanoseconds since 1970 UTC; 0 if it is not there."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _table(settings: dict[str, Any], name: str) -> dict[str, Any]:
    value = settings.pop(name, None) or {}
    if not isinstance(value, dict):
        raise ValueError(f"{name} must be a table")  # noqa: TRY004
    return value


def _reject_unknown(settings: dict[str, Any], where: str) -> None:
    for name in settings:
        raise ValueError(f"there is no setting {where}{name}, or it is not supported")


def _choice(settings: dict[str, Any], name: str, choices: dict[str, Any], default: str) -> Any:  # noqa: ANN401
    value = settings.pop(name, None) or default
    if value not in choices:
        raise ValueError(f"tls_server_config.{name}: {value!r} is not supported; {', '.join(choices)} are")
    return choices[value]


def _context(tls: dict[str, Any], folder: Path) -> tuple[ssl.SSLContext | None, frozenset[str], list[Path]]:
    """The TLS settings, the names that are allowed in client certificates, and the files that were read."""
    if not tls:
        return None, frozenset(), []
    names = [tls.pop(each, None) for each in ("cert_file", "key_file", "client_ca_file")]
    certificate, key, authority = [folder / str(each) if each else None for each in names]
    if certificate is None or key is None:
        raise ValueError("tls_server_config: cert_file and key_file are needed")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _choice(tls, "min_version", VERSIONS, "TLS12")
    context.maximum_version = _choice(tls, "max_version", VERSIONS, "TLS13")
    context.verify_mode = _choice(tls, "client_auth_type", CLIENT_AUTHENTICATION, "NoClientCert")
    if tls.pop("prefer_server_cipher_suites", True):
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    suites = [_openssl_name(str(each)) for each in tls.pop("cipher_suites", None) or []]
    for each in filter(None, (certificate, key, authority)):
        each.open("rb").close()  # OpenSSL's errors name no file
    try:
        context.load_cert_chain(certificate, key)
        if any(suites):
            context.set_ciphers(":".join(filter(None, suites)))
        if authority is not None:
            context.load_verify_locations(authority)
        elif context.verify_mode is not ssl.CERT_NONE:
            raise ValueError("tls_server_config: client_ca_file is needed to verify clients")
    except ssl.SSLError as error:
        raise ValueError(f"tls_server_config: {error.reason or error}") from error
    allowed = frozenset(map(str, tls.pop("client_allowed_sans", None) or []))
    if allowed and context.verify_mode is not ssl.CERT_REQUIRED:
        raise ValueError("tls_server_config: client_allowed_sans needs client_auth_type RequireAndVerifyClientCert")
    _reject_unknown(tls, "tls_server_config.")
    return context, allowed, [each for each in (certificate, key, authority) if each]


def _openssl_name(suite: str) -> str:
    """OpenSSL's name of a cipher suite, given Go's, such as TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256. Empty for the suites
    of TLS 1.3, which are always on."""
    exchange, found, cipher = suite.removeprefix("TLS_").partition("_WITH_")
    if not found:
        return ""
    cipher = cipher.replace("AES_128", "AES128").replace("AES_256", "AES256").replace("_CBC", "")
    cipher = cipher.removesuffix("_SHA256") if "CHACHA20" in cipher else cipher
    return f"{'' if exchange == 'RSA' else exchange + '-'}{cipher}".replace("_", "-")
