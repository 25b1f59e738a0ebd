"""The configuration of `serve`: a TOML file (docs/configuration.md). Flags override its settings."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from bouncemeter.knowledge.providers import add_providers, check_providers
from bouncemeter.knowledge.reasons import add_phrases, check_phrases

from bouncemeter_exporter.counting.memory import MAX_AGE, MAX_MESSAGES
from bouncemeter_exporter.counting.senders import SendersError, check_senders
from bouncemeter_exporter.sources.address import parse_listen_address

__all__ = ["SETTINGS", "Config", "ConfigError", "Setting", "SourceConfig", "default_state", "read_config", "seconds"]

STATE = "state.db"


Kind = TypeVar("Kind")


class ConfigError(ValueError):
    """The configuration is wrong. Its text names the file, the line, the setting and what is expected."""


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """One source, as the command line names it, and its format; if None, it is detected."""

    path: str
    format: str | None = None


def seconds(duration: str) -> float:
    """The seconds in a duration such as `6d`, `36h` or `1d12h`, as Prometheus writes them.

    Raises:
        ValueError: The text is not a duration.
    """
    if re.fullmatch(r"(?:[0-9]{1,9}[smhdw])+", duration) is None:
        raise ValueError(f"{duration!r} is not a duration such as 6d or 36h")
    return float(sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"([0-9]+)([smhdw])", duration)))


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def default_state() -> Path:
    """Where the state is kept by default: the service's own folder, root's, or the user's."""
    if folder := os.environ.get("STATE_DIRECTORY"):  # systemd's
        return Path(folder.partition(":")[0]) / STATE
    if not hasattr(os, "geteuid"):  # Windows
        return Path(os.environ.get("PROGRAMDATA") or Path.home()) / "bouncemeter" / STATE
    if os.geteuid() == 0:
        return Path("/var/lib/bouncemeter") / STATE
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "bouncemeter" / STATE


# --- how a value is read; each raises ValueError with what is expected ------------------------------------------------


def _expect(value: object, kind: type[Kind], words: str) -> Kind:
    if type(value) is kind:
        return value
    raise ValueError(f"must be {words}")


def _sources(value: object) -> tuple[SourceConfig, ...]:
    return tuple(map(_source, _expect(value, list, "a list")))


def _source(value: object) -> SourceConfig:
    match value:
        case str():
            return SourceConfig(value)
        case {"path": str(where), "format": str(name), **rest} if not rest:
            return SourceConfig(where, name)
        case {"path": str(where), **rest} if not rest:
            return SourceConfig(where)
        case _:
            raise ValueError('has a source that is neither a path nor { path = "...", format = "..." }')


def _state(value: object) -> Path | None:
    return None if value is False else Path(_expect(value, str, "a file name or false"))


def _file(value: object) -> Path | None:
    return Path(_text(value)) if value else None


def _text(value: object) -> str:
    return _expect(value, str, "a string")


def telemetry_path(value: object) -> str:
    """A path of the metrics.

    Raises:
        ValueError: It is none.
    """
    path = _text(value)
    if not re.fullmatch(r"/[!-~]+", path):
        raise ValueError(f"{path!r} is not a path such as /metrics")
    if re.match("/(?:-|trace)(?:/|$)", path):
        raise ValueError(f"{path!r} is a path of other pages")
    return path


def _address(value: object) -> str:
    parse_listen_address(_text(value))
    return _text(value)


def _truth(value: object) -> bool:
    return _expect(value, bool, "true or false")


def _number(value: object) -> int:
    number = _expect(value, int, "a number")
    if number < 1:
        raise ValueError("must be 1 or more")
    return number


def _duration(value: object) -> float:
    try:
        return seconds(_text(value))
    except ValueError:
        raise ValueError('must be a duration such as "6d" or "36h"') from None


