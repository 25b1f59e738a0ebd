"""From attempts to recipients: one soft bounce and one end each, notifications apart, filters followed."""

from __future__ import annotations

import tracemalloc

import pytest
from bouncemeter.event import EnhancedCode, Event, Kind, Outcome, Step, StepKind
from bouncemeter_exporter.counting.facts import Fact, FactKind
from bouncemeter_exporter.counting.ledger import Ledger
from bouncemeter_exporter.counting.message import Message, Recipient, bounce_bit, pack, seen, unpack
from hypothesis import given
from hypothesis import strategies as st

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
    return [fact for entry in entries for fact in ledger.facts(entry)]


def kinds(facts: list[Fact]) -> list[tuple[FactKind, Outcome]]:
    return [(fact.kind, fact.outcome) for fact in facts]


def waiting(ledger: Ledger) -> int:
    return ledger.memory.waiting.total()


def test_twenty_deferrals_are_one_soft_bounce() -> None:
    ledger = Ledger()
    facts = take(ledger, *[event(HOLD, time=1000.0 + n) for n in range(20)])
    assert kinds(facts) == [(FactKind.SOFT_BOUNCE, HOLD)]
    assert waiting(ledger) == 1
    assert kinds(take(ledger, event(SENT))) == [(FactKind.ENDED, SENT)]
    assert waiting(ledger) == 0


def test_facts_name_sender_and_account_where_they_are_remembered() -> None:
    entries: list[Event | Step] = [
        step(StepKind.ARRIVED, account="bob", peer="a[192.0.2.9]"),
        step(StepKind.QUEUED, sender="bob@src.test"),
        event(HOLD),
        step(StepKind.ARRIVED, "B2", peer="localhost[127.0.0.1]"),  # a filter on this host hands it back
        step(StepKind.QUEUED, "B2", sender="bob@src.test"),
        event(SENT, "b@x", relay="127.0.0.1[127.0.0.1]:10024", passed_to="B2"),
        event(FAIL, "b@x", "B2"),
        event(SENT),
    ]
    facts = take(Ledger(senders=True), *entries)
    assert [(fact.outcome, fact.sender, fact.account) for fact in facts] == [
        (outcome, "bob@src.test", "bob") for outcome in (HOLD, FAIL, SENT)
    ]
    assert {(fact.sender, fact.account) for fact in take(Ledger(), *entries)} == {(None, None)}


def test_a_recipient_ends_once() -> None:
    facts = take(Ledger(), event(FAIL), event(FAIL), event(SENT))
    assert kinds(facts) == [(FactKind.ENDED, FAIL)]


def test_a_deferral_logged_after_the_end_is_counted_and_does_not_wait() -> None:
    ledger = Ledger()
    facts = take(ledger, event(SENT, time=1002.0), event(HOLD, time=1001.0), event(HOLD, time=1000.0))
    assert kinds(facts) == [(FactKind.ENDED, SENT), (FactKind.SOFT_BOUNCE, HOLD)]
    take(ledger, step(StepKind.REMOVED))
    assert kinds(take(ledger, event(HOLD, "b@x", time=1003.0))) == [(FactKind.SOFT_BOUNCE, HOLD)]
    assert waiting(ledger) == 0


def test_a_deferral_logged_after_the_expiry_is_a_recipient_that_expired() -> None:
    ledger = Ledger()
    facts = take(ledger, event(Outcome.EXPIRED, None), event(HOLD, "a@x"), event(HOLD, "b@x"))
    assert kinds(facts) == [
        (FactKind.ENDED, Outcome.EXPIRED),
        (FactKind.SOFT_BOUNCE, HOLD),
        (FactKind.SOFT_BOUNCE, HOLD),
        (FactKind.ENDED, Outcome.EXPIRED),
    ]
    assert take(ledger, event(Outcome.EXPIRED, None)) == []
    assert waiting(ledger) == 0


