"""A simulated mail server: what happens to its mail, and the series that an exporter of it would show to Prometheus."""

from __future__ import annotations

import json
import math
import random
import re
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from bouncemeter_exporter.counting.counters import CLASSES
from bouncemeter_exporter.grafana.rules import Rules, as_prometheus, rules

DAY = 1440
"""Minutes."""

OURS = 'job="bouncemeter",instance="mx1:19525"'
MTA = f'{OURS},mta="postfix"'
LOG = f'{OURS},source="/var/log/mail.log"'

Rate = Callable[[float], float]
"""Recipients per hour at a minute since the start, which is a Monday's midnight."""

ALWAYS_THERE = ("by_class", "by_sender", "bounced_messages", "backlog_bounces", "dropped")
"""Parts of the names of series that exist from the start; other counters exist from their first count on."""


def by_day(noon: float) -> Rate:
    """The traffic of a day: at night a twentieth."""
    return lambda minute: noon * (0.05 + 0.95 * max(0.0, math.sin(math.pi * (minute % DAY - 360) / 720)))


class Server:
    """A simulated server: what happens in each step, and what a scrape at each step shows.

    Args:
        steps: How long it runs.
        rate: Recipients per hour: a function of time, or their number at noon.
        refused: Shares of recipients that are refused, by class and provider.
        seed: Of chance.
        step: Seconds between scrapes.
        steady: Whether the rate stays the same all day.

    Attributes:
        happens: What is counted in each step, by series.
        gauges: What is shown at each step, by series.
        silent: Steps at which the exporter does not answer.
        start: The step at which the exporter starts.
    """

    def __init__(
        self,
        steps: int,
        rate: float | Rate,
        refused: Mapping[tuple[str, str], float] | None = None,
        seed: int = 1,
        *,
        step: int = 60,
        steady: bool = False,
    ) -> None:
        self.steps, self.step, self._chance = steps, step, random.Random(seed)
        self.happens: dict[str, list[float]] = defaultdict(lambda: [0.0] * steps)
        self.gauges: dict[str, list[float]] = {
            f'mail_deferred_recipients{{{MTA},class="4.2",code="4.2.2",provider="google"}}': [5.0] * steps,
            f"mail_deferred_oldest_seconds{{{MTA}}}": [400_000.0] * steps,
            f"bouncemeter_source_up{{{LOG}}}": [1.0] * steps,
            f"bouncemeter_state_writable{{{OURS}}}": [1.0] * steps,
            f'bouncemeter_build_info{{{OURS},version="1"}}': [1.0] * steps,
        }
        for kind, name in CLASSES:
            for metric in ("mail_bounces_by_class", "mail_bounced_messages", "bouncemeter_backlog_bounces"):
                self.happens[by_class(name, kind, metric)][0] = 0.0
        self.happens[f"bouncemeter_series_dropped_total{{{OURS}}}"][0] = 0.0
        self.silent: set[int] = set()
        self.start = 0
        shares = {("5.1", "google"): 0.01, ("5.1", "other"): 0.01, ("5.7", "google"): 0.002, ("5.7", "other"): 0.001}
        if isinstance(rate, int | float):
            rate = (lambda _, noon=rate: noon) if steady else by_day(rate)
        shares = dict(refused or shares)
        providers = dict.fromkeys(["google", "other", *(provider for _, provider in shares)])
        for place in range(steps):
            mean = rate(place * step / 60) * step / 3600
            for provider in providers:
                self.add(place, "delivered", provider, self.poisson(mean / len(providers)))
            for (name, provider), share in shares.items():
                reason, code = ("authentication", "5.7.26") if name == "5.7 auth" else ("policy", None)
                self.refuse(place, name[:3], provider, self.poisson(mean * share), reason, code)

    def poisson(self, mean: float) -> int:
        """A random number of events in a step, given their average."""
        if mean > 60:
            return max(0, round(self._chance.gauss(mean, math.sqrt(mean))))
        limit, number, product = math.exp(-mean), 0, self._chance.random()
        while product > limit:
            product *= self._chance.random()
            number += 1
        return number

    def add(self, place: int, outcome: str, provider: str, number: float) -> None:
        """Let recipients end."""
        if number and 0 <= place < self.steps:
            labels = f'outcome="{outcome}",provider="{provider}"'
            self.happens[f"mail_recipients_total{{{MTA},{labels}}}"][place] += number
            labels = f'outcome="{outcome}",class="2.0",code="2.0.0"'
            self.happens[f"mail_delivery_attempts_total{{{MTA},{labels}}}"][place] += number

    def refuse(
        self,
        place: int,
        name: str,
        provider: str,
        number: float,
        reason: str = "policy",
        code: str | None = None,
        messages: float | None = None,
        *,
        old: bool = False,
        sender: str | None = None,
    ) -> None:
        """Refuse recipients for good: each of a message of its own, or of so many messages; perhaps in old lines, or of
        mail of a sender that is counted apart."""
        if number and 0 <= place < self.steps:
            self.happens[by_class(name, "hard")][place] += number
            of_messages = number if messages is None else messages
            self.happens[by_class(name, "hard", "mail_bounced_messages")][place] += of_messages
            if sender:
                of_sender = f'mail_bounces_by_sender_total{{{MTA},sender="{sender}",kind="hard",class="{name}"}}'
                self.happens[of_sender][place] += number
            self.happens[by_class(name, "hard", "bouncemeter_backlog_bounces")][place] += number if old else 0
            labels = f'kind="hard",class="{name}",code="{code or name + ".1"}",reason="{reason}",provider="{provider}"'
            self.happens[f"mail_bounces_total{{{MTA},{labels}}}"][place] += number
            self.add(place, "bounced", provider, number)

    def restart(self, place: int, down: int, *, keeps: bool) -> None:
        """Stop the exporter for a while. With its state, it then counts what it missed; without, it begins at zero."""
        self.silent |= set(range(place, place + down))
        back = place + down
        for name, happened in list(self.happens.items()):
            if keeps:
                missed = sum(happened[place:back])
                happened[back] += missed
                if name.startswith("mail_bounces_by_class"):
                    self.happens[name.replace("mail_bounces_by_class", "bouncemeter_backlog_bounces")][back] += missed
            else:
                happened[back] = -sum(happened[:back]) + happened[back]

    def series(self) -> Iterable[dict[str, str]]:
        """The series in promtool's form."""
        for name, happened in self.happens.items():
            total, values = 0.0, []
            exists = any(part in name for part in ALWAYS_THERE)
            for place, number in enumerate(happened):
                total = max(0.0, total + number)
                exists = exists or total > 0
                values.append(f"{total:g}" if exists and self._answers(place) else "_")
            yield {"series": name, "values": " ".join(values)}
        for name, gauge in self.gauges.items():
            shown = [f"{value:g}" if self._answers(place) else "_" for place, value in enumerate(gauge)]
            yield {"series": name, "values": " ".join(shown)}
        yield {
            "series": f"up{{{OURS}}}",
            "values": " ".join(str(int(self._answers(place))) for place in range(self.steps)),
        }

    def _answers(self, place: int) -> bool:
        return place >= self.start and place not in self.silent