def _providers(value: object) -> dict[str, Any]:
    given = _expect(value, dict, "a table")
    if wrong := [name for name, entry in given.items() if not isinstance(entry, dict)]:
        raise ValueError(f"must be tables of hosts and domains, which {wrong[0]} is not")
    check_providers(given)
    return given


def _senders(value: object) -> dict[str, Any]:
    given = _expect(value, dict, "tables")
    check_senders(given)
    return given


def _reasons(value: object) -> dict[str, Any]:
    given = _expect(value, dict, "a table")
    check_phrases(given)
    return given


# --- the settings -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Setting:
    """What is known of one setting.

    Attributes:
        key: Its name in the file, with its table: `web.listen_address`.
        field: Its name in `Config`.
        read: Turns the file's value into the program's; raises ValueError with what is expected.
        kind: What its value is, in a word or two.
        default: Its default, as it is shown.
        flag: The flag or argument of `serve` that overrides it, or nothing.
        example: An example, in TOML.
        text: What it does.
    """

    key: str
    field: str
    read: Callable[[object], object]
    kind: str
    default: str
    flag: str
    example: str
    text: str


SETTINGS = (
    Setting(
        *("sources", "sources", _sources, "list", "this machine's mail log", "SOURCE"),
        example='sources = ["/var/log/mail.log", { path = "/logs/exchange", format = "exchange" }]',
        text="What to follow: files, FIFOs, directories, patterns, the journal, and addresses to listen on for syslog."
        " A table with `path` and `format` names the format.",
    ),
    Setting(
        *("from_start", "from_start", _truth, "true or false", "false", "--from-start"),
        example="from_start = true",
        text="Read a file without a saved position from its start rather than from its end.",
    ),
    Setting(
        *("state", "state", _state, "file, or false"),
        default="state.db in $STATE_DIRECTORY, /var/lib/bouncemeter (root), ~/.local/state/bouncemeter, or on Windows"
        " %PROGRAMDATA%\\bouncemeter",
        flag="--state, --no-state",
        example='state = "/var/lib/bouncemeter/state.db"',
        text="The file that keeps positions, counts and messages across restarts; false keeps none.",
    ),
    Setting(
        *("web.listen_address", "listen_address", _address, "host:port", ":19525", "--web.listen-address"),
        example='listen_address = "127.0.0.1:19525"',
        text="Where to listen.",
    ),
    Setting(
        *("web.telemetry_path", "telemetry_path", telemetry_path, "path", "/metrics", "--web.telemetry-path"),
        example='telemetry_path = "/metrics"',
        text="The path of the metrics.",
    ),
    Setting(
        *("web.config_file", "web_config", _file, "file", "none", "--web.config.file"),
        example='config_file = "/etc/bouncemeter/web.yml"',
        text="TLS, client certificates and basic authentication, in the format of Prometheus' exporters.",
    ),
    Setting(
        *("web.trace", "trace", _truth, "true or false", "false", "--web.trace"),
        example="trace = true",
        text="Show messages, with their addresses, on the pages below `/trace`. They must be behind a password or a"
        " client certificate, or on loopback alone.",
    ),
    Setting(
        *("ledger.max_age", "max_age", _duration, "duration", "6d", "--ledger.max-age"),
        example='max_age = "8d"',
        text="Forget a message after this time without a line: a little over the queue lifetime.",
    ),
    Setting(
        *("ledger.max_messages", "max_messages", _number, "number", "1000000", "--ledger.max-messages"),
        example="max_messages = 200000",
        text="Most messages to remember.",
    ),
    Setting(
        *("providers", "providers", _providers, "tables", "none", ""),
        example='[providers.partner]\nhosts = ["mx.partner.example"]\ndomains = ["partner.example"]',
        text="Providers of your own: by name, the endings of relays' host names and of recipients' domains.",
    ),
    Setting(
        *("reasons", "reasons", _reasons, "table of lists", "none", ""),
        example='[reasons]\nmailbox_full = ["box of * is resting"]',
        text="Phrases of your own: by reason, texts that decide it; `*` stands for anything between two parts.",
    ),
    Setting(
        *("senders", "senders", _senders, "tables", "none", ""),
        example='[senders.newsletter]\ndomains = ["news.example"]\n\n'
        '[senders.shop]\naccounts = ["shop@example.com", "uid=33"]',
        text="Groups of senders for `mail_bounces_by_sender_total`, at most 50: by name, endings of envelope senders'"
        " domains, and accounts that hand mail over.",
    ),
)
"""Every setting of the file. The references in docs/ are made of this table."""


