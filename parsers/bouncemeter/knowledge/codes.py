"""What the enhanced status codes mean: RFC 3463, the IANA registry, and the guide to 89 bounce codes.

The texts are data, in `codes.toml` beside this module, and for Swedish in `sv/codes.toml`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from bouncemeter.event import EnhancedCode, Kind
from bouncemeter.knowledge.languages import Language, texts
from bouncemeter.tables import table

__all__ = ["CodeClass", "Explanation", "catalogue", "explain", "explain_class", "label", "reply_meaning"]

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
        remedy: What to do, for postmaster and sender.
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
    remedy: str
    reason: str
    reference: str
    registered: bool
    in_guide: bool


@cache
def _entries(language: Language = Language.EN) -> dict[tuple[int, int], dict[str, Any]]:
    """The registry's entries by subject and detail, with their texts in a language."""
    translated = {} if language is Language.EN else texts("codes", language)["codes"]
    entries = {}
    for entry in table("knowledge/codes")["codes"]:
        subject, detail = map(int, entry["suffix"].split("."))
        entries[subject, detail] = entry | translated.get(entry["suffix"], {})
    return entries


@lru_cache(maxsize=1024)
def explain(code: EnhancedCode, language: Language = Language.EN) -> Explanation:
    """What a code means. A code that is not registered is explained by its class."""
    entry = _entries(language).get((code.subject, code.detail))
    if entry is None:
        return _explain_by_class(code, language)
    kind = _KINDS.get(code.digit)
    words = texts("codes", language)["words"]
    added = entry.get(kind, "") if kind else words["success"]
    return Explanation(
        code=code,
        kind=kind,
        title=entry["title"],
        meaning=f"{entry['meaning']} {added}".strip(),
        other_reading=entry.get(f"also_{kind}"),
        causes=tuple(entry["causes"]),
        postmaster=entry["postmaster"],
        sender=entry["sender"],
        remedy=words["remedy"].format_map(entry),
        reason=entry["reason"],
        reference=entry["reference"],
        registered=True,
        in_guide=kind is not None and entry["guide"] in ("both", kind),
    )


def _explain_by_class(code: EnhancedCode, language: Language) -> Explanation:
    kind = _KINDS.get(code.digit)
    known = texts("codes", language)
    entry = known["unregistered"]
    subject = known["subjects"].get(str(code.subject), entry["subject"])
    return Explanation(
        code=code,
        kind=kind,
        title=entry["title"],
        meaning=f"{subject} {entry[kind or 'success']} {entry['meaning']}",
        other_reading=None,
        causes=tuple(entry["causes"]),
        postmaster=entry["postmaster"],
        sender=entry["sender"],
        remedy=known["words"]["remedy"].format_map(entry),
        reason="other",
        reference="RFC 3463",
        registered=False,
        in_guide=False,
    )


@dataclass(frozen=True, slots=True)
class CodeClass:
    """A class of codes, such as 5.7.

    Attributes:
        name: Its two numbers.
        kind: Soft or hard; None for success.
        meaning: What its codes have in common.
        codes: Its registered codes.
    """

    name: str
    kind: Kind | None
    meaning: str
    codes: tuple[Explanation, ...]


def explain_class(digit: int, subject: int, language: Language = Language.EN) -> CodeClass:
    """What the codes of a class have in common, and which there are.

    Raises:
        ValueError: RFC 3463 has no such class.
    """
    meaning = texts("codes", language)["subjects"].get(str(subject))
    if digit not in (2, 4, 5) or meaning is None:
        raise ValueError(f"{digit}.{subject} is not a class of RFC 3463")
    suffixes = (suffix for suffix in sorted(_entries()) if suffix[0] == subject)
    codes = tuple(explain(EnhancedCode(digit, *suffix), language) for suffix in suffixes)
    return CodeClass(f"{digit}.{subject}", _KINDS.get(digit), meaning, codes)


def catalogue(language: Language = Language.EN) -> list[Explanation]:
    """Every registered code in its soft and its hard form, by number."""
    return [explain(EnhancedCode(digit, *suffix), language) for digit in _KINDS for suffix in sorted(_entries())]


@lru_cache(maxsize=1024)
def label(code: EnhancedCode) -> tuple[str, str]:
    """The code's class and the code as label values, from a closed set whatever a server wrote:
    a code that is not registered becomes its class with the detail x (`5.7.x`)."""
    if (code.subject, code.detail) in _entries():
        return code.code_class, str(code)
    if str(code.subject) in table("knowledge/codes")["subjects"]:
        return code.code_class, f"{code.code_class}.x"
    return f"{code.digit}.x", f"{code.digit}.x.x"


def reply_meaning(reply_code: int, language: Language = Language.EN) -> str | None:
    """What a plain three-digit SMTP reply code means (RFC 5321)."""
    meaning: str | None = texts("codes", language)["replies"].get(str(reply_code))
    return meaning
