"""Random histories of a cache store, compared with a dict's."""

from __future__ import annotations

import uuid
from dataclasses import replace

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from chainops.cache.records import CacheStore, Entry, Limits, Where
from chainops.testing.cache_pieces import NOW, Follower, entry, vector

_SCOPES, _TENANTS, _USERS, _TAGS, _DOCUMENTS = "st", [None, "a", "b"], [None, "ann", "bob"], "xy", "de"


class CacheStoreMachine(RuleBasedStateMachine):
    """Random changes to a store and to a dict, with two readers of each scope who look when they please."""

    def __init__(self, records: CacheStore) -> None:
        super().__init__()
        self.records = records
        self.run = uuid.uuid4().hex[:8]
        self.owner = f"o{self.run}"
        self.there: dict[str, Entry] = {}
        self.made = 0
        self.readers = [Follower(records, scope + self.run, page=page) for scope in _SCOPES for page in (2, 100)]

    @rule(
        scope=st.sampled_from(_SCOPES),
        exact=st.sampled_from("123456"),
        tenant=st.sampled_from(_TENANTS),
        user=st.sampled_from(_USERS),
        tags=st.sets(st.sampled_from(_TAGS)),
        used=st.dictionaries(st.sampled_from(_DOCUMENTS), st.sampled_from("12")),
        is_unknown=st.booleans(),
    )
    def put(
        self,
        scope: str,
        exact: str,
        tenant: str | None,
        user: str | None,
        tags: set[str],
        used: dict[str, str],
        is_unknown: bool,
    ) -> None:
        self.made += 1
        new = entry(
            f"{self.run}-{self.made}",
            owner=self.owner,
            scope=scope + self.run,
            exact=exact,
            tenant=tenant,
            user=user,
            tags=tuple(sorted(tags)),
            uses={"document": used} if used else {},
            is_unknown=is_unknown,
            created_at=NOW + self.made,
        )
        seq = self.records.put(new, vector(1, self.made))
        for old in [old for old in self.there.values() if (old.scope, old.exact) == (new.scope, new.exact)]:
            del self.there[old.id]
        self.there[new.id] = replace(new, seq=seq)

    @rule(
        scope=st.sampled_from([None, *_SCOPES]),
        documents=st.dictionaries(st.sampled_from(_DOCUMENTS), st.sampled_from(["1", "2", None]), max_size=2),
        tag=st.sampled_from([None, None, *_TAGS]),
        tenant=st.sampled_from(_TENANTS),
        user=st.sampled_from(_USERS),
        is_unknown=st.sampled_from([None, None, True, False]),
        age=st.sampled_from([None, None, 3, 10]),
    )
    def drop(
        self,
        scope: str | None,
        documents: dict[str, str | None],
        tag: str | None,
        tenant: str | None,
        user: str | None,
        is_unknown: bool | None,
        age: int | None,
    ) -> None:
        before = None if age is None else NOW + self.made - age
        said = {"scope": scope and scope + self.run, "documents": documents, "tag": tag, "tenant": tenant, "user": user}
        where = Where(**said, is_unknown=is_unknown, before=before)  # type: ignore[arg-type]
        gone = self.records.drop(self.owner, where, reason="r", now=NOW)
        expected = {name for name, old in self.there.items() if _fits(old, where)}
        if where == Where():
            expected = set()
        assert set(gone) == expected
        assert len(gone) == len(expected)
        self.there = {name: old for name, old in self.there.items() if name not in expected}

    @rule(limit=st.integers(0, 8))
    def enforce(self, limit: int) -> None:
        gone = self.records.enforce(self.owner, Limits(entries=limit, bytes=1 << 30), now=NOW)
        oldest = sorted(self.there.values(), key=lambda old: old.created_at)
        expected = [old.id for old in oldest[: max(0, len(oldest) - limit)]]
        assert gone == expected
        for name in expected:
            del self.there[name]

    @rule(user=st.sampled_from(["ann", "bob"]), tenant=st.sampled_from(_TENANTS))
    def forget(self, user: str, tenant: str | None) -> None:
        self.records.forget(user=user, tenant=tenant, now=NOW)
        kept = {name: old for name, old in self.there.items() if not _is_of(old, user, tenant)}
        self.there = kept

    @rule(which=st.integers(0, 3))
    def read(self, which: int) -> None:
        reader = self.readers[which]
        assert reader.read() == {old.seq for old in self.there.values() if old.scope == reader.scope}
        assert reader.restarts == 0

    @invariant()
    def counts_and_content_agree(self) -> None:
        assert self.records.size(self.owner)[0] == len(self.there)
        for tenant in ("a", "b"):
            assert self.records.size(self.owner, tenant)[0] == sum(old.tenant == tenant for old in self.there.values())
        found = {each.id: each for each, _, _ in self.records.entries(self.owner)}
        assert found == self.there

    def teardown(self) -> None:
        for reader in self.readers:
            assert reader.read() == {old.seq for old in self.there.values() if old.scope == reader.scope}
        assert self.records.damaged() == []
        self.records.clear(self.owner)
        assert self.records.size(self.owner) == (0, 0)


def _fits(old: Entry, where: Where) -> bool:
    used = old.uses.get("document", {})
    mentioned = [name in used and used[name] != digest for name, digest in where.documents.items()]
    return (
        where.scope in {None, old.scope}
        and (not mentioned or any(mentioned))
        and (where.tag is None or where.tag in old.tags)
        and where.tenant in {None, old.tenant}
        and where.user in {None, old.user}
        and where.is_unknown in {None, old.is_unknown}
        and (where.before is None or old.created_at <= where.before)
    )


def _is_of(old: Entry, user: str, tenant: str | None) -> bool:
    return old.user == user and tenant in {None, old.tenant}
