"""The configuration of `serve`: a TOML file. Flags override its settings.

sources = ["/var/log/mail.log", { path = "/logs/exchange", format = "exchange" }]
from_start = false
state = "/var/lib/bouncemeter/state.db"     # false: keep none

[web]
listen_address = ":19525"
telemetry_path = "/metrics"
config_file = "/etc/bouncemeter/web.yml"

[ledger]
max_age = "6d"
max_messages = 1000000

[providers.partner]
hosts = ["mx.partner.example"]
domains = ["partner.example"]

[reasons]
mailbox_full = ["box of * is resting"]
"""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bouncemeter.knowledge.providers import add_providers, check_providers
from bouncemeter.knowledge.reasons import add_phrases, check_phrases

from bouncemeter_exporter.counting.memory import MAX_AGE, MAX_MESSAGES

__all__ = ["Config", "ConfigError", "SourceConfig", "default_state", "read_config", "seconds"]

DEFAULT_LISTEN_ADDRESS = ":19525"
DEFAULT_TELEMETRY_PATH = "/metrics"
STATE = "state.db"


class ConfigError(ValueError):
    """The configuration is wrong. Its text names the file, the setting and what is expected."""


def default_state() -> Path:
    """Where the state is kept by default: the service's own folder, root's, or the user's."""
    if folder := os.environ.get("STATE_DIRECTORY"):  # systemd's
        return Path(folder.partition(":")[0]) / STATE
    if os.geteuid() == 0:
        return Path("/var/lib/bouncemeter") / STATE
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "bouncemeter" / STATE


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """One source, as the command line names it, and its format; if None, it is detected."""

    path: str
    format: str | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """All of `serve`'s settings."""

    sources: tuple[SourceConfig, ...] = field(default=())
    from_start: bool = False
    state: Path | None = field(default_factory=default_state)
    web_config: Path | None = None
    listen_address: str = DEFAULT_LISTEN_ADDRESS
    telemetry_path: str = DEFAULT_TELEMETRY_PATH
    max_age: float = MAX_AGE
    max_messages: int = MAX_MESSAGES
    providers: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    reasons: dict[str, list[str]] = field(default_factory=dict)

    def add_knowledge(self) -> None:
        """Add the providers and the phrases of reasons to those that are known, before any log is read."""
        add_providers(self.providers)
        add_phrases(self.reasons)


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def seconds(duration: str) -> float:
    """The seconds in a duration such as `6d`, `36h` or `1d12h`, as Prometheus writes them.

    Raises:
        ValueError: The text is not a duration.
    """
    if re.fullmatch(r"(?:[0-9]{1,9}[smhdw])+", duration) is None:
        raise ValueError(f"{duration!r} is not a duration such as 6d or 36h")
    return float(sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"([0-9]+)([smhdw])", duration)))


def read_config(path: Path) -> Config:
    """Read a configuration file.

    Raises:
        ConfigError: The file cannot be read, or a setting is unknown or of the wrong type.
    """
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    web = _take(data, "web", dict, path, default={})
    ledger = _take(data, "ledger", dict, path, default={})
    config = Config(
        sources=tuple(_source(each, path) for each in _take(data, "sources", list, path, default=[])),
        from_start=_take(data, "from_start", bool, path, default=False),
        state=_state(data, path),
        web_config=_file(_take(web, "config_file", str, path, default="")),
        listen_address=_take(web, "listen_address", str, path, default=DEFAULT_LISTEN_ADDRESS),
        telemetry_path=_take(web, "telemetry_path", str, path, default=DEFAULT_TELEMETRY_PATH),
        max_age=_duration(_take(ledger, "max_age", str, path, default=""), path),
        max_messages=_take(ledger, "max_messages", int, path, default=MAX_MESSAGES),
        providers=_providers(_take(data, "providers", dict, path, default={}), path),
        reasons=_reasons(_take(data, "reasons", dict, path, default={}), path),
    )
    for name in (*data, *(f"web.{key}" for key in web), *(f"ledger.{key}" for key in ledger)):
        raise ConfigError(f"{path}: there is no setting {name}")
    return config


def _take(data: dict[str, Any], name: str, kind: type, path: Path, *, default: Any) -> Any:  # noqa: ANN401
    """Take a setting out of its table."""
    value = data.pop(name, default)
    if not isinstance(value, kind):
        words = {str: "a string", bool: "true or false", int: "a number", list: "a list", dict: "a table"}
        raise ConfigError(f"{path}: {name} must be {words[kind]}")
    return value


def _state(data: dict[str, Any], path: Path) -> Path | None:
    value = data.pop("state", None)
    match value:
        case None:
            return default_state()
        case False:
            return None
        case str():
            return Path(value)
        case _:
            raise ConfigError(f"{path}: state must be a file name or false")


def _file(name: str) -> Path | None:
    return Path(name) if name else None


def _providers(given: dict[str, Any], path: Path) -> dict[str, dict[str, list[str]]]:
    for name, entry in given.items():
        if not isinstance(entry, dict):
            raise ConfigError(f"{path}: providers.{name} must be a table of hosts and domains")
    try:
        check_providers(given)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    return given


def _reasons(given: dict[str, Any], path: Path) -> dict[str, list[str]]:
    try:
        check_phrases(given)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    return given


def _duration(text: str, path: Path) -> float:
    try:
        return seconds(text) if text else MAX_AGE
    except ValueError as error:
        raise ConfigError(f"{path}: ledger.max_age: {error}") from error


def _source(value: object, path: Path) -> SourceConfig:
    match value:
        case str():
            return SourceConfig(value)
        case {"path": str(where), "format": str(name), **rest} if not rest:
            return SourceConfig(where, name)
        case {"path": str(where), **rest} if not rest:
            return SourceConfig(where)
        case _:
            raise ConfigError(f'{path}: a source is a path, or {{ path = "...", format = "..." }}')
