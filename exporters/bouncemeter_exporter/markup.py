"""Pages of HTML: elements whose texts are escaped, one style for all pages, bars and lines as SVG.

A page is one file: it needs no script and nothing from anywhere else.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files

__all__ = ["Child", "Html", "bars", "blocks", "element", "page", "printable", "style", "table"]


class Html(str):
    """Markup: a text that is not escaped again."""

    __slots__ = ()


Child = str | int | float | None | Iterable["Child"]
"""What an element contains: markup, text, numbers, or several of them; None is nothing."""

_EMPTY = frozenset({"meta", "link", "br", "hr", "col", "rect", "line", "path", "input"})


def element(name: str, /, *children: Child, **attributes: str | float | None) -> Html:
    """An element.

    Args:
        name: Its name.
        children: What it contains; all but `Html` is escaped.
        attributes: Its attributes; a name's last underscore is left out (`class_`), any other is a hyphen. None leaves
            an attribute out.
    """
    given = "".join(
        f' {key.removesuffix("_").replace("_", "-")}="{html.escape(printable(str(value)))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _EMPTY and not children:
        return Html(f"<{name}{given}/>" if name in ("rect", "line", "path") else f"<{name}{given}>")
    return Html(f"<{name}{given}>{''.join(map(_child, children))}</{name}>")


def _child(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Html):
        return child
    if isinstance(child, str):
        return html.escape(printable(child), quote=False)
    if isinstance(child, int | float):
        return f"{child:,}"
    return "".join(map(_child, child))


def printable(text: str) -> str:
    """A text with its control characters, and those that turn the direction of writing, made visible."""
    return text if text.isprintable() else "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


@cache
def style(*, mail: bool = False) -> str:
    """The style of all pages.

    Args:
        mail: Make it for programs that show mail: with the light colours in place of the variables.
    """
    text = files(__package__).joinpath("style.css").read_text("utf-8")
    if mail:
        colours = dict(re.findall(r"(--[a-z]+):(#[0-9a-f]+)", text.partition("}")[0]))
        text = text[text.index("*{") :]
        text = re.sub(r"var\((--[a-z]+)\)", lambda match: colours[match[1]], text)
    return text


def page(title: str, *body: Child, refresh: int | None = None, mail: bool = False) -> str:
    """A whole page.

    Args:
        title: Its title.
        body: What it contains.
        refresh: Seconds after which a browser loads it again.
        mail: Make it for programs that show mail.
    """
    head = [
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light" if mail else "light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("meta", http_equiv="refresh", content=refresh) if refresh else None,
        element("title", title),
        Html(f"<style>{style(mail=mail)}</style>"),
    ]
    document = element("html", element("head", head), element("body", element("main", *body)), lang="en")
    return f"<!DOCTYPE html>\n{document}\n"


def table(headings: Sequence[str], rows: Iterable[Sequence[Child]], *, caption: str | None = None) -> Html:
    """A table; a heading that begins with # marks a column of numbers."""
    classes = ["number" if each.startswith("#") else None for each in headings]
    head = [
        element("th", each.lstrip("#"), class_=kind, scope="col") for each, kind in zip(headings, classes, strict=True)
    ]
    body = [
        element(
            "tr",
            [
                element("td", cell, class_=kind, data_label=heading.lstrip("#"))
                for cell, kind, heading in zip(row, classes, headings, strict=True)
            ],
        )
        for row in rows
    ]
    inner = element("table", element("thead", element("tr", head)), element("tbody", body))
    return element("section", element("h2", caption) if caption else None, element("div", inner, class_="scroll"))


def bars(columns: Sequence[tuple[str, Mapping[str, int]]], series: Sequence[str], *, height: int = 120) -> Html:
    """A graph of stacked bars, as SVG, with a text for each bar that a pointer shows and a screen reader reads.

    Args:
        columns: A label and the numbers by series, for each bar.
        series: The series from the bottom up; each is a class of the style.
        height: The height in pixels.
    """
    most = max((sum(numbers.get(each, 0) for each in series) for _, numbers in columns), default=0) or 1
    width = 1000.0 / max(1, len(columns))
    drawn = []
    for place, (label, numbers) in enumerate(columns):
        top, parts = float(height), []
        for each in series:
            if size := numbers.get(each, 0) * height / most:
                size = max(size, 1.5)
                top -= size
                at = {"x": f"{place * width + width * 0.08:.1f}", "y": f"{top:.1f}"}
                parts.append(element("rect", **at, width=f"{width * 0.84:.1f}", height=f"{size:.1f}", class_=each))
        words = ", ".join(f"{numbers.get(each, 0):,} {each}" for each in series)
        drawn.append(element("g", element("title", f"{label}: {words}"), *parts))
    named = element(
        "svg", drawn, viewBox=f"0 -2 1000 {height + 4}", preserveAspectRatio="none", role="img", class_="bars"
    )
    ends = [columns[0][0], columns[-1][0]] if len(columns) > 1 else [label for label, _ in columns]
    return element("figure", named, element("figcaption", [element("span", each) for each in ends]))


def blocks(columns: Sequence[tuple[str, Mapping[str, int]]], series: Sequence[str], *, height: int = 80) -> Html:
    """The same as `bars`, of cells of a table: for mail, in which no SVG is shown."""
    most = max((sum(numbers.get(each, 0) for each in series) for _, numbers in columns), default=0) or 1
    cells = []
    for label, numbers in columns:
        words = ", ".join(f"{numbers.get(each, 0):,} {each}" for each in series)
        parts = [
            element("div", Html("&nbsp;"), class_=f"block {each}", style=f"height:{max(1, size)}px")
            for each in reversed(series)
            if numbers.get(each, 0) and (size := round(numbers[each] * height / most)) >= 0
        ]
        cells.append(element("td", parts, title=f"{label}: {words}", valign="bottom", height=height))
    ends = [columns[0][0], columns[-1][0]] if len(columns) > 1 else [label for label, _ in columns]
    drawn = element("table", element("tr", cells), class_="blocks", role="presentation")
    return element("figure", drawn, element("p", " to ".join(ends), class_="dim"))