def test_recipients_of_one_message_are_counted_separately() -> None:
    facts = take(Ledger(), event(HOLD, "a@x"), event(SENT, "b@x"), event(FAIL, "c@x"), event(FAIL, "A@X"))
    assert kinds(facts) == [
        (FactKind.SOFT_BOUNCE, HOLD),
        (FactKind.ENDED, SENT),
        (FactKind.ENDED, FAIL),
        (FactKind.ENDED, FAIL),
    ]


def test_an_expiry_ends_all_waiting_recipients_with_their_last_code() -> None:
    ledger = Ledger()
    facts = take(ledger, event(HOLD, "a@x"), event(HOLD, "b@x"), event(SENT, "c@x"), event(Outcome.EXPIRED, None))
    assert kinds(facts)[3:] == [(FactKind.ENDED, Outcome.EXPIRED)] * 2
    assert {str(fact.event.code) for fact in facts[3:]} == {"4.2.2"}
    assert waiting(ledger) == 0


def test_an_expiry_without_known_deferrals_is_one_recipient() -> None:
    facts = take(Ledger(), event(Outcome.EXPIRED, None))
    assert kinds(facts) == [(FactKind.ENDED, Outcome.EXPIRED)]
    assert str(facts[0].event.code) == "4.4.7"


def test_notifications_are_counted_apart() -> None:
    ledger = Ledger()
    by_sender = take(ledger, step(StepKind.QUEUED, sender=""), event(HOLD), event(HOLD), event(SENT))
    assert kinds(by_sender) == [(FactKind.NOTIFICATION, HOLD), (FactKind.NOTIFICATION, SENT)]
    announced = take(ledger, step(StepKind.NOTIFIED, "B2", related="C3"), event(FAIL, queue_id="C3"))
    assert kinds(announced) == [(FactKind.NOTIFICATION, FAIL)]
    assert kinds(take(ledger, event(SENT, queue_id="D4", sender=""))) == [(FactKind.NOTIFICATION, SENT)]
    assert waiting(ledger) == 0


def test_a_notification_announced_after_its_removal_leaves_nothing_behind() -> None:
    ledger = Ledger()
    gone = take(ledger, step(StepKind.QUEUED, sender=""), event(SENT), step(StepKind.REMOVED))
    assert kinds(gone) == [(FactKind.NOTIFICATION, SENT)]
    take(ledger, step(StepKind.NOTIFIED, "B2", related="A1"))
    assert len(ledger.memory) == 0


def test_an_arrival_logged_late_belongs_to_the_message() -> None:
    ledger = Ledger()
    take(ledger, event(HOLD, time=1002.0), step(StepKind.ARRIVED, time=1000.0, sender="s@x"))
    assert waiting(ledger) == 1
    (end,) = take(ledger, event(SENT, time=1007.0))
    assert end.delay == 7.0


def test_an_arrival_under_a_queue_id_in_use_is_another_message() -> None:
    ledger = Ledger()
    take(ledger, step(StepKind.ARRIVED), event(HOLD), step(StepKind.ARRIVED, time=5000.0))
    assert waiting(ledger) == 0
    assert kinds(take(ledger, event(HOLD, time=5001.0))) == [(FactKind.SOFT_BOUNCE, HOLD)]
    assert len(ledger.memory) == 1


def test_a_queue_id_can_be_reused_by_mail_from_the_server_itself() -> None:
    ledger = Ledger()
    first = take(ledger, step(StepKind.QUEUED, sender="s@x"), event(SENT), step(StepKind.REMOVED))
    second = take(ledger, step(StepKind.QUEUED, sender="", time=1030.0), event(SENT, time=1031.0))
    assert kinds(first + second) == [(FactKind.ENDED, SENT), (FactKind.NOTIFICATION, SENT)]


def test_a_removed_message_waits_no_longer_and_its_queue_id_can_be_reused() -> None:
    ledger = Ledger()
    take(ledger, event(HOLD), step(StepKind.REMOVED))
    assert waiting(ledger) == 0
    again = take(ledger, step(StepKind.ARRIVED), event(FAIL))
    assert kinds(again) == [(FactKind.ENDED, FAIL)]


def test_a_line_logged_after_the_removal_still_belongs_to_the_message() -> None:
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


