"""The pages below `/trace`: one message's story, or the messages that a search finds.

They show addresses and replies, all of which strangers may have written: `markup` escapes them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from operator import itemgetter
from typing import Any
from urllib.parse import parse_qs, quote, unquote

from bouncemeter_exporter.counting.counters import POLICY
from bouncemeter_exporter.markup import Child, Html, element, page, table
from bouncemeter_exporter.serving.metrics import Snapshot
from bouncemeter_exporter.serving.tracing import BusyError, Tracing, TracingError, is_queue_id

__all__ = ["PATH", "Stories", "found_page", "message_page"]

PATH = "/trace"
"""The path of the search; a message's page is below it."""

LATEST = 50
"""Messages in a list of the latest."""

MOST = 500
"""Steps and recipients that a page shows."""

WORDS = {"delivered": "delivered", "deferred": "soft", "bounced": "hard", "expired": "expired", "rejected": "rejected"}
"""Outcomes, and the style's class of each."""

FIELDS = (
    ("queue_id", "Queue ID", "4A1B2C3D57"),
    ("recipient", "Recipient", "ann@example.org"),
    ("sender", "Sender", "news@example.org"),
)
"""What can be searched for: the parameter, its name, and an example."""

LABELS = ("kind", "class", "code", "reason", "provider")
"""The labels of bounces by which the latest messages can be chosen."""

_Record = Mapping[str, Any]


class Stories:
    """Answers requests for these pages.

    Args:
        tracing: Runs the searches.
        snapshot: Returns the current numbers, with the messages behind them.
    """

    def __init__(self, tracing: Tracing, snapshot: Callable[[], Snapshot]) -> None:
        self._tracing, self._snapshot = tracing, snapshot

    def answer(self, path: str, query: str) -> tuple[HTTPStatus, str]:
        """The page of a path and a query, with its status.

        Args:
            path: `PATH`, or a path below it.
            query: `queue_id=`, `recipient=`, `sender=`, `message-id=` or `reply=`, and what to look for in the logs; or
                some of `LABELS`, for the latest messages that bounced so.
        """
        asked = {name: values[0].strip() for name, values in parse_qs(query, max_num_fields=8).items()}
        if below := path.removeprefix(PATH).removeprefix("/"):
            asked = {"queue_id": unquote(below)}
        if asked and asked.keys() <= set(LABELS):
            return HTTPStatus.OK, latest_page(asked, self._snapshot())
        by, text = next(iter(asked.items()), ("", ""))
        return self._searched(by, text) if text else (HTTPStatus.OK, self._asking(None))

    def _searched(self, by: str, text: str) -> tuple[HTTPStatus, str]:
        """The page of what the logs say."""
        try:
            found = self._tracing.message(text) if by == "queue_id" else self._tracing.find(by, text)
        except ValueError as error:
            return HTTPStatus.BAD_REQUEST, self._asking(str(error))
        except BusyError as error:
            return HTTPStatus.SERVICE_UNAVAILABLE, self._asking(str(error))
        except TracingError as error:
            return HTTPStatus.INTERNAL_SERVER_ERROR, self._asking(str(error))
        if found is None:
            return HTTPStatus.NOT_FOUND, self._asking(f"The logs that are kept say nothing about {text}.")
        return HTTPStatus.OK, message_page(found) if by == "queue_id" else found_page(text, found)

    def _asking(self, sentence: str | None) -> str:
        """The page on which to ask, with a sentence that says why there is nothing to show."""
        title = "Trace a message"
        shown = element("p", sentence, class_="card") if sentence else None
        return page(f"{title}: bouncemeter", element("h1", title), shown, _forms(self._tracing.unsearchable), _back())


def message_page(story: _Record) -> str:
    """One message's story, as `trace --format json` prints it."""
    return page(
        f"{story['queue_id']}: bouncemeter", element("h1", f"Message {story['queue_id']}"), _story(story), _back()
    )


def found_page(text: str, found: _Record) -> str:
    """The messages that a search found, as `trace --format json` prints them."""
    if found.get("story"):
        return message_page(found["story"])
    rows = [
        (
            _word(_time(each.get("time"))),
            [[_message(name), " "] for name in each.get("queue_ids") or [each.get("queue_id")] if name],
            _long(each.get("sender")),
            _long(
                [
                    element("div", [_outcome(to["outcome"]), f" {to['recipient']}"])
                    for to in _some(each.get("recipients"))
                ]
            ),
            element("b", each["code"], class_="code") if each.get("code") else "",
            _long(each.get("text")),
        )
        for each in reversed(found.get("messages", []))
    ]
    more = f", and {found['more']:,} earlier ones" if found.get("more") else ""
    headings = ("Time", "Queue ID", "Sender", "Recipients", "Code", "Last reply")
    body = table(headings, rows, caption=f"{len(rows):,} message{'' if len(rows) == 1 else 's'}{more}")
    return page(f"{text}: bouncemeter", element("h1", "Messages found by ", element("code", text)), body, _back())


