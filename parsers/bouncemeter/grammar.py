"""pyparsing building blocks that the formats share: time stamps, the syslog prefix, addresses, codes, replies.

White space is significant in logs, so every grammar built from these must be wrapped in `exact`. All parts
are anchored: a grammar reads a line from its left end, and the fields end at the first free text that a
stranger could have written.
"""

from __future__ import annotations

import pyparsing as pp

from bouncemeter.event import EnhancedCode, Outcome, undefined_code
from bouncemeter.patterns import sound
from bouncemeter.stamps import MONTHS

__all__ = [
    "address",
    "bracketed_address",
    "bsd_stamp",
    "code_in",
    "code_of",
    "dated_stamp",
    "enhanced_code",
    "exact",
    "exim_stamp",
    "iso_stamp",
    "levelled_origin",
    "logged_address",
    "origin",
    "own_stamp",
    "priority",
    "quoted_local_part",
    "regex",
    "reply",
    "rest",
    "rfc5424_prefix",
    "syslog_prefix",
    "syslog_stamp",
    "usual_prefix",
    "values",
]


def regex(pattern: str) -> pp.Regex:
    """A regular expression as an element of a grammar."""
    return pp.Regex(sound(pattern))


def exact(grammar: pp.ParserElement) -> pp.ParserElement:
    """A copy of a grammar that takes white space literally: it skips none and expands no tabs."""
    return _literal(grammar).parse_with_tabs()


def _literal(element: pp.ParserElement) -> pp.ParserElement:
    """A copy of an element, and of its parts once each: pyparsing's own recursion copies them again at every level."""
    copied = pp.ParserElement.copy(element).leave_whitespace(recursive=False)
    if isinstance(copied, pp.ParseExpression):
        copied.exprs = [_literal(part) for part in copied.exprs]
    elif isinstance(copied, pp.ParseElementEnhance) and copied.expr is not None:
        copied.expr = _literal(copied.expr)
    return copied


def values(grammar: pp.ParserElement, line: str) -> dict[str, str] | None:
    """The named values that a grammar finds in a line from its left end; None if it does not match."""
    try:
        return grammar.parse_string(line).as_dict()
    except pp.ParseException:
        return None


rest = regex(r"[^\n]*")
"""Everything up to the end of the line."""

# --- time stamps and the syslog prefix (RFC 3164, RFC 5424, RFC 3339) -----------------------------------------

bsd_stamp = regex(r"(?:" + "|".join(MONTHS) + r") [ 0-9][0-9] [0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?")
"""`Nov  4 15:42:02`: no year, no zone."""

iso_stamp = regex(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:[.,][0-9]{1,9})?(?:Z|[+-][0-9]{2}:?[0-9]{2})?"
)
"""RFC 3339, also with a space in place of the T, and without a zone."""

exim_stamp = regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?(?: [+-][0-9]{4})?")
"""Exim's own: `2026-11-24 15:58:20.012 +0000`."""

_MONTH = "(?:" + "|".join(MONTHS) + ")"
_CLOCK = r"[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?"

dated_stamp = regex(
    r"(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? )?+(?:[12][0-9]{3} )?+"
    rf"{_MONTH} (?: [0-9]|[0-9]{{1,2}}) (?:[12][0-9]{{3}} )?+{_CLOCK}(?: [12][0-9]{{3}}(?= [^\s:\[\]]+ ))?"
)
"""RFC 3164's stamp as other syslog daemons write it: with the year first, after the day, or after the time (then a host
follows), after the day of the week, and with a day of one digit."""

own_stamp = dated_stamp | iso_stamp
"""Any stamp that a server or syslog may write before a line."""

_host = regex(r"[^\s\[\]]{1,255}")
_program = regex(r"[^\s\[\]:]{1,128}")
priority = regex(r"<[0-9]{1,3}>")
"""Facility and severity, as syslog sends them."""
_facility = regex(r"<[a-z0-9]+\.[a-z]+> ")  # FreeBSD's syslogd -v
_SEVERITY = "(?:emerg|panic|alert|crit|err(?:or)?|warn(?:ing)?|notice|info|debug)"
# Alpine's (BusyBox's) syslogd, and what containers put before a line.
_level = regex(rf"(?:[a-z0-9]++\.{_SEVERITY}|DEBUG|INFO|NOTICE|WARN(?:ING)?|ERROR) +")
_columns = regex(rf"(?:kern|user|mail|daemon|auth(?:priv)?|syslog|local[0-7]) +{_SEVERITY} +")
_importance = _facility | _level | _columns
_solaris_id = regex(r"\[ID [0-9]+ [a-z0-9]+\.[a-z]+\] ")
_structured_data = regex(r'-|(?:\[(?:[^\]"\\\n]|\\.|"(?:[^"\\\n]|\\.)*+")*+\])++')
_version = regex("[1-9] ")
_number_and_data = regex(r" [^\s]+ [^\s]+ ") + _structured_data
_before_text = regex(r" *\ufeff?")  # rsyslog keeps the space that RFC 3164 has before the text
_number = regex(r"(?:\[[0-9]+\])?: ?")
_no_stamp = pp.NotAny(iso_stamp)  # another one before it is a container's

