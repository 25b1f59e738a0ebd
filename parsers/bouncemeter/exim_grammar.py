"""The forms of Exim's log lines.

Input: a line, or a part of one. Output: its named values; `bouncemeter.exim` says what they mean. Other people wrote
much of a line: addresses, greetings, the names in certificates, replies. Each such text is read up to an end that its
author could not have written, or, where Exim marks no such end, up to the last that it can have: docs/security.md lists
those.
Source: "The Exim log files" in the Exim specification, and Exim's acl.c, daemon.c, deliver.c, host.c, receive.c and
smtp_in.c (4.50 to 4.98).
"""

from __future__ import annotations

import pyparsing as pp

from bouncemeter.grammar import (
    bracketed_address,
    enhanced_code,
    exim_stamp,
    iso_stamp,
    origin,
    priority,
    quoted_local_part,
    regex,
    reply,
    rest,
    rfc5424_prefix,
    syslog_prefix,
    syslog_stamp,
    usual_prefix,
)
from bouncemeter.lowering import lowered, lowered_block
from bouncemeter.wrappers import without_wrapper, wrapper

__all__ = [
    "after_local_part",
    "after_syslog",
    "after_target",
    "another_kind",
    "another_kind_after_greeting",
    "any_line",
    "any_message",
    "flagged",
    "later_verdict",
    "local_reply",
    "named",
    "outcome_of_unknown_form",
    "queue_line",
    "queued_as",
    "quoted_top",
    "rejection",
    "rejection_by_rule",
    "remote_reply",
    "unknown_refusal",
    "usual_lines",
    "usual_rejection",
    "with_any_ident",
]

# --- the start of a line ----------------------------------------------------------------------------------------

message_id = regex(r"[0-9A-Za-z]{6}-(?:[0-9A-Za-z]{11}-[0-9A-Za-z]{4}|[0-9A-Za-z]{6}-[0-9A-Za-z]{2})(?= )")
"""`1xVsuB-0001DU-2n`; since 4.97 `1abcDE-000000005vi-0000`."""
any_message_id = regex(r"[0-9A-Za-z]++-[0-9A-Za-z-]++(?= )")
"""One of these, or of a form that is not known."""

process_id = pp.Opt(regex(r"\[[0-9]+\] "))
own_start = exim_stamp("stamp") + " " + process_id
long_line_part = regex(r"\[1[/\\][0-9]+\] ")
"""Exim splits a long line for syslog; the first part has all the fields."""

# With syslog_timestamp = false only the process ID is left of Exim's own start.
start = own_start | syslog_prefix + pp.Opt(long_line_part) + (own_start | process_id)

# --- addresses --------------------------------------------------------------------------------------------------

address = regex(rf'(?:[^"<>\n]++|{quoted_local_part})*+(?=>)') | bracketed_address
"""An address between angle brackets; its quoted parts, of which there may be several, may contain brackets."""

quoted = regex(rf"{quoted_local_part}@[^\s<>:]++(?= [<(]|:| [A-Z]| (?:routing )?+defer |$)")
plain = regex(
    r'(?![|/])(?:[^\s<>":]++|:(?=[^\s]))++'
    r"(?= [<(]|:| [A-Z][A-Za-z0-9]*+[= ]| (?:routing )?+defer | :| mua_wrapper forced | routing yielded |$)"
)
blackhole = pp.Literal(":blackhole:")
# A pipe, a file, or anything odd: the address that led there follows in brackets.
special = regex(r"[^\n]{1,1024}?(?= <[^<>\n]*>(?: |$))")

target = (
    (blackhole | quoted | plain | special)("target")
    + pp.Opt(regex(r" \([^()\n]*+\)"))
    + pp.Opt(" <" + address("top") + ">")
)

# Exim writes a local part that needs quotes without them, in lower case, and the quoted form follows:
# `a b@dest.test <"A b"@dest.test>`. Only where the two agree is that the end of the address: see `_quoted_target`.
needs_quotes = rf'(?:[^"\\<>@\s]*+{quoted_local_part})++[^"\\<>@\s]*+'
quoted_top = lowered(" <" + regex(needs_quotes)("local_part") + "@" + regex(r'[^\s<>"@]++')("domain") + ">")
after_local_part = lowered(pp.Opt(regex(r'@[^\s<>"@]++')("domain")) + pp.Opt(regex(r" \([^\n]*\)")) + pp.StringEnd())

