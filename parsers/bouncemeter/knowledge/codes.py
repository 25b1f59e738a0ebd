"""What the enhanced status codes mean: RFC 3463, the IANA registry, and the guide to 89 bounce codes.

The texts are data, in `codes.toml` beside this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from bouncemeter.event import EnhancedCode, Kind
from bouncemeter.tables import table

__all__ = ["Explanation", "catalogue", "explain", "label", "reply_meaning"]

_KINDS = {4: Kind.SOFT, 5: Kind.HARD}


@dataclass(frozen=True, slots=True)
class Explanation:
    """One code, explained.

    Attributes:
        code: The code.
        kind: Soft, hard, or None for success.
        title: Its name in the registry.
        meaning: What the other server means by it.
        other_reading: How some senders and guides read it, if that differs.
        causes: The usual causes.
        postmaster: What to do if you run the sending server.
        sender: What to do if you write the mail.
        reason: The reason that the code alone supports.
        reference: Where it is defined.
        registered: Whether the code is in the IANA registry; if not, the rest describes its class.
        in_guide: Whether it is one of the guide's 89 codes.
    """

    code: EnhancedCode
    kind: Kind | None
    title: str
    meaning: str
    other_reading: str | None
    causes: tuple[str, ...]
    postmaster: str
    sender: str
    reason: str
    reference: str
    registered: bool
    in_guide: bool

    @property
    def remedy(self) -> str:
        """What to do, for postmaster and sender."""
        return f"Postmaster: {self.postmaster} Sender: {self.sender}"


@cache
def _entries() -> dict[tuple[int, int], dict[str, Any]]:
    """The registry's entries by subject and detail."""
    entries = {}
    for entry in table("knowledge/codes")["codes"]:
        subject, detail = map(int, entry["suffix"].split("."))
        entries[subject, detail] = entry
    return entries


@lru_cache(maxsize=1024)
def explain(code: EnhancedCode) -> Explanation:
    """What a code means. A code that is not registered is explained by its class."""
    entry = _entries().get((code.subject, code.detail))
    if entry is None:
        return _explain_by_class(code)
    kind = _KINDS.get(code.digit)
    added = entry.get(kind, "") if kind else "Here it reports success."
    return Explanation(
        code=code,
        kind=kind,
        title=entry["title"],
        meaning=f"{entry['meaning']} {added}".strip(),
        other_reading=entry.get(f"also_{kind}"),
        causes=tuple(entry["causes"]),
        postmaster=entry["postmaster"],
        sender=entry["sender"],
        reason=entry["reason"],
        reference=entry["reference"],
        registered=True,
        in_guide=kind is not None and entry["guide"] in ("both", kind),
    )


def _explain_by_class(code: EnhancedCode) -> Explanation:
    kind = _KINDS.get(code.digit)
    force = {Kind.SOFT: "Temporary: the server will try again.", Kind.HARD: "Permanent: it will not be tried again."}
    subject = table("knowledge/codes")["subjects"].get(str(code.subject), "A subject that RFC 3463 does not know.")
    return Explanation(
        code=code,
        kind=kind,
        title="Not in the IANA registry",
        meaning=f"{subject} {force[kind] if kind else 'Success.'} The number after that is the other server's own.",
        other_reading=None,
        causes=("A code of one provider or product",),
        postmaster="Look the code up in the documentation of the provider that sent it; the reply often links it.",
        sender="Go by the text of the reply.",
        reason="other",
        reference="RFC 3463",
        registered=False,
        in_guide=False,
    )


def catalogue() -> list[Explanation]:
    """Every registered code in its soft and its hard form, by number."""
    return [explain(EnhancedCode(digit, *suffix)) for digit in _KINDS for suffix in sorted(_entries())]


@lru_cache(maxsize=1024)
def label(code: EnhancedCode) -> tuple[str, str]:
    """The code's class and the code as label values, from a closed set whatever a server wrote:
    a code that is not registered becomes its class with the detail x (`5.7.x`)."""
    if (code.subject, code.detail) in _entries():
        return code.code_class, str(code)
    if str(code.subject) in table("knowledge/codes")["subjects"]:
        return code.code_class, f"{code.code_class}.x"
    return f"{code.digit}.x", f"{code.digit}.x.x"


def reply_meaning(reply_code: int) -> str | None:
    """What a plain three-digit SMTP reply code means (RFC 5321)."""
    meaning: str | None = table("knowledge/codes")["replies"].get(str(reply_code))
    return meaning