def test_a_recipient_deferred_before_a_filter_is_no_second_soft_bounce_after_it() -> None:
    ledger = Ledger()
    back = step(StepKind.ARRIVED, "B2", peer="localhost[::1]")
    behind = [event(HOLD, "A@dest.test", queue_id="B2"), event(SENT, queue_id="B2")]
    facts = take(ledger, event(HOLD), back, filtered(), *behind)
    assert kinds(facts) == [(FactKind.SOFT_BOUNCE, HOLD), (FactKind.ENDED, SENT)]
    assert waiting(ledger) == 0


def test_a_requeued_message_is_still_the_same_message() -> None:
    ledger = Ledger()
    again = step(StepKind.ARRIVED, "B2", related="A1", sender="s@x")
    facts = take(ledger, event(HOLD), step(StepKind.REMOVED), again, event(HOLD, queue_id="B2"))
    assert kinds(facts) == [(FactKind.SOFT_BOUNCE, HOLD)]
    assert waiting(ledger) == 1


def bounced_messages(facts: list[Fact]) -> list[str]:
    return [f"{fact.bounce} {fact.event.code.code_class}" for fact in facts if fact.first]


def test_a_message_bounces_once_for_each_kind_and_class() -> None:
    policy = EnhancedCode(5, 7, 1)
    one = [event(HOLD, "a@x"), event(HOLD, "b@x"), event(FAIL, "a@x"), event(FAIL, "c@x", code=policy)]
    more = [event(FAIL, "d@x", code=EnhancedCode(5, 7, 26)), event(FAIL, "e@x"), event(HOLD, "f@x", code=policy)]
    ledger = Ledger()
    assert bounced_messages(take(ledger, *one)) == ["soft 4.2", "hard 5.1", "hard 5.7"]
    again = Ledger()
    again.memory.keep(again.memory.add_queue("postfix", "mx1"), "A1", unpack(pack(message(ledger))))
    for each in (ledger, again):
        assert bounced_messages(take(each, *more)) == ["soft 5.7"]
    assert bounced_messages(take(Ledger(), event(HOLD, sender=""), event(FAIL, "b@x"))) == []


def message(ledger: Ledger) -> Message:
    queue = ledger.memory.queue("postfix", "mx1")
    assert queue is not None
    found = queue.peek("A1")
    assert found is not None
    return found


def test_a_message_that_a_filter_hands_back_in_parts_bounces_once() -> None:
    ledger = Ledger()
    back = [step(StepKind.ARRIVED, name, peer="localhost[::1]") for name in ("B2", "C3")]
    handed = [event(SENT, "a@x", relay="127.0.0.1[127.0.0.1]:10024", passed_to="B2")]
    handed += [event(SENT, "b@x", relay="127.0.0.1[127.0.0.1]:10024", passed_to="C3")]
    before = take(ledger, event(HOLD, "a@x"), event(FAIL, "z@x"), *back, *handed)
    assert bounced_messages(before) == ["soft 4.2", "hard 5.1"]
    after = [event(HOLD, "b@x", "C3"), event(FAIL, "a@x", "B2"), event(FAIL, "b@x", "C3", code=EnhancedCode(5, 7, 1))]
    assert bounced_messages(take(ledger, *after)) == ["hard 5.7"]
    assert bounced_messages(take(ledger, event(FAIL, "y@x", "B2", code=EnhancedCode(5, 7, 1)))) == []


def test_a_message_that_bounced_before_its_filter_s_line_came_bounces_once() -> None:
    ledger = Ledger()
    back = step(StepKind.ARRIVED, "B2", peer="localhost[::1]")
    handed = event(SENT, "a@x", relay="127.0.0.1[127.0.0.1]:10024", passed_to="B2")
    facts = take(ledger, back, event(FAIL, "a@x", "B2"), handed, event(FAIL, "z@x"))
    assert bounced_messages(facts) == ["hard 5.1"]


def test_only_a_filter_at_a_private_address_is_trusted() -> None:
    def handed_back(address: str) -> list[Fact]:
        back = step(StepKind.ARRIVED, "B2", peer=f"filter[{address}]")
        return take(Ledger(), back, event(SENT, relay=f"filter[{address}]:10024", passed_to="B2"))

    assert handed_back("10.0.0.5") == []
    assert handed_back("fd00::5") == []
    assert kinds(handed_back("8.8.8.8")) == [(FactKind.ENDED, SENT)]