# --- fields: R=router, T=transport, H=host [ip]:port, C="reply", QT=3s ... -----------------------------------------

# A client's greeting (HELO) stands in round brackets, and may be any text with helo_accept_junk_hosts: it ends at the
# first bracket before an address.
greeting = r"\((?:[^)\n]++|\)(?! \[[^\[\]\s]++\]))*+\) "
host_name = regex(rf"(?:[^\s\[\]()]++ )?+(?:{greeting})?+(?:DS )?+\[[^\[\]\n]*+\](?::[0-9]+)?+")
host = " H=" + (host_name | regex(r"[^\s\[\]:]++"))("relay") + pp.Opt("*")
interval = regex(r"(?:[0-9]+w)?(?:[0-9]+d)?(?:[0-9]+h)?(?:[0-9]+m)?(?:[0-9]+(?:\.[0-9]+)?s)?(?![0-9A-Za-z])")
queue_time = " QT=" + interval("queue_time")
confirmation = ' C="' + regex(r'(?:[^"\\\n]++|\\.)*+')("confirmation") + '"'
sender_field = regex(" [FP]=<") + address("sender") + ">"
of_own_form = r"(?:H|QT|C|DN)="
other_field = regex(
    rf" (?!{of_own_form}|SNI=\")[A-Za-z][A-Za-z0-9]*+\*?+="
    r'(?:"(?:[^"\n]++|"(?! (?!H=)[A-Z][A-Za-z0-9]*+\*?+=| ?:|$))*+"|<[^<>\n]*+>|(?:[^\s:]++|:(?=[^\s]))*+)'
)
flag_word = regex(r" (?:L[-.*]?|K|TFO\*{0,2}|PRDR|DS|NOTLS|-K)(?= |:|$)")

# The name in a certificate (log_selector +tls_peerdn) is the other side's, and may imitate all that can follow it.
# GnuTLS writes a quote in it as `\\"`, OpenSSL does not. The host comes before it, so the name cannot imitate one.
end_of_delivery = (
    r'(?=(?: SNI=(?:"[^"\n]*+"|\S++))?+'
    r"(?: A=\S++)?+(?: L[-.*]?)?+(?: PRDR)?+(?: K)?+"
    r'(?: C="(?:[^"\\\n]++|\\.)*+")?+(?: QT=[0-9a-z.]++)?+(?: DT=[0-9.]++s)?+(?![^\n]))'
)
end_of_failure = r"(?=: (?:SMTP error from remote mail|LMTP error (?:after|from)))"
end_of_other_failure = r"(?=: (?![0-9])|(?: DT=[0-9.]++s)?+(?![^\n]))"
end_of_client = r"(?= (?:SNI=|[FAP]=|(?:temporarily )?rejected |dropped by ))"


def ending(end: str) -> str:
    """The pattern of a certificate's name whose first quote before `end` ends it."""
    return rf'(?:[^"\\\n]++|\\.|"(?!{end}))*+"{end}'


certificate = regex(' (?:DN|SNI)="')
# All that follows the name of a delivery's host is ours, or has its quotes escaped: it cannot be imitated.
delivery_certificate = certificate + regex(
    rf'/(?:[^"\n]++|"(?!{end_of_delivery}))*+"{end_of_delivery}|{ending(end_of_delivery)}'
)
# A failure ends in a reply. OpenSSL's names begin with a slash, and Exim writes 255 characters of them at most: there
# the last quote counts that can end the name.
failure_certificate = certificate + pp.MatchFirst(
    [
        regex(pattern)
        for end in (end_of_failure, end_of_other_failure)
        for pattern in (rf'(?=/)[^\n]{{0,255}}"{end}', f"(?!/){ending(end)}")
    ]
)
client_certificate = ' DN="' + (
    regex(rf'/(?:[^"\n]++|"(?!{end_of_client}))*+"{end_of_client}')("unescaped_name") | regex(ending(end_of_client))
)
# The server's name that the client asked for; older versions write it in quotes, and escape none in it.
server_name = ' SNI="' + regex(ending(end_of_client))("unescaped_server_name") | regex(r" SNI=\S++")


def with_fields(*one_field: pp.ParserElement) -> pp.ParserElement:
    """Fields in any order, with the host among them."""
    return pp.ZeroOrMore(pp.MatchFirst(one_field)) + pp.Opt(host) + pp.ZeroOrMore(pp.MatchFirst(one_field))


