"""A parser for the log of a mail server that does not exist: `tiny TIME QUEUE-ID ok|no RECIPIENT REPLY`."""

import time
from collections.abc import Sequence

import pyparsing as pp
from bouncemeter.event import Event, Outcome
from bouncemeter.grammar import code_of, exact, reply, rest, values
from bouncemeter.plugin import Clock, LineReader

OUTCOMES = {"ok": Outcome.DELIVERED, "no": Outcome.BOUNCED}

LINE = exact(
    "tiny "
    + pp.Word(pp.nums)("time")
    + " "
    + pp.Word(pp.alphanums)("queue_id")
    + " "
    + pp.one_of("ok no")("outcome")
    + " "
    + pp.Regex(r"\S+")("recipient")
    + pp.Opt(" " + reply + rest)
)


class TinyParser:
    name = "tiny"

    def recognises(self, line: str) -> bool:
        return line.startswith("tiny ")

    def reader(self, clock: Clock = time.time) -> LineReader:
        return self.read

    def read(self, line: str) -> Sequence[Event]:
        found = values(LINE, line)
        if found is None:
            return ()
        outcome = OUTCOMES[found["outcome"]]
        code, reply_code = code_of(found, outcome)
        return [
            Event(
                mta=self.name,
                outcome=outcome,
                code=code,
                time=float(found["time"]),
                reply_code=reply_code,
                queue_id=found["queue_id"],
                recipient=found["recipient"],
            )
        ]


PARSER = TinyParser()
