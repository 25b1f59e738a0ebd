"""The alerts on simulated servers of every size, tested with promtool: incidents fire, ordinary days do not."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from bouncemeter_exporter.counting.counters import CLASSES
from bouncemeter_exporter.grafana.rules import as_prometheus, rules, thresholds

from tests.conftest import GRAFANA, ROOT

pytestmark = pytest.mark.needs("prometheus")

DAY = 1440
OURS = 'job="bouncemeter",instance="mx1:19525"'
MTA = f'{OURS},mta="postfix"'

Minutes = range
Counts = dict[str, list[float]]
"""What happens in each minute, by series; `None` is a scrape without an answer."""


class Server:
    """A simulated server: what happens in each minute, and what a scrape per minute shows.

    Args:
        minutes: How long it runs.
        hourly: Recipients per hour at noon; at night it is a twentieth.
        refused: Shares of recipients that are refused, by class and provider.
    """

    def __init__(
        self,
        minutes: int,
        hourly: float,
        refused: dict[tuple[str, str], float] | None = None,
        seed: int = 1,
        *,
        steady: bool = False,
    ) -> None:
        self.minutes, self._chance = minutes, random.Random(seed)
        self.happens: dict[str, list[float]] = defaultdict(lambda: [0.0] * minutes)
        self.gauges: dict[str, list[float]] = {
            f'mail_deferred_recipients{{{MTA},class="4.2",code="4.2.2",provider="google"}}': [5.0] * minutes,
            f"mail_deferred_oldest_seconds{{{MTA}}}": [400_000.0] * minutes,
            f'bouncemeter_source_up{{{OURS},source="/var/log/mail.log"}}': [1.0] * minutes,
            f"bouncemeter_state_writable{{{OURS}}}": [1.0] * minutes,
            f'bouncemeter_build_info{{{OURS},version="1"}}': [1.0] * minutes,
        }
        for kind, name in CLASSES:
            self.happens[by_class(name, kind)][0] = 0.0
        self.happens[f"bouncemeter_series_dropped_total{{{OURS}}}"][0] = 0.0
        self.silent: set[int] = set()
        self.start = 0
        shares = {("5.1", "google"): 0.01, ("5.1", "other"): 0.01, ("5.7", "google"): 0.002, ("5.7", "other"): 0.001}
        for minute in range(minutes):
            load = 1.0 if steady else 0.05 + 0.95 * max(0.0, math.sin(math.pi * ((minute % DAY) - 360) / 720))
            rate = hourly / 60 * load
            for provider in ("google", "other"):
                self.add(minute, "delivered", provider, self.poisson(rate / 2))
            for (name, provider), share in (refused or shares).items():
                self.refuse(minute, name, provider, self.poisson(rate * share))

    def poisson(self, mean: float) -> int:
        """A random number of events in a minute, given their average."""
        limit, number, product = math.exp(-min(mean, 500)), 0, self._chance.random()
        while product > limit:
            product *= self._chance.random()
            number += 1
        return number

    def add(self, minute: int, outcome: str, provider: str, number: float) -> None:
        if number:
            self.happens[f'mail_recipients_total{{{MTA},outcome="{outcome}",provider="{provider}"}}'][minute] += number
            self.happens[f'mail_delivery_attempts_total{{{MTA},outcome="{outcome}",class="2.0",code="2.0.0"}}'][
                minute
            ] += number

    def refuse(
        self, minute: int, name: str, provider: str, number: float, reason: str = "policy", code: str | None = None
    ) -> None:
        """Refuse recipients for good."""
        if number and 0 <= minute < self.minutes:
            self.happens[by_class(name, "hard")][minute] += number
            labels = f'kind="hard",class="{name}",code="{code or name + ".1"}",reason="{reason}",provider="{provider}"'
            self.happens[f"mail_bounces_total{{{MTA},{labels}}}"][minute] += number
            self.add(minute, "bounced", provider, number)

    def restart(self, minute: int, down: int, *, keeps: bool) -> None:
        """Stop the exporter for a while. With its state, it then counts what it missed; without, it begins at zero."""
        self.silent |= set(range(minute, minute + down))
        for happened in self.happens.values():
            if keeps:
                happened[minute + down] += sum(happened[minute : minute + down])
            else:
                happened[minute + down] = -sum(happened[: minute + down]) + happened[minute + down]

    def series(self) -> Iterable[dict[str, str]]:
        """The series in promtool's form: a counter exists from its first count on, those by class from the start."""
        for name, happened in self.happens.items():
            total, values = 0.0, []
            exists = "by_class" in name or "dropped" in name
            for minute, number in enumerate(happened):
                total = max(0.0, total + number)
                exists = (exists or total > 0) and minute >= self.start
                values.append(f"{total:g}" if exists and minute not in self.silent else "_")
            yield {"series": name, "values": " ".join(values)}
        for name, gauge in self.gauges.items():
            shown = [
                f"{value:g}" if minute not in self.silent and minute >= self.start else "_"
                for minute, value in enumerate(gauge)
            ]
            yield {"series": name, "values": " ".join(shown)}
        up = ["0" if minute in self.silent or minute < self.start else "1" for minute in range(self.minutes)]
        yield {"series": f"up{{{OURS}}}", "values": " ".join(up)}


