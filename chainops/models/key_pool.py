"""Several API keys for one model: which one to use next, and what the provider lets each of them do."""

from __future__ import annotations

import math
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from chainops.core.clock import current_clock
from chainops.core.errors import CallRefused
from chainops.models.failures import ModelFailed

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from chainops.core.attempts import Attempt, Gate
    from chainops.core.run import Run
    from chainops.core.steps import Plan

COOL_DOWN_S = 5.0
"""How long a key rests after a 429 that does not say for how long, where there are others."""
REFUSED_S = 300.0
"""How long a key rests that was refused, or whose account is empty, where there are others."""
_OF_THE_KEY = frozenset({"key refused", "not allowed", "quota", "no key"})
KEY_FAILURES = _OF_THE_KEY | {"rate limit"}
"""Failures (`Failure.reason`) that another key may mend."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a provider says may still be done."""

    limit: int | None
    remaining: int
    reset_s: float
    """Seconds until it is back at its limit."""


def read_allowances(headers: Mapping[str, str], *, now: float) -> dict[str, Allowance]:
    """What the rate-limit headers of an answer say, for `requests` and `tokens`. Nonsense in them is left out.

    Understood are OpenAI's form (`x-ratelimit-remaining-requests: 59`, `x-ratelimit-reset-requests: 6m0s`), which most
    others have taken over, and Anthropic's (`anthropic-ratelimit-requests-remaining`, with an RFC 3339 date).

    Args:
        now: Seconds since 1970, where the answer has no `date` of its own.

    Source:
        https://platform.openai.com/docs/guides/rate-limits and https://docs.anthropic.com/en/api/rate-limits.
    """
    told: dict[str, Allowance] = {}
    for name in ("requests", "tokens"):
        for form in _FORMS[name]:
            limit, remaining, reset = (headers.get(form.format(each)) for each in ("limit", "remaining", "reset"))
            left, reset_s = _whole(remaining), _seconds(reset, headers.get("date"), now)
            if left is not None and reset_s is not None and name not in told:
                told[name] = Allowance(_whole(limit), left, reset_s)
    return told


_FORMS = {
    "requests": ("x-ratelimit-{}-requests", "anthropic-ratelimit-requests-{}"),
    "tokens": ("x-ratelimit-{}-tokens", "anthropic-ratelimit-tokens-{}", "anthropic-ratelimit-input-tokens-{}"),
}
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[smhd]))+")
_LONGEST_S = 7 * 86_400.0


def _whole(value: str | None) -> int | None:
    return int(value) if value is not None and re.fullmatch(r"\d{1,12}", value.strip()) else None


def _seconds(value: str | None, date: str | None, now: float) -> float | None:
    """A duration ("6m0s", "120ms", "1.5"), or the time until a date."""
    if value is None:
        return None
    value = value.strip()
    if _DURATION.fullmatch(value):
        parts = re.findall(r"(\d+(?:\.\d+)?)(ms|[smhd])", value)
        seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    elif re.fullmatch(r"\d{1,9}(?:\.\d+)?", value):
        seconds = float(value)
    else:
        try:
            seconds = datetime.fromisoformat(value).timestamp() - _server_time(date, now)
        except (ValueError, OverflowError, OSError):
            return None
    return min(max(0.0, seconds), _LONGEST_S)


def _server_time(date: str | None, now: float) -> float:
    # By the server's own clock where it tells it: ours may differ.
    try:
        return parsedate_to_datetime(date).timestamp() if date else now
    except ValueError:
        return now


@dataclass(slots=True)
class _Told:
    """An allowance that is being used up, and fills up again."""

    left: float
    heard: float
    resets: float
    refill_per_s: float
    """0 where the limit is not told: then all comes back at once."""

    def wait_s(self, amount: float, now: float) -> float:
        if now >= self.resets:
            return 0.0
        missing = amount - self.left - self.refill_per_s * (now - self.heard)
        if missing <= 0:
            return 0.0
        in_full_s = self.resets - now
        return min(in_full_s, missing / self.refill_per_s) if self.refill_per_s else in_full_s


