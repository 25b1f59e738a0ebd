"""From attempts to recipients: soft once, an end once, bounce messages apart, filters followed."""

from __future__ import annotations

from bouncemeter.event import EnhancedCode, Event, Outcome, Step, StepKind
from bouncemeter_exporter.ledger import Fact, FactKind, Ledger

SENT = Outcome.DELIVERED
HOLD = Outcome.DEFERRED
FAIL = Outcome.BOUNCED


def event(outcome: Outcome, recipient: str | None = "a@dest.test", queue_id: str = "A1", **more: object) -> Event:
    code = {SENT: "2.0.0", HOLD: "4.2.2", FAIL: "5.1.1"}.get(outcome, "4.4.7")
    given = {"mta": "postfix", "host": "mx1", "time": 1000.0, "code": EnhancedCode.parse(code), **more}
    return Event(outcome=outcome, recipient=recipient, queue_id=queue_id, **given)  # type: ignore[arg-type]


def step(what: StepKind, queue_id: str = "A1", **more: object) -> Step:
    given = {"mta": "postfix", "host": "mx1", "time": 1000.0, **more}
    return Step(what=what, queue_id=queue_id, **given)  # type: ignore[arg-type]


def take(ledger: Ledger, *entries: Event | Step) -> list[Fact]:
    return [fact for entry in entries for fact in ledger.take(entry)]


def kinds(facts: list[Fact]) -> list[tuple[FactKind, Outcome]]:
    return [(fact.kind, fact.outcome) for fact in facts]


def waiting(ledger: Ledger) -> int:
    return sum(1 for _ in ledger.waiting())


def test_twenty_deferrals_are_one_soft_bounce() -> None:
    ledger = Ledger()
    facts = take(ledger, *[event(HOLD, time=1000.0 + n) for n in range(20)])
    assert kinds(facts) == [(FactKind.SOFT_BOUNCE, HOLD)]
    assert waiting(ledger) == 1
    assert kinds(take(ledger, event(SENT))) == [(FactKind.ENDED, SENT)]
    assert waiting(ledger) == 0


def test_a_recipient_ends_once() -> None:
    facts = take(Ledger(), event(FAIL), event(FAIL), event(SENT), event(HOLD))
    assert kinds(facts) == [(FactKind.ENDED, FAIL)]


def test_recipients_of_one_message_are_each_on_their_own() -> None:
    facts = take(Ledger(), event(HOLD, "a@x"), event(SENT, "b@x"), event(FAIL, "c@x"), event(FAIL, "A@X"))
    assert kinds(facts) == [
        (FactKind.SOFT_BOUNCE, HOLD),
        (FactKind.ENDED, SENT),
        (FactKind.ENDED, FAIL),
        (FactKind.ENDED, FAIL),
    ]


def test_expiry_ends_all_that_wait_with_their_last_code() -> None:
    ledger = Ledger()
    facts = take(ledger, event(HOLD, "a@x"), event(HOLD, "b@x"), event(SENT, "c@x"), event(Outcome.EXPIRED, None))
    assert kinds(facts)[3:] == [(FactKind.ENDED, Outcome.EXPIRED)] * 2
    assert {str(fact.event.code) for fact in facts[3:]} == {"4.2.2"}
    assert waiting(ledger) == 0


def test_an_expiry_whose_deferrals_were_not_seen_is_one_recipient() -> None:
    facts = take(Ledger(), event(Outcome.EXPIRED, None))
    assert kinds(facts) == [(FactKind.ENDED, Outcome.EXPIRED)]
    assert str(facts[0].event.code) == "4.4.7"


def test_bounce_messages_are_apart() -> None:
    ledger = Ledger()
    by_sender = take(ledger, step(StepKind.QUEUED, sender=""), event(HOLD), event(HOLD), event(SENT))
    assert kinds(by_sender) == [(FactKind.NOTIFICATION, HOLD), (FactKind.NOTIFICATION, SENT)]
    told = take(ledger, step(StepKind.NOTIFIED, "B2", related="C3"), event(FAIL, queue_id="C3"))
    assert kinds(told) == [(FactKind.NOTIFICATION, FAIL)]
    assert kinds(take(ledger, event(SENT, queue_id="D4", sender=""))) == [(FactKind.NOTIFICATION, SENT)]
    assert waiting(ledger) == 0


def test_a_removed_message_waits_no_longer_and_its_id_can_be_used_again() -> None:
    ledger = Ledger()
    take(ledger, event(HOLD), step(StepKind.REMOVED))
    assert waiting(ledger) == 0
    again = take(ledger, step(StepKind.ARRIVED), event(FAIL))
    assert kinds(again) == [(FactKind.ENDED, FAIL)]


