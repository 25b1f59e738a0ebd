"""TLS and basic authentication, from a file in the format that Prometheus' exporters share (exporter-toolkit).

The file, and the files that it names, are read again when they change: renewing a certificate needs no restart.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["Access", "WebConfigError"]

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

MAX_ANSWERS = 256
"""Password checks whose result is remembered: bcrypt is slow on purpose."""

NOBODY = b"$2b$10$kAGqq/QguRpcrzWj56G9tOw3pXKQORtwi1Lm0uiaJBJVe7bTHglxm"
"""A hash to compare with if the user name is unknown, so that the time taken does not reveal it."""


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
        self._lock = threading.Lock()
        self._users: dict[str, bytes] = {}
        self._answers: dict[bytes, bool] = {}
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

    def allows(self, authorization: str | None) -> bool:
        """Whether a request with this `Authorization` header is allowed."""
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
        return bool(colon) and self._knows(name, password.encode())

    def _knows(self, name: str, password: bytes) -> bool:
        known = self._users.get(name)
        question = hashlib.sha256(repr((name, known, password)).encode()).digest()
        with self._lock:  # one at a time: guessing passwords must not take all cores
            answer = self._answers.get(question)
            if answer is None:
                answer = _matches(password, known or NOBODY) and known is not None
                if len(self._answers) >= MAX_ANSWERS:
                    del self._answers[next(iter(self._answers))]
                self._answers[question] = answer
        return answer

    # --- reading the file ---------------------------------------------------------------------------------------

    def _refresh(self) -> None:
        """Read the file again if it or a certificate has changed."""
        if self._path is None or self._changes() == self._seen:
            return
        with self._lock:
            if self._changes() == self._seen:
                return
            try:
                self._load(self._path)
            except WebConfigError as error:
                self._seen = self._changes()
                self._say(f"{error}; the previous settings stay in force")

    def _changes(self) -> tuple[int, ...]:
        return tuple(each.stat().st_mtime_ns if each.exists() else 0 for each in self._files)

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
        except (ValueError, OSError) as error:
            reason = f"{error.filename or ''}: {error.strerror}" if isinstance(error, OSError) else str(error)
            raise WebConfigError(f"{path}: {reason.removeprefix(': ')}") from error
        self._users, self._context, self._allowed_names, self.headers = hashes, context, names, headers
        self._files = (path, *files)
        self._seen = self._changes()

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


def _headers(given: dict[str, Any]) -> dict[str, str]:
    for name in given.keys() - HEADERS:
        raise ValueError(f"http_server_config.headers: {name} cannot be set; {', '.join(sorted(HEADERS))} can")
    return {name: " ".join(str(value).split()) for name, value in given.items()}


def _hashes(users: dict[str, Any]) -> dict[str, bytes]:
    """The bcrypt hashes of passwords, by user."""
    hashes = {str(name): str(value).encode() for name, value in users.items()}
    for name, value in hashes.items():
        if not re.fullmatch(rb"\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53}", value):
            raise ValueError(f"basic_auth_users.{name}: not a bcrypt hash")
    if hashes:
        _matches(b"", NOBODY)  # fails now if bcrypt is missing
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
