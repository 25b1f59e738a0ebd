"""What `rules export` and `grafana export` share: an option for each threshold, and files in a folder."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from bouncemeter_exporter.cli.options import fail

__all__ = ["Folder", "Runbook", "with_thresholds", "write"]


def with_thresholds(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each threshold of the alerts."""
    from bouncemeter_exporter.grafana.rules import thresholds

    signature = inspect.signature(command, eval_str=True)
    fixed = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
    options = []
    for name, threshold in thresholds().items():
        option = typer.Option(f"--{name.replace('_', '-')}", metavar="NUMBER", help=threshold.text, min=0)
        kind = inspect.Parameter.KEYWORD_ONLY
        options.append(inspect.Parameter(name, kind, default=threshold.value, annotation=Annotated[float, option]))
        command.__annotations__[name] = Annotated[float, option]
    command.__signature__ = signature.replace(parameters=[*fixed, *options])  # type: ignore[attr-defined]
    return command


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Write files into a folder, and print their paths."""
    for name, text in files.items():
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        except OSError as error:
            fail(f"cannot write {path}: {error.strerror}")
        typer.echo(path)


Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write to; created if it does not exist.")]
Runbook = Annotated[str, typer.Option(metavar="URL", help="URL of the runbook, which alerts link to.")]
