"""`bouncemeter codes`: the catalogue of enhanced status codes."""

from __future__ import annotations

import json
import os
from typing import Annotated

import typer

from bouncemeter_exporter.cli.options import InLanguage, Output, OutputFormat, language_of

__all__ = ["codes"]


def codes(
    *,
    output: Output = OutputFormat.TEXT,
    language: InLanguage = None,
    guide: Annotated[bool, typer.Option("--guide", help="Only the guide's 89 codes.")] = False,
) -> None:
    """List the catalogue of enhanced status codes.

    Examples:

      bouncemeter codes --guide

      bouncemeter codes --format json | jq '.[] | select(.kind == "hard") | .code'
    """
    from bouncemeter.knowledge.codes import catalogue

    from bouncemeter_exporter.reporting.explain import code_as_json

    language = language or language_of(os.environ)
    rows = [row for row in catalogue(language) if row.in_guide or not guide]
    if output is OutputFormat.JSON:
        typer.echo(json.dumps([code_as_json(row) for row in rows], indent=2))
    else:
        from bouncemeter_exporter.reporting.terminal import show_codes

        show_codes(rows, language)
