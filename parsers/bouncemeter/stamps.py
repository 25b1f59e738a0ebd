"""Converts time stamps to times.

Input: the stamp of a line, as its grammar found it. Output: seconds since 1970 UTC, or None for an impossible stamp.
"""

from __future__ import annotations

import re
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

__all__ = ["MONTHS", "Clock", "Stamps"]

Clock = Callable[[], float]
"""Returns the latest time (seconds since 1970 UTC) that a line read now can have. It supplies the year that
RFC 3164 time stamps lack. For a live log it is the present time, for an old file the time of its last change."""

MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
"""As RFC 3164 writes them."""

LATEST = 253_370_764_800.0
"""The year 9999 in seconds since 1970 UTC. A time in it, or before 1970, is none: calendars of some zones end there."""

_SECONDS = {f"{second:02}": float(second) for second in range(60)}

_DATED = re.compile(
    r"(?:[A-Z][a-z]{2},? )?(?:(?P<first>[0-9]{4}) )?(?P<month>[A-Z][a-z]{2}) +(?P<day>[0-9]{1,2})"
    r" (?:(?P<middle>[0-9]{4}) )?(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9.]+)(?: (?P<last>[0-9]{4}))?"
)
"""RFC 3164's stamp with a year in one of three places, or with a day of one digit."""


class Stamps:
    """Converts time stamps to seconds since 1970 UTC.

    A stamp without a zone is local time. A stamp without a year gets the latest year that does not put it
    after the clock (with a day's grace for clocks that differ).
    """

    def __init__(self, clock: Clock = time.time) -> None:
        self._clock = clock
        self._hour = ""
        self._start_of_hour = 0.0
        self._minute = ""
        self._start_of_minute = 0.0
        self._last: tuple[str, float | None] = ("", None)  # busy servers write many lines a second

    def seconds(self, stamp: str | None) -> float | None:
        """The time of a stamp; None for a missing stamp or an impossible one, such as 31 February."""
        if not stamp:
            return None
        last, found = self._last
        if stamp != last:
            try:
                if stamp[4] == "-":
                    found = self._iso(stamp)
                else:
                    found = self._bsd(stamp) if stamp[9] == ":" and " " not in stamp[15:] else self._dated(stamp)
                if not 0 <= found < LATEST:
                    found = None
            except (ValueError, IndexError, OverflowError):
                found = None
            self._last = (stamp, found)
        return found

    def times(self, stamps: Iterable[str]) -> dict[str, float | None]:
        """The time of each stamp; see `seconds`. Many of them are of one minute, which is looked at once."""
        found: dict[str, float | None] = {}
        minute, begin = "", 0.0
        for stamp in sorted(stamps):
            second = _SECONDS.get(stamp[-2:])
            if second is None or stamp[-3:-2] != ":" or stamp[-6:-5] != ":":  # a fraction or a zone follows
                found[stamp] = self.seconds(stamp)
            elif stamp[:-2] == minute:
                found[stamp] = begin + second
            elif (time := self.seconds(stamp)) is not None:
                found[stamp], minute, begin = time, stamp[:-2], time - second
            else:
                found[stamp] = None
        return found

    def _bsd(self, stamp: str) -> float:
        hour = stamp[:9]
        if hour != self._hour:
            self._start_of_hour = self._latest(MONTHS.index(stamp[:3]) + 1, int(stamp[4:6]), int(stamp[7:9]))
            self._hour = hour
        return self._start_of_hour + int(stamp[10:12]) * 60 + float(stamp[13:])

    def _dated(self, stamp: str) -> float:
        found = _DATED.fullmatch(stamp)
        if found is None:
            raise ValueError("not a stamp of this kind")
        year = found["first"] or found["middle"] or found["last"]
        month, day, hour = MONTHS.index(found["month"]) + 1, int(found["day"]), int(found["hour"])
        start = datetime(int(year), month, day, hour).timestamp() if year else self._latest(month, day, hour)
        return start + int(found["minute"]) * 60 + float(found["second"])

    def _latest(self, month: int, day: int, hour: int) -> float:
        limit = self._clock() + 86400
        year = datetime.fromtimestamp(limit).year
        for candidate in range(year, year - 9, -1):  # any nine years have a 29 February, even around 1900
            try:
                found = datetime(candidate, month, day, hour).timestamp()
            except ValueError:
                continue
            if found <= limit:
                return found
        raise ValueError("no such day")

    def span(self, stamps: set[str]) -> tuple[float, float] | None:
        """The earliest and the latest time of some stamps; None if all of them are impossible."""
        if not stamps:
            return None
        ends = {min(stamps), max(stamps)} if self._are_in_order(stamps) else stamps
        times = [time for each in ends if (time := self.seconds(each)) is not None]
        if len(times) < len(ends):  # an impossible stamp, such as 31 February, hides the others
            times = [time for each in stamps if (time := self.seconds(each)) is not None]
        return (min(times), max(times)) if times else None

    def periods(self, stamps: Sequence[str], length: float) -> Counter[int | None]:
        """How many stamps are in each period: its number is the seconds since 1970 UTC divided by the length.

        Impossible stamps have None; among many others, they may count with those beside them.

        Args:
            stamps: The stamps.
            length: The length of a period in seconds.
        """
        try:
            return self._periods_in_order(stamps, length)
        except ValueError:
            times = Counter(stamps)
            found = Counter[int | None]()
            for each, number in times.items():
                time = self.seconds(each)
                found[None if time is None else int(time // length)] += number
            return found

    def _periods_in_order(self, stamps: Sequence[str], length: float) -> Counter[int | None]:
        """The same for stamps that sort by time as text: few of them are looked at.

        Raises:
            ValueError: They do not, or some are impossible.
        """
        found = Counter[int | None]()
        if not stamps:
            return found
        if not self._are_in_order(set(stamps)):
            raise ValueError("not in order")

        def seconds(stamp: str) -> float:
            if (time := self.seconds(stamp)) is None:
                raise ValueError("not a time")
            return time

        ordered = sorted(stamps)
        last, place = seconds(ordered[-1]), 0
        while place < len(ordered):
            number = int(seconds(ordered[place]) // length)
            end = (number + 1) * length
            after = len(ordered) if last < end else bisect_left(ordered, end, place + 1, key=seconds)
            found[number] += after - place
            place = after
        return found

    @staticmethod
    def _are_in_order(stamps: set[str]) -> bool:
        """Whether stamps sort by time as text: they are from one day, or all have the same zone or none."""
        low, high = min(stamps), max(stamps)
        if low[0] > "9":
            return low[:6] == high[:6]  # the days of a month sort by time, the months' names do not
        zone = low[19:].lstrip(".,0123456789")
        return all(each.endswith(zone) for each in stamps) if zone else all(len(each) == 19 for each in stamps)

    def _iso(self, stamp: str) -> float:
        if len(stamp) == 19:
            minute, second = stamp[:17], stamp[17:]
            if minute != self._minute or second > "59":
                self._start_of_minute, self._minute = self._any_iso(stamp) - int(second), minute
            return self._start_of_minute + int(second)
        return self._any_iso(stamp)

    @staticmethod
    def _any_iso(stamp: str) -> float:
        date, clock = stamp[:10], stamp[11:].replace(" ", "").replace(",", ".")
        return datetime.fromisoformat(f"{date}T{clock}").timestamp()
