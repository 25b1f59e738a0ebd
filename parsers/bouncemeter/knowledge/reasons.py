"""Why mail is refused: a small closed vocabulary, found in the provider, the code and the text, in order of trust.

The phrases of the configuration come first; then the provider's own code; then an enhanced status code that means one
thing; then the words of the reply; then what the code usually means; then the bare reply code. An error of our own
server has phrases of its own (`speakers`). Tables: `reasons.toml` (the vocabulary), `provider_codes.toml`,
`phrases.toml`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache, lru_cache
from itertools import chain

from bouncemeter.event import EnhancedCode, Event, Outcome
from bouncemeter.knowledge.codes import Explanation, explain
from bouncemeter.knowledge.languages import Language, texts
from bouncemeter.knowledge.phrases import MAX_TEXT, Phrases, ReplyText
from bouncemeter.knowledge.providers import OTHER, provider_by_words, provider_of
from bouncemeter.knowledge.speakers import MAIL, command_of, exit_status_reason, inner_reply, is_own_fault, own_error
from bouncemeter.tables import table

__all__ = [
    "MAX_ADDED",
    "Finding",
    "ProviderCode",
    "Reason",
    "add_phrases",
    "check_phrases",
    "find_reason",
    "finding_of",
    "meanings_of",
    "reason_of",
    "reasons",
    "reply_text",
    "todo",
    "translated",
    "words_alone",
]

UNKNOWN = "other"

OURSELVES = ""
"""In place of a provider: our own server refused, so no provider's codes apply."""


@dataclass(frozen=True, slots=True)
class Reason:
    """A word of the vocabulary.

    Attributes:
        name: The word.
        meaning: What it means.
        kind: Its usual kind: `soft`, `hard` or `either`.
        address: What it says of the recipient's address: `gone`, `full`, `unreachable` or `innocent`.
        todo: What to do.
    """

    name: str
    meaning: str
    kind: str
    address: str
    todo: str


@dataclass(frozen=True, slots=True)
class ProviderCode:
    """What one provider means by a code of its own.

    Attributes:
        provider: The provider.
        name: The first of its codes or words: its key in the tables of other languages.
        reason: The reason behind it.
        meaning: What it means to that provider.
        todo: What to do about it; None if the general advice for the reason applies.
        vague: Whether the provider uses it for several things: the text may say more.
        general: Whether others use the same words: then they count only in the provider's own replies.
        source: Where the provider documents it.
    """

    provider: str
    name: str
    reason: str
    meaning: str
    todo: str | None
    vague: bool
    general: bool
    source: str


@dataclass(frozen=True, slots=True)
class Finding:
    """A reason, and how it was found.

    Attributes:
        reason: The word of the vocabulary.
        provider: Who refused, as far as that is known.
        basis: Where it was found: `provider code`, `enhanced code`, `text`, `reply code`, `outcome` or `nothing`.
        provider_code: The provider's own code that gave the reason, or that came with the text that gave it.
        source: Who wrote those words, or the document that says so; None if there is none.
    """

    reason: str
    provider: str
    basis: str
    provider_code: ProviderCode | None = None
    source: str | None = None


@cache
def reasons(language: Language = Language.EN) -> dict[str, Reason]:
    """Every word of the vocabulary, with its texts in a language."""
    added = texts("reasons", language)["reasons"]
    return {
        name: Reason(name, **(entry | added.get(name, {})))
        for name, entry in table("knowledge/reasons")["reasons"].items()
    }


@cache
def _certain() -> frozenset[EnhancedCode]:
    """The enhanced codes that mean one thing, whichever server sends them."""
    return frozenset(code for text in table("knowledge/reasons")["certain"]["codes"] for code in _range(text))


@cache
def _reply_codes() -> dict[int, str]:
    """The reason that a bare reply code supports, if any."""
    return {int(digits): reason for digits, reason in table("knowledge/reasons")["replies"].items()}


def _range(text: str) -> Iterator[EnhancedCode]:
    """The codes in `5.7.1` or `5.7.606-649`."""
    first, _, last = text.partition("-")
    begin = EnhancedCode.parse(first)
    for detail in range(begin.detail, int(last or begin.detail) + 1):
        yield EnhancedCode(begin.digit, begin.subject, detail)


@cache
def _provider_codes() -> tuple[dict[tuple[str, EnhancedCode], ProviderCode], Phrases[ProviderCode]]:
    """The providers' own codes: by enhanced code, and by words."""
    by_code: dict[tuple[str, EnhancedCode], ProviderCode] = {}
    by_words: list[tuple[str, ProviderCode]] = []
    # A row for a single code comes before a range that contains the code.
    rows = sorted(
        table("knowledge/provider_codes")["codes"], key=lambda row: any("-" in code for code in row.get("codes", ()))
    )
    for row in rows:
        provider_code = ProviderCode(
            provider=row["provider"],
            name=next(chain(row.get("codes", ()), row.get("words", ()))),
            reason=row["reason"],
            meaning=row["meaning"],
            todo=row.get("todo"),
            vague=row.get("vague", False),
            general=row.get("general", False),
            source=row["source"],
        )
        for text in row.get("codes", ()):
            for code in _range(text):
                by_code.setdefault((provider_code.provider, code), provider_code)
        by_words += [(words, provider_code) for words in row.get("words", ())]
    return by_code, Phrases(by_words)


