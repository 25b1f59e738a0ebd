"""Exim: the main log, in a file or through syslog, any log_selector, message IDs from before and after 4.97.

Input: one line, such as

    2026-11-24 15:58:10 1xVsuB-0001DU-2n ** a@dest.test R=dns T=smtp H=mx.dest.test [192.0.2.1]: SMTP error from
    remote mail server after RCPT TO:<a@dest.test>: 550 5.1.1 User unknown

Output: outcomes, rejections, and the steps of a message through the queue. The two-character flag after the
message ID gives the outcome. The other server wrote the text after the first free colon and inside `C="..."`:
only the reply's code and the next message ID are read from it.
Source: "The Exim log files" in the Exim specification, and the text of log lines of Exim 4.50 to 4.98.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import pyparsing as pp

from bouncemeter.blocks import Columns, Row, UsualReader
from bouncemeter.event import Entry, Event, Outcome, Stage, Step, StepKind
from bouncemeter.grammar import (
    bracketed_address,
    code_of,
    enhanced_code,
    exim_stamp,
    quoted_local_part,
    reply,
    rest,
    syslog_prefix,
)
from bouncemeter.lowering import lowered, lowered_block
from bouncemeter.plugin import LineReader, UnparsedLineError
from bouncemeter.stamps import Clock, Stamps

__all__ = ["PARSER", "EximParser"]

# --- the start of a line ----------------------------------------------------------------------------------------

message_id = pp.Regex(r"[0-9A-Za-z]{6}-(?:[0-9A-Za-z]{11}-[0-9A-Za-z]{4}|[0-9A-Za-z]{6}-[0-9A-Za-z]{2})(?= )")
"""`1xVsuB-0001DU-2n`; since 4.97 `1abcDE-000000005vi-0000`."""

process_id = pp.Opt(pp.Regex(r"\[[0-9]+\] "))
own_start = exim_stamp("stamp") + " " + process_id
long_line_part = pp.Regex(r"\[1[/\\][0-9]+\] ")
"""Exim splits a long line for syslog; the first part has all the fields."""

# With syslog_timestamp = false only the process ID is left of Exim's own start.
start = own_start | syslog_prefix + pp.Opt(long_line_part) + (own_start | process_id)

# --- addresses --------------------------------------------------------------------------------------------------

address = pp.Regex(rf'(?:[^"<>\n]++|{quoted_local_part})*+(?=>)') | bracketed_address
"""An address between angle brackets; its quoted parts, of which there may be several, may contain brackets."""

quoted = pp.Regex(rf"{quoted_local_part}@[^\s<>:]++(?= [<(]|:| [A-Z]| (?:routing )?+defer |$)")
plain = pp.Regex(
    r'(?![|/])(?:[^\s<>":]++|:(?=[^\s]))++'
    r"(?= [<(]|:| [A-Z][A-Za-z0-9]*+[= ]| (?:routing )?+defer | :| mua_wrapper forced | routing yielded |$)"
)
blackhole = pp.Literal(":blackhole:")
# A pipe, a file, or anything odd: the address that led there follows in brackets.
special = pp.Regex(r"[^\n]{1,1024}?(?= <[^<>\n]*>(?: |$))")

target = (
    (blackhole | quoted | plain | special)("target")
    + pp.Opt(pp.Regex(r" \([^()\n]*+\)"))
    + pp.Opt(" <" + address("top") + ">")
)

# Exim writes a local part that needs quotes without them, in lower case, and the quoted form follows:
# `a b@dest.test <"A b"@dest.test>`. Only where the two agree is that the end of the address: see `_quoted_target`.
needs_quotes = rf'(?:[^"\\<>@\s]*+{quoted_local_part})++[^"\\<>@\s]*+'
quoted_top = lowered(" <" + pp.Regex(needs_quotes)("local_part") + "@" + pp.Regex(r'[^\s<>"@]++')("domain") + ">")
after_local_part = lowered(
    pp.Opt(pp.Regex(r'@[^\s<>"@]++')("domain")) + pp.Opt(pp.Regex(r" \([^\n]*\)")) + pp.StringEnd()
)

# --- fields: R=router, T=transport, H=host [ip]:port, C="reply", QT=3s ... -----------------------------------------

# A client's greeting (HELO) stands in round brackets, and may be any text with helo_accept_junk_hosts: it ends at the
# first bracket before an address.
greeting = r"\((?:[^)\n]++|\)(?! \[[^\[\]\s]++\]))*+\) "
host_name = pp.Regex(rf"(?:[^\s\[\]()]++ )?+(?:{greeting})?+(?:DS )?+\[[^\[\]\n]*+\](?::[0-9]+)?+")
host = " H=" + (host_name | pp.Regex(r"[^\s\[\]:]++"))("relay") + pp.Opt("*")
interval = pp.Regex(r"(?:[0-9]+w)?(?:[0-9]+d)?(?:[0-9]+h)?(?:[0-9]+m)?(?:[0-9.]+s)?(?![0-9A-Za-z])")
queue_time = " QT=" + interval("queue_time")
confirmation = ' C="' + pp.Regex(r'(?:[^"\\\n]++|\\.)*+')("confirmation") + '"'
sender_field = pp.Regex(" [FP]=<") + address("sender") + ">"
other_field = pp.Regex(
    r" (?!(?:H|QT|C|DN)=)[A-Za-z][A-Za-z0-9]*+\*?+="
    r'(?:"(?:[^"\n]++|"(?! (?!H=)[A-Z][A-Za-z0-9]*+\*?+=| ?:|$))*+"|<[^<>\n]*+>|(?:[^\s:]++|:(?=[^\s]))*+)'
)
flag_word = pp.Regex(r" (?:L[-.*]?|K|TFO\*{0,2}|PRDR|DS|NOTLS|-K)(?= |:|$)")

# The name in a certificate (log_selector +tls_peerdn) is the other side's, and may imitate all that can follow it.
# GnuTLS writes a quote in it as `\\"`, OpenSSL does not. The host comes before it, so the name cannot imitate one.
end_of_delivery = (
    r"(?=(?: SNI=\S++)?+(?: A=\S++)?+(?: L[-.*]?)?+(?: PRDR)?+(?: K)?+"
    r'(?: C="(?:[^"\\\n]++|\\.)*+")?+(?: QT=[0-9a-z.]++)?+(?: DT=[0-9.]++s)?+(?![^\n]))'
)
end_of_failure = r"(?=: (?:SMTP error from remote mail|LMTP error (?:after|from)))"
end_of_other_failure = r"(?=: (?![0-9])|(?: DT=[0-9.]++s)?+(?![^\n]))"
end_of_client = r"(?= (?:SNI=|[FAP]=|(?:temporarily )?rejected |dropped by ))"


def ending(end: str) -> str:
    """The pattern of a certificate's name whose first quote before `end` ends it."""
    return rf'(?:[^"\\\n]++|\\.|"(?!{end}))*+"{end}'