def test_a_hand_off_to_the_queue_id_of_another_message_is_not_trusted() -> None:
    """A server on loopback may be the real destination, and may repeat queue IDs that it got from us."""
    ended = [(FactKind.ENDED, SENT)]
    back = step(StepKind.ARRIVED, "B2", peer="localhost[127.0.0.1]")
    before = step(StepKind.ARRIVED, "B2", peer="localhost[127.0.0.1]", time=999.0)
    assert kinds(take(Ledger(), before, step(StepKind.ARRIVED), filtered())) == ended
    other_recipient = event(SENT, "b@dest.test", queue_id="B2")
    assert kinds(take(Ledger(), back, other_recipient, step(StepKind.REMOVED, "B2"), filtered())) == ended * 2
    with_extension = event(SENT, "A+spam@dest.test", queue_id="B2")
    assert kinds(take(Ledger(), back, with_extension, filtered())) == ended
    assert kinds(take(Ledger(), back, filtered(), filtered(queue_id="C3"))) == ended


def test_queued_as_alone_does_not_prove_a_hand_off() -> None:
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


def test_a_forwarded_message_has_not_ended() -> None:
    """The line that forwards it may come before the first line of the new message."""
    forwarded = event(SENT, relay="local", passed_to="B2", forwarded=True)
    assert take(Ledger(), forwarded, step(StepKind.QUEUED, "B2", sender="s@x")) == []


def test_two_servers_in_one_log_are_counted_apart() -> None:
    facts = take(Ledger(), event(FAIL), event(FAIL, host="mx2"))
    assert kinds(facts) == [(FactKind.ENDED, FAIL)] * 2


def test_two_files_of_one_recipient_are_two_deliveries() -> None:
    facts = take(Ledger(), event(SENT, relay="/home/a/one"), event(SENT, relay="|/usr/bin/vacation"))
    assert len(facts) == 2


def test_a_recipient_that_was_passed_on_no_longer_waits() -> None:
    ledger = Ledger()
    take(ledger, event(HOLD, "Team@x"), step(StepKind.PASSED_ON, recipient="team@x"))
    assert waiting(ledger) == 0


def test_the_delay_comes_from_the_log_or_from_the_arrival() -> None:
    ledger = Ledger()
    (logged,) = take(ledger, event(SENT, delay=2.5))
    assert logged.delay == 2.5
    (counted,) = take(ledger, step(StepKind.ARRIVED, "B2"), event(SENT, queue_id="B2", time=1007.5))
    assert counted.delay == 7.5
    (unknown,) = take(ledger, event(SENT, queue_id="C3"))
    assert unknown.delay is None


def test_the_delay_of_an_expiry_whose_arrival_was_not_seen_comes_from_its_deferrals() -> None:
    """No line tells the arrival of mail that local(8) forwards, nor of mail that came before the log begins."""
    ledger = Ledger()
    take(ledger, step(StepKind.QUEUED, sender="s@x"), event(HOLD, delay=40.0), event(HOLD, time=1300.0, delay=340.5))
    (end,) = take(ledger, event(Outcome.EXPIRED, None, time=1800.0))
    assert end.delay == 840.5
    _, late = take(ledger, event(HOLD, queue_id="B2", delay=2.0), event(Outcome.EXPIRED, None, "B2", time=1001.0))
    assert late.delay == 3.0
    (unknown,) = take(ledger, step(StepKind.QUEUED, "C3", sender="s@x"), event(Outcome.EXPIRED, None, "C3"))
    assert unknown.delay is None


def test_an_arrival_logged_after_a_deferral_with_a_delay_belongs_to_the_message() -> None:
    ledger = Ledger()
    take(ledger, event(HOLD, time=1002.0, delay=1.5), step(StepKind.ARRIVED, time=1000.0, sender="s@x"))
    assert waiting(ledger) == 1
    (end,) = take(ledger, event(SENT, time=1007.0))
    assert end.delay == 7.0


