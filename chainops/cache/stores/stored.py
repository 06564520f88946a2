"""How an entry lies in a store: two texts of JSON and a vector, under a checksum. Shared by all stores.

The head says what decides about an entry, the body what is served. A reader who only decides need not read the body:
the head's checksum covers the body's, and the vector's.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from chainops.cache.records import LARGEST_ENTRY_BYTES, LONGEST_LEASE_S, WRONG, Entry, Lease, Outline, Where
from chainops.core.errors import InvalidInput

if TYPE_CHECKING:
    import numpy as np

    from chainops.cache.judge import Label

HALF_LIFE_S = 86_400.0
"""An entry that nobody asked for in so long is worth half of one of the same cost that was just served."""
LOG_KEPT = 10_000
"""Lines of a scope's change log. A reader who is further behind begins again from the entries."""
LABELS_KEPT = 20_000
"""Of one cache. A policy learns from the latest few thousand."""
TOMBSTONES_KEPT = 10_000
TOMBSTONES_KEPT_S = 90 * 86_400.0
LONGEST_NAME = 200
"""Characters of an owner's, tenant's or holder's name: databases index keys of limited length."""

_FORMAT = 1
_LEAST_COST_USD = 1e-6
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_UNSTORABLE = re.compile("[\\0\ud800-\udfff]")
_FIELDS = (
    *("id", "owner", "scope", "exact", "question", "group", "knowledge", "tenant", "user", "embedder"),
    *("tags", "is_unknown", "is_verified", "cost_usd", "duration_s", "created_at"),
)
"""Of an entry, in the order of the head, where the format's number comes first."""
_PARTS = 1 + len(_FIELDS)


@dataclass(frozen=True, slots=True)
class Stored:
    """An entry as bytes."""

    head: bytes
    body: bytes
    vector: bytes | None
    vector_sum: str
    checksum: str
    body_sum: str

    @property
    def size_bytes(self) -> int:
        return len(self.head) + len(self.body) + len(self.vector or b"")


@dataclass(frozen=True, slots=True)
class Mention:
    """What an entry must have been marked with, to be dropped."""

    mark: str
    digest: str | None = None
    """None: whichever."""
    differs: bool = False
    """Any digest but this one."""


def pack(entry: Entry, vector: np.ndarray | None) -> Stored:
    """An entry as it is stored.

    Args:
        vector: Shape (d,), float32, unit length.

    Raises:
        InvalidInput: It is too large, is no JSON, or one of its names is too long.
    """
    for what, name in (("owner", entry.owner), ("tenant", entry.tenant), ("entry id", entry.id)):
        check_name(what, name)
    numbers = None if vector is None else vector.astype("<f4").tobytes()
    body = to_json([entry.message, entry.facts, entry.uses])
    vector_sum = sum_of_vector(numbers, entry.embedder, entry.created_at)
    stored = _sealed(entry, body, numbers, vector_sum, sum_of_body(body))
    if (size := len(stored.head) + len(body)) > LARGEST_ENTRY_BYTES:
        raise InvalidInput("answer", f"{size} bytes with its sources", f"at most {LARGEST_ENTRY_BYTES}")
    return stored


def changed(entry: Entry, *, knowledge: str | None, is_verified: bool | None, group: str | None) -> Entry:
    """An entry with what may change of it; None leaves it as it is."""
    return replace(
        entry,
        knowledge=entry.knowledge if knowledge is None else knowledge,
        is_verified=entry.is_verified if is_verified is None else is_verified,
        group=entry.group if group is None or entry.group.startswith(WRONG) else group,
    )


def repack(entry: Entry, vector_sum: str, body_sum: str, **changes: Any) -> tuple[bytes, str]:
    """The head and the checksum of an entry of which only the head changes."""
    stored = _sealed(replace(entry, **changes), b"", None, vector_sum, body_sum)
    return stored.head, stored.checksum


def _sealed(entry: Entry, body: bytes, vector: bytes | None, vector_sum: str, body_sum: str) -> Stored:
    head = to_json([_FORMAT, *(getattr(entry, name) for name in _FIELDS)])
    return Stored(head, body, vector, vector_sum, _checksum(head, body_sum, vector_sum), body_sum)


