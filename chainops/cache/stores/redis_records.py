"""The cache's truth in Redis, for many machines: commands and scripts, no modules; keys in `redis_scripts`."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from chainops.cache.records import Change, Entry, Limits, Outline, Tombstone, Where
from chainops.cache.stores.redis_beside import RedisBeside
from chainops.cache.stores.redis_scripts import PREFIX
from chainops.cache.stores.stored import (
    as_text,
    changed,
    entry_of,
    first_number,
    fits_nothing,
    is_vector,
    marks_of,
    mentions_of,
    name_key,
    outline_of,
    pack,
    repack,
    storable,
    sum_of_body,
    user_mark,
    whole_number,
    worth,
)
from chainops.core.errors import StoreError

if TYPE_CHECKING:
    import numpy as np

    from chainops.cache.judge import Label
    from chainops.stores.redis import RedisStore

BATCH = 250
"""Entries per script: the server answers nobody else meanwhile."""
_PAGE = 2_000
_BATCHES_PER_ENFORCE = 8


class RedisRecords(RedisBeside):
    """A `CacheStore` in one Redis server. Thread-safe; nothing is opened before it is first used.

    What was acknowledged survives a killed client always, and a killed server as far as the server itself promises:
    with `appendonly yes` and `appendfsync always` nothing is lost, but that servers without valkey-io/valkey#4342 leave
    half of the very last change in their file when they are killed while they write it, and carry it out at a later
    restart (`redis-check-aof --fix` before the start takes it out). What the server evicts by itself, or an operator
    flushes, is simply no longer there; processes that follow the change log notice and begin again. Give it
    `maxmemory-policy noeviction`, so that the cache's own limits decide what goes.
    """

    def __init__(self, store: RedisStore) -> None:
        super().__init__(store)
        self._damaged: list[str] = []
        self._telling = threading.Lock()

    def exact(self, scope: str, exact: str) -> Entry | None:
        return self._one("exact", scope, exact, {"scope": scope, "exact": exact})

    def get(self, entry: str) -> Entry | None:
        return self._one("id", "", entry, {"id": entry})

    def entry_at(self, scope: str, seq: int) -> Entry | None:
        found = self._one("seq", scope, seq, {"scope": scope})
        return found if found is not None and found.seq == seq else None

    def _one(self, how: str, scope: str, what: str | int, expected: dict[str, str]) -> Entry | None:
        found = self._run("whole", how, scope, what)
        if not found:
            return None
        entry = _entry(found[1])
        # A whole entry that lies under another's key is as damaged as a broken one.
        if entry is None or any(getattr(entry, name) != value for name, value in expected.items()):
            self._discard([found[0]])
            return None
        return entry

    def at(self, scope: str, seqs: Sequence[int]) -> dict[int, Outline]:
        outlines, damaged = {}, []
        for told in self._run("at", scope, *seqs):
            seq, body_sum, vector_sum, checksum, seal, head, entry = (as_text(told) or "").split("\n", 6)
            outline = outline_of(whole_number(seq), head, body_sum, vector_sum, checksum, seal)
            if outline is None or outline.id != entry:
                damaged.append(entry)
            else:
                outlines[outline.seq] = outline
        self._discard(damaged)
        return {seq: outlines[seq] for seq in seqs if seq in outlines}

    def put(
        self, entry: Entry, vector: np.ndarray | None, *, label: Label | None = None, over: int | None = None
    ) -> int:
        stored = pack(entry, vector)
        fields: dict[str, Any] = {
            "head": stored.head,
            "body": stored.body,
            "vector_sum": stored.vector_sum,
            "body_sum": stored.body_sum,
            "question": storable(entry.question),
            "group": storable(entry.group),
            "user": user_mark(entry.user),
            "unknown": int(entry.is_unknown),
        }
        if stored.vector is not None:
            fields["vector"] = stored.vector
        if entry.embedder is not None:
            fields["embedder"] = entry.embedder
        created = repr(float(entry.created_at))
        seq = self._run(
            "put",
            *(first_number(), entry.id, entry.scope, entry.exact, entry.owner, name_key(entry.tenant)),
            *(stored.size_bytes, created, repr(worth(entry.cost_usd, entry.created_at))),
            " ".join(f"{mark} {digest}" for mark, digest in marks_of(entry).items()),
            stored.checksum,
            *self._told(label, entry.tenant, entry.user),
            "" if over is None else over,
            *(each for pair in fields.items() for each in pair),
        )
        return int(seq)

    def update(
        self,
        entry: str,
        *,
        knowledge: str | None = None,
        is_verified: bool | None = None,
        group: str | None = None,
    ) -> bool:
        while found := self._run("whole", "id", "", entry):  # again, if it was changed between the two scripts
            there = _entry(found[1])
            if there is None or there.id != entry:
                self._discard([entry])
                return False
            _, _, body, *sums = found[1]
            vector_sum, checksum, _ = (as_text(each) or "" for each in sums)
            new = changed(there, knowledge=knowledge, is_verified=is_verified, group=group)
            head, new_checksum = repack(new, vector_sum, sum_of_body(body))
            if self._run("update", entry, checksum, head, new_checksum, storable(new.group)):
                return True
        return False

    def position(self, scope: str) -> int:
        with self._store.client() as client:
            return whole_number(client.get(f"{PREFIX}last:{scope}")) or 0

    def changes(self, scope: str, after: int, *, limit: int = 10_000, began: int = 0) -> list[Change] | None:
        found = self._run("changes", scope, after, began, min(limit, _PAGE))
        if found is None:
            return None
        lines, damaged = [], []
        for seq, dropped, *told in found:
            number = int(seq)
            if dropped is not None:
                lines.append(Change(number, int(dropped)))
                continue
            entry, vector, embedder, created, vector_sum = told
            made_by, created_at = as_text(embedder), _real(created)
            if is_vector(vector, made_by, created_at, as_text(vector_sum)):
                lines.append(Change(number, None, vector, made_by, created_at or 0.0))
            else:
                damaged.append(entry)
                lines.append(Change(number, number))
        self._discard(damaged)
        return lines

    def drop(self, owner: str, where: Where, *, reason: str, now: float) -> list[str]:
        return [] if fits_nothing(where) else self._drop(owner, where, reason=reason, now=now)

    def _drop(self, owner: str, where: Where, *, reason: str, now: float) -> list[str]:
        groups: list[dict[str, list[tuple[str, bool]]]] = []
        for mentions in mentions_of(where):
            group: dict[str, list[tuple[str, bool]]] = {}
            for mention in mentions:
                group.setdefault(mention.mark, []).append((mention.digest or "", mention.differs))
            groups.append(group)
        wanted: dict[str, Any] = {"groups": groups}
        wanted |= {} if where.scope is None else {"scope": where.scope}
        wanted |= {} if where.tenant is None else {"tenant": name_key(where.tenant)}
        wanted |= {} if where.is_unknown is None else {"unknown": str(int(where.is_unknown))}
        wanted |= {} if where.before is None else {"before": repr(float(where.before))}
        fits, gone = json.dumps(wanted), []
        for some in _batches(self._candidates(owner, where, groups)):
            ids = self._run("drop", first_number(), owner, storable(reason), repr(float(now)), fits, *some)
            gone += [as_text(each) or "" for each in ids]
        return gone

    def _candidates(self, owner: str, where: Where, groups: Sequence[Mapping[str, Any]]) -> Iterator[Any]:
        """Ids among which are all that fit, from the smallest set that surely has them."""
        if where.ids:
            yield from where.ids
            return
        with self._store.client() as client:
            if groups:
                for mark in groups[0]:
                    yield from (entry for entry, _ in client.hscan_iter(f"{PREFIX}mark:{mark}:{owner}", count=BATCH))
            elif where.scope is not None:
                yield from (entry for entry, _ in client.zscan_iter(f"{PREFIX}live:{where.scope}", count=BATCH))
            elif where.before is not None:
                yield from client.zrangebyscore(f"{PREFIX}age:{owner}", "-inf", where.before)
            else:
                yield from (entry for entry, _ in client.zscan_iter(f"{PREFIX}age:{owner}", count=BATCH))

    def clear(self, owner: str) -> int:
        count = 0
        while gone := self._evict(owner, 0, 0, None):
            count += len(gone)
        with self._store.client() as client:
            client.delete(f"{PREFIX}grave:{owner}", f"{PREFIX}graves:{owner}")
        return count

    def tombstones(self, owner: str, *, limit: int = 50) -> list[Tombstone]:
        with self._store.client() as client:
            ids: Any = client.zrevrange(f"{PREFIX}graves:{owner}", 0, limit - 1)
            told: Any = client.hmget(f"{PREFIX}grave:{owner}", ids) if ids else []
        found = []
        for entry, text in zip(ids, told, strict=True):
            if text is not None:
                question, group, reason, at, *_ = json.loads(text)
                found.append(Tombstone(as_text(entry) or "", question, group, reason, float(at)))
        return found

    def enforce(self, owner: str, limits: Limits, *, now: float) -> list[str]:
        del now  # worth counts from when an entry was last served
        gone: list[str] = []
        for _ in range(_BATCHES_PER_ENFORCE):
            some = self._evict(owner, limits.entries, limits.bytes, limits.entries_per_tenant)
            gone += some
            if len(some) < BATCH:
                break
        return gone

    def _evict(self, owner: str, entries: int, size_bytes: int, per_tenant: int | None) -> list[str]:
        each = "" if per_tenant is None else per_tenant
        _, ids = self._run("enforce", first_number(), owner, entries, size_bytes, each, BATCH)
        return [as_text(entry) or "" for entry in ids]

    def served(self, owner: str, hits: Mapping[str, int], *, now: float) -> None:
        for some in _batches(hits.items()):
            self._run("served", owner, repr(float(now)), *(each for pair in some for each in pair))

    def size(self, owner: str, tenant: str | None = None) -> tuple[int, int]:
        of = "" if tenant is None else f" of {name_key(tenant)}"
        with self._store.client() as client:
            counts: Any = client.hmget(f"{PREFIX}size:{owner}", [f"entries{of}", f"bytes{of}"])
        entries, size_bytes = counts
        return whole_number(entries) or 0, whole_number(size_bytes) or 0

    def entries(
        self, owner: str, *, containing: str = "", offset: int = 0, limit: int = 50
    ) -> list[tuple[Entry, int, float]]:
        found: list[tuple[Entry, int, float]] = []
        passed, start, needle = 0, 0, storable(containing).casefold()
        while len(found) < limit:
            rows = self._run("newest", owner, start, start + BATCH - 1)
            if not rows:
                break
            start += BATCH
            for entry, question, (*told, hits, used) in rows:
                if needle not in (as_text(question) or "").casefold():
                    continue
                passed += 1
                if passed <= offset or len(found) == limit:
                    continue
                if (whole := _entry(told)) is None:
                    self._discard([entry])
                else:
                    found.append((whole, whole_number(hits) or 0, _real(used) or whole.created_at))
        return found

    def damaged(self) -> list[str]:
        with self._telling:
            told, self._damaged = self._damaged, []
        return told

    def _discard(self, ids: Sequence[Any]) -> None:
        """Take out what is damaged, and tell."""
        if not ids:
            return
        with self._telling:
            self._damaged += [as_text(entry) or "" for entry in ids]
        try:
            self._run("discard", first_number(), *ids)
        except StoreError:
            return  # it was not given out, and the next reader tries to drop it again

    def forget(self, *, user: str, tenant: str | None, now: float) -> int:
        count, mark = 0, user_mark(user)
        with self._store.client() as client:
            owners: Any = client.smembers(f"{PREFIX}owners")
        for owner in (as_text(each) or "" for each in owners):
            count += len(self._drop(owner, Where(user=user, tenant=tenant), reason="", now=now))
            count += self._forget_beside(owner, mark, tenant)
        return count + self._forget_leases(mark, tenant)


def _batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    rest = iter(items)
    while some := list(islice(rest, BATCH)):
        yield some


def _entry(told: Sequence[Any]) -> Entry | None:
    seq, head, body, *sums = told
    return entry_of(whole_number(seq), head, body, *(as_text(each) for each in sums))


def _real(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
