"""Takes a line out of what containers and collectors of logs wrap around it.

Input: a line of a log that has no syslog prefix, such as

    mail-1  | Apr 10 23:18:39 mx postfix/smtp[640]: ...                     docker compose, also in colours
    2026-04-10T23:18:39.123456789Z Apr 10 23:18:39 mx postfix/smtp[640]: ...    docker logs -t
    2026-04-10T23:18:39.123456789Z stdout F Apr 10 23:18:39 mx ...          Kubernetes (CRI)
    [pod/mail-0/postfix] Apr 10 23:18:39 mx postfix/smtp[640]: ...          kubectl logs --prefix
    {"log":"Apr 10 23:18:39 mx postfix/smtp[640]: ...\\n","time":"..."}      Docker's json-file
    {"MESSAGE":"...","SYSLOG_IDENTIFIER":"postfix/smtp","_PID":"640"}       journald, rsyslog, Fluent Bit, Vector

Output: the line inside. It keeps its own time stamp; if it has none, it gets the wrapper's. Where a collector names
the program, the text is that program's message, whatever line it imitates. A text is always one line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import Any, NamedTuple

import pyparsing as pp

from bouncemeter.grammar import (
    bsd_stamp,
    dated_stamp,
    iso_stamp,
    levelled_origin,
    own_stamp,
    priority,
    regex,
    rest,
    syslog_prefix,
    syslog_stamp,
)
from bouncemeter.lowering import Lowered, lowered
from bouncemeter.patterns import compiled

__all__ = [
    "Unwrapper",
    "field_text",
    "stream_prefix",
    "unwrapped",
    "values_inside",
    "without_wrapper",
    "wrapped_prefix",
    "wrapper",
]

# --- wrappers before a line ---------------------------------------------------------------------------------------

_colours = regex(r"(?:\x1b\[[0-9;]*+m)*+")
_compose = regex(r"\[?+[A-Za-z0-9][A-Za-z0-9_.@-]{0,253}+\]?+ *+(?:\x1b\[[0-9;]*+m)*+\| ?")
_pod = regex(r"\[[^\s\[\]/]{1,253}+(?:/[^\s\[\]/]{1,253}+){1,2}+\] ")
_stream = (pp.Literal("stdout") | "stderr")("stream") + " " + regex("[FP]")("part") + regex("(?::[^ ]*+)?+(?: |$)")

_layer = lowered(
    _colours
    + ((_compose | _pod)("name") + _colours + regex(" ?") | iso_stamp("stamp") + regex(" +") + pp.Opt(_stream))
    + rest("inner")
)
_any_line = lowered(syslog_prefix)
_whole_stamp = lowered(own_stamp + pp.StringEnd())
_begins_with_stamp = lowered(priority | own_stamp)

# --- the same for blocks: wrappers around whole lines --------------------------------------------------------------

_named = _colours + (_compose | _pod) + _colours + regex(" ?")
_whole_stream = regex(r"std(?:out|err) F(?::[^ \n]*+)?+ ")

wrapper = pp.Opt(_named) + pp.Opt(iso_stamp + regex(" +") + pp.Opt(_whole_stream) + pp.FollowedBy(priority | own_stamp))
"""Any wrapper but JSON, before a line that begins with its own stamp."""

without_wrapper = pp.NotAny(regex(r"[ {\x1b]|<[0-9]|std(?:out|err) [FP]") | own_stamp | _compose | _pod)
"""What follows a stamp looks like no wrapper, so that the stamp is not a wrapper's."""

wrapped_prefix = wrapper + pp.Opt(priority) + syslog_stamp("stamp") + " " + without_wrapper + levelled_origin
"""A line with a prefix of its own, perhaps in a wrapper: gives `stamp` and `origin`."""

stream_prefix = pp.Opt(_named) + iso_stamp("stamp") + " " + _whole_stream + without_wrapper + levelled_origin
"""A line without its own stamp in Kubernetes' wrapper: gives `stamp` and `origin`."""

# --- collectors' JSON -----------------------------------------------------------------------------------------------

TEXTS = ("MESSAGE", "message", "log", "msg", "line", "short_message", "_raw", "event.original")
PROGRAMS = (
    *("SYSLOG_IDENTIFIER", "syslogtag", "syslog-tag", "syslog_tag", "programname", "program", "appname", "app-name"),
    *("app_name", "ident", "syslog_identifier", "log.syslog.appname", "process.name", "_COMM"),
)
HOSTS = ("_HOSTNAME", "hostname", "host", "host.name", "host.hostname", "fromhost", "HOST", "log.syslog.hostname")
PIDS = ("SYSLOG_PID", "_PID", "procid", "pid", "process.pid", "log.syslog.procid")
TIMES = (
    *("_SOURCE_REALTIME_TIMESTAMP", "__REALTIME_TIMESTAMP", "timereported", "timestamp", "@timestamp", "time", "ts"),
    *("date", "timegenerated"),
)
OUTER = ("_source", "result")
"""Elasticsearch's and Splunk's exports have the fields in an object inside."""