# All that follows the name of a delivery's host is ours, or has its quotes escaped: it cannot be imitated.
delivery_certificate = ' DN="' + pp.Regex(
    rf'/(?:[^"\n]++|"(?!{end_of_delivery}))*+"{end_of_delivery}|{ending(end_of_delivery)}'
)
# A failure ends in a reply. OpenSSL's names begin with a slash, and Exim writes 255 characters of them at most: there
# the last quote counts that can end the name.
failure_certificate = ' DN="' + pp.MatchFirst(
    [
        pp.Regex(pattern)
        for end in (end_of_failure, end_of_other_failure)
        for pattern in (rf'(?=/)[^\n]{{0,255}}"{end}', f"(?!/){ending(end)}")
    ]
)
client_certificate = ' DN="' + (
    pp.Regex(rf'/(?:[^"\n]++|"(?!{end_of_client}))*+"{end_of_client}')("unescaped_name")
    | pp.Regex(ending(end_of_client))
)
# The server's name that the client asked for; older versions write it in quotes, and escape none in it.
server_name = ' SNI="' + pp.Regex(ending(end_of_client))("unescaped_name") | pp.Regex(r" SNI=\S++")


def with_fields(*one_field: pp.ParserElement) -> pp.ParserElement:
    """Fields in any order, with the host among them."""
    return pp.ZeroOrMore(pp.MatchFirst(one_field)) + pp.Opt(host) + pp.ZeroOrMore(pp.MatchFirst(one_field))


fields = with_fields(sender_field, other_field, flag_word)
delivery_fields = with_fields(queue_time, confirmation, sender_field, delivery_certificate, other_field, flag_word)
failure_fields = with_fields(sender_field, failure_certificate, other_field, flag_word)

# A system error comes before the host, a reply after it: `defer (111): Connection refused H=mx.test [192.0.2.1]`.
system_error = ": " + pp.Regex(r"[A-Z][A-Za-z '/]{0,80}?(?= H=)")("system_error")
deferral = pp.Regex(r" (?:routing )?+defer \(-?[0-9]+\)") + pp.Opt(system_error) + fields