fields = with_fields(sender_field, other_field, flag_word)
delivery_fields = with_fields(queue_time, confirmation, sender_field, delivery_certificate, other_field, flag_word)
failure_fields = with_fields(sender_field, failure_certificate, other_field, flag_word)

# A system error comes before the host, a reply after it: `defer (111): Connection refused H=mx.test [192.0.2.1]`.
deferred = regex(r" (?:routing )?+defer \(-?[0-9]+\)")
error_before_host = regex(r"[A-Z][A-Za-z '/]{0,80}?(?= H=)")
deferral = deferred + pp.Opt(": " + error_before_host("system_error")) + failure_fields

# With log_selector +deliver_time a failure ends in `DT=`, after the error.
text = regex(r" ?: ?") + regex(r"(?:[^ \n]++| (?!DT=[0-9.]++s$))*+")("text")

# --- the forms of a line with a message ID ----------------------------------------------------------------------

delivered = pp.Literal("=>") | "->" | ">>" | "*>"
flag = delivered | "**" | "=="

# Exim as a mail client's wrapper (mua_wrapper) never tries again, and says so without a colon.
wrapper_failure = " " + regex(r"mua_wrapper forced failure [^\n]*+|routing yielded a [a-z]++ delivery")("text")
after_delivery = delivery_fields + (text | rest("text"))
after_failure = failure_fields + (wrapper_failure | text | rest("text"))
after_deferral = fields + pp.Opt(deferral) + (text | rest("text"))

discarded = regex(r"=> (?:blackhole|discarded) \([^\n]*+")("discarded")
"""An access control list or a filter discarded the whole message."""

outcome = (
    delivered("flag") + " " + target + after_delivery
    | pp.Literal("**")("flag") + " " + (regex("mua_wrapper is set but [^\n]*+")("text") | target + after_failure)
    | pp.Literal("==")("flag") + " " + target + after_deferral
)

# Who handed the message over: the user who logged in, or, if no host did, the local user. An ident server (RFC 1413)
# may write anything after `U=`, so nothing is read after that of a host.
own_fields = regex(r"(?: (?:I=\[[^\]\n]*+\](?::[0-9]++)?+|TFO\*{0,2}|P=[a-z]++|L[-.*]?|(?:X|CV)=\S++))*+")
account = pp.FollowedBy(
    pp.Opt(regex(r" R=\S++"))
    + (" H=" + host_name + own_fields + regex(r" A=[^\s:]++:") | regex(" U="))
    + regex(r"[^\s:]++")("account")
)

arrival = (
    pp.Literal("<= ")("arrived")
    + regex(rf'<>|(?:[^"\s]++|{quoted_local_part})++|\S++')("arrival_sender")
    + pp.Opt(account)
    + pp.Opt(fields)
)

completion = pp.Literal("Completed")("completed")

# The subject, which may imitate a Message-ID, follows the real one. The client's greeting, its user (ident) and the
# names in its certificate come before it and may imitate it, too: after them it counts only if the line has no other.
only_one = r"(?![^\n]* id=[^\n]* id=)(?![^\n]* S=[0-9]++ [^\n]* S=[0-9]++(?: |$))"
of_any_text = regex(rf' (?:H=|U=|DN="|SNI="){only_one}[^\n]*?(?= S=[0-9]++ )')
plain_host = regex(
    r" H=(?:[^\s\[\]()]++ )?+(?:\([^\s()]*+\) )?+(?:DS )?+\[[^\[\]\s]*+\](?::[0-9]+)?+(?= )(?![^\n]*\) \[)"
)
field_before_id = regex(r' (?!H=|U=|id=|T="|DN="|SNI=")[A-Za-z][A-Za-z0-9]*+\*?+=[^\s"]*+(?= )') | flag_word
before_id = pp.ZeroOrMore(field_before_id | of_any_text)
named = lowered(
    message_id("queue_id")
    + " <= "
    + regex(rf'(?:[^"\s]++|{quoted_local_part})++')
    + pp.Opt(regex(r" R=\S++"))
    + (plain_host + before_id | regex(r" U=\S++(?= P=)") + before_id | before_id)
    + " id="
    + regex(rf'(?:[^"\s]++|{quoted_local_part})++')("message_id")
)

