"""What the cache keeps in Redis beside its entries: totals, labels, and who is answering what now."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

from chainops.cache.records import LONGEST_LEASE_S, Kind, Lease, Tally
from chainops.cache.stores.redis_scripts import BODIES, PREFIX, source
from chainops.cache.stores.stored import (
    HALF_LIFE_S,
    LABELS_KEPT,
    LOG_KEPT,
    TOMBSTONES_KEPT,
    TOMBSTONES_KEPT_S,
    as_text,
    check_lease,
    first_number,
    label_of,
    name_key,
    to_json,
    user_mark,
)

if TYPE_CHECKING:
    from redis.commands.core import Script

    from chainops.cache.judge import Label
    from chainops.stores.redis import RedisStore


class RedisBeside:
    """Totals, labels and leases. `RedisRecords` adds the entries."""

    def __init__(self, store: RedisStore) -> None:
        self.place = store.place
        self._store = store
        self._scripts: dict[str, Script] = {name: store.script(text) for name, text in _sources().items()}

    def _run(self, script: str, *arguments: Any) -> Any:
        return self._store.run(self._scripts[script], [PREFIX], arguments)

    def tally(self, owner: str, tenant: str | None, counts: Mapping[Kind, Tally]) -> None:
        keys = f"{PREFIX}tally:{owner}", f"{PREFIX}tally-of:{name_key(tenant)}:{owner}"
        with self._store.client() as client, client.pipeline(transaction=True) as pipe:
            for kind, tally in counts.items():
                for key in keys:
                    pipe.hincrby(key, f"{kind} count", tally.count)
                    pipe.hincrbyfloat(key, f"{kind} usd", tally.usd)
                    pipe.hincrbyfloat(key, f"{kind} seconds", tally.seconds)
            pipe.execute()

    def totals(self, owner: str, tenant: str | None = None) -> dict[Kind, Tally]:
        key = f"tally:{owner}" if tenant is None else f"tally-of:{name_key(tenant)}:{owner}"
        with self._store.client() as client:
            told: Any = client.hgetall(f"{PREFIX}{key}")
        found = {(as_text(name) or ""): float(value) for name, value in told.items()}
        return {
            kind: Tally(int(found[f"{kind} count"]), found.get(f"{kind} usd", 0.0), found.get(f"{kind} seconds", 0.0))
            for kind in get_args(Kind)
            if f"{kind} count" in found
        }

    def labels(self, owner: str, after: int, *, limit: int = 5_000) -> list[tuple[int, Label]]:
        with self._store.client() as client:
            rows: Any = client.xrevrange(f"{PREFIX}labels:{owner}", "+", f"{after + 1}-0", count=limit)
        found = [(int(number.partition(b"-")[0]), _label(fields)) for number, fields in reversed(rows)]
        return [(number, label) for number, label in found if label is not None]

    def add_label(self, owner: str, label: Label, *, tenant: str | None = None, user: str | None = None) -> int:
        return int(self._run("label", first_number(), owner, *self._told(label, tenant, user)))

    def _told(self, label: Label | None, tenant: str | None, user: str | None) -> tuple[bytes | str, str]:
        """A label, and whose it is."""
        if label is None:
            return "", ""
        told = to_json([list(label.features), bool(label.correct), label.source, label.at])
        return told, _by(user_mark(user), tenant)

    def lease(self, owner: str, lease: Lease, *, now: float) -> Lease | None:
        check_lease(lease, now)
        fields: dict[str, Any] = {
            "owner": owner,
            "question": to_json(lease.question),
            "tenant": name_key(lease.tenant),
        }
        if lease.vector is not None:
            fields["vector"] = lease.vector
        held = self._run(
            "lease",
            *(lease.scope, lease.exact, lease.holder, repr(now), repr(lease.expires_at), user_mark(lease.user)),
            *(each for pair in fields.items() for each in pair),
        )
        return None if held is None else _lease(lease.scope, lease.exact, held)

    def renew(self, holder: str, leases: Sequence[tuple[str, str]], *, until: float) -> set[tuple[str, str]]:
        lost = self._run("renew", holder, repr(until), *(each for pair in leases for each in pair))
        return {(as_text(scope) or "", as_text(exact) or "") for scope, exact in lost}

    def release(self, holder: str, scope: str, exact: str) -> None:
        self._run("release", holder, scope, exact)

    def leases(self, scope: str, *, now: float) -> list[Lease]:
        return [
            _lease(scope, as_text(exact) or "", held) for exact, held in sorted(self._run("leases", scope, repr(now)))
        ]

    def _forget_beside(self, owner: str, mark: str, tenant: str | None) -> int:
        """Delete one user's tombstones and labels of one cache."""
        grave, graves, labels = (f"{PREFIX}{kind}:{owner}" for kind in ("grave", "graves", "labels"))
        mine: list[Any] = []
        with self._store.client() as client:
            for entry, text in client.hscan_iter(grave):
                *_, of_tenant, by = json.loads(text)
                if by == mark and tenant in {None, json.loads(of_tenant)}:
                    mine.append(entry)
            rows: Any = client.xrange(labels)
            whose = {_by(mark, tenant).encode()} if tenant is not None else None
            numbers = [n for n, fields in rows if _is_by(fields.get(b"by", b""), mark, whose)]
            with client.pipeline(transaction=True) as pipe:
                if mine:
                    pipe.hdel(grave, *mine)
                    pipe.zrem(graves, *mine)
                if numbers:
                    pipe.xdel(labels, *numbers)
                pipe.execute()
        return len(mine) + len(numbers)

    def _forget_leases(self, mark: str, tenant: str | None) -> int:
        return int(self._run("forget", mark, "" if tenant is None else name_key(tenant)))


def _by(mark: str, tenant: str | None) -> str:
    return f"{mark} {name_key(tenant)}"


def _is_by(by: bytes, mark: str, whose: set[bytes] | None) -> bool:
    return by.startswith(f"{mark} ".encode()) if whose is None else by in whose


def _label(fields: Mapping[bytes, bytes]) -> Label | None:
    try:
        features, correct, source_, at = json.loads(fields.get(b"label", b""))
    except (ValueError, TypeError):
        return None
    return label_of(json.dumps(features), correct, source_, at)


def _lease(scope: str, exact: str, held: Sequence[Any]) -> Lease:
    holder, expires, question, vector, tenant = held
    asked = json.loads(question or b'""')
    return Lease(scope, exact, as_text(holder) or "", asked, vector, float(expires), json.loads(tenant or b"null"))


def _sources() -> dict[str, str]:
    limits = {
        "LOG_KEPT": LOG_KEPT,
        "LABELS_KEPT": LABELS_KEPT,
        "HALF_LIFE_S": HALF_LIFE_S,
        "GRAVES_KEPT_S": TOMBSTONES_KEPT_S,
        "GRAVES_KEPT": TOMBSTONES_KEPT,
        "LONGEST_LEASE_S": LONGEST_LEASE_S,
    }
    return {name: source(body, **limits) for name, body in BODIES.items()}
