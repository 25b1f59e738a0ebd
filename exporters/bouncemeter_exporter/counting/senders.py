"""Groups of senders that the configuration names: by domain, or by the account that handed a message over."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

__all__ = ["MAX_GROUPS", "OTHER", "Groups", "SenderGroups", "SendersError", "check_senders"]

MAX_GROUPS = 50
"""How many groups a configuration may name: each is a label value."""

OTHER = "other"
"""Any sender that is in no group."""

_NAME = re.compile("[a-z0-9_-]{1,40}")
_DOMAIN = re.compile(r"[^\s@<>*?]+")

Groups = Mapping[str, Mapping[str, Sequence[str]]]
"""Lists of `domains` and `accounts`, by the name of the group."""


class SendersError(ValueError):
    """A group of senders is wrong. Its text says what is expected; `key` is the setting."""

    def __init__(self, key: str, sentence: str) -> None:
        super().__init__(f"{key} {sentence}")
        self.key = key


def check_senders(groups: Groups) -> None:
    """Check groups before they are used.

    Raises:
        SendersError: A name is not valid, there are too many, or a group is not lists of domains and accounts of its
            own.
    """
    if len(groups) > MAX_GROUPS:
        raise SendersError("senders", f"has {len(groups)} groups; the limit is {MAX_GROUPS}")
    taken: dict[tuple[str, str], str] = {}
    for name, entry in groups.items():
        _check_group(name, entry)
        for setting, values in entry.items():
            key = f"senders.{name}.{setting}"
            for value in _checked(key, setting, values):
                if (owner := taken.setdefault((setting, _plain(setting, value)), name)) != name:
                    raise SendersError(key, f"has {value!r}, which senders.{owner} has already")


def _check_group(name: str, entry: object) -> None:
    """Check a group's name, and that it is a table which names somebody."""
    key = f"senders.{name}"
    if not _NAME.fullmatch(name):
        raise SendersError(key, "is not a valid name: use lower-case letters, digits, - and _, 40 at most")
    if name == OTHER:
        raise SendersError(key, "is reserved for senders that are in no group")
    if not isinstance(entry, dict):
        raise SendersError(key, 'must be a table such as { domains = ["news.example"] }')
    if not any(entry.values()):
        raise SendersError(key, "must name a domain or an account")


def _checked(key: str, setting: str, values: object) -> Sequence[str]:
    """The domains or accounts that a group lists."""
    if setting not in _EXAMPLES:
        raise SendersError(key, "is not a setting; use domains or accounts")
    if not isinstance(values, list) or not all(isinstance(value, str) and value for value in values):
        raise SendersError(key, f"must be a list such as {_EXAMPLES[setting]}")
    for value in values if setting == "domains" else ():
        if not _DOMAIN.fullmatch(value):
            raise SendersError(key, f"has {value!r}, which is not a domain such as news.example")
    return values


_EXAMPLES = {"domains": '["news.example"]', "accounts": '["bob", "uid=33"]'}


def _plain(setting: str, value: str) -> str:
    """A domain or an account as it is compared."""
    return value.lower().lstrip(".") if setting == "domains" else value.lower()


class SenderGroups:
    """Finds the group of a sender.

    Args:
        groups: See `check_senders`.

    Attributes:
        names: Every value that `of` can give; empty without groups.
    """

    def __init__(self, groups: Groups) -> None:
        self.names = (*groups, OTHER) if groups else ()
        self._accounts, self._domains = (
            {_plain(setting, value): name for name, entry in groups.items() for value in entry.get(setting, ())}
            for setting in ("accounts", "domains")
        )

    def of(self, sender: str | None, account: str | None) -> str:
        """The group of a message: that of its account, else that of the longest known ending of the sender's domain.

        Args:
            sender: The envelope sender.
            account: Who handed the message over.
        """
        if account and (found := self._accounts.get(account.lower())):
            return found
        _, at, domain = (sender or "").lower().rpartition("@")
        while at and domain and len(domain) <= MAX_DOMAIN:
            if domain in self._domains:
                return self._domains[domain]
            domain = domain.partition(".")[2]
        return OTHER


MAX_DOMAIN = 253
"""The length of a domain (RFC 1035)."""