# With log_selector +deliver_time a failure ends in `DT=`, after the error.
text = pp.Regex(r" ?: ?") + pp.Regex(r"(?:[^ \n]++| (?!DT=[0-9.]++s$))*+")("text")

# --- the forms of a line with a message ID ----------------------------------------------------------------------

delivered = pp.Literal("=>") | "->" | ">>" | "*>"
flag = delivered | "**" | "=="

# Exim as a mail client's wrapper (mua_wrapper) never tries again, and says so without a colon.
wrapper_failure = " " + pp.Regex(r"mua_wrapper forced failure [^\n]*+|routing yielded a [a-z]++ delivery")("text")
after_delivery = delivery_fields + (text | rest("text"))
after_failure = failure_fields + (wrapper_failure | text | rest("text"))
after_deferral = fields + pp.Opt(deferral) + (text | rest("text"))

discarded = pp.Regex(r"=> (?:blackhole|discarded) \([^\n]*+")("discarded")
"""An access control list or a filter discarded the whole message."""

outcome = (
    delivered("flag") + " " + target + after_delivery
    | pp.Literal("**")("flag") + " " + (pp.Regex("mua_wrapper is set but [^\n]*+")("text") | target + after_failure)
    | pp.Literal("==")("flag") + " " + target + after_deferral
)

arrival = (
    pp.Literal("<= ")("arrived")
    + pp.Regex(rf'<>|(?:[^"\s]++|{quoted_local_part})++|\S++')("arrival_sender")
    + pp.Opt(fields)
)

completion = pp.Literal("Completed")("completed")

queue_line = lowered(message_id("queue_id") + " " + (discarded | outcome | arrival | completion))
flagged = lowered(message_id("queue_id") + " " + flag("flag") + " ")
after_target = {
    **dict.fromkeys(("=>", "->", ">>", "*>"), lowered(after_delivery)),
    "**": lowered(after_failure),
    "==": lowered(after_deferral),
}

# --- rejections -------------------------------------------------------------------------------------------------

client = pp.Opt("H=") + host_name("relay")
mail_from = "<" + address("mail") + ">"
temporarily = pp.Regex("(?:excess )?temporarily ")("temporarily")
line_end = r"(?![^\n])"

# What the client's ident server (RFC 1413) calls its user: any text.
ident = pp.Regex(
    r"U=[^\n]{1,512}?(?= (?:[FXPI]=|CV=|DN=\"|SNI=|TFO|L[-.*]? |DS |(?:temporarily )?rejected |dropped by )|"
    + line_end
    + ")"
)
bare_sender = "F=" + pp.Regex(rf'(?!<)(?:[^"\s]++|{quoted_local_part})++')("sender")
rule_field = (
    sender_field | " " + (bare_sender | ident("ident")) | client_certificate | server_name | other_field | flag_word
)
who = pp.Opt(pp.Regex(" ?DS ?")) + (
    "H=" + host_name("relay") | ident("ident") | "F=<" + address("sender") + ">" | bare_sender
)
# A cut-through delivery that the next server refused: the address that was tried comes before its sender.
cut_through = (
    " "
    + pp.Regex(r'[^\s<>"=]++(?= F=<| <)')("recipient")
    + pp.Opt(" <" + address + ">")
    + sender_field
    + " rejected after DATA:"
    + pp.ZeroOrMore(
        ' C="' + pp.Regex(r'(?:[^"\\\n]++|\\.)*+')("text") + '"'
        | delivery_certificate
        | " H=" + host_name
        | other_field
        | flag_word
    )
)

# What was refused is the client's own text, up to 100 characters of it; a quoted part, a comment (RFC 5322) or an
# address literal in it may contain a colon.
argument = (
    pp.Regex(r'(?:[^:"(\n]++|:(?! )|"(?:[^"\\\n]++|\\.)*+"|\((?:[^()\\\n]++|\\.)*+\))*+(?=: |' + line_end + ")")
    | pp.Regex(r" [^\n]{100}(?=: |" + line_end + ")")
    | pp.Regex(r"[^\n]*+")
)("argument")
bare = pp.Regex(r'(?:[^\s<>":(]++|:(?! ))++')
addressed = pp.Regex(rf' (?:[^<":(\n@]++|\([^()\n]*+\)|{quoted_local_part})*+<') + address("recipient") + ">" | (
    " " + bare("recipient")
)
command = (
    (pp.Literal("RCPT") | "VRFY" | "EXPN")("command") + pp.Opt(pp.FollowedBy(addressed))
    | pp.Literal("MAIL")("command") + pp.Opt(pp.FollowedBy(" " + (mail_from | bare("mail"))))
    | pp.Regex(r"[A-Za-z]++(?![^ :\n])")("command")
)

