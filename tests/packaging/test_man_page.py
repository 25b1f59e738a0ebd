"""The man page says what `--help` says. `make docs` writes it again."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator

from bouncemeter_exporter.cli import program
from typer.main import get_command

from tests.conftest import ROOT
from tests.docs.references import all_commands, default

PAGE = ROOT / "packaging" / "bouncemeter.1"

HEAD = """\
.TH BOUNCEMETER 1
.SH NAME
bouncemeter \\- mail bounces of Postfix, Exim and Exchange, for Prometheus and for you
.SH SYNOPSIS
.B bouncemeter
.I COMMAND
.RI [ OPTION " ...] [" ARGUMENT " ...]"
.SH COMMANDS"""

FOOT = """\
.SH FILES
.TP
.I /etc/bouncemeter/bouncemeter.toml
The settings of the service, each with its default.
.TP
.I /var/lib/bouncemeter/state.db
The service's positions, counts and messages, across restarts.
.SH EXIT STATUS
0 if all went well, 1 if something could not be read or served, 2 for wrong arguments.
.SH SEE ALSO
.BR journalctl (1),
.BR promtool (1),
.UR https://github.com/bouncemeter/bouncemeter
.UE
"""


def _text(words: str) -> str:
    text = words.replace("\\", "\\e").replace("-", "\\-").replace("`", "").replace("~", "\\(ti").replace("^", "\\(ha")
    return text.replace("'", "\\(aq") if text.startswith(("'", ".")) else text


def _lines() -> Iterator[str]:
    yield HEAD
    for name, command in sorted(all_commands("", get_command(program()))):
        arguments = [each.metavar or each.name.upper() for each in command.params if each.opts[0][0] != "-"]
        yield f".SS {_text(' '.join(['bouncemeter', name, *arguments]))}"
        text, _, examples = inspect.cleandoc(command.help).partition("Examples:\n")
        yield "\n.PP\n".join(_text(" ".join(each.split())) for each in text.split("\n\n") if each.strip())
        for each in command.params:
            names = each.opts + each.secondary_opts if each.opts[0][0] == "-" else []
            if "--help" not in names:
                yield ".TP"
                words = " ".join(filter(None, [", ".join(names), each.metavar or ""]))
                yield f".B {_text(words or each.name.upper())}"
                ending = f" Default: {found}." if (found := default(each)) else ""
                yield _text(f"{each.help or 'Show this message and exit.'}{ending}")
        if examples:
            yield ".PP\nExamples:\n.EX"
            yield from (f"  {_text(each.strip())}" for each in examples.splitlines() if each.strip())
            yield ".EE"
    yield FOOT


def test_the_manual_matches_the_help() -> None:
    page = "\n".join(_lines())
    if os.environ.get("WRITE_DOCS"):
        PAGE.write_text(page)
    assert PAGE.read_text() == page