def test_a_line_that_comes_after_the_removal_still_belongs_to_the_message() -> None:
    facts = take(Ledger(), step(StepKind.QUEUED, sender=""), step(StepKind.REMOVED), event(SENT))
    assert kinds(facts) == [(FactKind.NOTIFICATION, SENT)]


def filtered(queue_id: str = "A1") -> Event:
    return event(SENT, queue_id=queue_id, relay="127.0.0.1[127.0.0.1]:10024", passed_to="B2")


def test_a_message_that_a_filter_hands_back_is_delivered_once() -> None:
    ledger = Ledger()
    first = take(ledger, step(StepKind.ARRIVED, "B2", peer="localhost[::1]"), filtered())
    assert first == []
    assert kinds(take(ledger, event(SENT, queue_id="B2"))) == [(FactKind.ENDED, SENT)]


def test_a_filter_may_be_faster_than_the_log() -> None:
    ledger = Ledger()
    inner = take(
        ledger,
        step(StepKind.ARRIVED, "B2", peer="localhost[127.0.0.1]"),
        event(SENT, queue_id="B2"),
        step(StepKind.REMOVED, "B2"),
    )
    assert kinds(inner) == [(FactKind.ENDED, SENT)]
    assert take(ledger, filtered()) == []


def test_queued_as_alone_proves_nothing() -> None:
    delivered = [(FactKind.ENDED, SENT)]
    assert kinds(take(Ledger(), filtered())) == delivered
    assert kinds(take(Ledger(), filtered(queue_id="B2"))) == delivered
    stranger = step(StepKind.ARRIVED, "B2", peer="client.test[192.0.2.7]")
    assert kinds(take(Ledger(), stranger, filtered())) == delivered
    other = step(StepKind.ARRIVED, "B2", peer="localhost[127.0.0.1]", related="Z9")
    assert kinds(take(Ledger(), other, filtered())) == delivered
    long_ago = step(StepKind.ARRIVED, "B2", peer="localhost[127.0.0.1]", time=1.0)
    assert kinds(take(Ledger(), long_ago, filtered())) == delivered
    elsewhere = step(StepKind.ARRIVED, "B2", peer="localhost[127.0.0.1]", host="mx2")
    assert kinds(take(Ledger(), elsewhere, filtered())) == delivered


def test_a_forwarded_message_lives_on() -> None:
    forwarded = event(SENT, relay="local", passed_to="B2")
    assert take(Ledger(), step(StepKind.QUEUED, "B2", sender="s@x"), forwarded) == []


def test_two_servers_of_one_log_are_told_apart() -> None:
    facts = take(Ledger(), event(FAIL), event(FAIL, host="mx2"))
    assert kinds(facts) == [(FactKind.ENDED, FAIL)] * 2


def test_two_files_of_one_recipient_are_two_deliveries() -> None:
    facts = take(Ledger(), event(SENT, relay="/home/a/one"), event(SENT, relay="|/usr/bin/vacation"))
    assert len(facts) == 2


def test_a_recipient_that_became_others_no_longer_waits() -> None:
    ledger = Ledger()
    take(ledger, event(HOLD, "Team@x"), step(StepKind.PASSED_ON, recipient="team@x"))
    assert waiting(ledger) == 0


def test_the_delay_is_the_logs_or_counts_from_the_arrival() -> None:
    ledger = Ledger()
    (told,) = take(ledger, event(SENT, delay=2.5))
    assert told.delay == 2.5
    (counted,) = take(ledger, step(StepKind.ARRIVED, "B2"), event(SENT, queue_id="B2", time=1007.5))
    assert counted.delay == 7.5
    (unknown,) = take(ledger, event(SENT, queue_id="C3"))
    assert unknown.delay is None


def test_rejections_are_nobodys_recipients() -> None:
    assert take(Ledger(), event(Outcome.REJECTED)) == []
    assert take(Ledger(), event(FAIL, queue_id=None)) == []  # type: ignore[arg-type]


def test_what_never_ends_is_forgotten_by_age_and_by_number() -> None:
    ledger = Ledger(max_age=100, max_messages=3)
    take(ledger, event(HOLD, queue_id="OLD"), event(HOLD, queue_id="NEW", time=1101.0))
    assert (len(ledger), ledger.evicted, waiting(ledger)) == (1, 1, 1)
    take(ledger, *[event(HOLD, queue_id=f"N{n}", time=1101.0) for n in range(10)])
    assert (len(ledger), ledger.evicted) == (3, 9)