# Our own words: what the client wrote follows some of them.
own_words = pp.Regex(
    r"syntactically invalid argument\(s\)"
    r"|malformed address(?=: )"
    r'|(?:[^:\n]++|:(?! failing address in "))++(?=: failing address in ")'
)
verdict = pp.Regex(" ?: ?") + (own_words | rest)("text")

refusal = " " + pp.Opt(temporarily) + "rejected " + command + argument + pp.Opt(verdict)
drop = " dropped by " + pp.Regex("['\"]?") + pp.Word(pp.alphas)("command") + pp.Regex("['\"]? ACL") + pp.Opt(verdict)

# By an access control list or the scanner: who, then what was refused.
rule_fields = pp.ZeroOrMore(rule_field) + pp.Opt(" H=" + host_name("relay")) + pp.ZeroOrMore(rule_field)
by_rule = who + rule_fields + (cut_through | refusal | drop) | (
    pp.Regex("SMTP (?:call|connection) from ") + client + rule_fields + drop
)


def someone(*ends: str) -> pp.ParserElement:
    """Who was refused, up to the surest of what can follow: the client, its user by ident, or a local user."""
    to_end = (rf"(?:(?!{end})[^\n])*+(?={end})" for end in ends)
    return pp.Opt(client) + pp.MatchFirst([pp.Regex(each) for each in to_end])


# By Exim itself: what was refused, then who.
of_message = (
    "rejected from " + mail_from + pp.Opt(" ") + someone(": (?:message too big|Too many|Non-CRLF)", ": ") + verdict
)
of_command = (
    "rejected "
    + pp.Word(pp.alphas.upper())("command")
    + (pp.Literal(" from ") | " command " | " FROM:" + mail_from + " ")
    + someone(": (?:syntactically invalid|no HELO|too many messages|message too big)", ": ")
    + verdict
)
of_name = pp.Opt(temporarily) + 'rejected "' + pp.Word(pp.alphas)("command") + pp.Regex(r'[^"\n]*+" from ') + client
of_address = (
    pp.FollowedBy(pp.Regex("unqualified (?:sender|recipient|verify) rejected")("text"))
    + "unqualified "
    + (
        pp.Literal("sender")("command") + " rejected: " + mail_from
        | (pp.Literal("recipient") | "verify")("command") + " rejected: <" + address("recipient") + ">"
    )
    + pp.Opt(" " + client)
)
of_recipients = (
    pp.FollowedBy(pp.Literal("too many recipients")("text"))
    + "too many "
    + pp.Literal("recipients")("command")
    + ": "
    + (temporarily | pp.Literal("message "))
    + "rejected: sender="
    + mail_from
    + pp.Opt(" " + client)
)
# The client's input is in quotes, and may imitate who sent it: it counts only if it can be found in one place.
no_more_input = pp.Regex(r' next input="(?![^\n]* next input=")')
of_synchronization_error = (
    pp.Regex(r"SMTP protocol synchronization error \([^()\n]*+\)")("text")
    + ": rejected "
    + (
        pp.Literal("connection")("command") + " from" + pp.Opt(" " + client)
        | '"'
        + pp.Word(pp.alphas)("command")
        + pp.Regex(r'[^"\n]*+"')
        + pp.Opt(pp.FollowedBy(" " + client + pp.ZeroOrMore(rule_field) + no_more_input))
    )
)
# Turned away before a greeting: `refused connection from H=...`, `Connection from [ip] refused: too many connections`.
of_connection = (
    pp.Opt(temporarily)
    + "refused "
    + pp.Literal("connection")("command")
    + " from "
    + someone(r": not in |(?<= )\((?:host_reject_connection|tcp wrappers)", r": |(?<= )\(|" + line_end)
    + pp.Opt(": ")
    + rest("text")
    | pp.Literal("Connection")("command")
    + " from "
    + someone(" refused: ")
    + pp.Literal(" refused: ")("temporarily")
    + rest("text")
    | pp.Literal("connection")("command")
    + " from "
    + someone(" refused")
    + " refused"
    + pp.Opt(pp.Regex(":? "))
    + rest("text")
)
of_call = (
    pp.Literal("SMTP ")
    + pp.Literal("call")("command")
    + " from "
    + someone(" dropped: too many ")
    + " dropped: "
    + pp.Regex(r"too many [a-z-]++(?: [a-z-]++)*+")("text")
)
of_failed_check = pp.Regex(
    r"local_scan\(\) function (?:crashed|timed out)(?= )|acl_smtp_mime: error while creating mbox spool file(?=, )"
)("text") + pp.Regex(r"(?:(?!message temporarily rejected)[^\n])*+message temporarily ")("temporarily")
of_prdr = "PRDR R=<" + address("recipient") + "> " + pp.Opt(pp.Literal("temporary ")("temporarily")) + "refusal"

