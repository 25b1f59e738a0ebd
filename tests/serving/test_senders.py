"""Groups of senders: how the configuration names them, and what the exporter counts."""

from __future__ import annotations

import os
import re
import signal
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
from bouncemeter_exporter.config import ConfigError, read_config
from bouncemeter_exporter.counting.counters import Counters
from bouncemeter_exporter.counting.senders import SenderGroups, check_senders

from tests.servers.exporter import Exporter

GROUPS = """
[senders.news]
domains = ["news.example"]

[senders.shop]
accounts = ["shop@example.com", "uid=33"]
"""


@pytest.mark.parametrize(
    ("sender", "account", "group"),
    [
        ("a@news.example", None, "news"),
        ("bounce+ann=dest.example@mail.News.Example", None, "news"),
        ("a@old.news.example", None, "archive"),
        ("a@oldnews.example", None, "other"),
        ("a@example", None, "other"),
        ('"news.example@"@src.example', None, "other"),
        ("a@news.example", "Bob", "shop"),
        ("a@news.example", "bobby", "news"),
        (None, "uid=33", "shop"),
        ("root", None, "other"),
        (None, None, "other"),
        ("a@" + "a." * 100_000 + "news.example", None, "other"),
    ],
)
def test_an_account_decides_before_the_longest_ending_of_a_domain(
    sender: str | None, account: str | None, group: str
) -> None:
    groups = SenderGroups(
        {
            "news": {"domains": [".news.example"]},
            "archive": {"domains": ["OLD.news.example"]},
            "shop": {"accounts": ["bob", "uid=33"]},
            "root": {"domains": ["root"]},
        }
    )
    assert groups.of(sender, account) == group


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("senders = 3", "1: senders must be tables"),
        ("[senders]\nnews = 3", "2: senders.news must be a table such as { domains ="),
        ("[senders.other]\ndomains = ['a.test']", "1: senders.other is reserved for senders that are in no group"),
        ("\n[senders.News]\ndomains = ['a.test']", "2: senders.News is not a valid name: use lower-case letters"),
        (f"[senders.{'a' * 41}]\ndomains = ['a.test']", "1: senders.aaaa"),
        ("[senders.a]\ndomain = ['a.test']", "2: senders.a.domain is not a setting; use domains or accounts"),
        ("[senders.a]\ndomains = 'a.test'", "2: senders.a.domains must be a list such as"),
        ("[senders.a]\naccounts = [3]", "2: senders.a.accounts must be a list such as"),
        ("[senders.a]\naccounts = ['']", "2: senders.a.accounts must be a list such as"),
        ("[senders.a]\ndomains = ['bob@a.test']", "2: senders.a.domains has 'bob@a.test', which is not a domain"),
        ("[senders.a]\ndomains = ['*.a.test']", "2: senders.a.domains has '*.a.test', which is not a domain"),
        ("[senders.a]\n", "1: senders.a must name a domain or an account"),
        ("[senders.a]\ndomains = []", "1: senders.a must name a domain or an account"),
        (
            "[senders.a]\ndomains = ['a.test']\n[senders.b]\naccounts = ['x']\ndomains = ['.A.test']",
            "5: senders.b.domains has '.A.test', which senders.a has already",
        ),
        (
            "[senders]\na = { accounts = ['Bob'] }\nb = { accounts = ['bob'] }",
            "3: senders.b.accounts has 'bob', which senders.a has already",
        ),
        (
            "".join(f"[senders.g{number}]\ndomains = ['d{number}.test']\n" for number in range(51)),
            "1: senders has 51 groups; the limit is 50",
        ),
    ],
)
def test_a_wrong_group_is_named_with_its_line(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "bouncemeter.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_config(file)
    assert str(error.value).startswith(f"{file}:{sentence}")
    assert "\n" not in str(error.value)


def test_a_domain_may_be_named_twice_in_one_group_and_fifty_groups_are_allowed() -> None:
    check_senders({"a": {"domains": ["a.test", ".A.test"], "accounts": ["a.test"]}})
    check_senders({f"g{number}": {"accounts": [f"a{number}"]} for number in range(50)})


def test_every_class_of_every_group_begins_at_zero_and_series_of_other_groups_end() -> None:
    counters = Counters()
    counters.announce("postfix")
    assert not counters.bounces_by_sender.values
    counters.name_senders(SenderGroups({"a": {"accounts": ["a"]}, "b": {"accounts": ["b"]}}))
    counters.announce("exim")
    assert Counter(labels[:2] for labels in counters.bounces_by_sender.values) == {
        (mta, sender): 16 for mta in ("postfix", "exim") for sender in ("a", "b", "other")
    }
    counters.bounces_by_sender.add(("exim", "b", "hard", "5.1"), None, 3)
    counters.bounces_by_sender.add(("exim", "a", "hard", "5.1"), None, 4)
    counters.name_senders(SenderGroups({"b": {"accounts": ["c"]}}))
    assert {labels[1] for labels in counters.bounces_by_sender.values} == {"b", "other"}
    assert counters.bounces_by_sender.values["exim", "b", "hard", "5.1"] == 3
    counters.name_senders(SenderGroups({}))
    assert not counters.bounces_by_sender.values


# --- as users run it --------------------------------------------------------------------------------------------


class Log:
    """A log of Postfix or of Exim, as lines come."""

    def __init__(self, path: Path) -> None:
        self.path, self._number = path, 0
        path.touch()

    def write(self, *lines: str) -> None:
        with self.path.open("a") as file:
            file.writelines(f"{line}\n" for line in lines)

    def postfix(self, sender: str, account: str = "", code: str = "5.1.1", *, leaves: bool = True) -> str:
        """A message of which a recipient is refused or deferred. Returns its queue ID."""
        self._number += 1
        name, at = f"4A1B2C{self._number:04X}", "Nov  4 03:00:01 mx1 postfix"
        who = f", sasl_method=PLAIN, sasl_username={account}" if account else ""
        self.write(
            f"{at}/smtpd[1]: {name}: client=a.example[192.0.2.9]{who}",
            f"{at}/qmgr[1]: {name}: from=<{sender}>, size=400, nrcpt=1 (queue active)",
            self.outcome(name, code),
        )
        if leaves:
            self.write(f"{at}/qmgr[1]: {name}: removed")
        return name

    @staticmethod
    def outcome(name: str, code: str) -> str:
        status = "deferred" if code[0] == "4" else "bounced"
        return (
            f"Nov  4 03:00:01 mx1 postfix/smtp[1]: {name}: to=<a@dest.example>, relay=mx.dest.example[192.0.2.1]:25,"
            f" delay=1, delays=0/0/0/1, dsn={code}, status={status} (host mx.dest.example[192.0.2.1] said: {code} no)"
        )

    def exim(self, sender: str, account: str = "") -> None:
        """A message of which a recipient is refused."""
        self._number += 1
        name, at = f"1abcDE-{self._number:06}-AB", "2026-11-04 03:00:01"
        who = f" A=plain:{account}" if account else ""
        self.write(
            f"{at} {name} <= {sender} H=a.example [192.0.2.9] P=esmtpsa{who} S=400",
            f"{at} {name} ** a@dest.example R=dns T=smtp H=mx.dest.example [192.0.2.1]: SMTP error from remote mail"
            " server after RCPT TO:<a@dest.example>: 550 5.1.1 unknown",
            f"{at} {name} Completed",
        )


def by_sender(exporter: Exporter) -> Counter[tuple[str, str, str]]:
    """The counts by mta, sender and class; their sums are those by class."""
    found, sums, totals = Counter[tuple[str, str, str]](), Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for labels, value in re.findall(r"^mail_bounces_by_(?:sender|class)_total\{(.+)\} (\S+)$", exporter.page(), re.M):
        each = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        number = int(float(value))
        if "sender" in each:
            found[each["mta"], each["sender"], each["class"]] += number
            sums[each["mta"], each["class"]] += number
        else:
            totals[each["mta"], each["class"]] += number
    assert +sums == +totals or not found
    return found


def shown(exporter: Exporter, wanted: Mapping[tuple[str, str, str], int]) -> None:
    """Wait until these are all counts that are not 0."""
    end = time.monotonic() + 30
    while dict(+by_sender(exporter)) != wanted:
        assert time.monotonic() < end, (+by_sender(exporter), exporter.said)
        time.sleep(0.1)


class Killed(Exporter):
    """An exporter that is killed in the end."""

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._listener.join()
        assert self.process.stderr is not None
        self.process.stderr.close()


def test_without_groups_there_is_no_such_metric(tmp_path: Path) -> None:
    log = Log(tmp_path / "mail.log")
    log.postfix("a@news.example")
    with Exporter("--from-start", log.path) as exporter:
        assert "mail_bounces_by_sender" not in exporter.page()


def test_bounces_of_postfix_and_exim_are_counted_by_sender(tmp_path: Path) -> None:
    config, postfix, exim = tmp_path / "bouncemeter.toml", Log(tmp_path / "mail.log"), Log(tmp_path / "mainlog")
    config.write_text(GROUPS)
    postfix.postfix("a@news.example")
    postfix.postfix("a@mail.news.example", code="4.2.2", leaves=False)
    postfix.postfix("a@news.example", "Shop@example.com")
    postfix.postfix("a@else.example", "news.example")
    name = postfix.postfix("", code="5.7.1")  # a notification
    postfix.write(f"Nov  4 03:00:01 mx1 postfix/bounce[1]: 4A1B2C9999: sender non-delivery notification: {name}")
    for sender, account in (("a@news.example", ""), ("b@else.example", "shop@example.com"), ("root@mx1", "")):
        exim.exim(sender, account)
    with Exporter("--config", config, "--from-start", postfix.path, exim.path) as exporter:
        shown(
            exporter,
            {
                ("postfix", "news", "5.1"): 1,
                ("postfix", "news", "4.2"): 1,
                ("postfix", "shop", "5.1"): 1,
                ("postfix", "other", "5.1"): 1,
                ("exim", "news", "5.1"): 1,
                ("exim", "shop", "5.1"): 1,
                ("exim", "other", "5.1"): 1,
            },
        )
        assert len(by_sender(exporter)) == 2 * 3 * 16


def test_the_account_of_a_message_that_a_filter_hands_back_is_kept(tmp_path: Path) -> None:
    config, log = tmp_path / "bouncemeter.toml", Log(tmp_path / "mail.log")
    config.write_text(GROUPS)
    at = "Nov  4 03:00:01 mx1 postfix"
    log.write(
        f"{at}/pickup[1]: 4A1B2C0001: uid=33 from=<www-data>",
        f"{at}/qmgr[1]: 4A1B2C0001: from=<www-data@mx1>, size=400, nrcpt=1 (queue active)",
        f"{at}/smtpd[1]: 4A1B2C0002: client=localhost[127.0.0.1]",
        f"{at}/qmgr[1]: 4A1B2C0002: from=<www-data@mx1>, size=400, nrcpt=1 (queue active)",
        f"{at}/smtp[1]: 4A1B2C0001: to=<a@dest.example>, relay=127.0.0.1[127.0.0.1]:10024, delay=1, delays=0/0/0/1,"
        " dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as 4A1B2C0002)",
        f"{at}/qmgr[1]: 4A1B2C0001: removed",
        log.outcome("4A1B2C0002", "5.7.1"),
        f"{at}/qmgr[1]: 4A1B2C0002: removed",
    )
    with Exporter("--config", config, "--from-start", log.path) as exporter:
        shown(exporter, {("postfix", "shop", "5.7"): 1})


def test_counts_and_senders_of_waiting_messages_survive_a_kill(tmp_path: Path) -> None:
    config, state, log = tmp_path / "bouncemeter.toml", tmp_path / "state.db", Log(tmp_path / "mail.log")
    config.write_text(GROUPS)
    words = ("--config", config, "--state", state, "--from-start", log.path)
    with Killed(*words) as exporter:
        waits = log.postfix("a@news.example", "uid=33", "4.2.2", leaves=False)
        log.postfix("a@news.example")
        shown(exporter, {("postfix", "shop", "4.2"): 1, ("postfix", "news", "5.1"): 1})
    log.write(log.outcome(waits, "5.2.2"))
    with Exporter(*words) as exporter:
        counts = {("postfix", "shop", "4.2"): 1, ("postfix", "news", "5.1"): 1, ("postfix", "shop", "5.2"): 1}
        shown(exporter, counts)
    # A group that is not configured any more leaves nothing behind, also if it comes back.
    config.write_text("[senders.shop]\naccounts = ['uid=33']")
    with Exporter(*words) as exporter:
        assert "news" not in {sender for _, sender, _ in by_sender_alone(exporter)}
        assert by_sender_alone(exporter)["postfix", "shop", "5.2"] == 1
    config.write_text(GROUPS)
    with Exporter(*words) as exporter:
        assert by_sender_alone(exporter)["postfix", "news", "5.1"] == 0


def by_sender_alone(exporter: Exporter) -> Counter[tuple[str, str, str]]:
    """The same where groups have come or gone, so that the sums differ."""
    found = Counter[tuple[str, str, str]]()
    for code_class, mta, sender, value in re.findall(
        r'^mail_bounces_by_sender_total\{class="(.+)",kind=".+",mta="(.+)",sender="(.+)"\} (\S+)$',
        exporter.page(),
        re.M,
    ):
        found[mta, sender, code_class] = int(float(value))
    return found


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
def test_groups_change_at_sighup(tmp_path: Path) -> None:
    config, log = tmp_path / "bouncemeter.toml", Log(tmp_path / "mail.log")
    config.write_text("")
    log.postfix("a@news.example")
    waits = log.postfix("a@news.example", code="4.2.2", leaves=False)
    with Exporter("--config", config, "--from-start", log.path) as exporter:

        def hang_up(text: str) -> None:
            said = len(exporter.said)
            config.write_text(text)
            os.kill(exporter.process.pid, signal.SIGHUP)
            while len(exporter.said) == said:
                time.sleep(0.05)
            assert exporter.said[-1] == "bouncemeter: Read the configuration again."

        assert "mail_bounces_by_sender" not in exporter.page()
        hang_up(GROUPS)
        assert set(by_sender_alone(exporter).values()) == {0}  # every class, before the first bounce
        log.postfix("a@news.example")
        log.write(log.outcome(waits, "5.2.2"))  # it came before, and nobody noted its sender
        exporter.wait_for_value('mail_bounces_by_class_total{class="5.2",kind="hard",mta="postfix"}', 1)
        assert +by_sender_alone(exporter) == {("postfix", "news", "5.1"): 1, ("postfix", "other", "5.2"): 1}
        hang_up("[senders.shop]\naccounts = ['bob']")
        assert {sender for _, sender, _ in by_sender_alone(exporter)} == {"shop", "other"}
        hang_up("")
        assert "mail_bounces_by_sender" not in exporter.page()
