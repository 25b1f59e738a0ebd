"""Explains what somebody pasted: a code or a class, an SMTP reply however it is quoted, or a whole line of a log."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from bouncemeter.event import EnhancedCode, Event, Outcome
from bouncemeter.grammar import code_of, reply
from bouncemeter.knowledge.codes import CodeClass, Explanation, explain, explain_class
from bouncemeter.knowledge.languages import Language
from bouncemeter.knowledge.reasons import (
    Finding,
    ProviderCode,
    find_reason,
    finding_of,
    meanings_of,
    reasons,
    todo,
    translated,
)
from bouncemeter.lowering import lowered
from bouncemeter.plugin import UnparsedLineError, parsers

from bouncemeter_exporter.records import record

__all__ = ["NothingToExplainError", "Understood", "UnderstoodClass", "code_as_json", "understand"]

_reply = lowered(reply)


class NothingToExplainError(ValueError):
    """The text is not a code, a reply, or a log line with an outcome."""


@dataclass(frozen=True, slots=True)
class Understood:
    """What a text turned out to be.

    Attributes:
        code: Its code, explained.
        reply_code: The three digits of a reply.
        why: The reason behind a reply or line, and where it was found.
        event: The outcome, if it was a line of a log.
        theirs: What single providers mean by the code.
        language: The language of the texts.
    """

    code: Explanation
    reply_code: int | None = None
    why: Finding | None = None
    event: Event | None = None
    theirs: tuple[ProviderCode, ...] = ()
    language: Language = Language.EN

    def as_json(self) -> dict[str, Any]:
        """The explanation, with the reason, and the line's record under `event`."""
        found = code_as_json(self.code)
        if self.why is not None:
            own = self.why.provider_code
            found |= {
                "reason": self.why.reason,
                "reason_meaning": reasons(self.language)[self.why.reason].meaning,
                "basis": self.why.basis,
                "source": self.why.source,
                "provider": self.why.provider,
                "provider_meaning": own.meaning if own else None,
                "todo": todo(self.why, self.language),
            }
        if self.theirs:
            found["providers"] = [
                {
                    "provider": each.provider,
                    "meaning": each.meaning,
                    "reason": each.reason,
                    "todo": each.todo or reasons(self.language)[each.reason].todo,
                    "source": each.source,
                }
                for each in self.theirs
            ]
        if self.event is not None:
            found["event"] = record(self.event)
        return found

    def show(self) -> None:
        """Print it as text."""
        from bouncemeter_exporter.reporting.terminal import show_event, show_explanation  # noqa: PLC0415 - only to print

        if self.event is not None:
            show_event(self.event, self.why, self.language)
        else:
            show_explanation(self.code, self.reply_code, self.why, self.theirs, self.language)


@dataclass(frozen=True, slots=True)
class UnderstoodClass:
    """A text that turned out to be a class of codes.

    Attributes:
        found: The class.
        language: The language of the texts.
    """

    found: CodeClass
    language: Language = Language.EN

    def as_json(self) -> dict[str, Any]:
        """The class, and its codes as `codes --format json` prints them."""
        return {
            "class": self.found.name,
            "kind": self.found.kind,
            "meaning": self.found.meaning,
            "codes": [code_as_json(each) for each in self.found.codes],
        }

    def show(self) -> None:
        """Print it as text."""
        from bouncemeter_exporter.reporting.terminal import show_class  # noqa: PLC0415 - only to print

        show_class(self.found, self.language)


def code_as_json(found: Explanation) -> dict[str, Any]:
    """A code as `codes --format json` prints it."""
    return {
        "code": str(found.code),
        "kind": found.kind,
        "title": found.title,
        "meaning": found.meaning,
        "causes": list(found.causes),
        "remedy": found.remedy,
        "reference": found.reference,
        "reason": found.reason,
        "other_reading": found.other_reading,
        "guide": found.in_guide,
    }


_CLASS = re.compile(r"([245])\.([0-9]{1,3})(?:\.[xX*])?")
_BEFORE = re.compile(
    r"(?:[A-Za-z][A-Za-z-]*: *)?"  # a header of a bounce message
    r"(?:(?:smtp|x-[a-z-]+|rfc822|dns|lmtp); *)?"
    r"(?:.*?\b(?:said|returned|replied|responded|answered|error|failed|refused to talk to me)\b[^0-9#]*?)?"
    r"[\s#'\"`<(\[\u2018\u201c]*",
    re.IGNORECASE,
)
"""What people quote before a reply: `Diagnostic-Code: smtp;`, `Remote Server returned '`, `host mx.test said:`."""

