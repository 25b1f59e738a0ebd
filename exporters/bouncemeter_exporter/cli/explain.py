"""`bouncemeter explain`: what a code, a reply or a line of a log means."""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated

import typer

from bouncemeter_exporter.cli.options import InLanguage, Output, OutputFormat, codes_and_classes, fail, language_of

__all__ = ["explain"]

MOST = 1_000_000
"""Characters of standard input that are read."""


def explain(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CODE|REPLY|LINE",
            help="A code or a class, an SMTP reply however it is quoted, or a whole line of a log; - or nothing is"
            " standard input.",
            autocompletion=codes_and_classes,
        ),
    ] = None,
    output: Output = OutputFormat.TEXT,
    language: InLanguage = None,
) -> None:
    """Explain what a code, a reply or a line of a log means, why it happens and what to do.

    Examples:

      bouncemeter explain 5.7.1

      bouncemeter explain 5.7

      bouncemeter explain 5.7.1 --language sv

      bouncemeter explain "550-5.7.26 This mail has been blocked because the sender is unauthenticated"

      grep 4A1B2C3D4E /var/log/mail.log | bouncemeter explain
    """
    from bouncemeter_exporter.reporting.explain import NothingToExplainError, understand

    words = what or ["-"]
    if words == ["-"] and sys.stdin.isatty():
        fail("name a code or a reply, or pipe one in", 2)
    try:
        found = understand(
            sys.stdin.read(MOST) if words == ["-"] else " ".join(words), language or language_of(os.environ)
        )
    except NothingToExplainError as error:
        fail(error, 2)
    if output is OutputFormat.JSON:
        typer.echo(json.dumps(found.as_json(), indent=2))
    else:
        found.show()
