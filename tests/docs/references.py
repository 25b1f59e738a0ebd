"""The references in docs, written from the program itself: commands, settings, metrics."""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from bouncemeter.event import Kind, Outcome, Stage
from bouncemeter.knowledge.blocklists import blocklists
from bouncemeter.knowledge.codes import catalogue
from bouncemeter.knowledge.providers import providers
from bouncemeter.knowledge.reasons import reasons
from bouncemeter.plugin import parsers
from bouncemeter.tables import table
from bouncemeter_exporter.cli import program
from bouncemeter_exporter.config import SETTINGS
from bouncemeter_exporter.counting.counters import BOUNDS, Counters
from bouncemeter_exporter.counting.memory import Memory
from bouncemeter_exporter.counting.senders import SenderGroups
from bouncemeter_exporter.serving.exposition import Family
from bouncemeter_exporter.serving.metrics import MailCollector, process_families, take_snapshot
from typer.main import get_command

HERE = Path(__file__).parent
LABELS: dict[str, dict[str, Any]] = tomllib.loads((HERE / "labels.toml").read_text("utf-8"))


def rows(*lines: Sequence[str]) -> str:
    """A table, of which the first line is the heading."""
    first, *others = lines
    return "\n".join(f"| {' | '.join(line)} |" for line in (first, ["---"] * len(first), *others))


# --- commands ---------------------------------------------------------------------------------------------------------


def all_commands(name: str, group: Any) -> Iterator[tuple[str, Any]]:
    """Every command, with the words that call it."""
    for word, command in group.commands.items():
        words = f"{name} {word}".strip()
        if hasattr(command, "commands"):
            yield from all_commands(words, command)
        else:
            yield words, command


def commands() -> str:
    """The help of every command and its arguments."""
    parts = ["# Commands\n\nWritten from what `--help` says, by `make docs`."]
    for name, command in sorted(all_commands("", get_command(program()))):
        parts += [f"\n## bouncemeter {name}\n", inspect.cleandoc(command.help), "\n| argument | |\n|---|---|"]
        for parameter in command.params:
            names = " ".join(parameter.opts + parameter.secondary_opts) if parameter.opts[0][0] == "-" else ""
            if names != "--help -h":
                words = " ".join(filter(None, [names, parameter.metavar or ""])).replace("|", "\\|")
                ending = f" Default: `{found}`." if (found := default(parameter)) else ""
                parts.append(f"| `{words}` | {parameter.help or 'Show this message and exit.'}{ending} |")
    return "\n".join(parts) + "\n"


def default(parameter: Any) -> str:
    """The default of an option, as the help shows it."""
    shown = getattr(parameter, "show_default", False)
    if not isinstance(shown, str):
        shown = parameter.default if shown and not isinstance(parameter.default, bool | list) else None
    if isinstance(shown, float):
        shown = f"{shown:g}"
    return "" if shown is None or callable(shown) else str(shown)


# --- configuration ----------------------------------------------------------------------------------------------------


def example() -> str:
    """A settings file with every setting once."""
    parts, table = list[str](), ""
    for each in SETTINGS:
        head = each.key.rpartition(".")[0]
        if head != table or each.example.startswith("["):
            parts += ["", *([f"[{head}]"] if head else [])]
        table = head
        parts.append(each.example)
    return "\n".join(parts).strip()


CONFIGURATION = """\
# Configuration

`bouncemeter serve --config FILE` reads its settings from a TOML file. A flag overrides the file. `report` and `parse`
take the same file, and use its providers and reasons. Every setting that does not exist or is wrong gets a sentence
with the file, the line and the nearest valid name; `bouncemeter check --config FILE` says so without starting.

After a change, send SIGHUP: providers, reasons, senders and the content of `web.config_file` change at once, and
`serve` says which other settings wait for a restart. [Providers and reasons](reasons.md) of your own decide before
all else.

`make docs` writes this page from the program's own settings.

{settings}

## Example

Every setting once; none is required.

```toml
{example}
```

## Groups of senders

`mail_bounces_by_sender_total` says whose mail bounces: it counts what `mail_bounces_by_class_total` counts, by the
groups that `[senders.NAME]` names, and everybody else as `other`. Without a group there is no such metric, and
nothing is remembered for it. A name has at most 40 lower-case letters, digits, `-` and `_`.

- `domains`: endings of the envelope sender's domain. `news.example` is also `mail.news.example`, but not
  `oldnews.example`; of several that fit, the longest decides. An address that only the From header has is not in the
  log.
- `accounts`: who handed the mail over, in full, in upper or lower case: the SASL user of Postfix (`sasl_username=`),
  the authenticated user of Exim (`A=`) or its local user (`U=`), and `uid=33` for what Postfix's pickup(8) took from
  a local program of that user. The log of Exchange names none. An account decides before a domain.

A content filter that hands a message back changes neither. No domain and no account can be in two groups.

SIGHUP changes the groups at once, without a restart. All classes of a new group begin at 0 in the next scrape, and
`other` counts on. A group that is not named any more ends with its numbers: if it comes back, it begins at 0. The
ledger notes senders as messages come, from the first group on: messages that were in the queue before are `other`'s.
"""