_REPLY_LINE = re.compile(r"([245][0-9]{2})[ -]")
_ANYWHERE = re.compile(r"(?<![\w.#/-])#?([245][0-9]{2}(?=[ -]+[#\w<])|[245]\.[0-9]{1,3}\.[0-9]{1,3}(?![\w.-]))")


def understand(text: str, language: Language = Language.EN) -> Understood | UnderstoodClass:
    """What a text is, and what it means.

    Args:
        text: What somebody pasted.
        language: The language of the explanation.

    Raises:
        NothingToExplainError: The text is not a code, a class, a reply, or a log line with an outcome.
    """
    text = text.strip()
    if (named := _CLASS.fullmatch(text.removeprefix("#"))) is not None:
        try:
            return UnderstoodClass(explain_class(int(named[1]), int(named[2]), language), language)
        except ValueError as error:
            raise NothingToExplainError(str(error)) from error
    if (line := _log_line(text)) is not None:
        return _in_language(line, language)
    text = _joined(text)
    for each in (text, *_unquoted(text)):
        if (found := _code_or_reply(each)) is not None:
            return _in_language(found, language)
    raise NothingToExplainError(
        f"{text[:200]!r} is not an enhanced status code such as 5.7.1, a class such as 5.7, an SMTP reply such as"
        ' "550 5.1.1 User unknown", or a line of a mail log'
    )


def _in_language(found: Understood, language: Language) -> Understood:
    """What was understood, with its texts in a language."""
    why = found.why
    if why is not None and why.provider_code is not None:
        why = replace(why, provider_code=translated(why.provider_code, language))
    theirs = tuple(translated(each, language) for each in found.theirs)
    return replace(found, code=explain(found.code.code, language), why=why, theirs=theirs, language=language)


def _log_line(text: str) -> Understood | None:
    """The first line of a log in a text."""
    for parser in parsers().values():
        for line in text.splitlines():
            if parser.recognises(line):
                return _line(line, parser.name)
    return None


def _joined(text: str) -> str:
    """Several lines as one: the lines of a reply repeat its code."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    code = next((found[1] for line in lines if (found := _REPLY_LINE.search(line)) is not None), None)
    again = re.compile(rf"^{code}(?:[ -]|$)") if code else re.compile("(?!)")
    first = next((place for place, line in enumerate(lines) if again.search(line)), 0)
    return " ".join(again.sub("", line) if place > first else line for place, line in enumerate(lines))


def _unquoted(text: str) -> list[str]:
    """What a text may be without what stands around a reply in it."""
    before = _BEFORE.match(text)
    inner = text[before.end() :] if before is not None else text
    found = [inner.rstrip("'\"`\u2019\u201d>)] ")]
    if (place := _ANYWHERE.search(text)) is not None:
        found.append(text[place.start(1) :].rstrip("'\"`\u2019\u201d>] "))
    return found


_CODE_AND_TEXT = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?:[\s:;,]+(.+))?", re.DOTALL)


def _code_or_reply(text: str) -> Understood | None:
    if (named := _CODE_AND_TEXT.fullmatch(text)) is not None:
        code = EnhancedCode.parse(named[1])
        why = find_reason(code, None, text) if named[2] else None
        return Understood(explain(code), why=why, theirs=_theirs(code, why))
    found = _reply.values(text)
    if found is None:
        return None
    code, reply_code = code_of(found, Outcome.BOUNCED)
    why = find_reason(code, reply_code, text)
    return Understood(explain(code), reply_code, why, theirs=_theirs(code, why))


def _theirs(code: EnhancedCode, why: Finding | None) -> tuple[ProviderCode, ...]:
    """What single providers mean by a code, unless the reply says whose it is, or the registry has it."""
    registered = explain(code).registered
    if why is not None and (why.provider_code is not None or registered):
        return ()
    return tuple(each for each in meanings_of(code) if not (each.vague and registered))


def _line(text: str, name: str) -> Understood:
    try:
        entries = parsers()[name].reader()(text)
    except UnparsedLineError as error:
        raise NothingToExplainError(f"the line looks like {name} format, but cannot be parsed: {error}") from error
    for entry in entries:
        if isinstance(entry, Event):
            return Understood(explain(entry.code), entry.reply_code, finding_of(entry), entry)
    raise NothingToExplainError(f"the line is in {name} format, but records neither a delivery nor a refusal")
