"""The alerts on simulated servers of every size, tested with promtool: incidents fire, ordinary days do not."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import promql_parser as promql
import pytest
import yaml
from bouncemeter_exporter.grafana.rules import (
    FILE,
    UNIT_TESTS,
    as_kubernetes,
    as_prometheus,
    as_unit_tests,
    rules,
    thresholds,
)

from tests.conftest import GRAFANA, ROOT
from tests.grafana.simulated import DAY, MTA, OURS, Server, by_day, rules_for, run_promtool
from tests.grafana.test_dashboards import selectors

pytestmark = pytest.mark.needs("prometheus")


def promtool(folder: Path, server: Server, expected: Iterable[tuple[float, str, bool]], every: int = 1) -> None:
    """Check with promtool that alerts fire at the expected minutes, if rules are evaluated every `every` minutes."""
    expected = list(expected)
    asked = [
        {
            "expr": f'count by (alertname) (ALERTS{{alertname=~"{name}",alertstate="firing"}}) > bool 0',
            "eval_time": f"{round(minute * 60)}s",
            "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1}] if fires else [],
        }
        for minute, name, fires in expected
    ]
    names = "|".join({name for _, name, _ in expected})
    done = run_promtool(folder, server, asked, f"{every}m", names=names)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def never(server: Server, name: str = ".+", start: int = 0) -> list[tuple[int, str, bool]]:
    return [(minute, name, False) for minute in range(start, server.steps, 13)]


def test_the_committed_rules_are_current() -> None:
    assert (GRAFANA / "alerts" / FILE).read_text() == as_prometheus(rules({}))
    assert (GRAFANA / "alerts" / UNIT_TESTS).read_text() == as_unit_tests({})


def test_promtool_accepts_the_rules_and_their_own_tests_pass(tmp_path: Path) -> None:
    subprocess.run(["promtool", "check", "rules", GRAFANA / "alerts" / "bouncemeter.rules.yml"], check=True)
    for values in ({}, {"policy_flood": 200.0, "policy_flood_messages": 50.0}):
        (tmp_path / FILE).write_text(as_prometheus(rules(values)))
        (tmp_path / UNIT_TESTS).parent.mkdir(exist_ok=True)
        (tmp_path / UNIT_TESTS).write_text(as_unit_tests(values))
        done = subprocess.run(["promtool", "test", "rules", tmp_path / UNIT_TESTS], capture_output=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_fleet_s_numbers_are_the_sum_of_its_servers_that_send_mail_out(tmp_path: Path) -> None:
    """A counter that is born late counts; the hub inside, whose mail the edge counts again, does not."""
    (tmp_path / FILE).write_text(as_prometheus(rules({}, fleet=True)))
    subprocess.run(["promtool", "check", "rules", tmp_path / FILE], check=True)
    bounced = 'mta="postfix", kind="hard", class="5.1", code="5.1.1", reason="user_unknown", provider="google"'
    known = 'mail_bounces_by_class_total{{{}, mta="postfix", kind="hard", class="5.1"}}'
    targets = {name: f'job="bouncemeter", instance="{name}:19525", role="{role}"' for name, role in SERVERS.items()}
    series = []
    for name, target in targets.items():
        begin = "_x20 3x40" if name == "edge2" else "0x9 2x51"  # edge2's counter is born after 20 minutes
        series.append({"series": f"mail_bounces_total{{{target}, {bounced}}}", "values": begin})
        series.append({"series": known.format(target), "values": "0x60"})
        series.append({"series": f'mail_deferred_oldest_seconds{{{target}, mta="postfix"}}', "values": "5x60"})
    role = 'job="bouncemeter", role="edge"'
    asked = [
        {
            "expr": "sum_over_time(fleet:mail_bounces:increase5m[1h])",
            "eval_time": "1h",
            "exp_samples": [{"labels": f"{{{role}, {bounced}}}", "value": 5}],
        },
        {"expr": "count(fleet:mail_deferred_oldest_seconds:max)", "eval_time": "1h", "exp_samples": [TWO_ROLES]},
    ]
    test = {"interval": "1m", "input_series": series, "promql_expr_test": asked}
    content = {"rule_files": [FILE], "evaluation_interval": "5m", "tests": [test]}
    (tmp_path / "test.yml").write_text(yaml.safe_dump(content))
    done = subprocess.run(["promtool", "test", "rules", tmp_path / "test.yml"], capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


SERVERS = {"edge1": "edge", "edge2": "edge", "hub": "internal"}
TWO_ROLES = {"labels": "{}", "value": 2}


def test_kubernetes_gets_the_same_rules() -> None:
    resource = yaml.safe_load(as_kubernetes(rules({})))
    assert (resource["apiVersion"], resource["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    assert resource["spec"] == yaml.safe_load(as_prometheus(rules({})))


def test_the_rules_for_an_alert_are_all_that_it_uses() -> None:
    """Else a test would find that an alert does not fire because a rule that it uses was left out."""
    records = {each["record"] for each in rules({}) if "record" in each}
    for alert in (each["alert"] for each in rules({}) if "alert" in each):
        found = rules_for(alert)
        assert [each for each in rules({}) if each in found] == found
        assert [each["alert"] for each in found if "alert" in each] == [alert]
        used = {selector.name for each in found for selector, _ in selectors(promql.parse(each["expr"]))}
        assert used & records == {each["record"] for each in found if "record" in each}, alert


@pytest.mark.parametrize("hourly", [2, 60, 3000], ids=["tiny", "middle", "big"])
@pytest.mark.parametrize("seed", range(int(os.environ.get("DAYS", "1"))))
def test_ordinary_days_fire_no_alert(tmp_path: Path, hourly: float, seed: int) -> None:
    server = Server(2 * DAY, hourly, seed=seed)
    promtool(tmp_path, server, never(server), every=3)


FLOOD, TRICKLE = "MailPolicyBounceFlood", "MailPolicyBounceTrickle"


@pytest.mark.parametrize(
    ("hourly", "when", "each_minute"),
    [(60, 720, 10), (60, 180, 6), (3000, 720, 60), (3000, DAY + 120, 10), (2, 600, 4)],
    ids=["middle, noon", "middle, night", "big, noon", "big, night", "tiny"],
)
def test_a_flood_of_policy_refusals_fires_soon(tmp_path: Path, hourly: float, when: int, each_minute: int) -> None:
    server = Server(when + 210, hourly)
    for minute in range(when, when + 60):
        server.refuse(minute, "5.7", "google", each_minute)
    soon = when + max(7, 20 // each_minute + 3)
    quiet = [(minute, f"{FLOOD}.*", False) for minute in range(0, when, 11)]
    promtool(
        tmp_path, server, [*quiet, (soon, FLOOD, True), (soon, f"{FLOOD}ByProvider", True), (when + 200, FLOOD, False)]
    )


def test_a_flood_from_a_provider_that_never_refused_before_fires(tmp_path: Path) -> None:
    server = Server(DAY, 60)
    for minute in range(900, 960):
        server.refuse(minute, "5.7", "yahoo", 5)
    promtool(tmp_path, server, [(890, f"{FLOOD}.*|{TRICKLE}", False), (908, f"{FLOOD}ByProvider", True)])


def test_one_message_to_many_recipients_is_not_a_flood(tmp_path: Path) -> None:
    server = Server(DAY + 400, 60)
    server.refuse(DAY + 100, "5.7", "google", 80, messages=1)
    server.refuse(DAY + 101, "5.7", "google", 20, messages=0)
    promtool(tmp_path, server, never(server, f"{FLOOD}.*|{TRICKLE}"))


def test_a_slow_flood_fires_the_trickle_alert(tmp_path: Path) -> None:
    server = Server(2 * DAY, 60, steady=True)
    for minute in range(DAY + 300, 2 * DAY, 8):
        server.refuse(minute, "5.7", "google", 1)
    promtool(
        tmp_path,
        server,
        [(DAY + 290, f"{FLOOD}.*|{TRICKLE}", False), (DAY + 700, TRICKLE, True), (DAY + 700, FLOOD, False)],
        every=5,
    )


def test_a_tiny_server_that_everybody_refuses_fires_the_trickle_alert(tmp_path: Path) -> None:
    server = Server(2 * DAY, 2, refused={("5.1", "other"): 0.01})
    for minute in range(DAY + 600, DAY + 900, 50):
        server.refuse(minute, "5.7", "google", 1)
    promtool(tmp_path, server, [(DAY + 590, f"{FLOOD}.*|{TRICKLE}", False), (DAY + 870, TRICKLE, True)], every=5)


@pytest.mark.parametrize("keeps", [True, False], ids=["with its state", "without"])
@pytest.mark.parametrize("down", [1, 90], ids=["for a minute", "for long"])
def test_a_restart_fires_no_mail_alert(tmp_path: Path, keeps: bool, down: int) -> None:
    server = Server(DAY + 900, 3000)
    server.restart(DAY + 600, down, keeps=keeps)
    promtool(tmp_path, server, never(server, "Mail.+"), every=3)


def test_a_new_exporter_that_reads_old_logs_fires_no_alert(tmp_path: Path) -> None:
    server = Server(DAY, 3000)
    server.start = 600
    for minute in range(600, 604):
        server.refuse(minute, "5.7", "google", 500, old=True)
    promtool(tmp_path, server, never(server, f"{FLOOD}.*|{TRICKLE}|MailAuth.+|MailBlock.+|MailProvider.+"))


# --- the other alerts: a change to an ordinary server, and whether it fires -----------------------------------------

Act = Callable[[Server], None]
T = 480


def each(minutes: Iterable[int], act: Callable[[Server, int], None]) -> Act:
    def run(server: Server) -> None:
        for minute in minutes:
            act(server, minute)

    return run


def gauge(name: str, value: float, begin: int = T) -> Act:
    def run(server: Server) -> None:
        for key, values in server.gauges.items():
            if key.startswith(name):
                values[begin:] = [value] * len(values[begin:])

    return run


def grow(server: Server) -> None:
    (name,) = (key for key in server.gauges if key.startswith("mail_deferred_recipients"))
    server.gauges[name][T:] = [5.0 + 6 * step for step in range(server.steps - T)]


def lag(server: Server, size: float) -> None:
    server.gauges[f'bouncemeter_source_offset_bytes{{{OURS},source="/var/log/mail.log"}}'] = [1e6] * server.steps
    server.gauges[f'bouncemeter_source_size_bytes{{{OURS},source="/var/log/mail.log"}}'] = [1e6 + size] * server.steps


def count(name: str, labels: str, number: float) -> Callable[[Server, int], None]:
    def run(server: Server, minute: int) -> None:
        server.happens[f"{name}{{{labels}}}"][minute] += number

    return run


def silence(server: Server, begin: int) -> None:
    for happened in server.happens.values():
        happened[begin:] = [0.0] * len(happened[begin:])


def unchanged(server: Server) -> None:
    """Leave an ordinary server as it is."""


def refused_of(sender: str, name: str, number: float, messages: float | None = None) -> Callable[[Server, int], None]:
    def run(server: Server, minute: int) -> None:
        server.refuse(minute, name, "google", number, messages=messages, sender=sender)

    return run


AUTHENTICATION = lambda server, minute: server.refuse(minute, "5.7", "google", 1, "authentication", "5.7.26")  # noqa: E731
LISTED = count("mail_blocklist_hits_total", f'{MTA},blocklist="spamhaus",provider="microsoft"', 1)
UNPARSED = count("bouncemeter_lines_total", f'{OURS},source="/var/log/mail.log",mta="postfix",result="unparsed"', 3)
EVENTS = count("bouncemeter_lines_total", f'{OURS},source="/var/log/mail.log",mta="postfix",result="event"', 30)
SOME = range(T, T + 120)


@pytest.mark.parametrize(
    ("name", "act", "fires"),
    [
        ("MailAuthenticationRefusals", each(range(T, T + 120, 4), AUTHENTICATION), True),
        ("MailAuthenticationRefusals", each([T, T + 30], AUTHENTICATION), False),
        ("MailBlocklisted", each(SOME, LISTED), True),
        ("MailBlocklisted", each([T, T + 60], LISTED), False),
        ("MailHardBounceRatioHigh", each(SOME, lambda server, at: server.refuse(at, "5.1", "other", 10)), True),
        ("MailHardBounceRatioHigh", each([T], lambda server, at: server.refuse(at, "5.1", "other", 2)), False),
        ("MailProviderRefusesNearlyAll", each(SOME, lambda server, at: server.refuse(at, "5.1", "yahoo", 3)), True),
        ("MailProviderRefusesNearlyAll", each(SOME, lambda server, at: server.refuse(at, "5.1", "google", 1)), False),
        ("MailSenderBounceFlood", each(range(T + 30, T + 45), refused_of("shop", "5.1", 3)), True),
        ("MailSenderBounceFlood", each(range(T + 30, T + 45), refused_of("other", "5.1", 3)), False),
        ("MailSenderBounceFlood", each(range(T + 30, T + 45), refused_of("shop", "5.1", 1)), False),
        ("MailSenderBounceFlood", each([T + 35], refused_of("shop", "5.7", 100, messages=1)), False),
        ("MailBacklogGrowing", grow, True),
        ("MailBacklogGrowing", gauge("mail_deferred_recipients", 60), False),
        ("BouncemeterLinesUnparsed", lambda server: [each(SOME, UNPARSED)(server), each(SOME, EVENTS)(server)], True),
        ("BouncemeterLinesUnparsed", each(SOME, EVENTS), False),
        ("BouncemeterDown", lambda server: server.restart(T, 60, keeps=True), True),
        ("BouncemeterDown", lambda server: server.restart(T + 38, 4, keeps=True), False),
        ("BouncemeterSourceDown", gauge("bouncemeter_source_up", 0), True),
        ("BouncemeterSourceDown", gauge("bouncemeter_source_up", 0, T + 35), False),
        ("BouncemeterStateNotWritable", gauge("bouncemeter_state_writable", 0), True),
        ("BouncemeterStateNotWritable", gauge("bouncemeter_state_writable", 1), False),
        ("BouncemeterLagging", lambda server: lag(server, 5e7), True),
        ("BouncemeterLagging", lambda server: lag(server, 5e5), False),
        ("BouncemeterSeriesDropped", each([T], count("bouncemeter_series_dropped_total", OURS, 5)), True),
        ("BouncemeterSeriesDropped", unchanged, False),
        (
            "BouncemeterMessagesDropped",
            each([5, T], count("bouncemeter_source_dropped_total", f'{OURS},source="udp::1"', 5)),
            True,
        ),
        ("BouncemeterMessagesDropped", unchanged, False),
    ],
)
def test_each_alert_fires_when_it_should_and_only_then(tmp_path: Path, name: str, act: Act, fires: bool) -> None:
    server = Server(T + 125, 60, seed=3, steady=True)
    act(server)
    promtool(tmp_path, server, [(T - 1, name, name == "BouncemeterLagging" and fires), (T + 40, name, fires)])


@pytest.mark.parametrize(
    ("name", "act"),
    [
        (
            "MailAuthenticationRefusals",
            lambda server: server.refuse(T, "5.7", "yahoo", 6, "authentication", "5.7.26"),
        ),
        ("MailBlocklisted", lambda server: [LISTED(server, T) for _ in range(6)]),
        ("MailHardBounceRatioHigh", lambda server: server.refuse(T, "5.3", "yahoo", 60)),
    ],
)
def test_alerts_count_the_first_value_of_a_new_series(tmp_path: Path, name: str, act: Act) -> None:
    server = Server(T + 60, 60, seed=3, steady=True)
    act(server)
    promtool(tmp_path, server, [(T - 1, name, False), (T + 25, name, True)])


@pytest.mark.parametrize("begin", [DAY, 0], ids=["since today", "as ever"])
def test_an_old_backlog_fires_unless_it_was_always_there(tmp_path: Path, begin: int) -> None:
    server = Server(DAY + 400, 60)
    gauge("mail_deferred_recipients", 300, begin)(server)
    promtool(
        tmp_path, server, [(DAY + 100, "MailBacklogOld", False), (DAY + 350, "MailBacklogOld", begin > 0)], every=5
    )


def test_a_silent_log_fires_if_it_was_never_silent_before(tmp_path: Path) -> None:
    server = Server(8 * DAY, 200, steady=True)
    silence(server, 7 * DAY + 600)
    promtool(
        tmp_path, server, [(7 * DAY + 590, "MailLogSilent", False), (7 * DAY + 700, "MailLogSilent", True)], every=10
    )


def test_further_numbers_are_of_the_series_that_alerts() -> None:
    for each in rules({}):
        if details := each.get("annotations", {}).get("details"):
            (level, *_) = re.findall(r"\b(mta|provider|sender|blocklist):", each["expr"])
            for label in {"job", "instance", "mta", level}:
                assert f"{label}=%q" in details, each["alert"]
                assert f"$labels.{label} " in details, each["alert"]


def test_every_alert_has_a_runbook_section_and_every_threshold_is_filled_in() -> None:
    found = rules({name: each.value for name, each in thresholds().items()})
    assert not re.findall(r"\{[a-z_]+\}", "".join(each["expr"] for each in found))
    runbook = (ROOT / "docs" / "runbook.md").read_text()
    for each in found:
        if "alert" in each:
            assert f"\n## {each['alert']}\n" in runbook


# --- scenarios of a spike -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [5, 15, 60, 180, 300])
def test_a_blast_of_forty_seconds_fires_within_two_minutes_and_two_scrapes(tmp_path: Path, step: int) -> None:
    day = DAY * 60 // step // 8
    server = Server(day + 1800 // step, 60, step=step, steady=True)
    places = range(day, day + max(1, 40 // step))
    for place in places:
        server.refuse(place, "5.7", "google", 2000 / len(places))
    begin = day * step / 60
    expected = [(begin - 1, FLOOD, False), (begin + 2 + 2 * step / 60, FLOOD, True)]
    promtool(tmp_path, server, expected)


@pytest.mark.parametrize("step", [15, 60, 180, 300])
@pytest.mark.parametrize("messages", [1, 4])
def test_a_few_messages_to_many_are_told_from_many_messages(tmp_path: Path, step: int, messages: int) -> None:
    server = Server(7200 // step, 60, step=step, steady=True, refused={("5.1", "other"): 0.01})
    for number in range(messages):
        server.refuse(3600 // step + number, "5.7", "google", 300, messages=1)
    promtool(tmp_path, server, [(minute, f"{FLOOD}.*", False) for minute in range(1, 120)])


def test_a_newsletter_that_is_refused_alike_each_night_fires_on_the_first_at_most(tmp_path: Path) -> None:
    nights = 3
    server = Server(nights * DAY, 60)
    for night in range(nights):
        for minute in range(120, 130):
            server.add(night * DAY + minute, "delivered", "other", 300)
            server.refuse(night * DAY + minute + 7 * (night % 2), "5.7", "other", 6)
    promtool(tmp_path, server, never(server, "MailPolicy.*", DAY), every=2)


def test_a_sender_that_is_refused_alike_each_night_fires_on_the_first_at_most(tmp_path: Path) -> None:
    nights, name = 2, "MailSenderBounceFlood"
    server = Server(nights * DAY, 60)
    for night in range(nights):
        for minute in range(120, 130):
            server.add(night * DAY + minute, "delivered", "other", 300)
            refused_of("news", "5.1", 6)(server, night * DAY + minute + 7 * (night % 2))
    refused_of("news", "5.7", 200)(server, DAY + 600)  # at another time it is a flood
    noon = [(DAY + 598, name, False), (DAY + 604, name, True)]
    quiet = [each for each in never(server, name, DAY) if each[0] < DAY + 590]
    promtool(tmp_path, server, [*quiet, *noon], every=2)


def test_a_restart_without_a_state_makes_no_flood_of_a_sender(tmp_path: Path) -> None:
    server = Server(DAY, 60)
    for minute in range(0, DAY, 2):
        refused_of("news", "5.1", 1)(server, minute)
    server.restart(600, 90, keeps=False)
    promtool(tmp_path, server, never(server, "MailSender.+"), every=2)


def test_twice_the_traffic_with_the_same_share_is_no_flood(tmp_path: Path) -> None:
    shares = {("5.7", "google"): 0.01}
    server = Server(2 * DAY, lambda minute: 6000.0 * (1 + 2 * (minute >= DAY + 600)), shares)
    promtool(tmp_path, server, never(server, "MailPolicy.*", 60), every=2)


def test_a_flood_that_goes_on_stays_an_alert_for_days(tmp_path: Path) -> None:
    end = 2 * DAY + 600
    server = Server(end, 600, steady=True)
    for minute in range(DAY, end):
        server.refuse(minute, "5.7", "google", 5)
    during = [(minute, FLOOD, True) for minute in range(DAY + 10, end, 45)]
    promtool(tmp_path, server, [(DAY - 5, FLOOD, False), *during], every=2)


def test_a_flood_on_each_of_three_days_fires_on_each(tmp_path: Path) -> None:
    server = Server(4 * DAY, 60, steady=True)
    expected = []
    for day in range(1, 4):
        for minute in range(600, 640):
            server.refuse(day * DAY + minute, "5.7", "google", 6)
        expected += [(day * DAY + 620, FLOOD, True), (day * DAY + 700, FLOOD, False)]
    promtool(tmp_path, server, expected, every=2)


def test_a_flood_in_the_first_minutes_of_a_new_server_fires(tmp_path: Path) -> None:
    server = Server(60, 600, steady=True)
    for minute in range(3, 20):
        server.refuse(minute, "5.7", "google", 20)
    promtool(tmp_path, server, [(2, ".+", False), (7, FLOOD, True), (50, FLOOD, False)])


def test_an_exporter_that_never_answered_and_one_that_stays_down_are_told(tmp_path: Path) -> None:
    never_there, down = Server(120, 60), Server(3 * DAY, 60)
    never_there.start = 10_000
    promtool(tmp_path, never_there, [(100, "BouncemeterDown", True)])
    down.silent = set(range(100, 3 * DAY))
    promtool(tmp_path, down, [(90, "BouncemeterDown", False), (3 * DAY - 5, "BouncemeterDown", True)], every=5)


def test_a_log_that_is_silent_on_a_monday_is_told_and_a_sunday_is_not(tmp_path: Path) -> None:
    def rate(minute: float) -> float:
        return 0.0 if minute % (7 * DAY) >= 5 * DAY else by_day(400)(minute)

    server = Server(15 * DAY, rate)
    silence(server, 14 * DAY + 600)
    quiet = [(minute, "MailLogSilent", False) for minute in range(DAY, 14 * DAY + 600, 240)]
    promtool(tmp_path, server, [*quiet, (14 * DAY + 700, "MailLogSilent", True)], every=10)