def test_rejections_count_no_recipient() -> None:
    assert take(Ledger(), event(Outcome.REJECTED)) == []
    assert take(Ledger(), event(FAIL, queue_id=None)) == []  # type: ignore[arg-type]


def test_a_local_exim_mailbox_is_one_recipient_with_and_without_its_domain() -> None:
    ledger = Ledger()
    held = event(HOLD, "Ann@local.test", original_recipient="team@local.test")
    sent = [event(SENT, name, original_recipient="team@local.test") for name in ("ann", "bob")]
    assert kinds(take(ledger, held, *sent)) == [
        (FactKind.SOFT_BOUNCE, HOLD),
        (FactKind.ENDED, SENT),
        (FactKind.ENDED, SENT),
    ]
    assert waiting(ledger) == 0


def test_messages_that_never_end_are_forgotten_by_age_and_by_number() -> None:
    ledger = Ledger(max_age=100, max_messages=32)
    take(ledger, event(HOLD, queue_id="OLD"), step(StepKind.QUEUED, "ALSO"), event(HOLD, queue_id="NEW", time=1101.0))
    assert (len(ledger.memory), ledger.memory.evicted, waiting(ledger)) == (1, 2, 1)
    take(ledger, *[event(HOLD, queue_id=f"N{n}", time=1101.0 + n) for n in range(100)])
    assert 29 <= len(ledger.memory) == waiting(ledger) <= 32
    assert ledger.memory.evicted + len(ledger.memory) == 103
    assert kinds(take(ledger, event(SENT, queue_id="N99", time=1300.0))) == [(FactKind.ENDED, SENT)]


def test_a_line_from_the_future_makes_no_message_old() -> None:
    ledger = Ledger(clock=lambda: 2000.0)
    take(ledger, event(HOLD), event(SENT, queue_id="B2", time=4e9), event(HOLD, queue_id="C3", time=1001.0))
    assert (len(ledger.memory), waiting(ledger), ledger.memory.evicted) == (2, 2, 0)


def test_each_server_forgets_by_its_own_time_and_a_silent_one_in_the_end() -> None:
    ledger = Ledger(max_age=100)
    take(ledger, event(HOLD, time=10_000.0), event(HOLD, host="mx2", time=9_950.0))
    take(ledger, event(HOLD, queue_id="B2", time=10_120.0))
    assert waiting(ledger) == 2  # the first is old by mx1's time, none is by mx2's
    take(ledger, event(HOLD, queue_id="B2", time=10_190.0))
    assert waiting(ledger) == 1


def test_ended_messages_are_forgotten_even_if_the_log_records_no_removals() -> None:
    ledger = Ledger()
    for number in range(30_000):
        take(ledger, step(StepKind.ARRIVED, f"Q{number}", time=1000.0 + number))
        take(ledger, event(SENT, queue_id=f"Q{number}", time=1001.0 + number))
    assert (len(ledger.memory), ledger.memory.evicted) == (0, 0)


@pytest.mark.slow
def test_waiting_recipients_take_little_memory() -> None:
    """A million waiting recipients fit into 400 MB; mail that has left takes no memory."""

    def fill(ledger: Ledger, number: int) -> None:
        for n in range(number):
            name, now = f"4A1B{n:07X}", 1e9 + n
            take(ledger, step(StepKind.ARRIVED, name, peer="mail.src.test[192.0.2.9]", time=now))
            take(ledger, event(HOLD, f"recipient{n}@dest{n}.test", name, relay="mx.test[192.0.2.1]:25", time=now))

    fill(Ledger(), 5000)  # bounded caches and tables
    ledger, number = Ledger(), 20_000
    tracemalloc.start()
    fill(ledger, number)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert waiting(ledger) == number
    assert size / number < 350


