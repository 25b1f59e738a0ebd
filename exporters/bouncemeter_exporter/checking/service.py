"""Whether `serve` could start with its settings: the address, the state, who may connect."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from bouncemeter_exporter.checking.finding import Finding, Level
from bouncemeter_exporter.config import Config
from bouncemeter_exporter.serving.access import Access, WebConfigError, check_trace
from bouncemeter_exporter.serving.state import State, StateError
from bouncemeter_exporter.sources.address import parse_listen_address, resolve
from bouncemeter_exporter.sources.permission import GROUPS, may_write

__all__ = ["check_service"]

WAIT = 10
"""Seconds that a server has to answer."""


def check_service(config: Config) -> Iterator[Finding]:
    """What there is to say of `serve` with these settings."""
    address = config.listen_address
    try:
        host, port = parse_listen_address(address)
    except ValueError as error:
        yield Finding(Level.WRONG, address, str(error))
        return
    yield from _check_access(config, (host, port))
    if port and (trouble := _trouble(host, port)) is not None:
        if not _is_bouncemeter(host, port, config):
            yield Finding(Level.WRONG, address, f"cannot listen there: {trouble}", "stop it, or --web.listen-address")
        else:
            yield Finding(Level.OK, address, "a bouncemeter serves there already, and has its state open")
        return
    if GROUPS and 0 < port < 1024 and os.geteuid() == 0:
        sentence = "free to listen on for root, but a service without rights cannot listen on a port below 1024"
        yield Finding(Level.WARNING, address, sentence, "take a higher one")
    else:
        yield Finding(Level.OK, address, "free to listen on")
    yield from _check_state(config.state)


def _check_access(config: Config, address: tuple[str, int]) -> Iterator[Finding]:
    path, said = config.web_config, list[str]()
    try:
        access = Access(path, said.append)
    except WebConfigError as error:
        yield Finding(Level.WRONG, str(path), str(error))
        return
    if path is not None:
        yield Finding(Level.OK, str(path), "the web configuration is right")
    if config.trace:
        try:
            check_trace(address, access)
        except ValueError as error:
            yield Finding(Level.WRONG, config.listen_address, str(error))
        except OSError:
            pass  # there is no such address: whether it can be listened on is the next check
    access.close()


def _trouble(host: str, port: int) -> str | None:
    """Why an address cannot be listened on; None if it can."""
    try:
        family, address = resolve(host, port, socket.SOCK_STREAM)
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, os.name == "posix")
            probe.bind(address)
            probe.listen()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _is_bouncemeter(host: str, port: int, config: Config) -> bool:
    """Whether a bouncemeter answers at an address. One that asks for a password or for TLS is believed to be one."""
    where = f"[{host}]" if ":" in host else host or "localhost"
    try:
        with urllib.request.urlopen(f"http://{where}:{port}{config.telemetry_path}", timeout=WAIT) as answer:
            return b"bouncemeter_build_info" in answer.read()
    except urllib.error.HTTPError as error:
        error.close()
        return error.code == 401 and config.web_config is not None
    except (OSError, ValueError):
        return config.web_config is not None


def _check_state(path: Path | None) -> Iterator[Finding]:
    if path is None:
        yield Finding(Level.NOTE, "state", "none is kept: counts begin at 0 at every start")
        return
    if trouble := may_write(path):
        remedy = "name another file with --state, or run this as the service's user"
        yield Finding(Level.WRONG, str(path), f"the state cannot be written: {trouble}", remedy)
        return
    if not path.exists() or not path.stat().st_size:
        yield Finding(Level.OK, str(path), "the state can be written; there is none yet")
        return
    said: list[str] = []
    with tempfile.TemporaryDirectory() as folder:  # opening a state changes it
        for each in (path, path.with_name(f"{path.name}-wal")):
            if each.exists():
                shutil.copy(each, folder)
        try:
            state = State(Path(folder) / path.name, said.append)
        except StateError as error:
            yield Finding(Level.WRONG, str(path), str(error).replace(f"{folder}/", f"{path.parent}/"))
            return
        known = sorted(state.positions)
        state.close()
    yield Finding(Level.OK, str(path), f"the state can be written, and goes on with {', '.join(known) or 'no source'}")
