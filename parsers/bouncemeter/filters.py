"""Content filters beside the mail server: what they write into the same log, and what their replies to it say.

Input, from Proxmox Mail Gateway's filter, a line's message without what syslog put before it:

    C0FFEE0000000010: accept mail to <a@dest.test> (B1B1B1B1B1) (rule: default-accept)

and the reply to the mail server, `250 2.5.0 OK (C0FFEE0000000010)`, or amavis's `250 2.7.0 Ok, discarded, id=...`.
Output: a step of the message under the filter's own ID, and the ID in the reply.
Source: Proxmox Mail Gateway's and amavis's logs.
"""

from __future__ import annotations

from bouncemeter.event import NOWHERE, Step, StepKind
from bouncemeter.grammar import address, regex
from bouncemeter.lowering import lowered

__all__ = ["FILTERS", "filter_step", "is_discarded", "passed_to", "verdicts"]

FILTERS = frozenset({"pmg-smtp-filter"})
"""The programs whose lines tell what a filter did with a message."""

verdicts = r"(?:accept|block) mail to <|moved mail for <"

filter_id = regex(r"[0-9A-F]{10,40}(?=[:)])")
queue_id = regex(r"[0-9A-Za-z]{5,24}(?=\))")
rule = regex(r"(?: \(rule: .*\))?+(?![^\n])")
filter_line = lowered(
    filter_id("filter_id")
    + ": "
    + (
        ("accept mail to <" + address("recipient") + "> (" + queue_id("related") + ")" + rule)
        | ("block mail to <" + address("recipient") + ">" + rule)
        | ("moved mail for <" + address("recipient") + "> to " + regex(r"[a-z]++ quarantine(?= - |(?![^\n]))"))
    )
)

queued_as = lowered(
    regex(r"(?s:.*)\b(?:queued|forwarded) as ") + regex("[0-9A-Za-z]{5,24}(?=\\)?$)")("passed_to")
    | regex("250 2[.]5[.]0 OK [(]") + filter_id("passed_to") + regex("[)]$")
)
"""`250 2.0.0 Ok: queued as 4X1`: the next server's queue ID for the message, or a filter's own ID."""

discarded = lowered(regex(r"250 (?:2[.][0-9][.][0-9] )?Ok, discarded(?:,|$)"))


def filter_step(message: str, time: float | None, host: str | None, mta: str) -> Step | None:
    """What a filter's line says of a recipient; None if it says nothing of one.

    Args:
        message: The line without its prefix.
        time: Seconds since 1970 UTC.
        host: The host that wrote the line.
        mta: The parser's name.
    """
    found = filter_line.values(message)
    if found is None:
        return None
    what = StepKind.PASSED_ON if "related" in found else StepKind.DROPPED
    about = found["filter_id"], time, host
    return Step(what, mta, *about, peer="[127.0.0.1]", related=found.get("related"), recipient=found["recipient"])


def passed_to(reply: str) -> str | None:
    """The next server's queue ID for the message, or a filter's own ID, by its reply; `NOWHERE` if it was discarded."""
    if " as " in reply or " OK (" in reply:
        return (queued_as.values(reply) or {}).get("passed_to")
    return NOWHERE if is_discarded(reply) else None


def is_discarded(reply: str) -> bool:
    """Whether a filter says that it took the message and threw it away."""
    return "Ok, discarded" in reply and discarded.matches(reply)
