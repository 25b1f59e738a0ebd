"""Finds known words in what a server said, in one pass whatever the number of words known.

Every phrase is filed under whichever of its words the fewest other phrases have. A text is cut into words once, and
only phrases filed under one of these words are compared with it. So the cost depends on the length of the text, which
is bounded, and not on the size of the table.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from operator import itemgetter
from typing import Generic, TypeVar

from bouncemeter.patterns import compiled

__all__ = ["MAX_TEXT", "Phrases", "ReplyText"]

MAX_TEXT = 1000
"""Characters of a reply that are searched: what matters is at its beginning."""

T = TypeVar("T")

_WORD = re.compile(r"[^\W_]+")
_ADDRESS = re.compile(
    r'<[^<>]{0,320}@[^<>]{0,255}+>|<[^<>\s]{0,320}+>|"[^"\n]{1,64}+"@[^\s<>]{1,255}+|[^\s@<>"]{1,64}+@[^\s@<>]{1,255}+'
)
_LINK = re.compile(r"(?i:\bhttps?:/|\bwww\.)[^\s<>\"']*+")
# `OFR004_104` and `LPN105_104`: the machine's number before the code is of no interest.
_NUMBERED = re.compile(r"\b(ofr|lpn|ouk)(?:aaa)?[0-9]{0,3}[_-]?([0-9]{3})\b")
_SCHEME = re.compile(r"https?:/+")
_NEXT_LINE = re.compile(r"(?:^| )[245][0-9]{2}[ -](?:#?[245]\.[0-9]{1,3}\.[0-9]{1,3}[ :])?")
_IN_REPLY_TO = re.compile(r"\(in reply to [A-Za-z ]{1,40}\)?$")

# In small letters, for Exchange's own words (`RESOLVER.ADR.RecipNotFound`) look like the name of a host.
_DOT = re.compile(r"[a-z0-9_-]\.[a-z]")
_HOST = compiled(
    r"(?<![\w.@-])(?:[a-z0-9_][a-z0-9_-]{0,62}+\.)++"
    r"(?:[a-z]{2}|com|net|org|edu|gov|mil|int|info|biz|name|mail|email|online|cloud|host|app|dev|test|example|local|lan|"
    r"internal|localdomain|arpa)(?![\w-]|\.\w)"
)


class ReplyText:
    """A reply, ready to be searched: in lower case, without addresses and the codes of further lines.

    Attributes:
        original: The reply as it was.
        text: The words of the reply.
        words: The set of its words.
    """

    __slots__ = ("_as_written", "_plain", "original", "text", "words")

    def __init__(self, text: str) -> None:
        self.original = text = text[:MAX_TEXT]
        if "in reply to" in text:
            text = _IN_REPLY_TO.sub("", text)
        text = _NEXT_LINE.sub(" ", " ".join(text.replace("\u2019", "'").replace("\\n", " ").split()))
        if "@" in text or "<" in text:
            text = " ".join(_ADDRESS.sub(" ", text).split())
        self._as_written, self._plain = text, dict[frozenset[str], ReplyText]()
        self._set_words(text)

    def _set_words(self, text: str) -> None:
        text = text.lower()
        self.text = _NUMBERED.sub(r"\1_\2", text) if "ofr" in text or "lpn" in text or "ouk" in text else text
        self.words = frozenset(_WORD.findall(self.text))

    def plain(self, sites: frozenset[str] = frozenset()) -> ReplyText:
        """The same without links and names of hosts, for anybody can put words into these.

        Args:
            sites: Hosts that stay, such as `spamhaus.org`, with their subdomains.
        """
        found = self._plain.get(sites)
        if found is None:
            text = self._as_written

            def known(match: re.Match[str]) -> str:
                host = _SCHEME.sub("", match[0].lower()).partition("/")[0].partition(":")[0]
                while host and host not in sites:
                    host = host.partition(".")[2]
                return f" {host} "

            if "//" in text or "www." in text:
                text = _LINK.sub(known, text)
            if _DOT.search(text) is not None:
                text = _HOST.sub(known, text)
            found = self
            if text != self._as_written:
                found = ReplyText.__new__(ReplyText)
                found.original, found._plain = self.original, {}
                found._as_written = " ".join(text.split())
                found._set_words(found._as_written)
            self._plain[sites] = found
        return found


_Phrase = tuple[int, frozenset[str], tuple[str, ...], T]
"""A phrase: its place in the table (the smallest is the most trusted), its words, its parts, its value."""


class Phrases(Generic[T]):
    """Phrases, each with a value, the most trusted first. There are thousands, few of which a log ever has in it: they
    are kept as text until then.

    Args:
        rows: Phrases in lower case, with `*` for anything between two parts, and their values.
    """

    def __init__(self, rows: Iterable[tuple[str, T]]) -> None:
        self._rows = list(rows)
        number = Counter(word for phrase, _ in self._rows for word in set(_WORD.findall(phrase)))
        self._filed: dict[str, list[int]] = {}
        for rank, (phrase, _) in enumerate(self._rows):
            key = min(_WORD.findall(phrase), key=lambda word: (number[word], -len(word), word))
            self._filed.setdefault(key, []).append(rank)
        self._phrases: dict[int, _Phrase[T]] = {}
        self._longer: dict[int, list[_Phrase[T]]] = {}

    def first(self, reply: ReplyText) -> T | None:
        """The value of the most trusted phrase in a text; None if it has none. A phrase that only occurs inside a
        longer one does not count: `no route to host` is not about a `route to`."""
        for phrase in sorted(self._candidates(reply), key=_rank):
            spans = _spans(phrase[2], reply.text)
            if spans is not None and not self._is_inside_a_longer(phrase, spans, reply):
                return phrase[3]
        return None

    def all(self, reply: ReplyText) -> list[T]:
        """The values of all phrases in a text, the most trusted first."""
        found = sorted(self._candidates(reply), key=_rank)
        return [value for _, _, parts, value in found if _spans(parts, reply.text) is not None]

    def _candidates(self, reply: ReplyText) -> list[_Phrase[T]]:
        """The phrases whose words are all in a text, in whatever order."""
        words, filed = reply.words, self._filed
        found = [self._phrase(rank) for word in filed.keys() & words for rank in filed[word]]
        return [each for each in found if each[1] <= words]

    def _phrase(self, rank: int) -> _Phrase[T]:
        """The phrase at a place in the table."""
        found = self._phrases.get(rank)
        if found is None:
            text, value = self._rows[rank]
            parts = tuple(part.strip() for part in text.split("*"))
            found = self._phrases[rank] = rank, frozenset(_WORD.findall(text)), parts, value
        return found

    def _is_inside_a_longer(self, phrase: _Phrase[T], spans: list[tuple[int, int]], reply: ReplyText) -> bool:
        """Whether a phrase occurs nowhere but inside a longer one."""
        for _, words, parts, _ in self._longer_than(phrase):
            around = _spans(parts, reply.text) if words <= reply.words else None
            if around is not None and _are_within(phrase[2], spans, around, reply.text):
                return True
        return False

    def _longer_than(self, phrase: _Phrase[T]) -> list[_Phrase[T]]:
        """The phrases that a phrase is a part of."""
        rank, words, parts, _ = phrase
        found = self._longer.get(rank)
        if found is None:
            having = (other for other, (text, _) in enumerate(self._rows) if all(part in text for part in parts))
            longer = (each for each in map(self._phrase, having) if words <= each[1] and _are_parts(parts, each[2]))
            found = self._longer[rank] = list(longer)
        return found


_rank = itemgetter(0)


def _spans(parts: tuple[str, ...], text: str) -> list[tuple[int, int]] | None:
    """Where parts occur in a text, in this order and none of them beginning or ending inside a word."""
    spans, position = [], 0
    for part in parts:
        end = _end_of(part, text, position)
        if end < 0:
            return None
        spans.append((end - len(part), end))
        position = end
    return spans


def _are_parts(parts: tuple[str, ...], longer: tuple[str, ...]) -> bool:
    """Whether each part of a phrase is within a longer part of another."""
    return all(any(len(part) < len(other) and part in other for other in longer) for part in parts)


def _are_within(parts: tuple[str, ...], spans: list[tuple[int, int]], around: list[tuple[int, int]], text: str) -> bool:
    """Whether parts occur nowhere but within some places."""
    if not all(any(first <= begin and end <= last for first, last in around) for begin, end in spans):
        return False
    again = _end_of(parts[0], text, spans[0][1]) if len(parts) == 1 else -1  # it may occur once more, further on
    return again < 0 or any(first <= again - len(parts[0]) and again <= last for first, last in around)


def _end_of(part: str, text: str, start: int) -> int:
    """Where a part ends in a text; -1 if it does not occur there in whole words."""
    while True:
        found = text.find(part, start)
        if found < 0:
            return -1
        end = found + len(part)
        cut = (found and part[0].isalnum() and text[found - 1].isalnum()) or (
            end < len(text) and part[-1].isalnum() and text[end].isalnum()
        )
        if not cut:
            return end
        start = found + 1