def by_class(name: str, kind: str) -> str:
    return f'mail_bounces_by_class_total{{{MTA},kind="{kind}",class="{name}"}}'


def promtool(folder: Path, server: Server, expected: Iterable[tuple[int, str, bool]], every: int = 1) -> None:
    """Check with promtool that alerts fire at the expected minutes, if rules are evaluated every `every` minutes."""
    (folder / "rules.yml").write_text(as_prometheus(rules({})))
    asked = [
        {
            "expr": f'count by (alertname) (ALERTS{{alertname=~"{name}",alertstate="firing"}}) > bool 0',
            "eval_time": f"{minute}m",
            "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1}] if fires else [],
        }
        for minute, name, fires in expected
    ]
    test = {"interval": "1m", "input_series": list(server.series()), "promql_expr_test": asked}
    (folder / "test.yml").write_text(
        json.dumps({"rule_files": ["rules.yml"], "evaluation_interval": f"{every}m", "tests": [test]})
    )
    done = subprocess.run(
        ["promtool", "test", "rules", folder / "test.yml"], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def never(server: Server, name: str = ".+", start: int = 0) -> list[tuple[int, str, bool]]:
    return [(minute, name, False) for minute in range(start, server.minutes, 13)]


def test_the_committed_rules_are_current() -> None:
    assert (GRAFANA / "alerts" / "bouncemeter.rules.yml").read_text() == as_prometheus(rules({}))


@pytest.mark.needs("prometheus")
def test_promtool_accepts_the_rules() -> None:
    done = subprocess.run(
        ["promtool", "check", "rules", GRAFANA / "alerts" / "bouncemeter.rules.yml"], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


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
    promtool(tmp_path, server, [(890, ".+", False), (908, f"{FLOOD}ByProvider", True)])


def test_one_message_to_many_recipients_is_not_a_flood(tmp_path: Path) -> None:
    server = Server(DAY + 400, 60)
    server.refuse(DAY + 100, "5.7", "google", 80)
    server.refuse(DAY + 101, "5.7", "google", 20)
    promtool(tmp_path, server, never(server, f"{FLOOD}.*|{TRICKLE}"))


def test_a_slow_flood_fires_the_trickle_alert(tmp_path: Path) -> None:
    server = Server(2 * DAY, 60, steady=True)
    for minute in range(DAY + 300, 2 * DAY, 8):
        server.refuse(minute, "5.7", "google", 1)
    promtool(
        tmp_path, server, [(DAY + 290, ".+", False), (DAY + 700, TRICKLE, True), (DAY + 700, FLOOD, False)], every=5
    )


def test_a_tiny_server_that_everybody_refuses_fires_the_trickle_alert(tmp_path: Path) -> None:
    server = Server(2 * DAY, 2, refused={("5.1", "other"): 0.01})
    for minute in range(DAY + 600, DAY + 900, 50):
        server.refuse(minute, "5.7", "google", 1)
    promtool(tmp_path, server, [(DAY + 590, ".+", False), (DAY + 870, TRICKLE, True)], every=5)


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
        server.refuse(minute, "5.7", "google", 500)
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
    server.gauges[name][T:] = [5.0 + 4 * step for step in range(server.minutes - T)]


def lag(server: Server, size: float) -> None:
    server.gauges[f'bouncemeter_source_offset_bytes{{{OURS},source="/var/log/mail.log"}}'] = [1e6] * server.minutes
    server.gauges[f'bouncemeter_source_size_bytes{{{OURS},source="/var/log/mail.log"}}'] = [1e6 + size] * server.minutes


def count(name: str, labels: str, number: float) -> Callable[[Server, int], None]:
    def run(server: Server, minute: int) -> None:
        server.happens[f"{name}{{{labels}}}"][minute] += number

    return run


def silence(server: Server, begin: int) -> None:
    for happened in server.happens.values():
        happened[begin:] = [0.0] * len(happened[begin:])


def unchanged(server: Server) -> None:
    """Leave an ordinary server as it is."""


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


def test_every_alert_has_a_runbook_section_and_every_threshold_is_filled_in() -> None:
    found = rules({name: each.value for name, each in thresholds().items()})
    assert "{" not in "".join(each["expr"] for each in found if "record" in each).replace('{outcome="', "").replace(
        '{kind="hard"}', ""
    )
    runbook = (ROOT / "docs" / "runbook.md").read_text()
    for each in found:
        if "alert" in each:
            assert f"\n## {each['alert']}\n" in runbook
