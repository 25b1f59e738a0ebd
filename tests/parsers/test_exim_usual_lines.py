"""Exim's usual lines are read in a short way, which gives what the long way gives: whatever they are made of."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from bouncemeter import exim_grammar
from bouncemeter.blocks import read_lines
from bouncemeter.plugin import BlockReader, parser

PARTS = {
    "host": r"""
        H=mx.test [192.0.2.1]
        H=(bad) [203.0.113.7]
        H=client.example [1.2.3.4]:25
        H=a (b) [::1]
        H=mx.test [192.0.2.1]*
        H=(a) [1.2.3.4] b) [5.6.7.8]
        H=[1.2.3.4]
        H=mx
        H=DS [1.2.3.4]
        DS H=(x) [1.2.3.4]
        H=(x y) [1.2.3.4]
        H=h (<a) [::1]""",
    "field": r"""
        R=dnslookup
        T=remote_smtp
        X=TLS1.3:A_B:256
        CV=yes
        CV=yes:
        DN="/CN=x"
        SNI=a.b
        SNI="a"
        A=login:bob
        A=login:
        P=esmtp
        I=[1.2.3.4]:25
        U=bob
        U=bob F=<z@z> rejected RCPT <q@q>: no
        F=<a@b>
        F=<>
        F=a@b
        P=<a@b>
        L
        K
        PRDR
        DS
        QT=3s
        QT=
        DT=0.1s
        C="250 ok"
        C=
        ST=<x>
        id=3
        S=
        Q="a
        foo:
        K=:
        : x
        :""",
    "deferral": r"""
        defer (-44)
        defer (111): Connection refused
        routing defer (-51)
        defer (x)
        defer (-53): retry time not reached for any host""",
    "text": r"""
        : SMTP error from remote mail server after RCPT TO:<a@b>: 550 5.1.1 no
        : Connection timed out
        SMTP error
         : retry timeout exceeded
        : 451 4.7.1 Greylisted DT=3s
        :x
        : a <"q"@x> b
        : x) [1.2.3.4] F=<a@b> rejected RCPT <c@d>: 550 no
        : syntactically invalid argument(s)
        : malformed address: x
        : bad: failing address in "x" y
        : 451 later
        : 550-5.7.1 no
        : relay not permitted
        DT=1s
         mua_wrapper forced failure x
        : mx	records
        :  two
        : [1.2.3.4] x) [
        : H=(x) [1.2.3.4]
         temporarily rejected RCPT <x@y>: no
         dropped by 'connect' ACL: foo""",
    "target": r"""
        a@b.test
        a@b.test <c@d.test>
        |/bin/x <a@b>
        a
        a b@c <"a b"@c>
        <a@b>
        a@b.test <>
        a@b (x) <c@d>
        a@b:x
        a@b.test: x
        A=b@c""",
    "verb": r"""
        rejected RCPT
        temporarily rejected RCPT
        excess temporarily rejected RCPT
        rejected MAIL
        rejected after DATA""",
    "what": r"""
        <nobody@x.test>
        <no body@x>
        nobody@x
        <a:b@c>
        <"a b"@c>
        <>
        Name <a@b>
        <a@b> x
        <a(b)@c>""",
    "sender": r"""
         F=<a@b>
         F=<>
         F=a@b
         F=<a b>""",
    "flag": r"""
        **
        ==
        =>
        ->
        >>
        *>""",
    "end": r"""
        C="250 ok"
        QT=3s
        C="250 2.0.0 ok \"x\"" QT=1m2s DT=0.1s
        C="250 <\"a b\"@c>"
        C="250 x <"a@b.test R=x"@c>
        C="250- a" QT=3
        C="451 x"
        <"a@b.test R=dnslookup H=mx.test [192.0.2.1] C=\"250 ok\""@c> C="250 ok"
        A=x:y""",
    "arrival": """
        a@b
        <>
        <> R=1xVsuB-0001DU-2n
        <> R=1xVsuB-0001DU-2n U=exim P=local S=500
        a@b R=x
        a@b R=x: H=h [1.2.3.4]
        a@b R=<x>
        a@b U=bob P=local S=500
        a@b U=b:c
        a@b U="x
        a@b U=
        a@b D=2s H=mx.test [192.0.2.1]
        a:b=
        "a b"@c""",
}
"""Parts of lines, each beginning after the margin, the two most usual ones first."""

STAMP = "2026-11-01 00:00:02 "


def odd_lines(seed: int, number: int) -> Iterator[str]:
    """Lines made of usual and odd parts, some with a character changed."""
    chance = random.Random(seed)
    parts = {name: [line[8:] for line in texts.split("\n")[1:]] for name, texts in PARTS.items()}

    def one(name: str) -> str:
        return chance.choice(parts[name][: 2 if chance.random() < 0.8 else None])

    def some(most: int) -> str:
        return "".join(f" {one('field')}" for _ in range(chance.randint(0, most)))

    for _ in range(number):
        kind = chance.random()
        if kind < 0.4:
            line = f"1xVsuB-0001DU-2n {one('flag')} {one('target')}{some(3)}"
            line += f" {one('deferral')}" if chance.random() < 0.5 else ""
            line += f" {one('host')}" if chance.random() < 0.6 else ""
            line += some(3) + one("text")
        elif kind < 0.5:
            flag = one("flag") if chance.random() < 0.3 else "=>"
            line = f"1xVsuB-0001DU-2n {flag} {one('target')}{some(2)} {one('host')}{some(2)} {one('end')}"
        elif kind < 0.6:
            client = f" {one('host')} {chance.choice(['P=esmtpa A=login:bob', 'A=x', 'U=ann P=esmtp', 'X=a: A=x:y'])}"
            line = f"1xVsuB-0001DU-2n <= {chance.choice(parts['arrival'])}{client * (chance.random() < 0.7)}{some(2)}"
        else:
            sender = one("sender") if chance.random() < 0.8 else ""
            line = f"{one('host')}{some(2)}{sender}{some(1)} {one('verb')} {one('what')}{one('text')}"
        if chance.random() < 0.15:
            place = chance.randrange(len(line))
            line = line[:place] + chance.choice(' :<>()[]"x') + line[place + 1 :]
        yield STAMP + line


@pytest.mark.parametrize("seed", range(3))
def test_a_line_says_the_same_in_a_block(seed: int) -> None:
    lines = list(odd_lines(seed, 12_000))
    rows = [exim_grammar.usual_lines.rows(f"\n{line}") for line in lines]
    for name, least in (("failure", 300), ("flag", 50), ("null_sender", 100), ("peer", 100), ("account", 50)):
        place = exim_grammar.usual_lines.names.index(name)
        assert sum(bool(found and found[0][place]) for found in rows) > least, f"{name} is hardly tried"
    reader = parser("exim").reader()
    assert isinstance(reader, BlockReader)
    alone, together = read_lines(lines, parser("exim").reader()), reader.block("".join(f"{line}\n" for line in lines))
    assert list(together) == alone.entries
    assert (together.events, together.other, together.unparsed) == (alone.events, alone.other, alone.unparsed)


@pytest.mark.parametrize("seed", range(3))
def test_a_usual_refusal_has_the_values_of_the_long_way_and_nothing_in_it_can_imitate_another(seed: int) -> None:
    tried = 0
    for line in odd_lines(seed, 20_000):
        message = line.removeprefix(STAMP)
        if (short := exim_grammar.usual_rejection.texts(message)) is None:
            continue
        long = exim_grammar.rejection_by_rule.values(message)
        assert long is not None, line
        assert short == tuple(map(long.get, ("relay", "sender", "temporarily", "recipient", "text"))), line
        assert long["command"] == "RCPT", line
        assert long.keys() <= {"relay", "sender", "temporarily", "recipient", "text", "command", "argument"}, line
        assert ") [" not in message.partition("] ")[2], line
        tried += 1
    assert tried > 500, "the short way is hardly tried"