def configuration() -> str:
    """Every setting."""
    lines = [
        (f"`{each.key}`", each.kind, f"`{each.default}`", f"`{each.flag}`" if each.flag else "", each.text)
        for each in SETTINGS
    ]
    heading = ("key", "type", "default", "flag", "what it does")
    return CONFIGURATION.format(settings=rows(heading, *lines), example=example())


# --- metrics ----------------------------------------------------------------------------------------------------------


def families() -> list[Family]:
    """Every metric of `serve`."""
    counters = Counters()
    counters.announce("postfix")
    counters.name_senders(SenderGroups({"newsletter": {"domains": ["news.example"]}}))
    snapshot = take_snapshot(counters, Memory(), [], {**counters.numbers(), "lines": {}, "dropped": {}})
    return [*MailCollector(lambda: snapshot, [], lambda: True).families(), *process_families()]


def _unit(name: str) -> str:
    return next((unit for unit in ("seconds", "bytes", "ratio") if name.endswith(unit)), "")


def _described(label: str, values: Iterable[str]) -> str:
    """The table of a label's values, all of which must be described."""
    texts = LABELS[label]["values"]
    assert {*texts} == {*values}, f"describe in labels.toml the values of {label}: {sorted({*texts} ^ {*values})}"
    return rows((label, "means"), *((f"`{value}`", text) for value, text in texts.items()))


def _code_rows() -> str:
    titles = {each.code[1:]: each.title for each in catalogue()}
    return rows(
        ("codes", "name in the IANA registry"),
        *(
            (f"`4.{subject}.{detail}` `5.{subject}.{detail}`", title.replace("|", "\\|"))
            for (subject, detail), title in titles.items()
        ),
    )


def _class_rows() -> str:
    subjects = table("knowledge/codes")["subjects"]
    return rows(
        ("classes", "about"),
        *((f"`4.{number}` `5.{number}`", text) for number, text in subjects.items()),
        ("`4.x` `5.x`", "A class that RFC 3463 does not know."),
    )


def _provider_rows() -> str:
    known = table("knowledge/providers")

    def names(provider: str, key: str) -> str:
        return ", ".join(known.get(provider, {}).get(key, ()))

    return rows(
        ("provider", "mail servers", "recipients' domains"),
        *((f"`{each}`", names(each, "hosts"), names(each, "domains")) for each in providers()),
    )


def _blocklist_rows() -> str:
    known = table("knowledge/blocklists")
    return rows(
        ("blocklist", "named in replies as"), *((f"`{each}`", ", ".join(known[each]["names"])) for each in blocklists())
    )


def _reason_rows() -> str:
    found = ((f"`{each.name}`", each.kind, each.meaning, each.todo) for each in reasons().values())
    return rows(("reason", "as a rule", "means", "what to do"), *found)


METRICS = """\
# Metrics

Every metric of `/metrics`, and every value of its labels. `make docs` writes this page from the program's own tables.
[How a recipient is counted](counting.md) says what exactly the counts mean.

No label ever has an address, and no remote server can create a value: all lists are closed, but those of `source` and
`version`. The [configuration](configuration.md) adds providers and names senders; without one, there is no
`mail_bounces_by_sender_total`. A metric has at most 10,000 series.

{metrics}

In OpenMetrics format, counters and the histogram carry the queue ID of one message as an exemplar. The `process_`
metrics are on Linux only. `bouncemeter_state_writable` is left out with `--no-state`.

## Labels"""


def metrics() -> str:
    """Every metric, and the values of its labels."""
    found = families()
    used = {*chain.from_iterable(family.names for family in found), "le"}
    assert used == {*LABELS}, f"describe in labels.toml: {sorted(used ^ {*LABELS})}"
    values = {
        "mta": _described("mta", parsers()),
        "kind": _described("kind", Kind),
        "outcome": _described("outcome", {*Outcome} - {Outcome.REJECTED}),
        "stage": _described("stage", Stage),
        "result": _described("result", ("event", "other", "unparsed")),
        "class": _class_rows(),
        "code": _code_rows(),
        "reason": _reason_rows(),
        "provider": _provider_rows(),
        "blocklist": _blocklist_rows(),
        "le": f"`{'` `'.join(BOUNDS)}`",
    }
    lines = []
    for family in found:
        name = f"{family.name}_total" if family.kind == "counter" else family.name
        labels = ", ".join(f"[{each}](#{each})" for each in family.names)
        lines.append((f"`{name}`", family.kind, _unit(family.name), labels, family.text))
    heading = ("metric", "type", "unit", "labels", "what it is")
    parts = [METRICS.format(metrics=rows(heading, *lines))]
    for label, row in LABELS.items():
        parts += [f"### {label}", str(row["text"]).strip()]
        if label in values:
            parts.append(values[label])
    return "\n\n".join(parts) + "\n"