class ModelKey:
    """One key: who uses it, what its provider allows, and whether it rests. A `Gate` and a limit's `Ceiling`.

    What a provider's headers say only lowers what may be done, and only until their reset. In between, an allowance
    with a known limit is taken to fill up evenly, as OpenAI and Anthropic document theirs. Thread-safe.

    Args:
        name: The variable that holds it.
        chat: Gives the chat model that uses it.
    """

    def __init__(self, name: str, chat: Callable[[], BaseChatModel]) -> None:
        self.name, self.chat = name, chat
        self.gates: tuple[Gate, ...] = ()
        """Its limits: passed before each call, after the model's own gates and before the key itself."""
        self.load: Callable[[float], tuple[float, int, float]] | None = None
        """For choosing: what a call would wait in seconds, calls that wait, share of its limits in use."""
        self.changed: list[Callable[[float], None]] = []
        """Called when more, or less, may be done than before."""
        self.in_flight = 0
        self.has_siblings = False
        self.counts_tokens = False
        self._lock = threading.RLock()
        self._told: dict[str, _Told] = {}
        self._taken: Counter[str] = Counter()
        self._rests_until, self._why = -math.inf, ""
        self.last_used = 0

    def __repr__(self) -> str:
        return f"ModelKey({self.name!r})"

    # A gate, and the ceiling of a limit

    def enter(self, attempt: Attempt, run: Run) -> Plan[None]:
        """Count the call. A key without limits of its own refuses while it rests; with them, they make it wait."""
        now = run.clock.monotonic()
        if not self.gates:
            if (rest := self.closed(now)) is not None:
                reason, problem, seconds = rest
                raise CallRefused(attempt.model, reason, problem, retry_after_s=seconds)
            self.took({"requests": 1}, now)
        with self._lock:
            self.in_flight += 1
        yield from ()

    def leave(self, attempt: Attempt) -> None:
        now = attempt.started + (attempt.duration_s or 0.0)
        with self._lock:
            self.in_flight -= 1
        if isinstance(attempt.failure, ModelFailed):
            self.failed(attempt.failure, now)

    def failed(self, failure: ModelFailed, now: float) -> None:
        """Rest, if the failure says something about the key."""
        seconds: float | None = None
        if failure.reason == "rate limit":
            seconds = failure.retry_after_s or (COOL_DOWN_S if self.has_siblings else None)
        elif failure.reason in _OF_THE_KEY and self.has_siblings:
            seconds = REFUSED_S
        if seconds is None:
            return
        with self._lock:
            if now + seconds > self._rests_until:  # the later end holds
                self._rests_until, self._why = now + seconds, failure.reason
        self._tell(now)

    def closed(self, now: float) -> tuple[str, str, float] | None:
        """Reason, problem and seconds, while it rests."""
        with self._lock:
            seconds = self._rests_until - now
            return (self._why, f"its key {self.name} rests for {seconds:.1f} s", seconds) if seconds > 0 else None

    def wait_s(self, needs: Mapping[str, int], now: float) -> float:
        with self._lock:
            waits = [told.wait_s(needs.get(name, 0), now) for name, told in self._told.items()]
            return max(0.0, self._rests_until - now, *waits)

    def took(self, needs: Mapping[str, int], now: float) -> None:  # noqa: ARG002 (as `Ceiling` says)
        with self._lock:
            for name, amount in needs.items():
                self._taken[name] += amount
                if name in self._told:
                    self._told[name].left -= amount

    # What the HTTP client tells (`clients.Listener`)

    def sending(self) -> Mapping[str, int]:
        """A request is about to be sent. Gives what `heard` wants to know of it."""
        with self._lock:
            return Counter(self._taken)

    def heard(self, sent: Mapping[str, int] | None, headers: Mapping[str, str]) -> None:
        """An answer's headers came, also an error's."""
        clock = current_clock()
        allowances = read_allowances(headers, now=clock.time())
        if not allowances:
            return
        now = clock.monotonic()
        with self._lock:
            for name, each in allowances.items():
                # What was begun after this request may not be in what the provider has counted.
                since = 0 if sent is None else self._taken[name] - sent.get(name, 0)
                refill = 0.0
                if each.limit is not None and each.reset_s > 0:
                    refill = max(0, each.limit - each.remaining) / each.reset_s
                self._told[name] = _Told(each.remaining - since, now, now + each.reset_s, refill)
            self.counts_tokens = self.counts_tokens or "tokens" in allowances
        self._tell(now)

    def heard_of(self, error: BaseException) -> None:
        """A client of somebody else's raised: its error may carry headers too."""
        headers = getattr(getattr(error, "response", None), "headers", None)
        if isinstance(headers, Mapping) or hasattr(headers, "get"):
            self.heard(None, headers)  # type: ignore[arg-type]

    def stats(self, now: float) -> dict[str, Any]:
        """For people: in flight, and what keeps it from more."""
        rest = self.closed(now)
        with self._lock:
            told = {name: max(0, math.floor(each.left)) for name, each in self._told.items() if now < each.resets}
        return {
            "in_flight": self.in_flight,
            "rests_s": 0.0 if rest is None else round(rest[2], 3),
            "why": "" if rest is None else rest[0],
            "provider_allows": told,
        }

    def _tell(self, now: float) -> None:
        for tell in self.changed:
            tell(now)


class KeyPool:
    """The keys of one model. Thread-safe."""

    def __init__(self, keys: tuple[ModelKey, ...]) -> None:
        self.keys = keys
        self._lock = threading.Lock()
        self._used = 0
        for key in keys:
            key.has_siblings = len(keys) > 1

    def choose(self, now: float) -> ModelKey:
        """The one with the least to do: free before resting, then fewest calls in flight, then most headroom.

        Args:
            now: On the request's clock, monotonic.
        """
        with self._lock:
            key = self.keys[0] if len(self.keys) == 1 else min(self.keys, key=lambda each: _burden(each, now))
            self._used += 1
            key.last_used = self._used
        return key

    def another(self, than: ModelKey, now: float) -> ModelKey | None:
        """One that could be used at once in place of this."""
        free = [key for key in self.keys if key is not than and _burden(key, now)[0] <= 0]
        return min(free, key=lambda each: _burden(each, now), default=None)

    def stats(self) -> dict[str, dict[str, Any]]:
        """By variable's name."""
        now = current_clock().monotonic()
        return {key.name: key.stats(now) for key in self.keys}


def _burden(key: ModelKey, now: float) -> tuple[float, int, float, int]:
    wait_s, waiting, share = (0.0, 0, 0.0) if key.load is None else key.load(now)
    return max(wait_s, key.wait_s({"requests": 1}, now)), key.in_flight + waiting, share, key.last_used