queue_line = lowered(message_id("queue_id") + " " + (discarded | outcome | arrival | completion))
flagged = lowered(message_id("queue_id") + " " + flag("flag") + " ")
outcome_of_unknown_form = lowered(any_message_id + " " + flag + " ")
after_target = {
    **dict.fromkeys(("=>", "->", ">>", "*>"), lowered(after_delivery)),
    "**": lowered(after_failure),
    "==": lowered(after_deferral),
}

# --- rejections -------------------------------------------------------------------------------------------------

named_client = "H=" + host_name("relay")
client = pp.Opt("H=") + host_name("relay")
mail_from = "<" + address("mail") + ">"
temporarily = regex("(?:excess )?temporarily ")("temporarily")
line_end = r"(?![^\n])"

# What the client's ident server (RFC 1413) calls its user: any text.
ident = regex(
    r"U=[^\n]{1,512}?(?= (?:[FXPI]=|CV=|DN=\"|SNI=|TFO|L[-.*]? |DS |(?:temporarily )?rejected |dropped by )|"
    + line_end
    + ")"
)
# With brackets, or without them in a refusal by local_scan().
bracketed_or_bare = regex(rf'(?<![<])(?:[^"<>\s]++|{quoted_local_part})++') | address


def refused_sender(name: str) -> pp.ParserElement:
    """The sender of what was refused, under a name."""
    return regex("F=<?") + bracketed_or_bare(name) + pp.Opt(">")


field_of_any_client = " " + ident("ident") | client_certificate | server_name | other_field | flag_word
rule_field = " " + refused_sender("sender") | field_of_any_client
# A cut-through delivery that the next server refused: the address that was tried comes before its sender.
cut_through = (
    " "
    + regex(r'[^\s<>"=]++(?= F=<| <)')("recipient")
    + pp.Opt(" <" + address + ">")
    + sender_field
    + " rejected after DATA:"
    + pp.ZeroOrMore(
        ' C="' + regex(r'(?:[^"\\\n]++|\\.)*+')("text") + '"'
        | delivery_certificate
        | " H=" + host_name
        | other_field
        | flag_word
    )
)

# What was refused is the client's own text, up to 100 characters of it; a quoted part, a comment (RFC 5322) or an
# address literal in it may contain a colon.
argument = (
    regex(r'(?:[^:"(\n]++|:(?! )|"(?:[^"\\\n]++|\\.)*+"|\((?:[^()\\\n]++|\\.)*+\))*+(?=: |' + line_end + ")")
    | regex(r" [^\n]{100}(?=: |" + line_end + ")")
    | regex(r"[^\n]*+")
)("argument")
bare = regex(r'(?:[^\s<>":(]++|:(?! ))++')
addressed = regex(rf' (?:[^<":(\n@]++|\([^()\n]*+\)|{quoted_local_part})*+<') + address("recipient") + ">" | (
    " " + bare("recipient")
)
command = (
    (pp.Literal("RCPT") | "VRFY" | "EXPN")("command") + pp.Opt(pp.FollowedBy(addressed))
    | pp.Literal("MAIL")("command") + pp.Opt(pp.FollowedBy(" " + (mail_from | bare("mail"))))
    | regex(r"[A-Za-z]++(?![^ :\n])")("command")
)

# Our own words: what the client wrote follows some of them.
own_words = regex(
    r"syntactically invalid argument\(s\)"
    r"|malformed address(?=: )"
    r'|(?:[^:\n]++|:(?! failing address in "))++(?=: failing address in ")'
)
verdict = regex(" ?: ?") + (own_words | rest)("text")

refusal = " " + pp.Opt(temporarily) + "rejected " + command + argument + pp.Opt(verdict)
drop = (
    " dropped by "
    + regex("['\"]?")
    + pp.Word(pp.alphas)("command")
    + regex(rf"['\"]? ACL(?= ?:|{line_end})")
    + pp.Opt(verdict)
)

