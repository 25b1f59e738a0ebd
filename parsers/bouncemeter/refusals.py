"""Postfix's refusals of other servers' mail, by smtpd(8), postscreen(8), cleanup(8) and anvil(8)'s limits.

Input: a line's message, without what syslog put before it. Output: the rejection.

The client writes much of such a line: its HELO, the addresses, a header, even its name (by its reverse DNS). None of
that becomes a field other than its own, and none of its words is left where it could decide the reason.
"""

from __future__ import annotations

import re

import pyparsing as pp

from bouncemeter.event import EnhancedCode, Event, Outcome, Stage
from bouncemeter.grammar import code_of, enhanced_code, logged_address, quoted_local_part, regex, reply, rest
from bouncemeter.lowering import lowered
from bouncemeter.patterns import compiled

__all__ = ["client", "limited", "queue_id", "refusal_in"]

queue_id = regex(r"[0-9A-F]{5,20}(?=:)|[0-9B-DF-HJ-NP-TV-Zb-df-hj-np-tv-z]{10,24}(?=:)")
"""Short: hexadecimal of microseconds and inode. Long: base 52, no vowels (enable_long_queue_ids)."""

client = regex(r"[^\s\[]*+\[[^\]\n]*+\](?::[0-9]+)?+")
"""`unknown[192.0.2.1]`; postscreen writes `[192.0.2.1]:41000`."""

text = rest("text")
end = regex(r"(?![^\n])")

# --- rejections: who was refused, our reply, why, the envelope --------------------------------------------------

# After the protocol comes the HELO, which the client writes: it may hold brackets, spaces and whole envelopes. An
# address may too, if it is not quoted. So whatever has a second protocol can be read in two ways, and is not read.
greeting = regex(r",? proto=[A-Z]++(?:[^ \n]++| (?!proto=[A-Z]))*+(?![^\n])")
envelope = (
    regex(r";(?= )")
    + pp.Opt(" from=<" + logged_address("sender") + ">" + regex(",?"))
    + pp.Opt(" to=<" + logged_address("recipient") + ">")
    + greeting
)
# Mail of a local user has no client, and so no protocol.
local_envelope = "; from=<" + logged_address("sender") + ">" + pp.Opt(" to=<" + logged_address("recipient") + ">") + end
# With info_log_address_format = internal, odd addresses are not quoted: they are read if only one reading is possible.
unquoted = regex(r"(?:[^>\n]++|>(?!,? (?:to=<|proto=)))*+")
unquoted_envelope = "; from=<" + unquoted("sender") + pp.Opt(regex(">,? to=<") + unquoted("recipient")) + ">" + greeting

# The offending name or address comes first, in brackets, and may itself imitate an envelope.
our_words = r"(?:[^;\n]++|;(?! (?:from=<|to=<|proto=)))*+"
plain_why = regex(rf'(?:<[^<>"\s]*+>: )?+{our_words}')
why = pp.Combine(pp.Opt(regex(rf'<(?:{quoted_local_part}[^<>]*+|[^<>"]*+)>: ')) + regex(our_words))

refused = (
    regex(r"(?:milter-|proxy-)?reject: ")
    + (pp.Word(pp.alphas.upper() + "-_") | "connect")("stage")
    + pp.Opt(" from " + client("relay"))
    + ": "
    + pp.Opt((reply | enhanced_code("code")) + " ")
)
queue_name = (pp.Literal("NOQUEUE") | queue_id("queue_id")) + ": "
usual_rejection = lowered(queue_name + refused + plain_why("text") + envelope)
smtpd_rejection = refused + why("text") + pp.Opt(envelope | local_envelope | unquoted_envelope)

# A header or body line is the sender's own text, then an envelope follows; our verdict comes after the last envelope.
content_rejection = regex(r"reject: (?:(?:mime-|nested-|smtp-)?header|body|content) ")("content") + (
    regex(r".*(?:(?<=>: )|(?<=SMTP: ))") + pp.Opt(enhanced_code("code") + " ") + text | rest
)
mime_rejection = regex("reject: mime-error ")("content") + regex(r"[^:\n]*+")("text")

rejection = lowered(queue_name + (mime_rejection | content_rejection | smtpd_rejection))
bare_rejection = lowered(smtpd_rejection)

limited = "|".join(
    [
        *("Connection concurrency", "Connection rate", "Message delivery request rate", "Recipient address rate"),
        *("New TLS session rate", "AUTH command rate", "AUTH rate"),
    ]
)
limit_exceeded = lowered(
    "warning: "
    + regex(rf"(?:{limited})(?= limit exceeded: )")("limit")
    + " limit exceeded: "
    + regex("[0-9]+ from ")
    + client("relay")
    + " for service "
)
"""smtpd(8) refuses a client that exceeds a limit of anvil(8), and logs nothing else about it."""

# --- what the words mean ------------------------------------------------------------------------------------------

STAGES = {
    "CONNECT": Stage.CONNECT,
    "connect": Stage.CONNECT,
    "HELO": Stage.HELO,
    "EHLO": Stage.HELO,
    "STARTTLS": Stage.HELO,
    "AUTH": Stage.HELO,
    "ETRN": Stage.HELO,
    "MAIL": Stage.MAIL,
    "RCPT": Stage.RCPT,
    "VRFY": Stage.RCPT,
}
"""By the refused command; all others come at or after DATA."""

