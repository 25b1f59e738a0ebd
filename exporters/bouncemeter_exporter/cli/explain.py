"""`bouncemeter explain`: what a code, a reply or a line of a log means."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from bouncemeter_exporter.cli.options import Output, OutputFormat, fail

__all__ = ["explain"]


def explain(
    what: Annotated[
        list[str], typer.Argument(metavar="CODE|REPLY|LINE", help="A code, an SMTP reply, or a whole line of a log.")
    ],
    output: Output = OutputFormat.TEXT,
) -> None:
    """Explain what a code, a reply or a line of a log means, why it happens and what to do.

    Examples:

      bouncemeter explain 5.7.1

      bouncemeter explain "550-5.7.26 This mail has been blocked because the sender is unauthenticated"
    """
    from bouncemeter_exporter.reporting.explain import NothingToExplainError, understand

    try:
        found = understand(" ".join(what))
    except NothingToExplainError as error:
        fail(error, 2)
    if output is OutputFormat.JSON:
        typer.echo(json.dumps(found.as_json(), indent=2))
    else:
        found.show()