rejection = lowered(
    pp.Opt(message_id("queue_id") + " ")
    + (
        by_rule
        | of_message
        | of_command
        | of_name
        | of_address
        | of_recipients
        | of_synchronization_error
        | of_connection
        | of_call
        | of_failed_check
        | of_prdr
    )
)

# A client's user (ident), the name in its certificate if OpenSSL wrote it, and its greeting can imitate a verdict: the
# real one follows. See `_without_forged_verdict`.
refused_command = pp.Regex(
    r" (?:temporarily )?rejected (?:RCPT|MAIL|DATA|after DATA|EHLO or HELO|connection in|during MIME)(?![^ :\n])"
)
later_verdict = lowered(
    pp.Opt(pp.Literal(") ") + pp.Regex(r"\[[^\[\]\s]++\](?::[0-9]+)?+")("relay"))
    + pp.Opt(sender_field)
    + pp.ZeroOrMore(rule_field)
    + pp.FollowedBy(refused_command)
    + refusal
)
another_kind = lowered(
    pp.Regex(
        r"(?:(?! (?:sender verify (?:fail|defer) for <|incomplete transaction \()|(?<!:) Warning: )[^\n])*+(?=[^\n])"
    )
)
"""A line that is no refusal, though it looks so up to here."""

# A refusal in other words. The words of a client, quoted in other lines, are none; nor are warnings and interim steps.
unknown_refusal = lowered(
    pp.Opt(message_id + " ")
    + (
        pp.NotAny("H=" + host_name + ": ")
        + pp.Regex(
            r"(?: ?DS ?)?[HUF]=(?:(?! (?:Warning: |sender verify |incomplete transaction|TLS error|Connection refused"
            r"|RCPT |tmp-reject|(?:temporarily )?(?:rejected|refused) |dropped by ))[^\n])*+"
            r" (?:(?:temporarily )?(?:rejected|refused) |dropped by )"
        )
        | pp.Regex(
            r"(?!VRFY failed|ETRN |PRDR |no MAIL |SMTP (?:syntax|protocol) error |SMTP (?:connection|command timeout) )"
            r"(?:(?!Connection refused)(?!rejected|refused)[A-Za-z_()\[\]0-9.:-]*[A-Za-z_()\]] ){0,8}+"
            r"(?:rejected|refused)(?= |:|" + line_end + ")"
        )
    )
)

# --- the other server's reply -----------------------------------------------------------------------------------

smtp_command = (pp.Regex(r"(?:pipelined )?(?:RCPT TO|MAIL FROM):<") + address + pp.Regex(r">[^:\n]*+")) | pp.Regex(
    r"[^:\n]*+"
)
remote_reply = lowered(
    pp.Opt(
        pp.Regex(r"(?:SMTP|LMTP) error (?:from remote mail(?:er| server) )?after ")
        + smtp_command
        + ": "
        + pp.Opt("host " + host_name("relay") + ": ")
    )
    + reply
)

queued_as = lowered(pp.Regex(r"(?s:.*) id=") + pp.Regex("[0-9A-Za-z-]{16,23}$")("passed_to"))
"""`250 OK id=1xVsuB-0001DU-2n`: the next Exim's message ID for the message."""

local_reply = lowered(pp.FollowedBy(pp.Regex("[45]")) + (reply | enhanced_code("code")))
"""A text from our own configuration may begin with the reply to send, or only its enhanced code."""

# --- the usual lines of a log, and which other lines may matter ------------------------------------------------------

end = pp.Regex(r"(?![^\n])")
usual_field = pp.Regex(r' (?!(?:H|QT|C)=)[A-Za-z][A-Za-z0-9]*+\*?+=(?!["<])\S++(?<!:)')
usual_target = pp.NotAny(pp.Regex(r'(?:[^\n<]++|<(?!"))*+<"')) + pp.FollowedBy(pp.Regex(r"[^\s@]++@")) + plain("target")
success = pp.FollowedBy(pp.Regex(r"2[0-9]{2}(?![0-9])") + pp.Opt(pp.Regex(r"[ -]") + enhanced_code("code")))
usual_delivery = (
    (pp.Literal("=>") | "->" | ">>")("flag")
    + " "
    + usual_target
    + pp.Opt(" <" + pp.Regex('[^<>"\n]++')("top") + ">")
    + pp.Opt(pp.Regex(" [FP]=<") + pp.Regex('[^<>"\n]++')("sender") + ">")
    + pp.ZeroOrMore(usual_field)
    + pp.Opt(" H=" + host_name("relay") + pp.Opt("*"))
    + pp.ZeroOrMore(usual_field)
    + pp.Opt(' C="' + success + pp.Regex(r'(?:[^"\\\n]++|\\.)*+')("confirmation") + '"')
    + pp.Opt(queue_time)
    + pp.ZeroOrMore(usual_field)
    + end
)
usual_arrival = (
    "<= "
    + pp.Regex(r'(?!<>)[^\s"]++')("arrival_sender")
    + pp.ZeroOrMore(usual_field)
    + (" H=" + host_name("peer") | end)
)