def meanings_of(code: EnhancedCode) -> list[ProviderCode]:
    """What single providers mean by an enhanced code of their own."""
    return [meaning for (_, each), meaning in _provider_codes()[0].items() if each == code]


def translated(code: ProviderCode, language: Language) -> ProviderCode:
    """A provider's code, as the English table has it, with its texts in a language."""
    if language is Language.EN:
        return code
    return replace(code, **texts("provider_codes", language)[code.provider][code.name])


@cache
def _phrases() -> Phrases[tuple[str, str]]:
    """What servers write: each phrase with its reason and its source."""
    rows = table("knowledge/phrases")["phrases"]
    return Phrases((text, (row["reason"], row["source"])) for row in rows for text in row["texts"])


@cache
def _own_phrases() -> Phrases[tuple[str, str]]:
    """What our own servers write when no reply came, before what any server writes."""
    rows = [*table("knowledge/phrases")["own"], *table("knowledge/phrases")["phrases"]]
    return Phrases((text, (row["reason"], row["source"])) for row in rows for text in row["texts"])


@cache
def _sites() -> frozenset[str]:
    """Hosts whose name in a reply says something: look-up pages of blocklists, for one."""
    lists = (name for entry in table("knowledge/blocklists").values() for name in entry["names"] if "." in name)
    return frozenset({*table("knowledge/phrases")["sites"], *(name.partition("/")[0] for name in lists)})


_added: dict[str, list[str]] = {}

MAX_ADDED = 500
"""Phrases that a configuration may add."""


def check_phrases(added: Mapping[str, Sequence[str]]) -> None:
    """Check phrases that are to be added.

    Args:
        added: By reason, phrases.

    Raises:
        ValueError: There is no such reason, a phrase is none, or there are too many.
    """
    for reason, phrases in added.items():
        if reason not in reasons():
            close = get_close_matches(reason, reasons(), 1)
            advice = f"did you mean {close[0]}?" if close else f"the reasons are {', '.join(reasons())}"
            raise ValueError(f"there is no reason {reason}; {advice}")
        if not isinstance(phrases, list) or not all(isinstance(phrase, str) for phrase in phrases):
            raise ValueError(f'reasons.{reason} must be a list such as ["mailbox is resting"]')
        for phrase in phrases:
            if not all(re.search(r"[^\W_]{2}", part) for part in phrase.split("*")):
                raise ValueError(f"reasons.{reason}: {phrase!r} needs a word of two letters or more, also beside a *")
    if (number := sum(map(len, added.values()))) > MAX_ADDED:
        raise ValueError(f"{number} phrases are added to reasons; the limit is {MAX_ADDED}")


def add_phrases(added: Mapping[str, Sequence[str]]) -> None:
    """Add phrases of one's own to reasons, before any log is read. They decide before all else.

    Args:
        added: By reason, phrases; capital letters do not matter, and `*` stands for anything between two parts. They
            replace those added before.

    Raises:
        ValueError: See `check_phrases`.
    """
    check_phrases(added)
    _added.clear()
    _added.update({reason: [" ".join(each.lower().split()) for each in phrases] for reason, phrases in added.items()})
    _added_phrases.cache_clear()
    find_reason.cache_clear()


@cache
def _added_phrases() -> Phrases[str]:
    return Phrases((phrase, reason) for reason, phrases in _added.items() for phrase in phrases)


def reply_text(text: str | None, reply_code: int | None) -> ReplyText:
    """The words of the reply itself, without the text that our own server wrote before it."""
    text = text or ""
    if reply_code is not None:
        starts = [start for mark in " -" if (start := text.find(f"{reply_code}{mark}")) >= 0]
        text = text[min(starts, default=0) :]
    return _reply_text(text[:MAX_TEXT])


_reply_text = lru_cache(maxsize=64)(ReplyText)
"""Cached because each reply is searched for its reason and for the blocklists that it names."""


def words_alone(event: Event) -> str | None:
    """The event's text without the recipient's address, and without the host that Postfix names before its reply. The
    reason depends on neither, and without them the same text occurs again and again."""
    text, recipient = event.text, event.recipient
    if text and event.reply_code is not None and text.startswith("host "):
        host, _, reply = text.partition(" said: ")
        text = reply if reply and " " not in host[5:] else text
    if not text or not recipient or recipient not in text:
        return text
    if len(text) > MAX_TEXT or not _PLAIN_ADDRESS.fullmatch(recipient):
        return text
    return text.replace(f"<{recipient}>", "<>")


_PLAIN_ADDRESS = re.compile(r"[^<>\s]{1,320}")


def reason_of(event: Event) -> str | None:
    """The reason of a refusal or deferral; None for a delivery."""
    found = finding_of(event)
    return found.reason if found is not None else None