def entry_of(seq: Any, head: Any, body: Any, vector_sum: Any, checksum: Any, seal: Any) -> Entry | None:
    """The entry, or None where what was read is not what was stored."""
    raw, text = as_bytes(head), as_bytes(body)
    if raw is None or text is None:
        return None
    parts = _verified(seq, raw, sum_of_body(text), vector_sum, checksum, seal)
    told = None if parts is None else _json_list(text)
    if parts is None or told is None or len(told) != 3 or not all(isinstance(each, dict) for each in told):
        return None
    message, facts, uses = told
    if not all(isinstance(names, dict) for names in uses.values()):
        return None
    fields = dict(zip(_FIELDS, parts[1:], strict=True)) | {"tags": tuple(parts[_FIELDS.index("tags") + 1])}
    return Entry(**fields, seq=seq, message=message, facts=facts, uses=uses)


def outline_of(seq: Any, head: Any, body_sum: Any, vector_sum: Any, checksum: Any, seal: Any) -> Outline | None:
    """What deciding needs; None where what was read is not what was stored."""
    raw = as_bytes(head)
    parts = None if raw is None else _verified(seq, raw, body_sum, vector_sum, checksum, seal)
    if parts is None:
        return None
    (_, key, _, _, _, question, group, knowledge, tenant, _, _, _, _, is_verified, _, _, created_at) = parts
    return Outline(seq, key, question, group, tenant, is_verified, created_at, knowledge)


def seal_of(checksum: str, seq: int) -> str:
    """Ties an entry to its number, by which similar questions are found. SHA-1, because Redis must compute it too."""
    return hashlib.sha1(f"{checksum}{seq}".encode(), usedforsecurity=False).hexdigest()


def sum_of_body(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def sum_of_vector(vector: bytes | None, embedder: str | None, created_at: float) -> str:
    """Covers all that an index is made from."""
    told = hashlib.sha256(to_json([embedder, float(created_at), vector is None]))
    told.update(vector or b"")
    return told.hexdigest()


def is_vector(vector: Any, embedder: Any, created_at: Any, vector_sum: Any) -> bool:
    """Whether what was read for an index is what was stored."""
    if (
        not isinstance(vector, bytes | None)
        or not isinstance(embedder, str | None)
        or not isinstance(created_at, float)
    ):
        return False
    return bool(sum_of_vector(vector, embedder, created_at) == vector_sum)


def _checksum(head: bytes, body_sum: str, vector_sum: str) -> str:
    return hashlib.sha256(b"\n".join((body_sum.encode(), vector_sum.encode(), head))).hexdigest()


def _verified(seq: Any, head: bytes, body_sum: Any, vector_sum: Any, checksum: Any, seal: Any) -> list[Any] | None:
    """The parts of a head that is what was stored."""
    sums = (body_sum, vector_sum, checksum, seal)
    if not all(isinstance(each, str) and each.isascii() for each in sums) or not isinstance(seq, int):
        return None
    if _checksum(head, body_sum, vector_sum) != checksum or seal_of(checksum, seq) != seal:
        return None
    parts = _json_list(head)
    # Another number: it was written by another version of chainops.
    return parts if parts is not None and len(parts) == _PARTS and parts[0] == _FORMAT else None


def parts_of_head(head: Any) -> dict[str, Any]:
    """The names in a head, unverified; empty where it is none."""
    parts = _json_list(as_bytes(head) or b"")
    return {} if parts is None else dict(zip(_FIELDS, parts[1:], strict=False))


def _json_list(data: bytes) -> list[Any] | None:
    try:
        found = json.loads(data.decode())
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) else None


