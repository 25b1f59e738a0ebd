"""Real Postfix and Exim relay to a server whose answers are known: what is counted is what happened."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.servers.exim import Exim
from tests.servers.net import wait_until
from tests.servers.postfix import Postfix
from tests.servers.smtp import DROP, FATES, FateServer, Truth, replies_for

Json = dict[str, Any]

SENDER = "sender@src.test"
NAMED_CODES = ["code4316", "code4471", "code501", "code511", "code5226", "code5344", "code5577", "code565", "code57999"]
ODD = ['"ok-a b, c> relay=x"@dest.test', '"unknown-x R=y T=z [1.1.1.1]: 250 2.0.0 "@dest.test', '"ok-<q>"@dest.test']

# Fates that never end while the test runs.
LASTING = {fate for fate, replies in FATES.items() if replies[-1][0] == "4" or replies[-1] == DROP}
LASTING |= {name for name in NAMED_CODES if name.startswith("code4")}


def send_all(send: Callable[[str, list[str]], None]) -> set[str]:
    """One message for each fate, some with several recipients, one bounce message; the recipients sent to."""
    fates = [*FATES, *NAMED_CODES]
    singles = [f"{fate}-{number}@dest.test" for number, fate in enumerate(fates)] + ODD
    for recipient in singles:
        send(SENDER, [recipient])
    together = ["ok", "unknown", "full", "multi", "grey", "bare"]
    mixed = [[f"{fate}-{number}@dest.test" for fate in together] for number in range(100, 105)]
    for recipients in mixed:
        send(SENDER, recipients)
    send("", ["unknown-200@dest.test"])
    return {*singles, *(each for recipients in mixed for each in recipients)}


def settled(postfix: Postfix, truth: Truth, copy: Path) -> tuple[Path, Truth]:
    """A copy of the log and of the truth from a moment in which no attempt is under way: Postfix never stops trying."""
    found = Truth()

    def is_settled() -> bool:
        answers, senders = list(truth.answers), list(truth.senders)
        shutil.copy(postfix.log, copy)
        found.answers, found.senders = answers, senders
        attempts = re.findall(r"(?m)^.{15} mta postfix/smtp\[[0-9]+\]: [0-9A-F]+: to=<", copy.read_text())
        return len(attempts) == len(answers) == len(truth.answers)

    wait_until(is_settled, 600, f"the log and what was answered differ: {postfix.log}", pause=0.2)
    return copy, found


def lasting(recipients: set[str]) -> set[str]:
    """The recipients whose fate is to wait."""
    return {each for each in recipients if each.strip('"').partition("-")[0] in LASTING}


def check_attempts(records: list[Json], truth: Truth, dropped_code: str) -> None:
    """Every answer of the server is one outcome, with its recipient, outcome and code; and nothing else is."""
    said = Counter(
        (answer.recipient, answer.outcome, dropped_code if answer.reply == DROP else answer.code)
        for answer in truth.answers
    )
    read = Counter((each["recipient"], each["outcome"], each["code"]) for each in records)
    assert read == said


def check_report(found: Json, truth: Truth, sent: set[str]) -> None:
    """Each recipient is counted once, as its fate has it."""
    fates = {each: replies_for(each) for each in sent}
    final = {each: replies[-1].removeprefix("DATA ") for each, replies in fates.items()}
    waits = lasting(sent)
    delivered = {each for each in sent - waits if final[each].startswith("2")}
    bounced = sent - waits - delivered
    soft = waits | {each for each in sent if fates[each][0].removeprefix("DATA ")[0] == "4" or fates[each][0] == DROP}
    assert found["recipients"] == {
        "delivered": len(delivered),
        "bounced": len(bounced),
        "expired": 0,
        "waiting": len(waits),
    }
    assert found["bounces"] == {"soft": len(soft), "hard": len(bounced)}
    assert found["lines"]["unparsed"] == 0
    for outcome in ("delivered", "deferred", "bounced"):
        assert found["attempts"][outcome] == truth.count(outcome)
    # A notification for each hard bounce, delivered to the sender, and the one that was itself refused.
    assert found["notifications"] == truth.senders.count("<>") + 1


@pytest.mark.needs("postfix")
def test_postfix_is_counted_as_it_happened(
    server_dir: Path, parse: Callable[..., list[Json]], report: Callable[..., Json]
) -> None:
    with FateServer() as server, Postfix(server_dir, server.port) as postfix:
        sent = send_all(postfix.send)
        wait_until(lambda: sent <= server.truth.tries.keys(), 600, "not all mail was tried")
        postfix.drain(left=len(lasting(sent)))
        log, truth = settled(postfix, server.truth, server_dir / "settled.log")
    check_attempts(parse(log), truth, dropped_code="4.4.2")
    check_report(report(log), truth, sent)


@pytest.mark.needs("exim")
@pytest.mark.parametrize("log_selector", ["", "log_selector = +all", "log_selector = +millisec +pid -retry_defer"])
@pytest.mark.slow
def test_exim_is_counted_as_it_happened(
    server_dir: Path, parse: Callable[..., list[Json]], report: Callable[..., Json], log_selector: str
) -> None:
    with FateServer() as server, Exim(server_dir, server.port, log_selector) as exim:
        sent = send_all(exim.send)
        exim.drain(left=len(lasting(sent)) + 1)  # the refused bounce message stays, frozen
    truth = server.truth
    check_attempts(parse(exim.log), truth, dropped_code="4.0.0")
    check_report(report(exim.log), truth, sent)
