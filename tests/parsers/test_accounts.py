"""Who handed a message over, by name: the user who logged in, or the local user; nobody else can write that."""

from __future__ import annotations

import pytest
from bouncemeter.event import Event, StepKind
from bouncemeter.plugin import parser

POSTFIX = "Nov  4 03:00:01 mx1 postfix/{}[1]: AAAA1: {}"
EXIM = "2026-11-24 15:58:10 1xVsuB-0001DU-2n <= a@src.test {}"


@pytest.mark.parametrize(
    ("program", "text", "expected"),
    [
        ("smtpd", "client=a[192.0.2.9]", None),
        ("smtpd", "client=a[192.0.2.9], sasl_method=PLAIN, sasl_username=bob@src.test", "bob@src.test"),
        ("smtpd", "client=a[192.0.2.9], sasl_method=LOGIN, sasl_username=bob, sasl_sender=ann", "bob"),
        ("smtpd", "client=a[192.0.2.9], sasl_method=LOGIN, sasl_username=bob, orig_queue_id=AAAA2", "bob"),
        ("smtpd", "client=a[192.0.2.9], sasl_sender=x, sasl_username=boss", None),
        (
            "submission/smtpd",
            "client=a[2001:db8::1], sasl_method=XOAUTH2, sasl_username=bob+x@src.test",
            "bob+x@src.test",
        ),
        ("pickup", "uid=33 from=<www-data>", "uid=33"),
        ("pickup", "uid=33 from=<x>, sasl_username=boss>", "uid=33"),
    ],
)
def test_postfix_names_the_account(program: str, text: str, expected: str | None) -> None:
    assert accounts("postfix", POSTFIX.format(program, text)) == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("H=x [192.0.2.9] P=esmtp S=1", None),
        (
            "H=(x) [192.0.2.9]:52100 P=esmtpsa X=TLS1.3:TLS_AES_256_GCM_SHA384:256 CV=no A=login:bob@src.test S=2",
            "bob@src.test",
        ),
        ("H=x [192.0.2.9] I=[192.0.2.1]:587 P=esmtpa L. A=plain_server:bob:bob@src.test K S=2 id=x", "bob"),
        ("U=www-data P=local S=333", "www-data"),
        ("R=1xVtZT-0002Sq-1Y U=Debian-exim P=local S=2016", "Debian-exim"),
        ("H=x [192.0.2.9] P=esmtpa A=plain S=1", None),
        ("H=x [192.0.2.9] U=evil P=esmtp A=plain:boss P=esmtp S=1", None),  # the client's ident server wrote that
        ("H=x [192.0.2.9] U=evil P=esmtp S=1", None),
        ("H=(x A=plain:boss [192.0.2.1]) [192.0.2.9] P=esmtp S=1", None),
        ("H=x [192.0.2.9] P=esmtp S=1 id=x A=plain:boss", None),
        ('H=x [192.0.2.9] P=esmtp S=1 id=x T="y A=plain:boss" from <a@src.test> for b@dest.test', None),
        ("U=root P=local S=1 id=x A=plain:boss", "root"),
        ('H=x [192.0.2.9] P=esmtps X=TLS1.3:x:256 CV=yes DN="CN=x A=plain:boss" S=1', None),
    ],
)
def test_exim_names_the_account(text: str, expected: str | None) -> None:
    assert accounts("exim", EXIM.format(text)) == [expected]


def accounts(name: str, line: str) -> list[str | None]:
    """The accounts in a line, which is the same line by line and in a block."""
    reader = parser(name).reader()
    entries = list(reader(line))
    assert list(parser(name).reader().block(f"{line}\n")) == entries  # type: ignore[attr-defined]
    assert all(not isinstance(entry, Event) and entry.what is StepKind.ARRIVED for entry in entries)
    return [entry.account for entry in entries if not isinstance(entry, Event)]