def to_json(value: Any) -> bytes:
    """JSON as UTF-8. A NUL, and half of a surrogate pair, are escaped: every store takes it, and it comes back whole.

    Raises:
        InvalidInput: It is no JSON.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput("answer", f"something that is no JSON ({error})", "text, numbers, lists and dicts") from None
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _LONE_SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode()


def as_bytes(value: Any) -> bytes | None:
    if isinstance(value, str):
        return value.encode(errors="replace")
    return bytes(value) if isinstance(value, bytes | memoryview) else None


def as_text(value: Any) -> str | None:
    return value.decode(errors="replace") if isinstance(value, bytes) else value if isinstance(value, str) else None


def whole_number(value: Any) -> int | None:
    """What a store gave as text; None where that is no whole number."""
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


def storable(text: str) -> str:
    """Text to show and to search, as every database takes it: without NUL and halves of surrogate pairs."""
    return _UNSTORABLE.sub("\ufffd", text)


def check_name(what: str, name: str | None) -> None:
    """Refuse what cannot be a key.

    Raises:
        InvalidInput: It is longer than `LONGEST_NAME`.
    """
    if name is not None and len(name) > LONGEST_NAME:
        raise InvalidInput(what, f"{len(name)} characters", f"at most {LONGEST_NAME}")


def name_key(name: str | None) -> str:
    """A name, or none, as text that is different for different names and that every store takes."""
    return json.dumps(name)


def worth(cost_usd: float | None, used_at: float) -> float:
    """How much an entry is worth keeping: the logarithm of saved cost x recency.

    Cost halves in value every `HALF_LIFE_S` without use, so the logarithm to base 2 of what is left is a constant
    minus the time passed. As the time is the same for all, comparing constants is enough: they change only when an
    entry is served, and the least valuable is the first in an index.

    Args:
        cost_usd: What a repeated answer would cost; unknown and free count as a millionth of a dollar.
        used_at: When it was stored or last served, in seconds since 1970.
    """
    cost = _LEAST_COST_USD if cost_usd is None or not cost_usd > _LEAST_COST_USD else min(cost_usd, 1e6)
    return math.log2(cost) + (used_at if math.isfinite(used_at) else 0.0) / HALF_LIFE_S


def marks_of(entry: Entry) -> dict[str, str]:
    """All that an entry can be dropped by: what it used, with digests, its tags, its user."""
    marks = {
        _mark("uses", kind, name): _mark(digest) for kind, used in entry.uses.items() for name, digest in used.items()
    }
    marks |= {_mark("tag", tag): "" for tag in entry.tags}
    if entry.user is not None:
        marks[user_mark(entry.user)] = ""
    return marks


def user_mark(user: str | None) -> str:
    """Where a user's name would be stored beside its entries, its digest is."""
    return "" if user is None else _mark("user", user)


def _digest(digest: str | None) -> str | None:
    return None if digest is None else _mark(digest)


def _mark(*words: str) -> str:
    """Something of one length that every store takes as part of a key."""
    return hashlib.blake2b(to_json(words), digest_size=16).hexdigest()


def mentions_of(where: Where) -> list[list[Mention]]:
    """For each thing that is said, the alternatives of which an entry must have one."""
    groups = [
        [Mention(_mark("uses", "document", name), _digest(now), differs=True) for name, now in where.documents.items()],
        [Mention(_mark("uses", kind, name), _digest(digest)) for kind, name, digest in where.uses],
        [] if where.tag is None else [Mention(_mark("tag", where.tag))],
        [] if where.user is None else [Mention(user_mark(where.user))],
    ]
    return [group for group in groups if group]


def fits_nothing(where: Where) -> bool:
    """Whether nothing is said."""
    said: Sequence[Any] = (where.scope, where.tenant, where.is_unknown, where.before)
    return not (where.everything or where.ids or mentions_of(where) or any(each is not None for each in said))


def first_number() -> int:
    """Where a new log begins to count: microseconds since 1970.

    So a log that is made anew, after its store was emptied or deleted, begins beyond what any reader has seen of the
    old one. The numbers fit into a double, which is what Redis scripts count with, until the year 2255.
    """
    return time.time_ns() // 1000


def check_lease(lease: Lease, now: float) -> None:
    """Refuse a lease that would count as expired at once.

    Raises:
        InvalidInput: It is valid for longer than `LONGEST_LEASE_S`.
    """
    if not lease.expires_at - now <= LONGEST_LEASE_S:
        raise InvalidInput("lease", f"{lease.expires_at - now:g} s", f"at most {LONGEST_LEASE_S:g} s")


def label_of(features: Any, correct: Any, source: Any, at: Any) -> Label | None:
    """A label as it was stored, or None where that is none."""
    from chainops.cache.judge import Label

    numbers = _json_list(as_bytes(features) or b"")
    if numbers is None or not all(isinstance(each, int | float) for each in (*numbers, at)):
        return None
    return Label(tuple(numbers), bool(correct), source, at) if source in {"miss", "audit", "report"} else None