CONTAINERS = ("CONTAINER_NAME", "CONTAINER_ID", "CONTAINER_ID_FULL")
"""With one of these, the program is the container's name: its output has lines of its own."""

PART = 16_384
"""Docker cuts a line into parts of this many bytes; only the last ends in a line feed."""

MAX_LINE, MAX_HELD, MAX_DEPTH = 65_536, 64, 4
"""Characters of a line that are kept until its end comes; lines joined at a time; wrappers around a wrapper."""

_TAG = re.compile(r"\s*([^\s\[\]:]{1,128})(?:\[([0-9]{1,10})\])?:?\s*")
_WORD = re.compile(r"[^\s\[\]]{1,255}")
_DIGITS = re.compile(r"[0-9]{9,19}(?:\.[0-9]*)?")


class _Keys(NamedTuple):
    """Which keys of an object there are for each part of a line, the most trusted ones first."""

    texts: tuple[str, ...]
    times: tuple[str, ...]
    hosts: tuple[str, ...]
    programs: tuple[str, ...]
    pids: tuple[str, ...]
    containers: tuple[str, ...]


@lru_cache(maxsize=64)
def _keys(keys: tuple[str, ...]) -> _Keys:
    """The same for an object with these keys: the objects in a log have few different ones."""
    found = set(keys)
    return _Keys(
        *(tuple(key for key in of if key in found) for of in (TEXTS, TIMES, HOSTS, PROGRAMS, PIDS, CONTAINERS))
    )


class _Layer(NamedTuple):
    """One wrapper.

    Attributes:
        inner: What is inside.
        stamp: Its time stamp; empty if it has none.
        name: Which container or stream it is from, as far as it says so.
        is_part: Whether the line inside continues in a later one.
        is_line: Whether a line is inside, which may be wrapped again; else the line was made of the wrapper's fields.
    """

    inner: str
    stamp: str = ""
    name: str = ""
    is_part: bool = False
    is_line: bool = True


class Unwrapper:
    """Takes lines out of their wrappers, and joins lines that came in parts.

    Attributes:
        parts: The beginnings of lines that continue, by container and stream.
    """

    def __init__(self) -> None:
        self.parts: dict[str, str] = {}

    def __call__(self, line: str) -> str | None:
        """The line inside; empty if it is a part of a line that continues; None if a line is in no wrapper."""
        inner, stamp, where = line, "", ""
        for _ in range(MAX_DEPTH):
            layer = _from_json(inner) if inner.startswith("{") else _from_text(inner)
            if layer is None:
                break
            where, stamp = where + layer.name, layer.stamp or stamp
            inner = self.parts.pop(where, "") + layer.inner
            if layer.is_part:
                self._hold(where, inner)
                return ""
            if not layer.is_line:
                return inner
            if stamp and _begins_with_stamp.matches(inner):
                return inner
        whole = f"{stamp} {inner}" if stamp else inner
        return whole if whole != line else None

    def _hold(self, where: str, part: str) -> None:
        if len(self.parts) >= MAX_HELD:
            del self.parts[next(iter(self.parts))]
        self.parts[where] = part[:MAX_LINE]

    def block(self, text: str, form: Lowered) -> str | None:
        """The next lines, each with its line feed: those in JSON are taken out if a form reads what is inside, all
        others stay as they are. None if a line may come in parts: then read the lines one by one."""
        if self._has_parts(text):
            return None
        lines = [inner or line for inner, line in zip(_in_json_files(text), text.split("\n"), strict=True)]
        for place, line in enumerate(lines):
            layer = _from_json(line) if line.startswith("{") and not form.matches(line) else None
            if layer is None:
                continue
            if layer.is_part:
                return None
            inner = _only_layer(layer)
            if inner is not None and form.matches(inner):
                lines[place] = inner
        return "\n".join(lines)

    def may_join(self, text: str) -> bool:
        """Whether lines of a text may be parts of one line."""
        return "\n{" in text or self._has_parts(text)

    def _has_parts(self, text: str) -> bool:
        return bool(self.parts) or "stdout P" in text or "stderr P" in text


def _in_json_files(text: str) -> list[str]:
    """What is in each line of a text that has Docker's form; empty for any other line. All are taken out of their
    quotes together."""
    found = _docker_line().findall(text)
    inside = "\\n".join([own or (bare and f"{stamp} {bare}") for own, bare, stamp in found])
    return str(json.loads(f'"{inside}"')).split("\n")


