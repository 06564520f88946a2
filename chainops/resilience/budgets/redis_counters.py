"""Running totals in Redis: each change one script, all of it or nothing.

Keys, with one hash tag so that they share a slot of a cluster: `window:BUDGET:KEY:WINDOW` is a hash of nano-dollars,
tokens and whether the soft limit was told; it goes 62 days after the window's end. `hold:ID` is the JSON of a call
under way with its amount; `holds` sorts their ids by time.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from chainops.resilience.budgets.policy import Amount, Window
from chainops.resilience.budgets.records import Hold, Reserved, Spend

if TYPE_CHECKING:
    from chainops.stores.redis import RedisStore

PREFIX = "{chainops-budget}:"
_KEPT_S = 62 * 86_400

_RESERVE = """
-- ARGV: hold id, its JSON, time, nano-dollars, tokens, whether tokens are enforced, budget and key;
-- then for each window: id, limits of nano-dollars and tokens ('' for none), their soft limits, seconds until it may go
local P, call = KEYS[1], redis.call
local usd, tokens, enforced, whose = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6] == '1', ARGV[7]
local found = {}
local refused = {}
for at = 8, #ARGV, 6 do
  local key = P .. 'window:' .. whose .. ':' .. ARGV[at]
  local now = call('HMGET', key, 'nano_usd', 'tokens')
  local spent, used = tonumber(now[1] or '0'), tonumber(now[2] or '0')
  table.insert(found, now[1] or '0')
  table.insert(found, now[2] or '0')
  local most_usd, most_tokens = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  if #refused == 0 then
    if most_usd and usd > 0 and spent + usd > most_usd then refused = {(at - 8) / 6, 'usd'}
    elseif enforced and most_tokens and tokens > 0 and used + tokens > most_tokens then
      refused = {(at - 8) / 6, 'tokens'}
    end
  end
end
if #refused > 0 then return {refused, found, {}} end
call('SET', P .. 'hold:' .. ARGV[1], ARGV[2])
call('ZADD', P .. 'holds', ARGV[3], ARGV[1])
local soft = {}
found = {}
for at = 8, #ARGV, 6 do
  local key = P .. 'window:' .. whose .. ':' .. ARGV[at]
  local spent = call('HINCRBY', key, 'nano_usd', ARGV[4])
  local used = call('HINCRBY', key, 'tokens', ARGV[5])
  call('EXPIRE', key, ARGV[at + 5])
  table.insert(found, string.format('%.0f', spent))
  table.insert(found, string.format('%.0f', used))
  local soft_usd, soft_tokens = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  if (soft_usd and spent >= soft_usd) or (soft_tokens and used >= soft_tokens) then
    if call('HSETNX', key, 'told', '1') == 1 then table.insert(soft, (at - 8) / 6) end
  end
end
return {{}, found, soft}
"""

_SETTLE = """
-- ARGV: id, nano-dollars and tokens of each call
local P, call = KEYS[1], redis.call
for at = 1, #ARGV, 3 do
  local text = call('GET', P .. 'hold:' .. ARGV[at])
  call('ZREM', P .. 'holds', ARGV[at])
  if text then
    call('DEL', P .. 'hold:' .. ARGV[at])
    local hold = cjson.decode(text)
    for _, window in ipairs(hold.windows) do
      local key = P .. 'window:' .. hold.budget .. ':' .. hold.key .. ':' .. window
      if call('EXISTS', key) == 1 then
        local usd = tonumber(ARGV[at + 1]) - hold.amount.nano_usd
        local tokens = tonumber(ARGV[at + 2]) - hold.amount.tokens
        if call('HINCRBY', key, 'nano_usd', string.format('%.0f', usd)) < 0 then call('HSET', key, 'nano_usd', 0) end
        if call('HINCRBY', key, 'tokens', string.format('%.0f', tokens)) < 0 then call('HSET', key, 'tokens', 0) end
      end
    end
  end
end
"""


class RedisCounters:
    """`Counters` on a server. Amounts are exact up to 9 million USD in a window."""

    def __init__(self, store: RedisStore) -> None:
        self.place = store.place
        self._store = store
        self._reserve, self._settle = store.script(_RESERVE), store.script(_SETTLE)

    def reserve(self, hold: Hold, windows: Sequence[Window], *, enforces_tokens: bool = True) -> Reserved:
        arguments: list[Any] = [hold.id, json.dumps(asdict(hold)), repr(hold.call.at)]
        arguments += [hold.amount.nano_usd, hold.amount.tokens, int(enforces_tokens), f"{hold.budget}:{hold.key}"]
        for window in windows:
            most = (window.limit.nano_usd, window.limit.tokens)
            soft = [None if each is None else repr(window.soft * each) for each in most]
            limits = ["" if each is None else each for each in (*most, *soft)]
            arguments += [window.id, *limits, max(0, int(window.ends - hold.call.at)) + _KEPT_S]
        refused, found, newly = self._store.run(self._reserve, [PREFIX], arguments)
        totals = tuple(Amount(int(found[at]), int(found[at + 1])) for at in range(0, len(found), 2))
        if refused:
            return Reserved(totals, (int(refused[0]), "usd" if refused[1] == b"usd" else "tokens"))
        return Reserved(totals, newly_soft=tuple(int(each) for each in newly))

    def settle(self, settled: Sequence[tuple[str, Amount]]) -> None:
        arguments = [value for name, actual in settled for value in (name, actual.nano_usd, actual.tokens)]
        self._store.run(self._settle, [PREFIX], arguments)

    def totals(self, budget: str, key: str, windows: Sequence[str]) -> list[Amount]:
        found = []
        with self._store.client() as client:
            for window in windows:
                told: Any = client.hmget(f"{PREFIX}window:{budget}:{key}:{window}", ["nano_usd", "tokens"])
                found.append(Amount(int(told[0] or 0), int(told[1] or 0)))
        return found

    def holds(self, *, before: float, limit: int = 500) -> list[Hold]:
        with self._store.client() as client:
            names: Any = client.zrangebyscore(f"{PREFIX}holds", "-inf", f"({before!r}", start=0, num=limit)
            texts: Any = client.mget([f"{PREFIX}hold:{name.decode()}" for name in names]) if names else []
        return [_hold(json.loads(text)) for text in texts if text]

    def forget(self, user: str, tenant: str | None = None) -> None:
        for hold in self.holds(before=float("inf"), limit=1_000_000):
            if hold.call.user == user and tenant in (None, hold.call.tenant):
                told = asdict(hold)
                told["call"]["user"] = None
                with self._store.client() as client:
                    client.set(f"{PREFIX}hold:{hold.id}", json.dumps(told), xx=True)

    def nameless(self, holds: Sequence[str]) -> list[str]:
        with self._store.client() as client:
            texts: Any = client.mget([f"{PREFIX}hold:{name}" for name in holds]) if holds else []
        found = [_hold(json.loads(text)) for text in texts if text]
        return [each.id for each in found if each.call.user is None]

    def tidy(self, now: float) -> None:
        """Nothing to do: the server lets old windows go."""


def _hold(told: dict[str, Any]) -> Hold:
    amount, call = Amount(**told["amount"]), Spend(**told["call"])
    return Hold(told["id"], told["budget"], told["key"], tuple(told["windows"]), amount, call)
