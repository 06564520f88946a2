"""Rate limits as a provider enforces them, for each key, with the headers that OpenAI sends."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field

from chainops.core.clock import Clock


@dataclass(frozen=True, slots=True)
class Limits:
    """What one key may do. None: as much as it likes.

    Requests and tokens are taken out of buckets that hold one minute's worth and fill up evenly, so a client that
    was quiet may spend a whole minute's worth at once. A request needs room for its prompt and its `max_tokens`; what
    its answer used is what it is charged.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None
    is_enforced: bool = True
    """False: only told in the headers of each answer."""


@dataclass(slots=True)
class Tally:
    """What became of the requests of one key."""

    accepted: int = 0
    refused: int = 0
    open: int = 0
    most_open: int = 0
    """Most requests at the same time."""
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not accepted."""

    kind: str
    """What OpenAI calls the type of the error: "requests" or "tokens"."""
    message: str
    wait_s: float


class Bucket:
    """Holds at most one minute's worth; fills up evenly."""

    def __init__(self, per_minute: int, now: float) -> None:
        self.size, self.left, self._at = per_minute, float(per_minute), now

    def fill(self, now: float) -> None:
        self.left = min(self.size, self.left + (now - self._at) * self.size / 60)
        self._at = now

    def wait_s(self, amount: float) -> float:
        """Seconds until so much is there; inf: never, the bucket is too small."""
        if amount > self.size:
            return math.inf
        return max(0.0, (amount - self.left) * 60 / self.size)


@dataclass
class _Key:
    tally: Tally = field(default_factory=Tally)
    requests: Bucket | None = None
    tokens: Bucket | None = None


class Limiter:
    """Counts, and refuses what is too much. Thread-safe."""

    def __init__(self, limits: Limits | None, clock: Clock) -> None:
        self._limits, self._clock = limits or Limits(), clock
        self._lock = threading.Lock()
        self._keys: dict[str, _Key] = {}

    def tallies(self) -> dict[str, Tally]:
        with self._lock:
            return {name: key.tally for name, key in self._keys.items()}

    def admit(self, name: str, tokens: int) -> Refusal | None:
        """Take a request in, whose prompt and `max_tokens` are `tokens`; or say why not."""
        with self._lock:
            key = self._key(name)
            refusal = self._refusal(key, tokens) if self._limits.is_enforced else None
            if refusal is not None:
                key.tally.refused += 1
                return refusal
            key.tally.accepted += 1
            key.tally.open += 1
            key.tally.most_open = max(key.tally.most_open, key.tally.open)
            if key.requests is not None:
                key.requests.left -= 1
            return None

    def charge(self, name: str, tokens: int) -> dict[str, str]:
        """Take the tokens that the answer used; gives the headers that tell what is left."""
        with self._lock:
            key = self._key(name)
            key.tally.tokens += tokens
            if key.tokens is not None:
                key.tokens.left -= tokens
            return self._headers(key)

    def release(self, name: str) -> None:
        """An accepted request is over."""
        with self._lock:
            self._keys[name].tally.open -= 1

    def headers(self, name: str) -> dict[str, str]:
        with self._lock:
            return self._headers(self._key(name))

    def _key(self, name: str) -> _Key:
        now = self._clock.monotonic()
        key = self._keys.get(name)
        if key is None:
            rpm, tpm = self._limits.requests_per_minute, self._limits.tokens_per_minute
            key = _Key(requests=Bucket(rpm, now) if rpm else None, tokens=Bucket(tpm, now) if tpm else None)
            self._keys[name] = key
        for bucket in (key.requests, key.tokens):
            if bucket is not None:
                bucket.fill(now)
        return key

    def _refusal(self, key: _Key, tokens: int) -> Refusal | None:
        limits = self._limits
        if limits.concurrency is not None and key.tally.open >= limits.concurrency:
            return Refusal("requests", f"Too many concurrent requests: Limit {limits.concurrency}.", 0.1)
        for bucket, kind, word, amount in (
            (key.requests, "requests", "requests per min (RPM)", 1),
            (key.tokens, "tokens", "tokens per min (TPM)", tokens),
        ):
            if bucket is None or (wait_s := bucket.wait_s(amount)) <= 0:
                continue
            told = f"Limit {bucket.size}, Used {bucket.size - bucket.left:.0f}, Requested {amount}."
            message = f"Rate limit reached on {word}: {told}"
            message += " The request is too large." if math.isinf(wait_s) else f" Please try again in {wait_s:.3f}s."
            return Refusal(kind, message, 60.0 if math.isinf(wait_s) else wait_s)
        return None

    def _headers(self, key: _Key) -> dict[str, str]:
        told: dict[str, str] = {}
        for bucket, word in ((key.requests, "requests"), (key.tokens, "tokens")):
            if bucket is not None:
                told[f"x-ratelimit-limit-{word}"] = str(bucket.size)
                told[f"x-ratelimit-remaining-{word}"] = str(max(0, math.floor(bucket.left)))
                told[f"x-ratelimit-reset-{word}"] = duration(bucket.wait_s(bucket.size))
        return told


def duration(seconds: float) -> str:
    """A duration as OpenAI writes it: "120ms", "1s", "6m0s", "1h0m0s"."""
    milliseconds = math.ceil(seconds * 1000 - 1e-6)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    told = f"{rest / 1000:g}s"
    return f"{hours}h{minutes}m{told}" if hours else f"{minutes}m{told}" if minutes else told
