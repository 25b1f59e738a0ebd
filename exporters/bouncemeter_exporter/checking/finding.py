"""What a check found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

__all__ = ["Finding", "Level", "worst"]


class Level(IntEnum):
    """How bad a finding is."""

    OK = 0
    NOTE = 1
    """All is well, but something could be better, or is worth knowing."""
    WARNING = 2
    """Something is missed, or will be."""
    WRONG = 3
    """It does not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding.

    Attributes:
        level: How bad it is.
        about: What it is about: a source, a file, an address.
        sentence: What was found.
        remedy: What to do about it; empty if nothing.
        samples: Lines that show it.
    """

    level: Level
    about: str
    sentence: str
    remedy: str = ""
    samples: tuple[str, ...] = ()

    def as_json(self) -> dict[str, object]:
        """The finding as an object of JSON."""
        return {
            "level": self.level.name.lower(),
            "about": self.about,
            "sentence": self.sentence,
            "remedy": self.remedy or None,
            "samples": list(self.samples),
        }


def worst(findings: Iterable[Finding]) -> Level:
    """The level of the worst finding."""
    return max((each.level for each in findings), default=Level.OK)