@cache
def _docker_line() -> re.Pattern[str]:
    """Any line. If it is a whole one in the form of Docker's json-file, this gives the text inside, with a stamp of its
    own or without, and the wrapper's stamp."""
    text = r'(?:[^"\\\x00-\x1f]++|\\["\\bft]|\\u00(?:3[CcEe]|26))++'  # as in its quotes
    name = r'"[^"\\\x00-\x1f]*+"'
    no_wrapper = (
        rf"(?![ {{\\]|<[0-9]|std(?:out|err) [FP]|\[[^\s\[\]/\\]*+[/\\]|{_compose.pattern}|{iso_stamp.pattern}"
        rf"|{dated_stamp.pattern})"
    )
    own = rf"(?={bsd_stamp.pattern} |(?>{iso_stamp.pattern}) {no_wrapper})({text})"
    bare = rf"{no_wrapper}({text})"
    return compiled(
        rf'(?m)^(?:\{{"log":"(?:{own}|{bare})(?:\\r)?+\\n","stream":"std(?:out|err)",'
        rf'(?:"attrs":\{{{name}:{name}(?:,{name}:{name})*+\}},)?+"time":"((?>{iso_stamp.pattern}))"\}}|[^\n]*+)$'
    )


def _only_layer(layer: _Layer) -> str | None:
    """The line inside a wrapper; None if it is in another one."""
    inner = layer.inner
    if not layer.is_line or (layer.stamp and _begins_with_stamp.matches(inner)):
        return inner
    if inner.startswith("{") or _from_text(inner) is not None:
        return None
    return f"{layer.stamp} {inner}" if layer.stamp else inner


def unwrapped(line: str) -> str | None:
    """What is in a line, perhaps only a part of another line; None if it is in no wrapper."""
    unwrap = Unwrapper()
    inner = unwrap(line)
    return inner if inner != "" else next(iter(unwrap.parts.values()), "")


def values_inside(form: Lowered, line: str, unwrap: Callable[[str], str | None] = unwrapped) -> dict[str, str] | None:
    """What a form finds in a line; if the line is not of this form, what it finds in the line inside its wrapper."""
    found = form.values(line)
    if found is None and (inner := unwrap(line)) is not None:
        found = form.values(inner)
    return found


def _from_text(line: str) -> _Layer | None:
    found = _layer.values(line)
    if found is None:
        return None
    name = found.get("name") or found.get("stream") or ""
    return _Layer(found["inner"], found.get("stamp", ""), name, is_part=found.get("part") == "P")


def _from_json(line: str) -> _Layer | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict):
        return None
    fields = dict(_flat(next((inner for key in OUTER if isinstance(inner := entry.get(key), dict) and inner), entry)))
    keys = _keys(tuple(fields))
    raw = _first(fields, keys.texts)
    if not raw:
        return None
    text, stamp = raw.rstrip("\r\n").replace("\n", "\\n"), _stamp(_first(fields, keys.times))
    is_part = (fields.get("logtag") or fields.get("_p")) in ("P", "partial") or (
        "log" in fields
        and "stream" in fields
        and not raw.endswith("\n")
        and len(raw.encode("utf-8", "replace")) >= PART
    )
    tag = None if keys.containers else _TAG.fullmatch(_first(fields, keys.programs))
    if tag is None or _is_line_of(tag[1], text):
        return _Layer(text, stamp, fields.get("stream", ""), is_part=is_part)
    number = tag[2] or _first(fields, keys.pids)
    pid = number if number.isascii() and number.isdecimal() and len(number) <= 10 else "0"
    host = _first(fields, keys.hosts)
    start = f"{stamp} {host} " if stamp and _WORD.fullmatch(host) else f"{stamp} " if stamp else ""
    return _Layer(f"{start}{tag[1]}[{pid}]: {text.lstrip(' ')}", is_line=False)


def _is_line_of(program: str, text: str) -> bool:
    """Whether a text is a whole line of the program that the collector names, perhaps without what follows a slash."""
    found = _any_line.values(text)
    return found is not None and found["program"].partition("/")[0] == program.partition("/")[0]


def _flat(entry: dict[str, Any], path: str = "", depth: int = 3) -> Iterator[tuple[str, str]]:
    """The fields of an object, those of objects inside it with the path before their names."""
    for key, value in entry.items():
        if isinstance(value, str):
            yield path + key, value
        elif isinstance(value, dict):
            if depth > 1:
                yield from _flat(value, f"{path}{key}.", depth - 1)
        elif (text := field_text(value)) is not None:
            yield path + key, text


def field_text(value: object) -> str | None:
    """A field's text. journalctl gives bytes that are not UTF-8 as numbers, and a field that occurs twice as a list."""
    if isinstance(value, list):
        if value and all(type(each) is int and 0 <= each < 256 for each in value):
            return bytes(value).decode("utf-8", "backslashreplace")
        return field_text(value[0]) if value and not isinstance(value[0], list) else None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else None


def _first(fields: dict[str, str], keys: Iterable[str]) -> str:
    """The first of some fields that is there and not empty."""
    return next((fields[key] for key in keys if fields.get(key)), "")


def _stamp(text: str) -> str:
    """A time as a stamp: it may be one already, or seconds, milliseconds, microseconds or nanoseconds since 1970."""
    if _DIGITS.fullmatch(text):
        seconds = float(text)
        while seconds > 1e11:
            seconds /= 1000
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")
    return text if _whole_stamp.matches(text) else ""