marked = pp.Regex(r"(?:[^rd\n]++|r(?!ejected|efus)|d(?!ropped))*+(?:rejected|refus|dropped)")
"""Every refusal has one of these words: see `MARKS`."""

usual_lines = lowered_block(
    start=exim_stamp("stamp") + " " + pp.Opt(pp.Regex(r"\[[0-9]+\] ")),
    forms=message_id("queue_id") + " " + (usual_delivery | usual_arrival | completion),
    candidates=message_id + " " + (flag | "<= ") | marked,
)

# --- a whole line -------------------------------------------------------------------------------------------------

any_line = lowered(start + rest("message"))

# --- what the log's words mean ------------------------------------------------------------------------------------

NO_TRY = (
    "retry time not reached",
    "retry time not yet reached",
    "some host address lookups failed and retry time not reached",
    "connection limit reached for all hosts",
    "smtp delivery explicitly queued",
    "no host found for existing smtp connection",
    "remote deliver",  # "remote deliveries suppressed" and its variants
    "domain is in queue_",
    "domain matches queue_",
    "domain is held",
    "queue_remote option set",
    "concurrency limit reached for transport",
    "first-pass only routing",
)
"""Deferrals without an attempt, in lower case: the retry time has not come, or the configuration queues the mail. The
number in `defer (-53)` does not help: its meaning differs between versions of Exim."""

GAVE_UP = (
    "retry timeout exceeded",
    "have been failing for a long time",
    "for any host after a long failure period",
    "message timed out",
)
"""Exim's words, in lower case, when it gives up after retries; the first may follow the last error."""

STAGES = {
    "RCPT": Stage.RCPT,
    "MAIL": Stage.MAIL,
    "EHLO": Stage.HELO,
    "HELO": Stage.HELO,
    "STARTTLS": Stage.HELO,
    "AUTH": Stage.HELO,
    "ETRN": Stage.HELO,
    "ATRN": Stage.HELO,
    "VRFY": Stage.RCPT,
    "EXPN": Stage.RCPT,
    "connection": Stage.CONNECT,
    "Connection": Stage.CONNECT,
    "call": Stage.CONNECT,
    "sender": Stage.MAIL,
    "recipient": Stage.RCPT,
    "recipients": Stage.RCPT,
    "verify": Stage.RCPT,
}
"""By what was refused; all others come at or after DATA."""

ACL_STAGES = {stage.value: stage for stage in Stage} | {"auth": Stage.HELO, "starttls": Stage.HELO}
"""By the access control list that dropped the connection."""

LONGEST_LOCAL_PART = 255
"""Exim accepts no longer one."""

LONGEST_NAME = 512
"""What a client can call itself: Exim writes 127 characters of its user, and 255 of the name in its certificate if it
uses OpenSSL; a command has at most 512 (RFC 5321)."""