def finding_of(event: Event) -> Finding | None:
    """The reason of a refusal or deferral, and how it was found; None for a delivery."""
    if event.outcome is Outcome.DELIVERED:
        return None
    if event.outcome is Outcome.REJECTED:
        return find_reason(event.code, event.reply_code, words_alone(event), OURSELVES)
    provider = provider_of(event.relay, event.recipient)
    if event.outcome is Outcome.EXPIRED:
        return Finding("expired", provider, "outcome")
    return find_reason(event.code, event.reply_code, words_alone(event), provider)


def todo(found: Finding, language: Language = Language.EN) -> str:
    """What to do about a reason: what the provider asks for, else the general advice.

    Args:
        found: The reason; a provider's code in it is in the language already (`translated`).
        language: The language of the general advice.
    """
    own = found.provider_code
    if own is not None and own.todo and own.reason == found.reason:
        return own.todo
    return reasons(language)[found.reason].todo


@lru_cache(maxsize=2048)
def find_reason(code: EnhancedCode, reply_code: int | None, text: str | None, provider: str = OTHER) -> Finding:
    """The reason behind a reply, and how it was found.

    Args:
        code: The enhanced code, or the undefined one of its class.
        reply_code: The three digits of the reply, if there was one.
        text: The reply or error as logged. Anyone may have written it; its length does not matter.
        provider: Who refused. If that is unknown, signs in the text may identify it, but only to find the reason.
    """
    text = text or ""
    is_own = reply_code is None and provider != OURSELVES
    words = _reply_text(own_error(text)) if is_own else reply_text(text, reply_code)
    found = next(_configured(words, provider), None)
    if found is None and is_own:
        found = next(_own_findings(text, words, provider), None)
    if found is None and reply_code is not None and (inner := inner_reply(words.original)) is not None:
        found = replace(find_reason(*inner), provider=provider)
        found = None if found.reason == UNKNOWN else found
    if found is None:
        found = next(_findings(code, reply_code, words, provider))
    about_an_address = found.reason in _ABOUT_AN_ADDRESS or (found.reason == UNKNOWN and code.subject == 1)
    if about_an_address and command_of(text) == MAIL:
        found = replace(found, reason="sender_rejected", provider_code=None)
    return replace(found, provider=OTHER) if provider == OURSELVES else found


_ABOUT_AN_ADDRESS = frozenset({"user_unknown", "user_disabled", "user_moved", "domain_unknown"})
"""Reasons that are the sender's fault if they are given in reply to MAIL FROM."""


def _configured(words: ReplyText, provider: str) -> Iterator[Finding]:
    """The finding from phrases of the configuration: whoever adds one wants it to decide."""
    if _added and (reason := _added_phrases().first(words)) is not None:
        yield Finding(reason, provider or OTHER, "text", None, "your configuration")


def _own_findings(text: str, words: ReplyText, provider: str) -> Iterator[Finding]:
    """Every finding from an error of our own server, the most trusted first."""
    if (reason := exit_status_reason(text)) is not None:
        yield Finding(reason, provider, "text", None, "sysexits.h")
    if is_own_fault(text):
        yield Finding("system_error", provider, "text", None, "Exim transports, expansions and files: our own machine")
    if (phrase := _own_phrases().first(words.plain())) is not None:
        yield Finding(phrase[0], provider, "text", None, phrase[1])


_QMAIL_CODE = re.compile(r"\(#([245]\.[0-9]{1,3}\.[0-9]{1,3})\)")


def _explained(code: EnhancedCode, words: ReplyText) -> Explanation:
    """What a code means; of an undefined one, what the code means that qmail puts after its words."""
    found = _QMAIL_CODE.search(words.original) if code[1:] == (0, 0) else None
    return explain(EnhancedCode.parse(found[1]) if found is not None else code)


def _findings(code: EnhancedCode, reply_code: int | None, words: ReplyText, provider: str) -> Iterator[Finding]:
    """Every finding from a reply, the most trusted first."""
    by_code, by_words = _provider_codes()
    if provider == OTHER:
        provider = provider_by_words(words)
    for own in by_words.all(words):
        if provider == own.provider or (provider == OTHER and not own.general):
            yield Finding(own.reason, own.provider, "provider code", own, own.source)
    own_code = by_code.get((provider, code))
    if own_code is not None and not own_code.vague:
        yield Finding(own_code.reason, provider, "provider code", own_code, own_code.source)
    usual = _explained(code, words)
    # A 552 means that there is no room, even with an address code beside it.
    if own_code is None and code in _certain() and not (reply_code == 552 and code.subject == 1):
        yield Finding(usual.reason, provider, "enhanced code", None, usual.reference)
    if (phrase := _phrases().first(words.plain(_sites() if provider != OURSELVES else frozenset()))) is not None:
        yield Finding(phrase[0], provider, "text", own_code, phrase[1])
    if own_code is not None:
        yield Finding(own_code.reason, provider, "provider code", own_code, own_code.source)
    if usual.reason != UNKNOWN:
        yield Finding(usual.reason, provider, "enhanced code", None, usual.reference)
    if (by_reply := _reply_codes().get(reply_code or 0)) is not None:
        yield Finding(by_reply, provider, "reply code", None, "RFC 5321")
    yield Finding(UNKNOWN, provider, "nothing")