_bsd_header = (
    pp.Opt(priority)
    + own_stamp("stamp")
    + " "
    + _no_stamp
    + pp.Opt(_importance)
    + pp.Opt(_host("host") + regex(" +"))
    + pp.Opt(_importance)
    + _program("program")
    + _number
    + pp.Opt(_solaris_id)
)
# What log viewers and collectors make of it: `[1:mail1:postfix/lmtp] `.
_viewer_header = (
    pp.Opt(own_stamp("stamp") + " ")
    + regex(r"\[[0-9]+:")
    + _program("host")
    + ":"
    + _program("program")
    + regex(r"(?:\[[0-9]+\])?\]:? ")
)
_rfc5424_header = (
    priority
    + _version
    + (iso_stamp("stamp") | "-")
    + " "
    + (pp.Literal("-") + pp.FollowedBy(" ") | _host("host"))
    + " "
    + _program("program")
    + _number_and_data
    + _before_text
)
_bare_header = _program("program") + regex(r"\[[0-9]+\]: ")

syslog_prefix = _rfc5424_header | _bsd_header | _viewer_header | _bare_header
"""What syslog, Postfix's own log file or a container's standard output puts before the message:
gives `stamp`, `host` (both may be missing) and `program`."""


# --- the prefixes of many lines, for blocks ---------------------------------------------------------------------

syslog_stamp = bsd_stamp | iso_stamp
"""The stamps that most servers write. Those of one log sort by time as text, within a month."""

origin = pp.Combine(_host + " " + _program)
"""The host and the program with a space between them."""


def usual_prefix(stamp: pp.ParserElement, origin: pp.ParserElement) -> pp.ParserElement:
    """The prefix as most servers write it, with nothing else between its parts.

    Args:
        stamp, origin: `syslog_stamp` and `origin`, with names or without.
    """
    return (
        stamp
        + " "
        + pp.NotAny(_level | _facility | iso_stamp)
        + origin
        + regex(r"\[[0-9]+\]: ")
        + pp.NotAny(_solaris_id)
    )


def rfc5424_prefix(stamp: pp.ParserElement, origin: pp.ParserElement) -> pp.ParserElement:
    """RFC 5424's, with a stamp and a host.

    Args:
        stamp, origin: `iso_stamp` and `origin`, with names or without.
    """
    return priority + _version + stamp + " " + pp.NotAny("- ") + origin + _number_and_data + _before_text


levelled_origin = (
    _no_stamp
    + pp.NotAny(regex("[12][0-9]{3} "))  # it may belong to the stamp
    + pp.Opt(_importance)
    + pp.Combine(pp.Opt(_host + regex(" +")) + pp.Opt(_importance) + _program)("origin")
    + _number
    + pp.Opt(_solaris_id)
)
"""What follows the stamp, as RFC 3164's prefix may also be: without a host, without a number, with columns for the
level. The host is what `origin` has before its first space, the program what it has after its last."""


# --- addresses ------------------------------------------------------------------------------------------------

quoted_local_part = r'"(?:[^"\\\n]++|\\.)*+"'
"""RFC 5321 Quoted-string, as a pattern."""

bracketed_address = regex(rf"(?:{quoted_local_part}[^<>\n]*+|[^<>\n]*+)(?=>)")
"""Anything between angle brackets; its quoted part may itself contain brackets."""

address = regex(rf'{quoted_local_part}[^<>\s]*+(?=>)|[^<>"\s]*+(?=>)')
"""An address of the usual form between angle brackets: no space, unless quoted."""

logged_address = regex(rf'(?:{quoted_local_part}(?:@[^<>"\s]*+)?+|[^<>"\s]*+)(?=>)')
"""An address as Postfix writes it from version 3.5 on: a local part with other characters is quoted."""

# --- codes and replies ----------------------------------------------------------------------------------------

enhanced_code = regex(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}(?![0-9.])")
"""RFC 3463, section 2."""

reply = regex(r"[245][0-9]{2}(?![0-9])")("reply_code") + pp.Opt(regex(r"[ -]") + enhanced_code("code"))
"""The start of an SMTP reply: three digits, and the enhanced code if it follows at once (RFC 2034).
A code anywhere else is just text that somebody wrote."""


def code_of(found: dict[str, str], outcome: Outcome) -> tuple[EnhancedCode, int | None]:
    """The enhanced code and the reply code in a grammar's values."""
    return code_in(found.get("reply_code"), found.get("code"), outcome)


def code_in(digits: str | None, text: str | None, outcome: Outcome) -> tuple[EnhancedCode, int | None]:
    """The same of a reply code and an enhanced code as texts, if there are any."""
    reply_code = int(digits) if digits else None
    return (EnhancedCode.parse(text) if text else undefined_code(outcome, reply_code)), reply_code
