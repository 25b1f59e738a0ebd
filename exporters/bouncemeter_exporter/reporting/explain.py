"""Explains what somebody pasted: a code, an SMTP reply, or a whole line of a log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bouncemeter.event import EnhancedCode, Event, Outcome
from bouncemeter.grammar import code_of, reply
from bouncemeter.knowledge.codes import Explanation, explain
from bouncemeter.knowledge.reasons import Finding, find_reason, finding_of, reasons, todo
from bouncemeter.lowering import lowered
from bouncemeter.plugin import UnparsedLineError, parsers

from bouncemeter_exporter.reporting.records import record

__all__ = ["NothingToExplainError", "Understood", "code_as_json", "understand"]

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
    """

    code: Explanation
    reply_code: int | None = None
    why: Finding | None = None
    event: Event | None = None

    def as_json(self) -> dict[str, Any]:
        """The explanation, with the reason, and the line's record under `event`."""
        found = code_as_json(self.code)
        if self.why is not None:
            own = self.why.provider_code
            found |= {
                "reason": self.why.reason,
                "reason_meaning": reasons()[self.why.reason].meaning,
                "basis": self.why.basis,
                "source": self.why.source,
                "provider": self.why.provider,
                "provider_meaning": own.meaning if own else None,
                "todo": todo(self.why),
            }
        if self.event is not None:
            found["event"] = record(self.event)
        return found

    def show(self) -> None:
        """Print it as text."""
        from bouncemeter_exporter.reporting.terminal import show_event, show_explanation  # noqa: PLC0415 - only to print

        if self.event is not None:
            show_event(self.event, self.why)
        else:
            show_explanation(self.code, self.reply_code, self.why)


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


def understand(text: str) -> Understood:
    """What a text is, and what it means.

    Raises:
        NothingToExplainError: The text is not a code, a reply, or a log line with an outcome.
    """
    text = text.strip()
    try:
        return Understood(explain(EnhancedCode.parse(text)))
    except ValueError:
        pass
    for parser in parsers().values():
        if parser.recognises(text):
            return _line(text, parser.name)
    found = _reply.values(text)
    if found is None:
        raise NothingToExplainError(
            f"{text[:200]!r} is not an enhanced status code such as 5.7.1, an SMTP reply such as"
            ' "550 5.1.1 User unknown", or a line of a mail log'
        )
    code, reply_code = code_of(found, Outcome.BOUNCED)
    return Understood(explain(code), reply_code, find_reason(code, reply_code, text))


def _line(text: str, name: str) -> Understood:
    try:
        entries = parsers()[name].reader()(text)
    except UnparsedLineError as error:
        raise NothingToExplainError(f"the line looks like {name} format, but cannot be parsed: {error}") from error
    for entry in entries:
        if isinstance(entry, Event):
            return Understood(explain(entry.code), entry.reply_code, finding_of(entry), entry)
    raise NothingToExplainError(f"the line is in {name} format, but records neither a delivery nor a refusal")