@dataclass(frozen=True, slots=True)
class Config:
    """All of `serve`'s settings; see `SETTINGS`."""

    sources: tuple[SourceConfig, ...] = ()
    from_start: bool = False
    state: Path | None = field(default_factory=default_state)
    web_config: Path | None = None
    listen_address: str = ":19525"
    telemetry_path: str = "/metrics"
    trace: bool = False
    max_age: float = MAX_AGE
    max_messages: int = MAX_MESSAGES
    providers: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    reasons: dict[str, list[str]] = field(default_factory=dict)
    senders: dict[str, dict[str, list[str]]] = field(default_factory=dict)

    def add_knowledge(self) -> None:
        """Add the providers and the phrases of reasons to those that are known, before any log is read."""
        add_providers(self.providers)
        add_phrases(self.reasons)


def read_config(path: Path) -> Config:
    """Read a configuration file.

    Raises:
        ConfigError: The file cannot be read, or settings are unknown or wrong: a line for each of them.
    """
    try:
        text = path.read_text("utf-8")
        data = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    lines, values, wrong = text.splitlines(), dict[str, Any](), list[tuple[int, str]]()
    known = {setting.key: setting for setting in SETTINGS}
    tables = {each.partition(".")[0] for each in known if "." in each}
    for key, value in _flat(data, known):
        line = _line_of(key, lines)
        if key in tables:
            wrong.append((line, f"{key} must be a table"))
            continue
        if key not in known:
            close = get_close_matches(key.lower(), [*known, *tables], 1)
            close = close or [each for each in known if each.endswith(f".{key.lower()}")]
            advice = f"did you mean {close[0]}?" if close else f"the settings are {', '.join(known)}"
            wrong.append((line, f"there is no setting {key}; {advice}"))
            continue
        try:
            values[known[key].field] = known[key].read(value)
        except ValueError as error:
            sentence = str(error)
            if isinstance(error, SendersError):
                wrong.append((_line_of(error.key, lines), sentence))
                continue
            wrong.append((line, f"{key} {sentence}" if sentence.startswith(("must", "has")) else sentence))
    if wrong:
        raise ConfigError("\n".join(f"{path}:{line}: {sentence}" for line, sentence in sorted(wrong)))
    return Config(**values)


def _flat(data: Mapping[str, Any], known: Mapping[str, object], table: str = "") -> Iterator[tuple[str, Any]]:
    """Keys with their tables, and values. A table of which no setting is part is one value."""
    for name, value in data.items():
        key = f"{table}{name}"
        if isinstance(value, dict) and any(each.startswith(f"{key}.") for each in known):
            yield from _flat(value, known, f"{key}.")
        else:
            yield key, value


def _line_of(key: str, lines: list[str]) -> int:
    """The number of the line in which a key of the file is set, or its table is; 1 if that cannot be found."""
    table = ""
    for number, line in enumerate(lines, 1):
        if heading := re.match(r"\s*\[+([^\]]+)\]", line):
            name = _plain(heading[1])
            table = f"{name}."
            if name == key or name.startswith(f"{key}."):
                return number
        elif (found := re.match(r"""\s*([\w."' -]+?)\s*=""", line)) and f"{table}{_plain(found[1])}" == key:
            return number
    parent = key.rpartition(".")[0]
    return _line_of(parent, lines) if parent else 1


def _plain(key: str) -> str:
    """A key without the quotes and blanks that TOML allows."""
    return re.sub(r"[\s\"']", "", key)