def latest_page(chosen: Mapping[str, str], snapshot: Snapshot) -> str:
    """The latest messages that bounced with some labels: those of the exemplars, and of the last refusals.

    It needs no log, and names no address.
    """
    counted = snapshot.counters["bounces"]
    found = [
        (each.time or 0.0, each.queue_id, dict(zip(counted.names, labels, strict=True)))
        for labels, each in counted.exemplars.items()
    ]
    found += [
        (each.time, each.queue_id, {**each._asdict(), "kind": "hard", "class": POLICY})
        for each in snapshot.day.refusals
        if each.queue_id
    ]
    latest: dict[str, tuple[Child, ...]] = {}
    for moment, queue_id, labels in sorted(found, key=itemgetter(0, 1), reverse=True):
        if queue_id not in latest and all(labels[name] == value for name, value in chosen.items()):
            latest[queue_id] = (
                _word(time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))),
                _message(queue_id),
                labels["mta"],
                element("b", labels["code"], class_="code"),
                _word(labels["reason"]),
                _word(labels["provider"]),
            )
    rows = list(latest.values())[:LATEST]
    title = ", ".join(f"{name} {value}" for name, value in chosen.items())
    nothing = None if rows else element("p", "None since bouncemeter was started.", class_="card")
    body = table(("Time", "Queue ID", "Server", "Code", "Reason", "Provider"), rows) if rows else nothing
    link = None
    if code := chosen.get("code", ""):
        words = f"Search the logs for replies that contain {code}"
        link = element("p", element("a", words, href=f"{PATH}?reply={quote(code, safe='')}"))
    return page(f"{title}: bouncemeter", element("h1", f"The latest messages with {title}"), body, link, _back())


def _story(story: _Record) -> list[Html]:
    recipients, entries = story["recipients"], story["entries"]
    others = [(_message(each["queue_id"]), each["what"]) for each in story["messages"]]
    several = len(others) > 1

    def row(each: _Record, *cells: Child) -> tuple[Child, ...]:
        return (*cells, _message(each["queue_id"])) if several else cells

    more = ("Queue ID",) * several
    ends = [row(each, _long(each["recipient"]), _outcome(each["outcome"])) for each in recipients[:MOST]]
    steps = [row(each, _word(_time(each["time"])), *_step(each)) for each in entries[:MOST]]
    parts = [table(("Recipient", "Outcome", *more), ends, caption="What became of it")] if ends else []
    if several:
        parts.append(table(("Queue ID", "What it is"), others, caption="Messages in this story"))
    parts.append(table(("Time", "What", "Details", *more), steps, caption="Step by step"))
    if len(recipients) > MOST or len(entries) > MOST:
        rest = "Use `bouncemeter trace` on the server for the rest."
        parts.append(element("p", f"Only the first {MOST} recipients and steps are shown. {rest}", class_="dim"))
    return parts


def _step(entry: _Record) -> tuple[Child, Child]:
    """What happened, and its details."""
    if "outcome" not in entry:
        texts = (("from", entry["sender"]), ("client", entry["client"]), ("to", entry["recipient"]))
        details = [element("div", f"{name} {text}") for name, text in texts if text]
        if entry["related"]:
            details.append(element("div", "related to ", _message(entry["related"])))
        return _word(entry["step"]), _long(details)
    details = [element("div", f"to {entry['recipient']}")] if entry["recipient"] else []
    if entry["relay"]:
        details.append(element("div", f"by {entry['relay']}", class_="dim"))
    if entry["text"]:
        details.append(element("div", entry["text"]))
    if entry.get("meaning"):
        code, reason = element("b", entry["code"], class_="code"), entry["reason"]
        details.append(
            element("div", code, f" {entry['meaning']}", f" Reason: {reason}." if reason else None, class_="dim")
        )
    return _outcome(entry["outcome"]), _long(details)


def _outcome(outcome: str) -> Html:
    return element("span", outcome, class_=f"word {WORDS.get(outcome, 'waiting')}")


def _word(text: str) -> Html:
    return element("span", text, class_="word")


def _long(texts: Child) -> Html:
    """Texts of strangers, which may have no blank at which to break the line."""
    return element("div", texts, class_="long")


def _time(text: str | None) -> str:
    return (text or "").replace("T", " ")


def _message(queue_id: str) -> Html:
    """A queue ID, which leads to its message."""
    shown = element("code", queue_id, class_="word" if is_queue_id(queue_id) else None)
    return element("a", shown, href=f"{PATH}/{quote(queue_id, safe='')}") if is_queue_id(queue_id) else shown


def _some(recipients: Sequence[_Record] | None) -> Sequence[_Record]:
    """The first recipients of a message in a list."""
    return (recipients or [])[:10]


def _forms(unsearchable: Sequence[str]) -> Html:
    forms = [
        element(
            "form",
            element("label", f"{words} ", element("input", name=name, placeholder=example, maxlength=320, size=32)),
            " ",
            element("button", "Search"),
            action=PATH,
            method="get",
        )
        for name, words, example in FIELDS
    ]
    left = None
    if unsearchable:
        left = element("p", f"Not searched, for nothing of it is kept: {', '.join(unsearchable)}.", class_="dim")
    return element("section", forms, left)


def _back() -> Html:
    links = (element("a", "Status", href="/"), " · ", element("a", "Trace another message", href=PATH))
    return element("p", links, class_="dim")
