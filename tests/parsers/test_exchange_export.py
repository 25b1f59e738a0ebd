"""What `Get-MessageTrackingLog | Export-Csv` writes, in the forms of many countries and shells."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from bouncemeter.event import Event, Outcome
from bouncemeter.exchange import PARSER
from bouncemeter.plugin import UnparsedLineError, detect

TYPE = "#TYPE Microsoft.Exchange.Management.TransportLogSearchTasks.MessageTrackingEvent"
COLUMNS = (
    "PSComputerName,RunspaceId,PSShowComputerName,Timestamp,ClientIp,ClientHostname,ServerIp,ServerHostname,"
    "SourceContext,ConnectorId,Source,EventId,InternalMessageId,MessageId,NetworkMessageId,Recipients,RecipientStatus,"
    "TotalBytes,RecipientCount,RelatedRecipientAddress,Reference,MessageSubject,Sender,ReturnPath,Directionality,"
    "TenantId,OriginalClientIp,MessageInfo,MessageLatency,MessageLatencyType,EventData,TransportTrafficType,"
    "SchemaVersion"
)
NAMES = COLUMNS.split(",")
GIVEN = {
    "Timestamp": "11/24/2026 9:10:00 AM",
    "ServerHostname": "EX01",
    "Source": "ROUTING",
    "EventId": "FAIL",
    "InternalMessageId": "601",
    "MessageId": "<m1@a.test>",
    "NetworkMessageId": "net-1",
    "Recipients": "a@dest.test",
    "RecipientStatus": "550 5.1.1 RESOLVER.ADR.RecipNotFound; not found",
    "MessageSubject": 'Offer, "final"; v2',
    "Sender": "ann@a.test",
    "ReturnPath": "ann@a.test",
    "EventData": "System.Collections.Generic.KeyValuePair`2[System.String,System.Object][]",
    "SchemaVersion": "15.02.1118.007",
}


def quoted(texts: list[str], separator: str = ",") -> str:
    return separator.join('"' + text.replace('"', '""') + '"' for text in texts)


def rows(*changes: dict[str, str], separator: str = ",", names: list[str] = NAMES) -> list[str]:
    """A header and a row for each set of changes."""
    found = [quoted([({**GIVEN, **each}).get(name, "") for name in names], separator) for each in changes]
    return [quoted(names, separator), *found]


def events(lines: list[str]) -> list[Event]:
    assert detect(lines) is PARSER
    read = PARSER.reader()
    return [entry for line in lines for entry in read(line) if isinstance(entry, Event)]


@pytest.mark.parametrize("first", [[TYPE], []])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_an_export_is_read(first: list[str], separator: str) -> None:
    (event,) = events([*first, *rows({}, separator=separator)])
    assert (event.outcome, str(event.code), event.recipient) == (Outcome.BOUNCED, "5.1.1", "a@dest.test")
    assert (event.queue_id, event.host, event.sender) == ("601", "EX01", "ann@a.test")
    assert event.time == datetime(2026, 11, 24, 9, 10, tzinfo=UTC).timestamp()


def test_a_selection_of_columns_in_any_order_is_read() -> None:
    names = ["eventid", "Recipients", "RecipientStatus", "MessageId", "Timestamp", "Sender"]
    line = quoted(["FAIL", "a@dest.test", "550 5.1.1 no", "<m1@a.test>", "11/24/2026 9:10:00 AM", "ann@a.test"])
    (event,) = events([quoted(names), line])
    assert (event.recipient, str(event.code), event.queue_id) == ("a@dest.test", "5.1.1", None)


def test_columns_without_quotes_are_read() -> None:
    assert len(events([",".join(NAMES), rows({"MessageSubject": "plain"})[1].replace('"', "")])) == 1


def test_other_tables_of_events_are_not_taken_for_exports() -> None:
    assert detect([quoted(["Timestamp", "EventId", "Message", "Level"]), quoted(["x", "4625", "no", "2"])]) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("11/24/2026 9:10:00 AM", "2026-11-24T09:10:00"),
        ("11/4/2026 9:10:00 PM", "2026-11-04T21:10:00"),
        ("11/4/2026 12:10:00 AM", "2026-11-04T00:10:00"),
        ("24.11.2026 09:10:00", "2026-11-24T09:10:00"),
        ("04.11.2026 09:10:00", "2026-11-04T09:10:00"),
        ("04/11/2026 09:10:00", "2026-11-04T09:10:00"),
        ("24/11/2026 9:10:00 AM", "2026-11-24T09:10:00"),
        ("24-11-2026 09:10:00", "2026-11-24T09:10:00"),
        ("2026-11-24 09:10:00", "2026-11-24T09:10:00"),
        ("2026/11/24 9:10:00", "2026-11-24T09:10:00"),
        ("2026. 11. 24. 9:10:00", "2026-11-24T09:10:00"),
        ("24/11/2026 09.10.00", "2026-11-24T09:10:00"),
        ("2026-11-24T09:10:00.1230000Z", "2026-11-24T09:10:00.123"),
        ("2026-11-24T10:10:00+01:00", "2026-11-24T09:10:00"),
        ("11/24/2026 9:10:00\u202fAM", "2026-11-24T09:10:00"),
        ("2026-11-24 09:10", "2026-11-24T09:10:00"),
        ("24. November 2026", None),
        ("99/99/2026 09:10:00", None),
        ("", None),
    ],
)
def test_times_of_many_countries_are_read(text: str, found: str | None) -> None:
    (event,) = events(rows({"Timestamp": text}))
    assert event.time == (datetime.fromisoformat(found).replace(tzinfo=UTC).timestamp() if found else None)


def test_a_day_after_the_twelfth_shows_the_order_of_day_and_month() -> None:
    found = events(rows({"Timestamp": "11/24/2026 09:10:00"}, {"Timestamp": "11/4/2026 09:10:00"}))
    assert [datetime.fromtimestamp(each.time or 0, UTC).day for each in found] == [24, 4]
    read = PARSER.reader()
    first, second = rows({"Timestamp": "11/24/2026 09:10:00"}), rows({"Timestamp": "11/4/2026 09:10:00"})
    for line in first:
        read(line)
    after = PARSER.reader()
    after.recall(read.memory())  # type: ignore[attr-defined]
    (event,) = after(second[1])
    assert datetime.fromtimestamp(event.time or 0, UTC).day == 4


@pytest.mark.parametrize(
    "joined", ["a@x.test b@x.test", "a@x.test;b@x.test", "a@x.test, b@x.test", "{a@x.test, b@x.test}"]
)
@pytest.mark.parametrize(
    ("statuses", "codes"),
    [
        ("550 5.1.1 no;550 5.2.2 full", ["5.1.1", "5.2.2"]),
        ("550 5.1.1 R.ADR; not found 550 5.2.2 full", ["5.1.1", "5.2.2"]),
        ("[{LRT=};{LED=550 5.1.1 no};{IP=}] [{LRT=};{LED=550 5.2.2 full};{IP=}]", ["5.1.1", "5.2.2"]),
        ("550 5.1.1 no", ["5.1.1", "5.1.1"]),
        ("System.String[]", ["5.0.0", "5.0.0"]),
    ],
)
def test_joined_recipients_and_statuses_are_taken_apart(joined: str, statuses: str, codes: list[str]) -> None:
    found = events(rows({"Recipients": joined, "RecipientStatus": statuses}))
    assert [each.recipient for each in found] == ["a@x.test", "b@x.test"]
    assert [str(each.code) for each in found] == codes


def test_a_quoted_recipient_stays_whole() -> None:
    (one, two) = events(rows({"Recipients": '"odd; name"@x.test b@x.test'}))
    assert (one.recipient, two.recipient) == ('"odd; name"@x.test', "b@x.test")


@pytest.mark.parametrize("shown", ["System.String[]", "System.Object[]"])
def test_recipients_that_were_lost_in_the_export_are_said(shown: str) -> None:
    header, line = rows({"Recipients": shown})
    read = PARSER.reader()
    read(header)
    with pytest.raises(UnparsedLineError, match=r"its recipients are shown as System.*: export with @{n='Recipients'"):
        read(line)
    assert read(rows({"Recipients": shown, "EventId": "HAREDIRECT"})[1]) == []
    (step,) = read(rows({"Recipients": shown, "EventId": "RECEIVE"})[1])
    assert step.queue_id == "601"


def test_the_latency_of_an_export_is_the_delay() -> None:
    more = {"EventId": "DELIVER", "Source": "STOREDRIVER", "MessageLatency": "01:02:03.5000000"}
    assert [each.delay for each in events(rows(more))] == [3723.5]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "ascii"])
@pytest.mark.parametrize("ends", ["\r\n", "\n"])
def test_every_encoding_of_powershell_is_read(
    parse: Callable[..., list[dict[str, Any]]], tmp_path: Path, encoding: str, ends: str
) -> None:
    log = tmp_path / "export.csv"
    subject = "plain" if encoding == "ascii" else "Grüße \u0a0a"
    log.write_bytes("".join(line + ends for line in [TYPE, *rows({"MessageSubject": subject})]).encode(encoding))
    assert [(each["outcome"], each["recipient"]) for each in parse(log)] == [("bounced", "a@dest.test")]


def test_utf_16_with_the_other_byte_order_and_without_a_last_line_end(
    bouncemeter: Callable[..., Any], tmp_path: Path
) -> None:
    text = "\ufeff" + "\r\n".join(rows({}, {"Recipients": "b@dest.test"}))
    done = bouncemeter("parse", "-", stdin=text.encode("utf-16-be"))
    assert [json.loads(line)["recipient"] for line in done.stdout.splitlines()] == ["a@dest.test", "b@dest.test"]


def test_an_export_without_recipients_is_answered_by_one_sentence(
    bouncemeter: Callable[..., Any], tmp_path: Path
) -> None:
    log = tmp_path / "export.csv"
    log.write_text("\n".join(rows({"Recipients": "System.String[]"})) + "\n")
    done = bouncemeter("report", log)
    assert done.stderr == (
        f"bouncemeter: {log}: no outcome could be read; the first line that should be one: its recipients are shown"
        " as System.String[]: export with @{n='Recipients';e={$_.Recipients -join ';'}}\n"
    )
