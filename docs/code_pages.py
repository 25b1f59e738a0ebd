"""A page for each code of the catalogue, for the site: what `bouncemeter explain` says, with what belongs to it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from bouncemeter.event import Kind
from bouncemeter.knowledge.codes import CodeClass, Explanation, catalogue, explain_class
from bouncemeter.knowledge.reasons import meanings_of, reasons
from bouncemeter.tables import table
from bouncemeter_exporter.reporting.explain import NothingToExplainError, Understood, understand

REPLIES = Path(__file__).parents[1] / "tests" / "replies" / "known.tsv"
MOST_REPLIES = 8

ORPHAN = "---\norphan: true\n---"
"""The menu leaves codes out: with them, each page of the site would list all codes."""

INDEX = """
# All codes

A page for each enhanced status code of the
[IANA registry](https://www.iana.org/assignments/smtp-enhanced-status-codes/), in its soft form (4.x.x) and its hard
form (5.x.x). 89 of them, marked here, are in the guide to bounce codes. On the mail server, `bouncemeter explain 5.7.1`
says the same.

[Codes of single providers](providers.md), such as Microsoft's 5.7.606, have a page of their own.
""".strip()

PROVIDERS = """
# Codes of single providers

What providers mean by codes of their own: enhanced codes, ranges of them, and words in the reply. Where one of them is
in a provider's reply, it decides the reason ([how](../reasons.md)).
""".strip()

KINDS = {
    Kind.SOFT: "**Soft**: a temporary failure. The sending server tries again.",
    Kind.HARD: "**Hard**: a permanent failure. The sending server does not try again.",
}


def write(folder: Path) -> None:
    """Write all pages; one that has not changed is left as it is, so that Sphinx need not read it again."""
    folder.mkdir(exist_ok=True)
    found = dict(pages())
    for stale in {path.stem for path in folder.glob("*.md")} - found.keys():
        (folder / f"{stale}.md").unlink()
    for name, text in found.items():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")


def pages() -> Iterator[tuple[str, str]]:
    """The name and the text of each page."""
    yield "index", _index()
    yield "providers", _providers()
    for each in _classes():
        yield each.name, _class_page(each)
        for code in each.codes:
            yield str(code.code), _page(code)


def _classes() -> list[CodeClass]:
    names = dict.fromkeys((code.code.digit, code.code.subject) for code in catalogue())
    return [explain_class(*name) for name in names]


def _plain(text: str) -> str:
    """A text in which nothing is markup."""
    return re.sub(r"([\\`*_\[\]<>#|{}$~])", r"\\\1", text)


def _link(code: Explanation) -> str:
    return f"[{code.code}]({code.code}.md)"


def _toctree(names: Iterable[str]) -> str:
    return "\n".join(["```{toctree}", ":hidden:", "", *names, "```"])


def _entries(names: Iterable[str]) -> str:
    """Entries of the index: the site's search finds no other numbers."""
    return f"```{{index}} {', '.join(dict.fromkeys(names))}\n```"


def _rows(codes: Iterable[Explanation]) -> str:
    lines = ["| code | name | usual reason | in the guide |", "|---|---|---|---|"]
    lines += [
        f"| {_link(each)} | {_plain(each.title)} | `{each.reason}` | {'yes' if each.in_guide else ''} |"
        for each in codes
    ]
    return "\n".join(lines)


def _index() -> str:
    parts = [INDEX]
    for each in _classes():
        parts += [f"## {each.name}, {each.kind}", _plain(each.meaning), _rows(each.codes)]
    parts.append(_toctree(["providers", *(each.name for each in _classes())]))
    return "\n\n".join(parts) + "\n"


def _class_page(each: CodeClass) -> str:
    digit, subject = map(int, each.name.split("."))
    other = f"{9 - digit}.{subject}"
    parts = [
        f"# {each.name}.x, {each.kind}",
        KINDS[each.kind] if each.kind else "",
        _plain(each.meaning),
        _rows(each.codes),
        f"The same codes in their other form: [{other}]({other}.md).",
    ]
    return "\n\n".join(parts) + "\n"


def _providers() -> str:
    known = table("knowledge/provider_codes")["codes"]
    parts = [PROVIDERS, _entries(code for row in known for code in row.get("codes", ()))]
    rows: dict[str, list[str]] = {}
    for row in known:
        codes = ", ".join([*row.get("codes", ()), *(f"`{each}`" for each in row.get("words", ()))])
        todo = row.get("todo") or reasons()[row["reason"]].todo
        cells = (codes, f"`{row['reason']}`", _plain(row["meaning"]), _plain(todo), _plain(row["source"]))
        rows.setdefault(row["provider"], []).append(f"| {' | '.join(cells)} |")
    for provider in sorted(rows):
        heading = "| codes, words | reason | meaning | what to do | source |\n|---|---|---|---|---|"
        parts += [f"## {provider}", "\n".join([heading, *rows[provider]])]
    return "\n\n".join(parts) + "\n"


def _page(code: Explanation) -> str:
    title = f"# {code.code} {_plain(code.title)}"
    parts = [ORPHAN, _entries([str(code.code)]), title, KINDS[code.kind] if code.kind else "", _plain(code.meaning)]
    if code.other_reading:
        parts.append(f"Some senders and guides read it otherwise: {_plain(code.other_reading)}")
    parts += [
        f"Reason: `{code.reason}`. {_plain(reasons()[code.reason].meaning)}",
        "This is what the code alone says; the reply's words [often say more](../reasons.md).",
        "## Likely causes",
        "\n".join(f"- {_plain(each)}" for each in code.causes),
        "## What the postmaster does",
        _plain(code.postmaster),
        "## What the sender does",
        _plain(code.sender),
    ]
    if theirs := meanings_of(code.code):
        rows = [
            f"| {_plain(each.provider)} | {_plain(each.meaning)} | {_plain(each.todo or reasons()[each.reason].todo)} |"
            f" {_plain(each.source)} |"
            for each in theirs
        ]
        parts += [
            "## What single providers mean by it",
            "\n".join(["| provider | meaning | what to do | source |", "|---|---|---|---|", *rows]),
        ]
    if replies := _replies().get(str(code.code)):
        heading = ["| from | reason | reply |", "|---|---|---|"]
        parts += ["## Replies with this code", "\n".join([*heading, *list(replies.values())[:MOST_REPLIES]])]
    guide = " It is one of the guide's 89 bounce codes." if code.in_guide else ""
    parts += [
        "## Related codes",
        "\n".join(_related(code)),
        "## Source",
        f"{_plain(code.reference)}, and the IANA registry of enhanced status codes.{guide}",
    ]
    return "\n\n".join(parts) + "\n"


def _related(code: Explanation) -> Iterator[str]:
    digit, subject, detail = code.code
    same = [each for each in catalogue() if each.code[1:] == (subject, detail) and each.code != code.code]
    yield from (f"- {_link(each)}, its {each.kind} form" for each in same)
    class_name = code.code.code_class
    yield f"- [{class_name}.x]({class_name}.md), all codes of its class"
    if code.reason != "other":
        alike = [each for each in catalogue() if each.reason == code.reason and each.code.digit == digit]
        yield from (
            f"- {_link(each)} {_plain(each.title)}, with the same reason" for each in alike if each.code != code.code
        )


@cache
def _replies() -> dict[str, dict[tuple[str, str], str]]:
    """Replies as servers write them, by code: one for each provider and reason, as a row."""
    found: dict[str, dict[tuple[str, str], str]] = {}
    for line in REPLIES.read_text("utf-8").splitlines():
        provider, reply, reason = line.split("\t")
        try:
            understood = understand(reply)
        except NothingToExplainError:
            continue
        if isinstance(understood, Understood):
            row = f"| {_plain(provider)} | `{reason}` | {_plain(reply)} |"
            found.setdefault(str(understood.code.code), {}).setdefault((provider, reason), row)
    return found