def by_class(name: str, kind: str, metric: str = "mail_bounces_by_class") -> str:
    return f'{metric}_total{{{MTA},kind="{kind}",class="{name}"}}'


def rules_for(names: str) -> Rules:
    """The real rules that decide about some alerts: these, what they use, what that uses, and so on."""
    found = rules({})
    used: set[str] = set()
    chosen = [each for each in found if re.fullmatch(names, each.get("alert", ""))]
    assert chosen, names
    while chosen:
        used.update(each.get("record") or each["alert"] for each in chosen)
        words = {word for each in chosen for word in re.findall(r"[\w:]+", f"{each['expr']} {each.get('annotations')}")}
        chosen = [each for each in found if each.get("record") in words - used]
    return [each for each in found if (each.get("record") or each["alert"]) in used]


def run_promtool(
    folder: Path,
    server: Server,
    asked: list[dict[str, Any]],
    every: str = "1m",
    limit: float = 1800,
    *,
    names: str = ".+",
) -> subprocess.CompletedProcess[str]:
    """Evaluate the real rules over a server's series with promtool.

    Args:
        folder: Where to write its files.
        server: The server.
        asked: Queries in promtool's form.
        every: How often rules are evaluated.
        limit: Seconds that it may take.
        names: A pattern for the names of the alerts that are asked for: no rule is evaluated that these do not use.
    """
    text = as_prometheus(rules_for(names)).replace('interval: "30s"', f'interval: "{every}"')
    (folder / "rules.yml").write_text(text)
    used = {*re.findall(r"\w+", text)}
    series = [each for each in server.series() if each["series"].partition("{")[0] in used]
    test = {"interval": f"{server.step}s", "input_series": series, "promql_expr_test": asked}
    # Without an order, promtool evaluates groups at random: alerts might come before what they look at.
    order = re.findall(r'^  - name: "(.+)"$', text, re.MULTILINE)
    whole = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": every,
        "group_eval_order": order,
        "tests": [test],
    }
    (folder / "test.yml").write_text(json.dumps(whole))
    command = ["promtool", "test", "rules", str(folder / "test.yml")]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit)


def firing(folder: Path, server: Server, minutes: Iterable[float], every: str = "1m") -> dict[float, set[str]]:
    """The alerts that fire at some minutes."""
    minutes = list(minutes)
    asked = [
        {
            "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
            "eval_time": f"{round(minute * 60)}s",
            "exp_samples": [],  # promtool prints what it gets instead
        }
        for minute in minutes
    ]
    done = run_promtool(folder, server, asked, every, 7200)
    assert "err:" not in done.stdout + done.stderr, done.stdout[-2000:] + done.stderr[-2000:]
    found: dict[float, set[str]] = {minute: set() for minute in minutes}
    for moment, got in re.findall(r"time: (\S+),\s+exp:.*\n\s+got:(.*)", done.stdout + done.stderr):
        found[_minutes(moment)] = set(re.findall(r'alertname="(\w+)"', got))
    assert len(found) == len(asked)
    return found


def _minutes(duration: str) -> float:
    """A duration as Prometheus writes it, `2d2h38m`, in minutes."""
    units = {"w": 10080.0, "d": 1440.0, "h": 60.0, "m": 1.0, "s": 1 / 60}
    return round(sum(float(number) * units[unit] for number, unit in re.findall(r"([0-9.]+)([wdhms])", duration)), 3)
