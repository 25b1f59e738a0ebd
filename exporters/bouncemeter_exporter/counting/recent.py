"""The last day by the time in the log: what happened in each five minutes, and the last refusals of class 5.7.

Its size is limited whatever a remote server writes: codes, reasons and providers are the counters' own labels, and of
their combinations only so many are kept apart. It holds no address.
"""

from __future__ import annotations

import json
from bisect import insort
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from bouncemeter.stamps import Clock

__all__ = ["DAY", "HOUR", "MAX_REFUSALS", "SLOT", "Code", "Day", "Recent", "Refusal", "Slot"]

SLOT = 300.0
"""Seconds of a slot."""

HOUR, DAY = 12, 288
"""Slots of an hour and of a day, with the one that has begun."""

MAX_CODES = 100
"""Combinations of kind, code, reason and provider that a slot keeps apart; a busy server has some dozens."""

MAX_REFUSALS = 20
"""Refusals of class 5.7 that are kept."""

REFUSALS = "refusals"
"""The name of their text; a slot's is its number."""

Code = tuple[str, str, str, str]
"""Kind (soft, hard or rejected), code, reason and provider."""


class Refusal(NamedTuple):
    """A recipient that was refused for good with a code of class 5.7.

    Attributes:
        time: The time in the log, in seconds since 1970 UTC.
        mta, code, reason, provider: As in the counters' labels.
        queue_id: The message's queue ID; empty if it is not well-formed.
    """

    time: float
    mta: str
    queue_id: str
    code: str
    reason: str
    provider: str


@dataclass(slots=True)
class Slot:
    """What happened in five minutes.

    Attributes:
        outcomes: Recipients delivered, soft, hard and expired; and mail that our own server rejected.
        codes: The same by code, without what was delivered or expired.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    codes: Counter[Code] = field(default_factory=Counter)

    def add(self, code: Code) -> None:
        """Count a bounce or a rejection."""
        kind, name, *_ = code
        self.outcomes[kind] += 1
        number = self.codes.get(code, 0)
        if not number and len(self.codes) >= MAX_CODES:
            code = kind, name, "other", "other"
            number = self.codes[code]
        self.codes[code] = number + 1

    def copy(self) -> Slot:
        """The same numbers, which do not change any more."""
        return Slot(Counter(self.outcomes), Counter(self.codes))

    def text(self) -> str:
        """All of it as a text."""
        return json.dumps([self.outcomes, [[*code, number] for code, number in self.codes.items()]])

    @classmethod
    def of(cls, text: str) -> Slot:
        """What `text` returned."""
        outcomes, codes = json.loads(text)
        return cls(Counter(outcomes), Counter({(*map(str, code),): number for *code, number in codes}))  # type: ignore[misc]


class Day(NamedTuple):
    """The last day, as of a commit.

    Attributes:
        slots: By number: seconds since 1970 UTC divided by `SLOT`.
        refusals: The last refusals of class 5.7, newest first.
    """

    slots: Mapping[int, Slot]
    refusals: tuple[Refusal, ...]

    def outcomes(self, first: int) -> Counter[str]:
        """The outcomes of a slot and of those after it."""
        found = Counter[str]()
        for number, slot in self.slots.items():
            if number >= first:
                found.update(slot.outcomes)
        return found

    def codes(self, first: int) -> Counter[Code]:
        """The codes of a slot and of those after it."""
        found = Counter[Code]()
        for number, slot in self.slots.items():
            if number >= first:
                found.update(slot.codes)
        return found


class Recent:
    """Collects the last day.

    Args:
        clock: Supplies the current time: what is older than a day is left out, what is later counts as now.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._slots: dict[int, Slot] = {}
        self._refusals: list[Refusal] = []
        self._changed: set[int] = set()
        self._begin = self._end = 0.0
        self._current: Slot | None = None
        self._day = Day({}, ())
        self._texts: dict[str, str] = {}

    def slot(self, time: float | None) -> Slot | None:
        """The slot of a time in the log, to count in; None for what is older than a day.

        Args:
            time: In seconds since 1970 UTC; None for now.
        """
        if time is not None and self._begin <= time < self._end:  # as a rule, the same as for the line before
            return self._current
        now = self._clock()
        last = int(now // SLOT)
        number = last if time is None or time > now else int(time // SLOT)
        self._begin, self._end, self._current = number * SLOT, (number + 1) * SLOT, None
        if number > last - DAY:
            self._changed.add(number)
            self._current = self._slots.setdefault(number, Slot())
        return self._current

    def covers(self, time: float | None) -> bool:
        """Whether a time in the log is of the last day."""
        return time is None or time // SLOT > self._clock() // SLOT - DAY

    def refused(self, time: float | None, refusal: tuple[str, str, str, str, str]) -> None:
        """Keep a refusal of class 5.7 of the last day, if it is one of the last.

        Args:
            time: As for `slot`.
            refusal: What follows the time in `Refusal`.
        """
        now = self._clock()
        insort(self._refusals, Refusal(now if time is None else min(time, now), *refusal))
        del self._refusals[:-MAX_REFUSALS]

    def texts(self) -> dict[str, str]:
        """All of it as texts by name, for `restore`. What is older than a day is forgotten."""
        before = int(self._clock() // SLOT) - DAY
        for number in [each for each in self._slots if each <= before]:
            del self._slots[number]
        self._refusals = [each for each in self._refusals if each.time // SLOT > before]
        kept = {number: slot for number, slot in self._day.slots.items() if number in self._slots}
        kept |= {number: self._slots[number].copy() for number in self._changed if number in self._slots}
        texts = {name: text for name, text in self._texts.items() if name.isdigit() and int(name) in kept}
        texts |= {str(number): kept[number].text() for number in self._changed if number in kept}
        refusals = tuple(reversed(self._refusals))
        if refusals:
            same = refusals == self._day.refusals and REFUSALS in self._texts
            texts[REFUSALS] = self._texts[REFUSALS] if same else json.dumps(refusals)
        self._changed.clear()
        self._begin = self._end = 0.0
        self._day, self._texts = Day(kept, refusals), texts
        return texts

    @property
    def day(self) -> Day:
        """The last day, as `texts` returned it last."""
        return self._day

    def restore(self, texts: Mapping[str, str]) -> None:
        """Start with what `texts` returned."""
        self._slots = {int(name): Slot.of(text) for name, text in texts.items() if name.isdigit()}
        self._refusals = sorted(Refusal(*each) for each in json.loads(texts.get(REFUSALS, "[]")))
        self._changed = set(self._slots)
        self.texts()