_UNITS = {"w": 604800.0, "d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}


def _seconds(interval_text: str) -> float:
    """Exim's `1h2m3s` or `0.123s`, in seconds."""
    total, digits = 0.0, ""
    for character in interval_text:
        if character in _UNITS:
            total += float(digits) * _UNITS[character]
            digits = ""
        else:
            digits += character
    return total


class EximParser:
    """Exim's main log; see `bouncemeter.plugin.Parser`."""

    name = "exim"
    each_line_alone = True

    def recognises(self, line: str) -> bool:
        """Whether a line is from Exim's own log, or from the program `exim` in syslog."""
        found = any_line.values(line)
        if found is None:
            return False
        program = found.get("program")
        if program is None:
            message = found["message"]
            return _any_message.matches(message) or rejection.matches(message)
        return program.startswith("exim") and "/" not in program

    def reader(self, clock: Clock = time.time) -> LineReader:
        """A reader for one file. `clock` supplies the year that syslog leaves out."""
        return _Reader(Stamps(clock))


_any_message = lowered(message_id + " " | pp.Regex(r"exim [0-9.]+ daemon started|(?:Start|End) queue run: pid="))

MARKS = ("rejected", "refus", "dropped", " => ", " -> ", " >> ", " ** ", " == ")
"""Any other message of interest contains one of these: a cheap test before trying other grammars."""


_NAMES = usual_lines.names
_CONFIRMATION = _NAMES.index("confirmation")


class _Reader(UsualReader):
    mta = "exim"
    lines = usual_lines
    columns = Columns.of(
        _NAMES,
        origin=None,
        arrival="arrival_sender",
        sender="arrival_sender",
        removal="completed",
        outcome="flag",
        recipient="target",
        original_recipient="top",
        delay="queue_time",
    )
    delivered = frozenset({"=>", "->", ">>"})

    def __call__(self, line: str, /) -> Sequence[Entry]:
        prefix = any_line.values(line)
        return self._message(prefix, prefix["message"]) if prefix is not None and _is_exim(prefix) else ()

    def look_closer(self, row: Row) -> Sequence[Entry]:
        return self._message({"stamp": row[0]}, row[-1]) if row[0] else self(row[-1])

    def _message(self, prefix: dict[str, str], message: str) -> Sequence[Entry]:
        found = _quoted_target(message) or queue_line.values(message)
        if found is not None:
            return self._queue_line({**prefix, **found})
        if not any(mark in message for mark in MARKS):
            return ()
        found = rejection.values(message)
        if found is not None:
            return self._rejection(found, prefix)
        if flagged.matches(message):
            raise UnparsedLineError("it records an outcome in an unknown form")
        if unknown_refusal.matches(message):
            raise UnparsedLineError("it records a refusal in an unknown form")
        return ()

    def entries_of(self, row: Row) -> Sequence[Entry]:
        found = {name: text for name, text in zip(_NAMES, row, strict=True) if text}
        if "peer" in found:
            found["relay"] = found["peer"]
        return self._queue_line(found)

    def passed_to(self, row: Row) -> str | None:
        return _passed_to(row[_CONFIRMATION])

    def seconds(self, delay: str) -> float:
        return _seconds(delay)

    def _queue_line(self, found: dict[str, str]) -> Sequence[Entry]:
        if "flag" in found:
            return self._outcome(found)
        if "discarded" in found:
            return ()
        sender = found.get("arrival_sender")
        return (
            Step(
                what=StepKind.REMOVED if sender is None else StepKind.ARRIVED,
                mta=PARSER.name,
                queue_id=found["queue_id"],
                time=self.stamps.seconds(found.get("stamp")),
                host=found.get("host"),
                sender="" if sender == "<>" else sender,
                peer=found.get("relay"),
            ),
        )

    def _outcome(self, found: dict[str, str]) -> Sequence[Entry]:
        text = found.get("text") or found.get("confirmation") or found.get("system_error")
        outcome = self._outcome_of(found, text or "")
        if outcome is None:
            return ()
        reply_values = remote_reply.values(text or "") or {}
        code, reply_code = code_of(reply_values, outcome)
        target = found.get("target")
        recipient, original = _recipients(target, found.get("top")) if target else (None, None)
        file_or_command = target if target and target[0] in "|/" else None
        delay = found.get("queue_time")
        return (
            Event(
                mta=PARSER.name,
                outcome=outcome,
                code=code,
                time=self.stamps.seconds(found.get("stamp")),
                host=found.get("host"),
                reply_code=reply_code,
                queue_id=found["queue_id"],
                passed_to=_passed_to(text or "") if outcome is Outcome.DELIVERED else None,
                recipient=recipient,
                original_recipient=original,
                sender=found.get("sender"),
                relay=found.get("relay", reply_values.get("relay", file_or_command)),
                delay=_seconds(delay) if delay else None,
                text=text,
            ),
        )

    @staticmethod
    def _outcome_of(found: dict[str, str], text: str) -> Outcome | None:
        match found["flag"]:
            case "=>" | "->" | ">>":
                return Outcome.DELIVERED
            case "==":
                return None if text.lower().startswith(NO_TRY) else Outcome.DEFERRED
            case "**":
                # A remote server can write Exim's words for giving up into its 5xx reply, which is final by itself.
                refused = (remote_reply.values(text) or {}).get("reply_code", "").startswith("5")
                gave_up = not refused and any(words in text.lower() for words in GAVE_UP)
                return Outcome.EXPIRED if gave_up else Outcome.BOUNCED
            case _:  # *> is a delivery that -N suppressed
                return None

    def _rejection(self, values: dict[str, str], prefix: dict[str, str]) -> Sequence[Entry]:
        found = _without_forged_verdict(values)
        if found is None:
            return ()
        text = found.get("text") or None
        digit = "4" if "temporarily" in found else "5"
        reply_values = local_reply.values(text or "") or {}
        if not all(value.startswith(digit) for value in reply_values.values()):
            reply_values = {}  # Exim does not send a reply that contradicts the verdict
        command = found.get("command", "")
        return (
            Event(
                mta=PARSER.name,
                outcome=Outcome.REJECTED,
                code=code_of({"reply_code": f"{digit}50", **reply_values}, Outcome.REJECTED)[0],
                time=self.stamps.seconds(prefix.get("stamp")),
                host=prefix.get("host"),
                queue_id=found.get("queue_id"),
                recipient=found.get("recipient"),
                sender=found.get("sender", found.get("mail")),
                relay=found.get("relay"),
                text=text,
                stage=STAGES.get(command) or ACL_STAGES.get(command, Stage.DATA),
            ),
        )


def _passed_to(text: str) -> str | None:
    """The message ID that a reply names."""
    return (queued_as.values(text) or {}).get("passed_to") if " id=" in text else None


def _is_exim(prefix: dict[str, str]) -> bool:
    return prefix.get("program", "exim").startswith("exim")


def _without_forged_verdict(found: dict[str, str]) -> dict[str, str] | None:
    """The values of a rejection, without what the client's user, certificate or greeting imitated; None if the line
    turns out to be none.

    None of the three has more than some hundred characters. Within them the last complete verdict is the real one.
    """
    address = found.get("recipient", found.get("mail", ""))
    text = found.get("argument", "").removeprefix(f" <{address}>")
    text += f": {found['text']}" if "text" in found else ""
    marks = [" F=<", " temporarily rejected ", " rejected "] if "ident" in found or "unescaped_name" in found else []
    if ")" in found.get("relay", ""):
        marks.append(") [")
    for mark in marks:
        place = text.rfind(mark, 0, LONGEST_NAME)
        while place >= 0:
            later = later_verdict.values(text[place:])
            if later is not None:
                of_client = {name: found[name] for name in ("queue_id", "relay") if name in found}
                return of_client | later
            place = text.rfind(mark, 0, place)
    is_suspect = "ident" in found or ") [" in text
    return None if is_suspect and another_kind.matches(text) else found


def _quoted_target(message: str) -> dict[str, str] | None:
    """The values of an outcome's line whose recipient needs quotes; None for any other line.

    Exim writes the local part without its quotes, and the quoted form after it, in angle brackets. The local part may
    imitate all that follows an address, so its end is the last place where both forms agree.
    """
    if '"' not in message or (begin := flagged.values(message)) is None:
        return None
    start = len(begin["queue_id"]) + len(begin["flag"]) + 2
    limit = start + 3 * LONGEST_LOCAL_PART
    place, found = message.find(" <", start, limit), None
    while place >= 0:
        top = quoted_top.values(message[place : place + 4 * LONGEST_LOCAL_PART])
        if top is not None and _agrees(message[start:place], top["local_part"]):
            found = place, f"{top['local_part']}@{top['domain']}"
        place = message.find(" <", place + 1, limit)
    if found is None:
        return None
    place, address = found
    target = message[start:place]
    more = after_target[begin["flag"]].values(message[place + len(address) + 3 :])
    return {**begin, "target": target, "top": address, **(more or {})}


def _agrees(target: str, local_part: str) -> bool:
    """Whether a target is what Exim writes for a quoted local part, with a domain after it or without."""
    plain, escaped = "", False
    for character in local_part:
        if escaped or character not in '"\\':
            plain, escaped = plain + character, False
        else:
            escaped = character == "\\"
    if len(plain) > LONGEST_LOCAL_PART or not target.lower().startswith(plain.lower()):
        return False
    return after_local_part.matches(target[len(plain) :])


def _recipients(target_text: str, top: str | None) -> tuple[str, str | None]:
    """The address tried and, if it differs, the original address."""
    if top is None:
        return target_text, None
    quoted_form = quoted_top.values(f" <{top}>")
    in_quotes = quoted_form is not None and _agrees(target_text, quoted_form["local_part"])
    if target_text[0] in "|/:>" or target_text.startswith("save ") or in_quotes:
        # A file or pipe for that address; or the address itself, in quotes.
        return top, None
    if "@" not in target_text and top.lower().startswith(f"{target_text}@".lower()):
        return top, None  # a local mailbox
    return target_text, top


PARSER = EximParser()