LIMITS = {
    "New TLS session rate": (Stage.HELO, 421),
    "AUTH rate": (Stage.HELO, 450),
    "AUTH command rate": (Stage.HELO, 450),
    "Message delivery request rate": (Stage.MAIL, 450),
    "Recipient address rate": (Stage.RCPT, 450),
}
"""The stage at which smtpd(8) refuses a client for a limit, and the reply code, which it does not log. At any other
limit (of connections) it refuses the client at once, with 421."""

# smtpd(8) also logs `too many errors after RCPT from ...`, `improper command pipelining after ...` and `lost connection
# after ...`. They refuse no mail: what was refused before has lines of its own, and the client may come again.


def refusal_in(message: str, time: float | None, host: str | None) -> Event | None:
    """The refusal that a message records; None if it records none.

    Args:
        message: The line without its syslog prefix.
        time, host: From the prefix, as in `Event`.
    """
    found = usual_rejection.values(message)
    if found is None:
        message = _with_plain_helo(message)
        found = rejection.values(message) or bare_rejection.values(message)
    if found is None:
        return _limit(message, time, host)
    stage = STAGES.get(found.get("stage", ""), Stage.DATA)
    if stage is Stage.CONNECT and "code" not in found:
        found.setdefault("reply_code", "421")  # postscreen(8) sends this reply, but does not log it
    code, reply_code = code_of(found, Outcome.REJECTED)
    return Event(
        mta="postfix",
        outcome=Outcome.REJECTED,
        code=code,
        time=time,
        host=host,
        reply_code=reply_code,
        queue_id=found.get("queue_id"),
        recipient=found.get("recipient"),
        sender=found.get("sender"),
        relay=found.get("relay"),
        text=_verdict(found.get("text") or ""),
        stage=stage,
    )


_HELO_REFUSED = re.compile(r">: Helo command rejected: ")


def _with_plain_helo(message: str) -> str:
    """A message without the brackets, spaces and semicolons of a refused HELO.

    It is there twice, before our words and at the end, and so it can be found whatever it holds.
    """
    start = message.find(" <") + len(" <")
    if not message.endswith(">"):
        return message
    for match in reversed([*_HELO_REFUSED.finditer(message, start)][:MAX_HELO_ENDS]):
        helo = message[start : match.start()]
        tail = f" helo=<{helo}>"
        if message.endswith(tail) and len(message) - len(tail) > match.end():
            plain = re.sub(r"[<>;\"\s]", "_", helo)
            return f"{message[:start]}{plain}{message[match.start() : -len(tail)]} helo=<{plain}>"
    return message


MAX_HELO_ENDS = 100
"""How often a HELO may imitate its own end before it is given up."""


def _limit(message: str, time: float | None, host: str | None) -> Event | None:
    found = limit_exceeded.values(message)
    if found is None:
        return None
    stage, reply_code = LIMITS.get(found["limit"], (Stage.CONNECT, 421))
    return Event(
        mta="postfix",
        outcome=Outcome.REJECTED,
        code=EnhancedCode(4, 7, 0),
        time=time,
        host=host,
        reply_code=reply_code,
        relay=found["relay"],
        text=f"{found['limit']} limit exceeded",
        stage=stage,
    )


_PLAIN = compiled(r"(?:<[^<>\s\\]{0,320}+>: )?+[^<>\[]*+")
_CLIENTS_WORDS = re.compile(
    r"<(?P<offender>.*)>: (?=(?:[A-Z][A-Za-z-]*+ )(?:[a-z-]++ )*?(?:rejected: |denied\b))"
    r"|(?P<before>(?:[^\[]{0,80}; )?(?:[A-Za-z]++ ){1,3})\[(?P<listed>.*)\](?= blocked using )"
)
_CHECKED_ADDRESS = re.compile(
    r"<[^<>\s]*+>: (?:Sender|Recipient) address rejected: (?:undeliverable|unverified) address"
)
_BREAKS = re.compile(r"[<>\s\\]")


def _verdict(text: str) -> str:
    """Our own verdict, with what the client wrote in brackets, where no word of it can decide the reason.

    Postfix puts the HELO, address or name that it refuses before its verdict: `<a> b>: Helo command rejected: ...`.
    The text after a checked address quotes another server, which may quote such a verdict.
    """
    if _PLAIN.fullmatch(text):
        return text
    found = None if _CHECKED_ADDRESS.match(text) else _CLIENTS_WORDS.match(text)
    if found is None:
        return text
    if (offender := found["offender"]) is not None:
        return f"<{_BREAKS.sub('_', offender)[:320]}>: {text[found.end() :]}"
    listed = found["listed"]
    if not _NAME.search(listed):  # an IP address
        return text
    return f"{found['before']}[<{_BREAKS.sub('_', listed)[:320]}>]{text[found.end() :]}"


_NAME = re.compile(r"[^0-9A-Fa-f.:]")
