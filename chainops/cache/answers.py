"""A cache without a chain around it: look up, ask elsewhere, hand in the answer. `LLMCache` stands on this."""

from __future__ import annotations

import threading
import uuid
from collections import OrderedDict
from typing import Any

from chainops.cache import policy
from chainops.cache.compare import Comparer, Reply
from chainops.cache.judge import Label
from chainops.cache.lookup import Found, Lookup
from chainops.cache.policy import Key
from chainops.cache.records import Entry, Kind
from chainops.cache.replica import Replica
from chainops.cache.settings import CacheSettings
from chainops.core.clock import current_clock
from chainops.text.personal import personal

_PENDING = 1024
"""Lookups whose answers may still be handed in; older ones are kept all the same, and teach nothing."""


class StoredAnswers:
    """Finds and keeps values under the error bound. Thread-safe; blocks.

    Nobody asks in the background here: a hit that is drawn for an audit is reported as a miss, and the fresh answer,
    when it is handed in, is compared.

    Args:
        tenant: Whose entries these are. One object per tenant: LangChain does not tell a cache who asks.
    """

    def __init__(
        self, replica: Replica, settings: CacheSettings, comparer: Comparer, *, tenant: str | None = None
    ) -> None:
        self._replica, self._settings, self._comparer, self._tenant = replica, settings, comparer, tenant
        self._lookup = Lookup(replica, settings, None)
        self._pending: OrderedDict[Key, Found] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, scope: str, question: str, *, may_be_near: bool) -> Any | None:
        clock = current_clock()
        key, now, now_s = self._key(scope, question, may_be_near), clock.time(), clock.monotonic()
        found = self._lookup.held(key, tenant=self._tenant, now=now, now_s=now_s)
        if found is None:
            draw, trouble = uuid.uuid4().int / 2**128, self._replica.trouble
            found = self._lookup.find(key, tenant=self._tenant, now=now, now_s=now_s, draw=draw)
            self._replica.recovered(trouble)
        is_audit = found.decision is not None and found.decision.audit
        if found.entry is None or is_audit or self._settings.mode == "shadow":
            self._replica.counts.count("missed", tenant=self._tenant)
            with self._lock:
                self._pending[key] = found
                while len(self._pending) > _PENDING:
                    self._pending.popitem(last=False)
            return None
        kind: Kind = "exact" if found.match == "exact" else "semantic"
        self._replica.counts.count(
            kind, tenant=self._tenant, usd=found.entry.cost_usd or 0.0, seconds=found.entry.duration_s
        )
        self._replica.counts.count_hit(found.entry.id)
        return found.entry.message["value"]

    def keep(self, scope: str, question: str, value: Any, *, text: str, may_be_near: bool) -> None:
        if not text.strip() or (not self._settings.keep_personal and (personal(question) or personal(text))):
            return
        clock = current_clock()
        key, now = self._key(scope, question, may_be_near), clock.time()
        with self._lock:
            found = self._pending.pop(key, None) or Found(may_embed=may_be_near)
        with self._replica.guarded():
            vector = found.vector
            if vector is None and self._lookup.looks_near(key):
                vector = self._replica.embed(question)
            entry_id = uuid.uuid4().hex
            group, label = self._placed(key, Reply(text), found, now)
            entry = Entry(
                id=entry_id,
                owner=self._replica.owner,
                scope=key.scope,
                exact=key.exact,
                question=question,
                message={"value": value, "text": text},
                facts={},
                group=group or entry_id,
                tenant=self._tenant,
                embedder=None if vector is None else self._replica.embedder_digest,
                cost_usd=None,
                created_at=now,
            )
            now_s, limits = clock.monotonic(), self._settings.limits
            self._replica.keep(entry, vector, now_s=now_s, limits=limits, label=label)

    def clear(self) -> None:
        self._replica.clear()

    def _key(self, scope: str, question: str, may_be_near: bool) -> Key:
        who = policy.digest([self._replica.owner, self._tenant, scope])
        return Key(who, policy.digest(policy.plain(question)), question, may_be_near)

    def _placed(self, key: Key, reply: Reply, found: Found, now: float) -> tuple[str | None, Label | None]:
        """The group of the nearest answer if this one says the same, and what that teaches."""
        if found.evidence is None or found.decision is None:
            return None, None
        nearest = found.neighbours[0].outline
        entry = self._replica.entry(nearest, key.scope)
        if entry is None:
            return None, None
        same = self._comparer.same(key.question, reply, Reply(str(entry.message["text"]))).same
        label = Label(found.evidence.values, same, "audit" if found.decision.audit else "miss", now)
        return (nearest.group if same else None), label
