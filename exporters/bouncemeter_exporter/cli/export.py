"""What `rules export` and `grafana export` share: an option for each threshold, and files in a folder."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from bouncemeter_exporter.cli.options import fail

__all__ = ["ExporterUrl", "Folder", "Runbook", "checked_url", "with_thresholds", "write"]


def with_thresholds(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each threshold of the alerts."""
    from bouncemeter_exporter.grafana.rules import thresholds

    signature = inspect.signature(command, eval_str=True)
    fixed = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
    options = []
    for name, threshold in thresholds().items():
        most = 1 if name.endswith(("_ratio", "_share")) else 1e12
        option = typer.Option(
            f"--{name.replace('_', '-')}", metavar="NUMBER", help=threshold.text, min=0, max=most, callback=_finite
        )
        kind = inspect.Parameter.KEYWORD_ONLY
        options.append(inspect.Parameter(name, kind, default=threshold.value, annotation=Annotated[float, option]))
        command.__annotations__[name] = Annotated[float, option]
    command.__signature__ = signature.replace(parameters=[*fixed, *options])  # type: ignore[attr-defined]
    return command


def _finite(value: float) -> float:
    if value != value:  # noqa: PLR0124 - only what is no number differs from itself
        raise typer.BadParameter("nan is not a number to compare with")
    return value


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Write files into a folder, and print their paths."""
    for name, text in files.items():
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        except (FileExistsError, NotADirectoryError):
            fail(f"cannot write {path}: {folder} is not a folder")
        except OSError as error:
            fail(f"cannot write {path}: {error.strerror}")
        typer.echo(path)


def checked_url(url: str, name: str) -> str:
    """A URL, if it is one of http or https; else end the command."""
    if re.fullmatch(r"https?://[^\s/]+(/\S*)?", url) is None:
        fail(f"{name}: {url!r} is not a URL such as https://grafana.example.org", 2)
    return url.rstrip("/")


Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write to; created if it does not exist.")]
ExporterUrl = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Where a browser reaches the exporter's pages; alerts and dashboards then link to messages, which"
        " `serve --web.trace` shows.",
    ),
]
Runbook = Annotated[str, typer.Option(metavar="URL", help="URL of the runbook, which alerts link to.")]
