"""Scenarios of Exchange's message tracking, by the documented meaning of its events and fields."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from bouncemeter.event import Event, Outcome, Stage
from bouncemeter.plugin import Remembering, UnparsedLineError, parser
from bouncemeter_exporter.counting.counters import Counters
from bouncemeter_exporter.counting.ledger import Ledger

COLUMNS = (
    "date-time,client-ip,client-hostname,server-ip,server-hostname,source-context,connector-id,source,event-id,"
    "internal-message-id,message-id,recipient-address,recipient-status,total-bytes,recipient-count,"
    "related-recipient-address,reference,message-subject,sender-address,return-path,message-info"
)
OLD = COLUMNS.split(",")
NEW = [*OLD[:11], "network-message-id", *OLD[11:], "directionality", "tenant-id", "original-client-ip"]
NEW += ["original-server-ip", "custom-data", "transport-traffic-type", "log-id", "schema-version"]

# Short names for the columns that the scenarios fill.
SHORT = {
    "client": "client-hostname",
    "client_ip": "client-ip",
    "server": "server-hostname",
    "context": "source-context",
    "connector": "connector-id",
    "id": "internal-message-id",
    "mid": "message-id",
    "net": "network-message-id",
    "to": "recipient-address",
    "status": "recipient-status",
    "related": "related-recipient-address",
    "reference": "reference",
    "sender": "return-path",
    "info": "message-info",
    "custom": "custom-data",
}


class Story:
    """What the rows of one or several logs amount to."""

    def __init__(self, version: str = "15.02.1118.007") -> None:
        self.ledger, self.counters, self.events = Ledger(), Counters(), list[Event]()
        self._minute = 0
        self.columns = NEW if version.startswith("15") else OLD
        self.open_log(version)

    def open_log(self, version: str = "15.02.1118.007") -> None:
        self.read = parser("exchange").reader()
        for line in (f"#Version: {version}", "#Log-type: Message Tracking Log", f"#Fields: {','.join(self.columns)}"):
            assert self.read(line) == ()

    def row(self, event: str, to: str = "", source: str = "SMTP", **more: Any) -> Story:
        self._minute += 1
        given = {"id": "601", "mid": "<m1@src.test>", "net": "net-1", "server": "EX01", "sender": "ann@src.test"}
        given |= {"to": to, **more}
        found = {"date-time": f"2026-11-24T09:{self._minute:02}:00.000Z", "source": source, "event-id": event}
        found |= {SHORT[name]: text for name, text in given.items()}
        line = ",".join('"' + found.get(name, "").replace('"', '""') + '"' for name in self.columns)
        return self.line(line)

    def line(self, line: str) -> Story:
        for entry in self.read(line):
            self.counters.count(entry, self.ledger.facts(entry))
            if isinstance(entry, Event):
                self.events.append(entry)
        return self

    @property
    def ends(self) -> dict[str, int]:
        """Recipients by outcome; soft bounces; those that wait; rejections; notifications: without zeros."""
        found = Counter[str]()
        for (_, outcome, _), number in self.counters.recipients.values.items():
            found[outcome] += number
        for labels, number in self.counters.bounces.values.items():
            found["soft"] += number * (labels[1] == "soft")
        found["waiting"] = self.ledger.memory.waiting.total()
        found["rejected"] = sum(self.counters.rejections.values.values())
        found["notifications"] = sum(self.counters.notifications.values.values())
        return dict(+found)


EXT = {"server": "mx.dest.test", "client": "EX01"}
DELIVERED = {"server": "EX01", "client": "EX01"}
DOOR = {"connector": "EX01\\Default Frontend EX01", "client": "mail.spam.test", "client_ip": "192.0.2.66"}

# --- forwarding ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", ["REDIRECT", "RESOLVE", "ORAR"])
@pytest.mark.parametrize(("one", "other"), [("old@a.test", "new@a.test"), ("new@a.test", "old@a.test")])
def test_a_forwarded_recipient_is_counted_once_whichever_column_has_it(event: str, one: str, other: str) -> None:
    story = Story().row("RECEIVE", "old@a.test")
    story.row(event, one, "ROUTING", related=other)
    story.row("DELIVER", "new@a.test", "STOREDRIVER", **DELIVERED)
    assert story.ends == {"delivered": 1}


def test_an_originator_requested_alternate_recipient_is_forwarded() -> None:
    story = Story().row("RECEIVE", "old@a.test").row("REDIRECT", "new@a.test", "ORAR", related="old@a.test")
    assert story.row("FAIL", "new@a.test", "ROUTING", status="550 5.1.1 no").ends == {"bounced": 1}


def test_a_copy_that_is_kept_counts_as_well_as_the_forward() -> None:
    story = Story().row("RECEIVE", "old@a.test").row("REDIRECT", "new@b.test", "ROUTING", related="old@a.test")
    story.row("DELIVER", "old@a.test", "STOREDRIVER", **DELIVERED)
    story.row("SENDEXTERNAL", "new@b.test", **EXT)
    assert story.ends == {"delivered": 2}


@pytest.mark.parametrize("related", ["", "OLD@a.test"])
def test_a_redirect_to_nobody_or_to_the_same_address_ends_nobody(related: str) -> None:
    story = (
        Story()
        .row("DEFER", "old@a.test", status="450 4.2.1 later")
        .row("REDIRECT", "old@a.test", "ROUTING", related=related)
    )
    assert story.ends == {"soft": 1, "waiting": 1}


def test_a_deferred_recipient_that_is_forwarded_no_longer_waits() -> None:
    story = Story().row("DEFER", "old@a.test", status="450 4.2.1 later")
    story.row("REDIRECT", "new@a.test", "ROUTING", related="old@a.test")
    assert story.ends == {"soft": 1}
    assert story.row("DEFER", "new@a.test", status="450 4.2.1 later").ends == {"soft": 2, "waiting": 1}
    assert story.row("SENDEXTERNAL", "new@a.test", **EXT).ends == {"soft": 2, "delivered": 1}


def test_a_forward_that_nothing_follows_ends_without_an_outcome() -> None:
    assert Story().row("RECEIVE", "old@a.test").row("REDIRECT", "new@a.test", related="old@a.test").ends == {}


def test_a_forwarded_recipient_ends_once() -> None:
    story = Story().row("REDIRECT", "new@a.test", "ROUTING", related="old@a.test")
    for _ in range(2):
        story.row("DELIVER", "new@a.test", "STOREDRIVER", **DELIVERED)
    assert story.ends == {"delivered": 1}


def test_a_group_ends_and_its_members_begin() -> None:
    story = Story().row("DEFER", "team@a.test", status="450 4.2.1 later")
    story.row("EXPAND", "a@a.test;b@a.test", "ROUTING", related="team@a.test")
    story.row("DELIVER", "a@a.test;b@a.test", "STOREDRIVER", **DELIVERED)
    assert story.ends == {"soft": 1, "delivered": 2}


# --- a message's name ---------------------------------------------------------------------------------------------


def test_small_ids_that_begin_again_are_different_messages() -> None:
    story = Story()
    for number in range(3):
        more = {"id": "7", "mid": f"<m{number}@src.test>", "net": f"net-{number}"}
        story.row("DELIVER", "a@a.test", "STOREDRIVER", **DELIVERED, **more)
    assert story.ends == {"delivered": 3}
    assert {each.queue_id for each in story.events} == {"7"}


def test_without_a_network_id_the_message_id_tells_messages_apart() -> None:
    story = Story("14.03.0123.003")
    for number in range(2):
        story.row("DELIVER", "a@a.test", "STOREDRIVER", net="", id="7", mid=f"<m{number}@src.test>", client="EX01")
    assert story.ends == {"delivered": 2}


def test_an_automatic_reply_does_not_make_the_message_a_notification() -> None:
    story = Story().row("DELIVER", "a@a.test", "STOREDRIVER", **DELIVERED)
    story.row("DELIVER", "ann@src.test", "STOREDRIVER", sender="<>", mid="<r@a.test>", net="net-2", **DELIVERED)
    story.row("DELIVER", "b@a.test", "STOREDRIVER", **DELIVERED)
    assert story.ends == {"delivered": 2, "notifications": 1}


def test_a_journal_report_with_the_same_network_id_is_another_message() -> None:
    story = Story().row("RECEIVE", "journal@a.test", "AGENT", sender="<>", mid="<j@journal.report.generator>")
    story.row("DELIVER", "journal@a.test", "STOREDRIVER", sender="<>", mid="<j@journal.report.generator>", **DELIVERED)
    story.row("DELIVER", "a@a.test", "STOREDRIVER", **DELIVERED)
    assert story.ends == {"delivered": 1, "notifications": 1}


def test_two_servers_may_have_the_same_id() -> None:
    story = Story().row("DELIVER", "a@a.test", "STOREDRIVER", server="EX01", client="EX03")
    story.row("DELIVER", "a@a.test", "STOREDRIVER", server="EX02", client="EX03", mid="<m2@src.test>", net="net-2")
    assert story.ends == {"delivered": 2}
    assert [each.host for each in story.events] == ["EX01", "EX02"]


def test_before_2013_a_delivery_was_written_by_the_client() -> None:
    story = Story("14.03.0123.003").row("DELIVER", "a@a.test", "STOREDRIVER", net="", server="MBX1", client="HUB1")
    assert [each.host for each in story.events] == ["HUB1"]


def test_the_delivery_service_goes_on_with_the_message_of_the_transport_service() -> None:
    """MSGTRK and MSGTRKMD have other internal IDs; files are read one after the other."""
    story = Story().row("RECEIVE", "a@a.test")
    story.row("DEFER", "a@a.test", status="432 4.3.2 STOREDRV.Deliver; recipient thread limit exceeded")
    story.row("SEND", "a@a.test", connector="Mailbox Delivery", client="EX01", server="EX01")
    story.open_log()
    story.row("DELIVER", "a@a.test", "STOREDRIVER", id="12", **DELIVERED)
    assert story.ends == {"soft": 1, "delivered": 1}


def test_a_deferral_by_the_delivery_service_after_the_hand_off_waits() -> None:
    story = Story().row("SEND", "a@a.test", client="EX01", server="EX01")
    story.row("DEFER", "a@a.test", "STOREDRIVER", id="3", status="432 4.3.2 later", **DELIVERED)
    assert story.ends == {"soft": 1, "waiting": 1}


@pytest.mark.parametrize("version", ["15.02.1118.007", "14.03.0123.003"])
def test_an_arrival_by_an_agent_does_not_begin_the_message_anew(version: str) -> None:
    story = Story(version).row("RECEIVE", "a@a.test").row("DEFER", "a@a.test", status="450 4.2.1 later")
    story.row("RECEIVE", "a@a.test", "AGENT").row("DEFER", "a@a.test", status="450 4.2.1 later")
    assert story.ends == {"soft": 1, "waiting": 1}


def test_a_copy_of_a_message_is_not_soft_again() -> None:
    story = Story().row("RECEIVE", "a@a.test;b@a.test").row("DEFER", "a@a.test", status="450 4.2.1 later")
    story.row("TRANSFER", "a@a.test", "ROUTING", id="602", reference="601")
    assert story.ends == {"soft": 1}
    story.row("DEFER", "a@a.test", id="602", status="450 4.2.1 later").row("SENDEXTERNAL", "a@a.test", id="602", **EXT)
    assert story.ends == {"soft": 1, "delivered": 1}


def test_before_2013_recipients_moved_to_a_copy_no_longer_wait() -> None:
    story = Story("14.03.0123.003").row("DEFER", "a@a.test", status="450 4.2.1 later")
    story.row("TRANSFER", "a@a.test", "ROUTING", id="602", reference="601")
    assert story.ends == {"soft": 1}
    assert story.row("SEND", "a@a.test", id="602", **EXT).ends == {"soft": 1, "delivered": 1}


def test_before_2013_a_message_that_is_resubmitted_is_the_same_message() -> None:
    story = (
        Story("14.03.0123.003").row("RECEIVE", "a@a.test;b@a.test").row("DEFER", "a@a.test", status="450 4.2.1 later")
    )
    story.row("DELIVER", "b@a.test", "STOREDRIVER", **DELIVERED)
    story.row("RESUBMIT", "a@a.test;b@a.test", "REDUNDANCY", id="602", reference="601")
    again = Story("14.03.0123.003")
    assert isinstance(story.read, Remembering)
    assert isinstance(again.read, Remembering)
    again.read.recall(story.read.memory())
    story.read = again.read
    story.row("DEFER", "a@a.test", id="602", status="450 4.2.1 later")
    story.row("DELIVER", "b@a.test", "STOREDRIVER", id="602", **DELIVERED)
    assert story.ends == {"soft": 1, "delivered": 1, "waiting": 1}
    story.row("RESUBMIT", "a@a.test", "REDUNDANCY", id="603", reference="602;999")
    assert story.row("FAIL", "a@a.test", id="603", status="550 5.1.1 no").ends == {
        "soft": 1,
        "delivered": 1,
        "bounced": 1,
    }


def test_a_message_from_the_safety_net_is_not_delivered_twice() -> None:
    story = Story().row("RECEIVE", "a@a.test").row("DELIVER", "a@a.test", "STOREDRIVER", **DELIVERED)
    story.row("RESUBMIT", "a@a.test", "SAFETYNET", id="999", reference="601")
    story.row("DELIVER", "a@a.test", "STOREDRIVER", id="999", **DELIVERED)
    assert story.ends == {"delivered": 1}


@pytest.mark.parametrize("event", ["MODERATORREJECT", "MODERATIONEXPIRE", "MODERATORSALLNDR"])
def test_refused_moderation_has_the_id_0(event: str) -> None:
    story = Story()
    for number in range(2):
        story.row(event, "list@a.test", "APPROVAL", id="0", mid=f"<m{number}@src.test>", net=f"net-{number}")
    assert story.ends == {"bounced": 2}
    assert [each.queue_id for each in story.events] == [None, None]
    assert {labels[4] for labels in story.counters.bounces.values} == {"policy"}


def test_the_message_ids_of_strangers_are_cut() -> None:
    story = Story().row("FAIL", "a@a.test", "ROUTING", mid=f"<{'m' * 5000}@src.test>", status="550 5.1.1 no")
    assert len(story.events[0].identity or "") < 300


# --- our own refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["SMTP", "AGENT"])
@pytest.mark.parametrize("known", ["", "0", "601"])
def test_mail_that_our_agent_did_not_let_in_is_rejected(source: str, known: str) -> None:
    status = "[{LRT=};{LED=550 5.7.1 Message rejected as spam by Content Filtering.};{FQDN=};{IP=}]"
    story = Story().row("FAIL", "a@a.test", source, id=known, status=status, context="Content Filter Agent", **DOOR)
    assert story.ends == {"rejected": 1}
    (event,) = story.events
    assert (event.outcome, event.stage, str(event.code)) == (Outcome.REJECTED, Stage.DATA, "5.7.1")
    assert (event.host, event.relay) == ("EX01", "mail.spam.test[192.0.2.66]")


def test_a_failure_without_an_id_at_a_send_connector_is_a_bounce() -> None:
    story = Story().row("FAIL", "a@dest.test", id="", net="", connector="To Internet", status="550 5.1.1 no")
    story.columns = [name for name in NEW if name not in ("internal-message-id", "network-message-id", "connector-id")]
    story.line(f"#Fields: {','.join(story.columns)}").row("FAIL", "b@dest.test", status="550 5.1.1 no")
    assert story.ends == {"bounced": 2}


def test_mail_that_an_agent_deleted_ends_without_an_outcome() -> None:
    status = "[{LRT=};{LED=550 4.3.2 QUEUE.TransportAgent; message deleted by transport agent};{FQDN=};{IP=}]"
    assert Story().row("RECEIVE", "a@a.test").row("FAIL", "a@a.test", "AGENT", status=status).ends == {}


def test_a_failure_of_mail_without_an_id_was_never_let_in() -> None:
    story = Story().row("FAIL", "a@a.test", "AGENT", id="", status="550 5.7.1 no", client="mail.spam.test")
    story.row("FAIL", "b@a.test", connector="Default Frontend EX01", status="550 5.7.1 no", client="mail.spam.test")
    assert story.ends == {"rejected": 2}
    assert {each.host for each in story.events} == {"EX01"}


@pytest.mark.parametrize(
    ("context", "mid", "to", "sender", "stage"),
    [
        ("Recipient Filter Agent", "", "a@a.test", "x@spam.test", Stage.RCPT),
        ("Sender Filter Agent", "", "", "x@spam.test", Stage.MAIL),
        ("Sender Id Agent", "<m@spam.test>", "a@a.test", "x@spam.test", Stage.DATA),
        ("08DE2B4FA5C7D001", "", "a@a.test", "x@spam.test", Stage.RCPT),
        ("", "", "", "x@spam.test", Stage.MAIL),
        ("", "", "", "", Stage.CONNECT),
        ("", "<m@spam.test>", "a@a.test", "x@spam.test", Stage.DATA),
    ],
)
def test_a_rejection_has_the_stage_of_its_agent(context: str, mid: str, to: str, sender: str, stage: Stage) -> None:
    more = {"id": "", "net": "", "mid": mid, "sender": sender, "context": context, "status": "550 5.7.1 no"}
    assert [each.stage for each in Story().row("FAIL", to, "AGENT", **more, **DOOR).events] == [stage]


def test_a_failure_after_the_arrival_is_a_bounce() -> None:
    status = "[{LED=550 5.7.1 TRANSPORT.RULES.RejectMessage; the message was rejected by organization policy}]"
    story = Story().row("RECEIVE", "a@a.test", **DOOR).row("FAIL", "a@a.test", "AGENT", status=status, **DOOR)
    assert story.ends == {"bounced": 1}
    assert story.events[0].host == "EX01"


def test_a_failure_of_mail_that_we_send_is_a_bounce() -> None:
    more = {"connector": "Internet Send Connector", "status": "550 5.1.1 no", **EXT}
    assert Story().row("FAIL", "a@dest.test", **more).ends == {"bounced": 1}


@pytest.mark.parametrize("reply", ["535 5.7.3 Authentication unsuccessful", "[{LED=535 5.7.8 no};{FQDN=};{IP=}]"])
def test_a_failed_login_is_not_mail(reply: str) -> None:
    story = Story().row("FAIL", "", id="", net="", mid="", status=reply, sender="", **DOOR)
    assert (story.ends, story.events) == ({}, [])


@pytest.mark.parametrize(
    "name", ["HealthMailbox6d8f2b1@a.test", "extest_4f2a1b@a.test", "inboundproxy@inboundproxy.com"]
)
def test_probes_are_not_mail(name: str) -> None:
    story = Story().row("RECEIVE", name, sender=name).row("DELIVER", name, "STOREDRIVER", **DELIVERED)
    story.row("FAIL", "a@a.test", "ROUTING", sender=name, status="550 5.1.1 no")
    story.row("FAIL", name, status="550 5.7.1 no", **DOOR)
    assert (story.ends, story.events) == ({}, [])


def test_the_arbitration_mailbox_is_not_mail() -> None:
    arbitration = "SystemMailbox{1f05a927-89c0-4725-adca-4527114196a1}@a.test"
    story = Story().row("DELIVER", f"{arbitration};a@a.test", "STOREDRIVER", **DELIVERED)
    assert story.ends == {"delivered": 1}


# --- ends ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("custom", ["", "S:ToEntity=Internet", "S:ToEntity=Hosting"])
@pytest.mark.parametrize("connector", ["Connecteur d'envoi SMTP intra-organisation", "To the archive", ""])
def test_where_external_mail_has_an_event_of_its_own_send_is_no_end(connector: str, custom: str) -> None:
    story = Story().row("SEND", "a@a.test", connector=connector, custom=custom, client="EX01", server="EX02.a.test")
    assert story.ends == {}
    story.row("DELIVER", "a@a.test", "STOREDRIVER", server="EX02", client="EX01")
    assert story.ends == {"delivered": 1}


def test_the_first_builds_of_2013_wrote_send_for_the_internet_too() -> None:
    story = Story("15.00.0516.032").row("SEND", "a@dest.test", custom="S:ToEntity=Internet", **EXT)
    assert story.ends == {"delivered": 1}
    story.row("SENDEXTERNAL", "b@dest.test", **EXT).row("SEND", "c@a.test", custom="S:ToEntity=Internet", **EXT)
    assert story.ends == {"delivered": 2}


def test_before_2013_send_was_written_for_the_internet() -> None:
    story = Story("14.03.0123.003").row("SEND", "a@dest.test", connector="Internet", **EXT)
    story.row("SEND", "b@a.test", connector="Intra-Organization SMTP Send Connector", **EXT)
    assert story.ends == {"delivered": 1}


def test_an_edge_server_hands_incoming_mail_on() -> None:
    story = Story().row("SENDEXTERNAL", "a@a.test", connector="EdgeSync - Inbound to Default-First-Site-Name", **EXT)
    assert story.ends == {}


def test_a_deferral_without_recipients_ends_nobody() -> None:
    story = Story().row("DEFER", "a@a.test", status="450 4.2.1 later").row("DEFER", "", "AGENT")
    assert story.ends == {"soft": 1, "waiting": 1}
    assert story.row("SENDEXTERNAL", "a@a.test", **EXT).ends == {"soft": 1, "delivered": 1}


@pytest.mark.parametrize(
    ("source", "context"), [("ADMIN", ""), ("QUEUE", "Message resumed"), ("QUEUE", "Resume-Message")]
)
def test_a_message_taken_out_of_the_poison_queue_is_not_bounced(source: str, context: str) -> None:
    story = Story().row("POISONMESSAGE", "a@a.test", source, context=context)
    assert story.ends == {}
    assert story.row("DELIVER", "a@a.test", "STOREDRIVER", **DELIVERED).ends == {"delivered": 1}


def test_a_poison_message_is_bounced_when_it_is_put_aside() -> None:
    story = Story().row("POISONMESSAGE", "a@a.test", "QUEUE")
    assert story.ends == {"bounced": 1}
    story.row("POISONMESSAGE", "a@a.test", "ADMIN").row("DELIVER", "a@a.test", "STOREDRIVER", **DELIVERED)
    assert story.ends == {"bounced": 1, "delivered": 1}


@pytest.mark.parametrize(
    ("source", "status", "outcome"),
    [
        ("BOOTLOADER", "550 4.4.7 QUEUE.Expired; message expired", "expired"),
        ("BOOTLOADER", "", "expired"),
        ("QUEUE", "550 4.4.7 QUEUE.Expired; message expired", "expired"),
        ("QUEUE", "[{LED=550 5.4.300 Message expired -> 421 4.4.2 Connection dropped};{FQDN=mx.dest.test}]", "expired"),
        ("ROUTING", "550 5.1.1 RESOLVER.ADR.RecipNotFound; not found", "bounced"),
        ("DNS", "554 5.4.4 SMTPSEND.DNS.NonExistentDomain; nonexistent domain", "bounced"),
        ("ADMIN", "550 4.3.2 QUEUE.Admin; message deleted by administrative action", "bounced"),
    ],
)
def test_a_failure_is_a_bounce_or_an_expiry(source: str, status: str, outcome: str) -> None:
    assert Story().row("FAIL", "a@dest.test", source, status=status).ends == {outcome: 1}


@pytest.mark.parametrize(
    ("status", "codes"),
    [
        ("550 5.1.1 no;;550 5.2.2 full", ["5.1.1", "5.0.0", "5.2.2"]),
        (";550 5.1.1 no;550 5.2.2 full", ["5.0.0", "5.1.1", "5.2.2"]),
        ("550 5.1.1 RESOLVER.ADR.RecipNotFound; not found;550 5.2.2 full;", ["5.1.1", "5.2.2", "5.0.0"]),
        (";;550 5.2.2 full", ["5.0.0", "5.0.0", "5.2.2"]),
        ("[{LED=550 5.1.1 no};{MSG=};{FQDN=mx};{IP=};{LRT=}];;550 5.2.2 full", ["5.1.1", "5.0.0", "5.2.2"]),
        ("550 5.1.1 no", ["5.1.1", "5.1.1", "5.1.1"]),
        ("", ["5.0.0", "5.0.0", "5.0.0"]),
    ],
)
def test_an_empty_status_keeps_its_place(status: str, codes: list[str]) -> None:
    story = Story().row("FAIL", "a@dest.test;b@dest.test;c@dest.test", status=status)
    assert [str(each.code) for each in story.events] == codes


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("AGENT", "550 5.2.1 Content Filter agent quarantined this message"),
        ("AGENT", "[{LED=550 5.2.1 Message deleted by the transport rules agent};{MSG=};{FQDN=};{IP=};{LRT=}]"),
        ("AGENT", "250 2.1.5 APPROVAL.INITIATED; approval initiation successful"),
    ],
)
def test_a_quarantined_or_deleted_message_ends_without_an_outcome(source: str, status: str) -> None:
    for more in ({}, DOOR):
        story = Story().row("DEFER", "a@a.test", status="450 4.2.1 later")
        assert story.row("FAIL", "a@a.test", source, status=status, **more).ends == {"soft": 1}


def test_a_stranger_cannot_make_a_bounce_a_quarantine() -> None:
    status = "[{LED=550 5.7.1 Content Filter agent quarantined this message};{FQDN=mx.dest.test};{IP=192.0.2.1}]"
    assert Story().row("FAIL", "a@dest.test", status=status, **EXT).ends == {"bounced": 1}


def test_a_dropped_message_ends_without_an_outcome() -> None:
    story = Story().row("DEFER", "a@a.test", status="450 4.2.1 later").row("DROP", "a@a.test", "AGENT")
    assert story.ends == {"soft": 1}


@pytest.mark.parametrize(
    "event",
    ["DUPLICATEDELIVER", "HAREDIRECT", "HARECEIVE", "SUBMIT", "NOTIFYMAPI", "DELIVERFAIL", "RESUBMITFAIL", "THROTTLE"],
)
def test_housekeeping_is_no_outcome(event: str) -> None:
    story = Story().row(event, "a@a.test", "STOREDRIVER", status="550 5.1.1 no")
    assert (story.ends, story.events) == ({}, [])


def test_an_outcome_that_names_no_message_is_unparsed() -> None:
    with pytest.raises(UnparsedLineError, match="its event FAIL names no message"):
        Story().row("FAIL", "", "ROUTING", id="", net="", mid="")


@pytest.mark.parametrize("more", [{"to": "a@a.test"}, {"context": "C:\\Pickup\\1.eml"}])
def test_a_file_of_the_pickup_directory_needs_no_name(more: dict[str, str]) -> None:
    story = Story()
    for _ in range(2):
        story.row("BADMAIL", source="PICKUP", id="", net="", mid="", **more)
    assert story.ends == {"bounced": 2}


@pytest.mark.parametrize("custom", ["S:ToEntity=Internet", "S:ToEntity=Hosting", "S:ToEntity=Partner", ""])
def test_external_mail_is_delivered_whatever_is_there(custom: str) -> None:
    assert Story().row("SENDEXTERNAL", "a@dest.test", custom=custom, **EXT).ends == {"delivered": 1}


def test_what_a_log_said_of_its_server_survives_a_restart() -> None:
    story = Story("15.00.0516.032").row("SENDEXTERNAL", "a@dest.test", **EXT)
    memory = story.read.memory()  # type: ignore[attr-defined]
    story.read = parser("exchange").reader()
    story.read.recall(memory)  # type: ignore[attr-defined]
    assert story.row("SEND", "b@a.test", custom="S:ToEntity=Internet", **EXT).ends == {"delivered": 1}