def test_the_oldest_is_the_recipient_that_waits_longest() -> None:
    ledger = Ledger()
    assert ledger.memory.oldest() == {}
    take(ledger, event(HOLD, queue_id="A1", time=1000.0), event(HOLD, queue_id="B2", time=1010.0))
    take(ledger, event(HOLD, "b@x", queue_id="A1", time=1030.0), event(HOLD, queue_id="C3", time=1020.0))
    assert ledger.memory.oldest() == {"postfix": 1000.0}
    take(ledger, event(SENT, queue_id="A1", time=1040.0))
    assert ledger.memory.oldest() == {"postfix": 1010.0}
    take(ledger, event(SENT, queue_id="B2", time=1040.0), event(SENT, queue_id="C3", time=1040.0))
    assert ledger.memory.oldest() == {"postfix": 1030.0}
    take(ledger, event(HOLD, queue_id="X9", time=900.0, mta="exim", sender=""))
    assert ledger.memory.oldest() == {"postfix": 1030.0}


def test_waiting_recipients_are_counted_by_their_last_code() -> None:
    ledger = Ledger()
    again = event(HOLD, code=EnhancedCode(4, 999, 1), relay="gmail-smtp-in.l.google.com[192.0.2.1]:25", time=1500.0)
    take(ledger, event(HOLD), again)
    assert dict(ledger.memory.waiting) == {("postfix", "4.x", "4.x.x", "google"): 1}
    take(ledger, event(HOLD), step(StepKind.NOTIFIED, "B2", related="A1"))
    assert dict(ledger.memory.waiting) == {}
    assert len(ledger.memory) == 1


@given(st.builds(Message, st.floats(0, 4e9), st.floats(0, 4e9), *[st.booleans()] * 7, st.none() | st.text(), st.none()))
def test_packing_and_unpacking_keeps_a_message(message: Message) -> None:
    message.soft_before = frozenset({"a@x"})
    message.recipients = {"a@x": Recipient(1.5, EnhancedCode(4, 2, 2), "google"), "b@x": Recipient(ended=True)}
    message.bounced = bounce_bit(Kind.SOFT, EnhancedCode(4, 2, 2)) | bounce_bit(Kind.HARD, EnhancedCode(5, 999, 0))
    assert unpack(pack(message)) == message
    assert seen(pack(message)) == message.seen


# --- filters with IDs of their own, as Proxmox Mail Gateway's -------------------------------------------------------

HERE = "127.0.0.1[127.0.0.1]:10024"


def accepted(recipient: str = "a@dest.test") -> Step:
    """The filter's line: under its own ID F00, the message goes on as B2."""
    return step(StepKind.PASSED_ON, "F00", recipient=recipient, related="B2", peer="[127.0.0.1]")


def test_a_filter_that_logs_its_own_id_counts_a_recipient_once() -> None:
    ledger = Ledger()
    facts = take(
        ledger,
        step(StepKind.ARRIVED, peer="client[192.0.2.50]"),
        accepted(),
        step(StepKind.ARRIVED, "B2", peer="localhost[127.0.0.1]"),
        event(SENT, relay=HERE, passed_to="F00"),
        step(StepKind.REMOVED),
        event(FAIL, queue_id="B2", relay="mx.dest.test[192.0.2.10]:25"),
        step(StepKind.REMOVED, "B2"),
    )
    assert kinds(facts) == [(FactKind.ENDED, FAIL)]
    assert len(ledger.memory) == 0


def test_a_filter_that_drops_a_recipient_ends_it_without_an_outcome() -> None:
    dropped = step(StepKind.DROPPED, "F00", recipient="a@dest.test", peer="[127.0.0.1]")
    assert take(Ledger(), dropped, event(SENT, relay=HERE, passed_to="F00")) == []
    assert take(Ledger(), event(SENT, relay=HERE, passed_to="-")) == []


def test_a_remote_server_cannot_pretend_to_be_the_filter() -> None:
    far = "mx.dest.test[192.0.2.10]:25"
    assert len(take(Ledger(), accepted(), event(SENT, relay=far, passed_to="F00"))) == 1
    assert len(take(Ledger(), event(SENT, relay=far, passed_to="-"))) == 1
    assert len(take(Ledger(), accepted("other@dest.test"), event(SENT, relay=HERE, passed_to="F00"))) == 1
    assert len(take(Ledger(), event(SENT, relay=HERE, passed_to="F01"))) == 1
