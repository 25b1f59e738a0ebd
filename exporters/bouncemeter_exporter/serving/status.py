"""The page at `/`: what the exporter reads, what happened in the last hour and day, and who waits for what.

It is made of the same committed numbers as the metrics and, like them, names no address.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from bouncemeter import __version__
from bouncemeter.event import EnhancedCode
from bouncemeter.knowledge.codes import Explanation, explain

from bouncemeter_exporter.counting.counters import Exemplar
from bouncemeter_exporter.counting.recent import DAY, HOUR, SLOT, Code, Day
from bouncemeter_exporter.markup import Child, Html, bars, element, page, table
from bouncemeter_exporter.serving.metrics import Snapshot
from bouncemeter_exporter.sources.source import Source

__all__ = ["REFRESH", "Limit", "StatusPage"]

REFRESH = 30
"""Seconds after which a browser loads the page again."""

MOST = 12
"""Rows of a table, except those of sources and of alerts."""

MAX_SOURCES = 100
"""Sources that are shown."""

BOUNCES, TRAFFIC = ("soft", "hard"), ("delivered", "rejected")
"""The series of the two graphs."""

TILES = (
    ("delivered", "delivered"),
    ("hard", "hard bounces"),
    ("soft", "soft bounces"),
    ("expired", "given up after retries"),
    ("rejected", "rejected by this server"),
)


class Limit(NamedTuple):
    """A number that an alert compares against.

    Attributes:
        name: Its name.
        text: What it means.
        value: The number.
    """

    name: str
    text: str
    value: float


class StatusPage:
    """Makes the page.

    Args:
        snapshot: Returns the current snapshot.
        sources: The sources being read; the page asks for their size and whether they can be read.
        state_writable: Returns whether the state could be written; None if no state is kept.
        is_ready: Returns whether all that was there before has been read.
        telemetry_path: The path of the metrics.
        limits: What the alerts compare against.
        message_url: The start of the URL of a message's page; empty if there are none.
    """

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        sources: Sequence[Source],
        state_writable: Callable[[], bool | None],
        is_ready: Callable[[], bool],
        telemetry_path: str,
        limits: Sequence[Limit] = (),
        message_url: str = "",
    ) -> None:
        self._snapshot, self._sources, self._state_writable = snapshot, sources, state_writable
        self._is_ready, self._telemetry_path, self._limits = is_ready, telemetry_path, limits
        self._message_url = message_url

    def render(self) -> str:
        """The page as it is now."""
        snapshot, now = self._snapshot(), time.time()
        day, slot = snapshot.day, int(now // SLOT)
        codes = day.codes(slot - DAY + 1), day.codes(slot - HOUR + 1)
        return page(
            "bouncemeter",
            element("h1", "bouncemeter"),
            element(
                "p",
                f"Mail bounces by enhanced status code. As of {_moment(now, now)}; ",
                f"this page loads itself again every {REFRESH} seconds.",
                class_="dim",
            ),
            *self._notices(snapshot, slot),
            _tiles(snapshot, slot),
            *_graphs(day, now),
            self._top_codes(snapshot, now, *codes),
            _waiting(snapshot, now),
            self._refusals(day, now),
            _rejections(*codes),
            self._sources_read(snapshot, now),
            self._thresholds(),
            self._links(),
            refresh=REFRESH,
        )

    def _notices(self, snapshot: Snapshot, slot: int) -> Iterable[Html]:
        """What a reader should know before the numbers."""
        if not self._is_ready():
            read = sum(snapshot.offsets.values())
            size = sum(max(source.size, snapshot.offsets.get(source.name, 0)) for source in self._sources)
            yield _notice(f"Still reading what was there before: {_bytes(read)} of {_bytes(size)}. Numbers grow.")
        elif not snapshot.day.outcomes(slot - DAY + 1):
            yield _notice("No mail in the last day yet. What the log says from now on appears here within seconds.")
        if self._state_writable() is False:
            yield _notice("The state cannot be written: reading waits, and the numbers stand still.", "hard")
        for source in self._sources[:MAX_SOURCES]:
            if not source.up:
                yield _notice(f"{source.name} cannot be read now.", "hard")

    def _top_codes(self, snapshot: Snapshot, now: float, day: Counter[Code], hour: Counter[Code]) -> Html:
        latest: dict[tuple[str, str, str], Exemplar] = {}
        for (_, kind, _, code, reason, _), each in snapshot.counters["bounces"].exemplars.items():
            if (each.time or 0.0) > max(now - DAY * SLOT, latest.get((kind, code, reason), each).time or 0.0) - 1e-6:
                latest[kind, code, reason] = each
        headings = ["Code", "Meaning", "Kind", "Reason", "#Last hour", "#Last day", "Mostly by"]
        rows: list[list[Child]] = []
        for (kind, code, reason), in_hour, in_day, provider in _by_code(day, hour, ("hard", "soft")):
            cells = (element("span", kind, class_=kind), _word(reason), in_hour, in_day, _word(provider))
            rows.append([*_code(code), *cells])
            if self._message_url:
                rows[-1][0] = element("a", rows[-1][0], href=f"{self._message_url.rstrip('/')}?code={code}")
                message = latest.get((kind, code, reason))
                rows[-1].append(self._message(message.queue_id) if message else "")
        if self._message_url:
            headings.append("Latest message")
        return _section("Top codes", headings, rows, "No bounces in the last day.")

    def _refusals(self, day: Day, now: float) -> Html:
        rows = [
            (
                _word(_moment(each.time, now)),
                self._message(each.queue_id),
                each.mta,
                *_code(each.code, brief=True),
                _word(each.reason),
                _word(each.provider),
            )
            for each in day.refusals
            if each.time > now - DAY * SLOT
        ]
        headings = ("Time", "Queue ID", "Server", "Code", "Meaning", "Reason", "Provider")
        return _section("Last refusals for policy or security (5.7)", headings, rows, "None in the last day.")

    def _message(self, queue_id: str) -> Html:
        shown = element("code", queue_id, class_="word")
        return element("a", shown, href=f"{self._message_url}{queue_id}") if self._message_url and queue_id else shown

    def _sources_read(self, snapshot: Snapshot, now: float) -> Html:
        lines: dict[str, Counter[tuple[str, str]]] = {}
        for (name, mta, result), number in snapshot.lines.items():
            lines.setdefault(name, Counter())[mta, result] = int(number)
        rows, found = [], Counter[str]()
        for counted in lines.values():
            found.update({mta for mta, _ in counted})
        for source in self._sources[:MAX_SOURCES]:
            counted = lines.get(source.name, Counter())
            formats = sorted({mta for mta, _ in counted} | source.parsers())
            read = snapshot.offsets.get(source.name, 0)
            size = max(read, source.size)
            # The last outcome is known by format: of several sources with one format, it says nothing of each.
            shared = any(found[mta] > 1 for mta in formats)
            latest = max((snapshot.last_event.get(mta, 0.0) for mta in formats), default=0.0)
            rows.append(
                (
                    element("code", source.name, class_="long"),
                    _word(", ".join(formats) or "not known yet"),
                    counted.total(),
                    sum(number for (_, result), number in counted.items() if result == "unparsed"),
                    f"{_bytes(read)} of {_bytes(size)}",
                    _bytes(size - read),
                    _word("-" if shared else _moment(latest, now) if latest else "none yet"),
                )
            )
        headings = ("Source", "Format", "#Lines", "#Unparsed", "#Read", "#Behind", "Last outcome")
        caption = "Sources"
        if len(self._sources) > MAX_SOURCES:
            caption = f"Sources: the first {MAX_SOURCES} of {len(self._sources):,}"
        return table(headings, rows, caption=caption)

    def _thresholds(self) -> Html | None:
        if not self._limits:
            return None
        rows = [(element("code", each.name), each.text, f"{each.value:g}") for each in self._limits]
        return element(
            "details",
            element("summary", "What the alerts compare with, as bundled; your Prometheus may have other numbers"),
            table(("Threshold", "What it watches", "#Number"), rows),
        )

    def _links(self) -> Html:
        links = ((self._telemetry_path, "Metrics"), ("/-/healthy", "Healthy"), ("/-/ready", "Ready"))
        shown = [[element("a", text, href=url), " · "] for url, text in links]
        return element("p", shown, f"Version {__version__}", class_="dim")


def _notice(text: str, kind: str = "waiting") -> Html:
    return element("p", text, class_=f"card {kind}", role="status")


def _tiles(snapshot: Snapshot, slot: int) -> Html:
    hour, day = snapshot.day.outcomes(slot - HOUR + 1), snapshot.day.outcomes(slot - DAY + 1)
    tiles = [_tile(hour[name], words, f"{day[name]:,} last day", name) for name, words in TILES]
    waiting = sum(snapshot.waiting.values())
    oldest = min(snapshot.oldest.values(), default=0.0)
    tiles.append(
        _tile(waiting, "waiting now", f"the oldest for {_span(time.time() - oldest)}" if oldest else "", "waiting")
    )
    return element("div", element("h2", "The last hour"), element("div", tiles, class_="tiles"))


def _tile(number: int, words: str, more: str, kind: str) -> Html:
    shown = element("b", number, class_=kind if number else None)
    return element("div", shown, element("span", words, Html("<br>"), more), class_="tile")


def _graphs(day: Day, now: float) -> list[Html]:
    """What happened in each hour of the day."""
    slots = int(3600 // SLOT)
    last = int(now // 3600)
    found: dict[int, Counter[str]] = {hour: Counter() for hour in range(last - 23, last + 1)}
    for number, slot in day.slots.items():
        if (hour := number // slots) in found:
            found[hour].update(slot.outcomes)
    columns = [(_moment(hour * 3600.0, now), numbers) for hour, numbers in found.items()]
    return [
        element("section", element("h2", title), _legend(series, found.values()), bars(columns, series))
        for title, series in (("Bounces by hour", BOUNCES), ("Other mail by hour", TRAFFIC))
    ]


def _legend(series: Sequence[str], hours: Iterable[Counter[str]]) -> Html:
    """What the colours mean, and how high the highest bar is."""
    most = max(sum(numbers[each] for each in series) for numbers in hours)
    named = [element("span", element("i", class_=each), each) for each in series]
    return element("div", named, element("span", f"at most {most:,} in an hour"), class_="legend")


def _rejections(day: Counter[Code], hour: Counter[Code]) -> Html | None:
    rows = _by_code(day, hour, ("rejected",))
    shown = [(*_code(code), _word(reason), in_hour, in_day) for (_, code, reason), in_hour, in_day, _ in rows]
    headings = ("Code", "Meaning", "Reason", "#Last hour", "#Last day")
    return _section("What this server rejected", headings, shown, "") if shown else None


def _by_code(
    day: Counter[Code], hour: Counter[Code], kinds: Sequence[str]
) -> list[tuple[tuple[str, str, str], int, int, str]]:
    """The most frequent kind, code and reason: the numbers of an hour and of a day, and the most frequent provider."""
    in_day, in_hour = Counter[tuple[str, str, str]](), Counter[tuple[str, str, str]]()
    providers: dict[tuple[str, str, str], str] = {}
    for (kind, code, reason, provider), number in day.most_common():
        if kind in kinds:
            in_day[kind, code, reason] += number
            providers.setdefault((kind, code, reason), provider)
    for (kind, code, reason, _), number in hour.items():
        in_hour[kind, code, reason] += number
    return [(each, in_hour[each], number, providers[each]) for each, number in in_day.most_common(MOST)]


def _waiting(snapshot: Snapshot, now: float) -> Html:
    found = Counter[tuple[str, str]]()
    for (_, _, code, provider), number in snapshot.waiting.items():
        found[code, provider] += number
    rows = [(*_code(code, brief=True), _word(provider), number) for (code, provider), number in found.most_common(MOST)]
    headings = ("Code", "Meaning", "Provider", "#Recipients")
    caption = "Who waits, and for what"
    if snapshot.oldest:
        caption += f": the oldest for {_span(now - min(snapshot.oldest.values()))}"
    return _section(caption, headings, rows, "Nobody waits.")


def _section(caption: str, headings: Sequence[str], rows: Sequence[Sequence[Child]], nothing: str) -> Html:
    """A table, or a sentence that says that there is nothing."""
    if rows:
        return table(headings, rows, caption=caption)
    return element("section", element("h2", caption), element("p", nothing, class_="dim"))


def _word(text: str) -> Html:
    """A text that is not broken into lines."""
    return element("span", text, class_="word")


def _code(code: str, *, brief: bool = False) -> tuple[Html, Html]:
    """A code, and what it means, or only its title."""
    found = _explained(code)
    if not found.registered:
        words: Child = found.meaning
    else:
        words = found.title if brief else [element("b", found.title), f" {found.meaning}"]
    return element("b", code, class_="code"), element("span", words)


@lru_cache(maxsize=1024)
def _explained(code: str) -> Explanation:
    """What a counters' label for a code means."""
    return explain(EnhancedCode.parse(code.replace("x", "999")))


def _moment(moment: float, now: float) -> str:
    """A time in the zone of this machine, with the date if it is not of the last day."""
    shown = time.localtime(moment)
    if abs(now - moment) < DAY * SLOT:
        return time.strftime("%H:%M:%S %Z" if moment == now else "%H:%M", shown)
    return time.strftime("%Y-%m-%d %H:%M", shown)


def _span(seconds: float) -> str:
    """A time in its largest unit."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _bytes(number: float) -> str:
    """A number of bytes, in its largest unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"
