"""`bouncemeter service`: what systemd needs to run this installation."""

from __future__ import annotations

import os
import sys
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from bouncemeter_exporter.cli.options import fail

__all__ = ["service"]

UNIT, SETTINGS = "bouncemeter.service", "bouncemeter.toml"
PROGRAM = "/usr/bin/bouncemeter"
HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 - named, not used
"""What the unit hides from the service (`ProtectHome=`, `PrivateTmp=`)."""


def service(
    *,
    settings: Annotated[bool, typer.Option("--settings", help="Print a commented settings file instead.")] = False,
) -> None:
    """Print a systemd unit that runs this installation, or its settings file.

    Examples:

      bouncemeter service | sudo tee /etc/systemd/system/bouncemeter.service

      bouncemeter service --settings | sudo tee /etc/bouncemeter/bouncemeter.toml
    """
    if settings:
        typer.echo(_bundled(SETTINGS), nl=False)
        return
    program = Path(sys.argv[0]).absolute()
    for path in (program, program.resolve(), Path(__file__).resolve(), *map(Path, (sys.prefix, sys.base_prefix))):
        if any(path.is_relative_to(hidden) for hidden in HIDDEN):
            fail(f"a service cannot run what is in {path}: install bouncemeter for all users (docs/install.md)")
    words = [str(program)] if os.access(program, os.X_OK) else [sys.executable, "-m", "bouncemeter_exporter"]
    typer.echo(
        _bundled(UNIT).replace(PROGRAM, " ".join(f'"{word}"' if " " in word else word for word in words)), nl=False
    )


def _bundled(name: str) -> str:
    """A file of packaging/, from the installed package or from a clone."""
    bundled = files("bouncemeter_exporter") / "bundled" / name
    if not bundled.is_file():
        bundled = Path(__file__).parents[3] / "packaging" / name
    return bundled.read_text("utf-8")