# By an access control list or local_scan(): who, then what was refused. What an ident says begins after the client, so
# no client is read after it; nor is a sender where it comes before the client, as for local_scan().
secured = pp.Opt(regex(" ?DS ?"))
sender_before_client = refused_sender("first_sender") + pp.ZeroOrMore(flag_word) + pp.Opt(" " + named_client)
who = secured + (
    (named_client | ident("ident")) + pp.ZeroOrMore(rule_field)
    | sender_before_client + pp.ZeroOrMore(field_of_any_client)
)
# The end of a connection is none, whatever the client's greeting says.
connected = (
    regex(
        r"SMTP (?:call|connection) from (?![^\n]* (?:closed (?:by (?:QUIT|EOF|DROP in ACL)|after SIGTERM)"
        r"|lost(?: D=\S+| while reading message data[^\n]*)?|\(TCP/IP connection count = [0-9]+\))(?![^\n]))"
    )
    + client
    + pp.ZeroOrMore(other_field)
)
by_rule = who + (cut_through | refusal | drop) | connected + drop


def someone(*ends: str) -> pp.ParserElement:
    """Who was refused, up to the surest of what can follow: the client, its user by ident, or a local user."""
    to_end = (rf"(?:(?!{end})[^\n])*+(?={end})" for end in ends)
    return pp.Opt(client) + pp.MatchFirst([regex(each) for each in to_end])


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
of_name = pp.Opt(temporarily) + 'rejected "' + pp.Word(pp.alphas)("command") + regex(r'[^"\n]*+" from ') + client
of_address = (
    pp.FollowedBy(regex("unqualified (?:sender|recipient|verify) rejected")("text"))
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
no_more_input = regex(r' next input="(?![^\n]* next input=")')
of_synchronization_error = (
    regex(r"SMTP protocol synchronization error \([^()\n]*+\)")("text")
    + ": rejected "
    + (
        pp.Literal("connection")("command") + " from" + pp.Opt(" " + client)
        | '"'
        + pp.Word(pp.alphas)("command")
        + regex(r'[^"\n]*+"')
        + pp.Opt(pp.FollowedBy(" " + named_client + pp.ZeroOrMore(rule_field) + no_more_input))
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
    + pp.Opt(regex(":? "))
    + rest("text")
)
of_call = (
    pp.Literal("SMTP ")
    + pp.Literal("call")("command")
    + " from "
    + someone(" dropped: too many ")
    + " dropped: "
    + regex(r"too many [a-z-]++(?: [a-z-]++)*+")("text")
)
of_failed_check = regex(
    r"local_scan\(\) function (?:crashed|timed out)(?= )|acl_smtp_mime: error while creating mbox spool file(?=, )"
)("text") + regex(r"(?:(?!message temporarily rejected)[^\n])*+message temporarily ")("temporarily")
of_prdr = "PRDR R=<" + address("recipient") + "> " + pp.Opt(pp.Literal("temporary ")("temporarily")) + "refusal"

rejection_by_rule = lowered(pp.Opt(message_id("queue_id") + " ") + by_rule)
"""Most rejections; apart from the others because a short list of names is read faster."""

with_any_ident = lowered(
    pp.Opt(message_id("queue_id") + " ")
    + secured
    + (named_client | sender_before_client)
    + pp.ZeroOrMore(pp.NotAny(regex(" [FU]=")) + other_field | flag_word)
    + regex(" U=[^\n]*+")("ident")
)
"""A line in which an ident holds what can end it, but not what can follow: the last verdict in it counts."""

# A refusal in whose line nothing can imitate another.
usual_client = regex(r"(?:[^\s\[\]()<>]++ )?+(?:\([^\s()<>\[\]]*+\) )?+\[[0-9A-Fa-f.:]++\](?::[0-9]++)?+(?= )")
field_of_client = regex(rf' (?!{of_own_form}|[FU]=)[A-Za-z][A-Za-z0-9]*+\*?+=(?!["<])\S++(?<!:)')
usual_rejection = lowered(
    "H="
    + usual_client("relay")
    + pp.NotAny(regex(r"[^\n]*\) \["))
    + pp.ZeroOrMore(field_of_client)
    + pp.Opt(" F=<" + regex(r'[^\s<>"]*+')("sender") + ">")
    + pp.ZeroOrMore(field_of_client)
    + " "
    + pp.Opt(regex("temporarily ")("temporarily"))
    + "rejected RCPT <"
    + regex(r'[^\s<>":(]++')("recipient")
    + ">: "
    + regex(r"(?!syntactically |malformed |[^\n]*: failing address in )[^\n]++")("text")
)
"""Most of these, which it reads in less time: client, sender, `temporarily`, recipient, text."""

rejection = lowered(
    pp.Opt(message_id("queue_id") + " ")
    + (
        of_message
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
refused_command = regex(
    r" (?:temporarily )?rejected "
    r"(?:RCPT|MAIL|DATA|after DATA|EHLO or HELO|connection in|during MIME|by local_scan\(\))(?![^ :\n])"
)
end_of_greeting = pp.Literal(") ") + regex(r"\[[0-9A-Fa-f.:]++\](?::[0-9]+)?+")("relay")
later_verdict = lowered(
    pp.Opt(end_of_greeting)
    + pp.Opt(sender_field)
    + pp.ZeroOrMore(rule_field)
    + (pp.FollowedBy(refused_command) + refusal | drop)
)
no_refusal = r"(?: sender verify (?:fail|defer) for <| incomplete transaction \(|(?<!:) Warning: )"
another_kind = lowered(regex(rf"(?:(?!{no_refusal})[^\n])*+(?=[^\n])"))
"""A line that is no refusal, though an ident lets it look so up to here."""

another_kind_after_greeting = lowered(end_of_greeting + pp.ZeroOrMore(other_field | flag_word) + regex(no_refusal))
"""The same of a greeting: here is its end, and the end of the client."""

# A refusal in other words. The words of a client, quoted in other lines, are none; nor are warnings and interim steps.
unknown_refusal = lowered(
    pp.Opt(message_id + " ")
    + (
        pp.NotAny("H=" + host_name + ": ")
        + regex(
            r"(?: ?DS ?)?[HUF]=(?:(?! (?:Warning: |sender verify |incomplete transaction|TLS error|Connection refused"
            r"|RCPT |tmp-reject|(?:temporarily )?(?:rejected|refused) |dropped by ))[^\n])*+"
            r" (?:(?:temporarily )?(?:rejected|refused) |dropped by )"
        )
        | regex(
            r"(?!VRFY failed|ETRN |PRDR |no MAIL |SMTP (?:syntax|protocol) error |SMTP (?:connection|command timeout) )"
            r"(?:(?!Connection refused)(?!rejected|refused)[A-Za-z_()\[\]0-9.:-]*[A-Za-z_()\]] ){0,8}+"
            r"(?:rejected|refused)(?= |:|" + line_end + ")"
        )
    )
)

# --- the other server's reply -----------------------------------------------------------------------------------

smtp_command = (regex(r"(?:pipelined )?(?:RCPT TO|MAIL FROM):<") + address + regex(r">[^:\n]*+")) | regex(r"[^:\n]*+")
remote_reply = lowered(
    pp.Opt(
        regex(r"(?:SMTP|LMTP) error (?:from remote mail(?:er| server) )?after ")
        + smtp_command
        + ": "
        + pp.Opt("host " + host_name("relay") + ": ")
    )
    + reply
)

queued_as = lowered(regex(r"(?s:.*) id=") + regex("[0-9A-Za-z-]{16,23}$")("passed_to"))
"""`250 OK id=1xVsuB-0001DU-2n`: the next Exim's message ID for the message."""

local_reply = lowered(pp.FollowedBy(regex("[45]")) + (reply | enhanced_code("code")))
"""A text from our own configuration may begin with the reply to send, or only its enhanced code."""

# --- the usual lines of a log, and which other lines may matter ------------------------------------------------------

end = regex(r"(?![^\n])")
usual_field = regex(rf' (?!{of_own_form})[A-Za-z][A-Za-z0-9]*+\*?+=[^\s"<]\S*+(?<!:)')
no_quotes = pp.NotAny(regex(r'[^\n]*<"'))
usual_target = regex(r'[^\s<>":@|/][^\s<>":@]*+@[^\s<>":]++')
usual_host = regex(r"[^\s\[\]()]++ \[[^\[\]\n]*+\](?::[0-9]++)?+")
success = pp.FollowedBy(regex(r"2[0-9]{2}(?![0-9])") + pp.Opt(regex(r"[ -]") + enhanced_code("code")))
# Where a local part needs quotes, ` <"` follows it, which no part of a delivery's form can hold.
usual_delivery = (
    regex("[-=>]>")("flag")
    + " "
    + usual_target("target")
    + pp.FollowedBy(regex(" <| [A-Z][A-Za-z0-9]*+[= ]"))
    + pp.Opt(" <" + regex('[^<>"\n]++')("top") + ">")
    + pp.Opt(regex(" [FP]=<") + regex('[^<>"\n]++')("sender") + ">")
    + pp.ZeroOrMore(usual_field)
    + pp.Opt(" H=" + usual_host("relay") + pp.Opt("*"))
    + pp.ZeroOrMore(usual_field)
    + pp.Opt(' C="' + success + regex(r'[^"\\\n]*+(?:\\.[^"\\\n]*+)*+')("confirmation") + '"')
    + pp.Opt(queue_time)
    + pp.ZeroOrMore(usual_field)
    + end
)
# The account follows the authenticator, or else `U=`: in either case a character that only they leave before it.
usual_arrival = (
    "<= "
    + (regex(r"<>(?= )")("null_sender") | regex(r'(?!<>)[^\s"]++')("arrival_sender"))
    + pp.Opt(regex(r' R=[^\s"<]\S*+(?<!:)'))
    + (
        " H=" + host_name("peer") + own_fields + pp.Opt(regex(r" A=[^\s:]++:"))
        | " U=" + pp.FollowedBy(regex(r'[^\s"<]\S*+(?<!:)') + pp.ZeroOrMore(usual_field) + end)
        | pp.FollowedBy(pp.ZeroOrMore(usual_field) + end)
    )
    + pp.Opt(regex(r"(?<=[:=])[^\s:]++")("account"))
)

# A failure, or a deferral, of an address that no other led to. A field may end where the error begins.
field_before_error = regex(rf' (?!{of_own_form})[A-Za-z][A-Za-z0-9]*+\*?+=(?!["<])(?:[^\s:]++|:(?=\S))++')
usual_failure = (
    (pp.Literal("**") | "==")("failure")
    + pp.NotAny(regex(r"(?<=\*)[^\n]* defer \("))
    + " "
    + no_quotes
    + usual_target("failed")
    + pp.FollowedBy(regex(" [A-Z][A-Za-z0-9]*+[= ]| (?:routing )?+defer |: "))
    + pp.ZeroOrMore(field_before_error)
    + pp.Opt(deferred + pp.NotAny(": " + error_before_host))
    + pp.Opt(" H=" + usual_host("failed_relay") + pp.Opt("*"))
    + pp.ZeroOrMore(field_before_error)
    + regex(r" ?: ?")
    + regex(r"(?![^\n]* DT=)[^\n]++")("error")
)

marked = regex(r"[^\n]*j(?<=rej)ected|[^\n]*f(?<=ref)us|[^\n]*p(?<=drop)ped")
"""Every refusal has one of these words: see `bouncemeter.exim.REFUSED`."""

no_origin = regex("(?:)")("origin")
own_stamp_next = pp.FollowedBy(exim_stamp + " ")
by_syslog = pp.NotAny(own_stamp_next) + pp.Opt(priority) + usual_prefix(syslog_stamp, origin("origin"))
# Without Exim's own stamp, the origin comes first all the same.
without_own_start = pp.NotAny(own_stamp_next | long_line_part) + process_id

usual_lines = lowered_block(
    starts=[
        no_origin + own_start,
        by_syslog + own_start,
        pp.NotAny(own_stamp_next)
        + pp.Opt(priority)
        + pp.FollowedBy(usual_prefix(syslog_stamp, origin("origin")))
        + usual_prefix(syslog_stamp("stamp"), origin)
        + without_own_start,
        rfc5424_prefix(iso_stamp, origin("origin")) + own_start,
        pp.FollowedBy(rfc5424_prefix(iso_stamp, origin("origin")))
        + rfc5424_prefix(iso_stamp("stamp"), origin)
        + without_own_start,
        no_origin + pp.NotAny(own_stamp_next) + wrapper + exim_stamp("stamp") + " " + without_wrapper + process_id,
    ],
    forms=message_id("queue_id") + " " + (usual_delivery | usual_arrival | completion | usual_failure),
    candidates=any_message_id + " " + (flag | "<= ") | marked | "message repeated ",
)

# --- a whole line -------------------------------------------------------------------------------------------------

any_line = lowered(start + rest("message"))

after_syslog = lowered(pp.Opt(own_start | process_id) + rest("message"))
"""A message that syslog says was repeated."""

any_message = lowered(message_id + " " | regex(r"exim [0-9.]+ daemon started|(?:Start|End) queue run: pid="))
"""The start of lines that no other program writes."""
