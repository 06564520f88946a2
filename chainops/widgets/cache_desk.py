"""What the cache browser can be asked, and what it answers: plain JSON, with nothing of a notebook in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from langchain_core.runnables import RunnableConfig

from chainops.cache.cache import Cache
from chainops.cache.messages import reply_of
from chainops.core.caller import STATE_KEY, Caller
from chainops.core.errors import ChainopsError, InvalidInput
from chainops.core.show import dollars, seconds

if TYPE_CHECKING:
    from chainops.cache.records import Entry

LARGEST_PAGE = 200
LONGEST_ANSWER = 20_000
"""Characters of an answer that are shown: a browser that lays out 10 MB of text stands still."""
_QUESTION_START, _ANSWER_START = 300, 240
_SPANS = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"), (1.0, "s"))


class CacheDesk:
    """Answers a browser's messages from one cache.

    Args:
        config: Who looks: questions are tried on this caller's behalf, and what is reported wrong is by this user.
        prepare: Called before a question is tried: what has to be there so that it decides as the chain would.
        now: Seconds since 1970.
    """

    def __init__(
        self,
        cache: Cache,
        *,
        config: RunnableConfig | None = None,
        prepare: Callable[[], object] = lambda: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.cache = cache
        said = (config or {}).get("configurable", {}).get(STATE_KEY)
        self.caller = said if isinstance(said, Caller) else Caller()
        self._prepare, self._now = prepare, now
        self._asks: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
            "page": self._page,
            "entry": self._entry,
            "explain": self._explain,
            "stats": self._stats,
            "wrong": self._wrong,
            "verify": self._verify,
            "drop": self._drop,
        }

    def answer(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """The reply to `{"id": ..., "ask": "page", ...}`: `{"id": ..., "ok": {...}}`, or `"error"` with a sentence.

        page: `containing` (in questions), `offset`, `limit` (at most 200); rows, newest first, whether there are more,
            and how many there are in all (None in a search: nobody counted).
        entry: `entry`, its id; everything that is known of it.
        explain: `question`, and perhaps `tenant` and `user`; why it would be served now, or not.
        stats: what the cache did, and how far its answers can be trusted.
        wrong: `entry` and `reason`; verify: `entry`; drop: `entry`.
        """
        number = message.get("id")
        try:
            ask = self._asks.get(str(message.get("ask")))
            if ask is None:
                raise InvalidInput("ask", repr(message.get("ask"))[:80], f"one of {', '.join(self._asks)}")
            return {"id": number, "ok": ask(message)}
        except ChainopsError as error:
            return {"id": number, "error": str(error)}
        except Exception as error:  # noqa: BLE001 (the person at the browser is told; a notebook shows it nowhere)
            return {"id": number, "error": f"{type(error).__name__}: {error}"}

    def latest(self, count: int) -> list[dict[str, Any]]:
        """The rows of the entries that were stored last, as a page has them."""
        now = self._now()
        return [_row(*each, now=now) for each in self.cache.entries(limit=count)]

    # Looking

    def _page(self, message: Mapping[str, Any]) -> dict[str, Any]:
        containing = _text(message, "containing", default="")
        offset, limit = max(0, _number(message, "offset", 0)), _number(message, "limit", 50)
        limit = min(max(1, limit), LARGEST_PAGE)
        found = self.cache.entries(containing=containing, offset=offset, limit=limit + 1)
        now = self._now()
        return {
            "offset": offset,
            "rows": [_row(*each, now=now) for each in found[:limit]],
            "more": len(found) > limit,
            "total": None if containing else self.cache.stats().entries,
        }

    def _entry(self, message: Mapping[str, Any]) -> dict[str, Any]:
        entry = self.cache.entry(_text(message, "entry"))
        text = _answer_of(entry)
        sources = entry.facts.get("sources")
        return {
            "id": entry.id,
            "question": entry.question,
            "answer": text[:LONGEST_ANSWER],
            "hidden": max(0, len(text) - LONGEST_ANSWER),
            "sources": [_source(each) for each in sources if isinstance(each, dict)] if sources else [],
            "used": [
                f"{kind} {name} ({digest[:12]})" if digest and digest != name else f"{kind} {name}"
                for kind, names in sorted(entry.uses.items())
                if kind != "passage"
                for name, digest in sorted(names.items())
            ],
            "facts": list(_facts(entry, self._now())),
            "verified": entry.is_verified,
        }

    def _explain(self, message: Mapping[str, Any]) -> dict[str, Any]:
        question = _text(message, "question").strip()
        if not question:
            raise InvalidInput("question", "nothing", "a question to try")
        who = {name: said for name in ("tenant", "user") if (said := _text(message, name, default="").strip())}
        self._prepare()
        config = RunnableConfig(configurable={STATE_KEY: self.caller.model_copy(update=who)})
        told = self.cache.explain(question, config)
        parts = sorted(told.contributions.items(), key=lambda pair: -abs(pair[1]))
        return {
            **told.to_dict(),
            "answer": None if told.answer is None else told.answer[:LONGEST_ANSWER],
            "contributions": [
                {"feature": name, "value": told.features.get(name), "log_odds": part} for name, part in parts
            ],
        }

    def _stats(self, message: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        stats = self.cache.stats()
        standing = stats.standing
        return {
            "rule": stats.rule,
            "hits": dict(stats.hits),
            "missed": stats.missed,
            "requests": stats.requests,
            "hit_rate": stats.hit_rate,
            "saved": f"{dollars(stats.saved_usd)} and {seconds(stats.saved_seconds)} of waiting",
            "audited": f"{stats.audits:,} audits, which cost {dollars(stats.audit_usd)}",
            "entries": stats.entries,
            "size_mb": stats.bytes / 1e6,
            "bound": standing.bound if stats.rule.startswith("max_error_rate") else None,
            "audits": standing.audits,
            "error_rate": standing.error_rate,
            "lower": standing.lower,
            "upper": standing.upper,
            "certified": standing.certified,
            "standing": str(standing),
        }

    # Correcting

    def _wrong(self, message: Mapping[str, Any]) -> dict[str, Any]:
        reason = _text(message, "reason").strip()
        if not reason:
            raise InvalidInput("reason", "nothing", "a few words: the policy's history and the reviewers see them")
        return {"entry": self.cache.wrong(_text(message, "entry"), reason, by=self.caller.user)[0]}

    def _verify(self, message: Mapping[str, Any]) -> dict[str, Any]:
        entry = self.cache.entry(_text(message, "entry"))
        self.cache.verify(entry.id)
        return {"entry": entry.id}

    def _drop(self, message: Mapping[str, Any]) -> dict[str, Any]:
        entry = self.cache.entry(_text(message, "entry"))
        return {"entry": entry.id, "dropped": self.cache.drop(id=entry.id)}


def age(duration_s: float) -> str:
    """How long ago, for people, in its largest unit: `now`, `5 min`, `3 h`, `12 d`."""
    return next((f"{int(duration_s // length)} {unit}" for length, unit in _SPANS if duration_s >= length), "now")


def _row(entry: Entry, served: int, last: float, *, now: float) -> dict[str, Any]:
    return {
        "id": entry.id,
        "question": _start(entry.question, _QUESTION_START),
        "answer": _start(_answer_of(entry), _ANSWER_START),
        "age": age(now - entry.created_at),
        "served": served,
        "last": age(now - last) if served else "never",
        "saved": _saved(entry, served),
        "tenant": entry.tenant or "",
        "verified": entry.is_verified,
    }


def _saved(entry: Entry, served: int) -> str:
    """By all its hits together: in USD where the model has a price, else in waiting."""
    if not served:
        return "–"
    return dollars(entry.cost_usd * served) if entry.cost_usd else seconds(entry.duration_s * served)


def _facts(entry: Entry, now: float) -> list[tuple[str, str]]:
    told = [
        ("stored", f"{age(now - entry.created_at)} ago" if now - entry.created_at >= 1 else "now"),
        ("a hit saves", f"{dollars(entry.cost_usd)} and {seconds(entry.duration_s)}"),
        ("tenant", entry.tenant),
        ("user", entry.user),
        ("tags", ", ".join(entry.tags)),
        ("answered by", entry.facts.get("served_by")),
        ("verified", "by a person" if entry.is_verified else "no"),
        ("says", "that it does not know" if entry.is_unknown else ""),
        ("id", entry.id),
    ]
    return [(name, str(value)) for name, value in told if value]


def _source(source: Mapping[str, Any]) -> dict[str, str]:
    start, end = source.get("span") or ("?", "?")
    title, document = source.get("title", ""), source.get("document", "")
    place = document if title in (document, "") else f"{title} ({document})"
    return {"place": f"{place}, characters {start}–{end}", "quote": str(source.get("quote", ""))[:LONGEST_ANSWER]}


def _answer_of(entry: Entry) -> str:
    return reply_of(entry.message, entry.facts).text


def _start(text: str, most: int) -> str:
    plain = " ".join(text[: 4 * most].split())
    return plain if len(plain) <= most and len(text) <= 4 * most else f"{plain[: most - 1]}…"


def _text(message: Mapping[str, Any], name: str, *, default: str | None = None) -> str:
    said = message.get(name, default)
    if not isinstance(said, str):
        raise InvalidInput(name, type(said).__name__, "text")
    return said


def _number(message: Mapping[str, Any], name: str, default: int) -> int:
    said = message.get(name, default)
    if not isinstance(said, int) or isinstance(said, bool):
        raise InvalidInput(name, type(said).__name__, "a whole number")
    return said
