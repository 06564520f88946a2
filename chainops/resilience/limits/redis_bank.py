"""Permits shared by many machines in Redis: one script, so a step happens whole or not at all.

Keys: `{chainops-limits}:DIGEST`, a string of JSON as `exchange.State` says. The server lets it expire. The script is
`exchange.exchange` again, line for line; `tests/resilience/limits/test_banks.py` plays both against each other.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from chainops.resilience.limits.exchange import LEASE_MS, SLOT_MS, TTL_MS, WANT_MS, WINDOW_MS, Ask, Given

if TYPE_CHECKING:
    from chainops.stores.redis import RedisStore

PREFIX = "{chainops-limits}:"
_KEPT_MS = 2 * (WINDOW_MS + LEASE_MS + TTL_MS)

_STEP = """
local function text(n) return string.format('%.0f', n) end
local window
local function lapses(slot) return (tonumber(slot) + 1) * SLOT_MS + window + LEASE_MS end

local function go_to(state, now)
  if not state.seen then state.seen, state.used, state.holders = now, {}, {} end
  if now < state.seen - window then
    for name, slots in pairs(state.used) do
      local total = 0
      for _, n in pairs(slots) do total = total + n end
      state.used[name] = {[text(math.floor(now / SLOT_MS))] = total}
    end
    for _, told in pairs(state.holders) do told[2], told[3] = now + TTL_MS, 0 end
    state.seen = now
  else
    state.seen = math.max(state.seen, now)
  end
  now = state.seen
  for _, slots in pairs(state.used) do
    for slot in pairs(slots) do if lapses(slot) <= now then slots[slot] = nil end end
  end
  for holder, told in pairs(state.holders) do
    if told[2] <= now then state.holders[holder] = nil end
  end
  return now
end

local function count(used, name, slot, amount)
  used[name] = used[name] or {}
  local slots = used[name]
  if amount < 0 and not slots[slot] then return end
  slots[slot] = (slots[slot] or 0) + amount
  if slots[slot] <= 0 then slots[slot] = nil end
end

local function free_of(ask, state)
  local free = {}
  for name, limit in pairs(ask.limits) do
    local taken = 0
    if name == 'seats' then
      taken = ask.seats
      for _, told in pairs(state.holders) do taken = taken + told[1] end
    else
      for _, n in pairs(state.used[name] or {}) do taken = taken + n end
    end
    free[name] = math.max(0, limit - taken)
  end
  return free
end

local function grant(ask, free, elders, others, n)
  for name, amount in pairs(ask.must) do
    if (free[name] or amount) - (elders[name] or 0) < amount then return {} end
  end
  local given = {}
  for name, amount in pairs(ask.must) do given[name] = amount end
  for name, amount in pairs(ask.may) do
    local spare = math.max(0, (free[name] or 0) - (given[name] or 0) - (others[name] or 0))
    local extra = math.min(amount, math.floor(spare / (2 * n)))
    if extra > 0 then given[name] = (given[name] or 0) + extra end
  end
  return given
end

local function share_of(ask, holders, now)
  local limit, wanting, sitting = ask.limits.seats, 0, 0
  for _, told in pairs(holders) do
    if told[3] > now and told[5].seats then wanting = wanting + 1
    elseif told[1] > 0 then sitting = sitting + 1 end
  end
  if not limit or wanting == 0 then return -1 end
  return math.floor(limit / (wanting + sitting + 1))
end

local function wait_of(slots, missing, now)
  local order = {}
  for slot in pairs(slots) do order[#order + 1] = tonumber(slot) end
  table.sort(order)
  for _, slot in ipairs(order) do
    if missing <= 0 then break end
    missing = missing - slots[text(slot)]
    if missing <= 0 then return lapses(slot) - now end
  end
  return missing > 0 and window or 0
end

local function step(state, ask, now)
  window = ask.window
  now = go_to(state, now)
  local slot = math.floor(now / SLOT_MS)
  for _, b in ipairs(ask.back) do count(state.used, b[1], text(b[2]), -b[3]) end
  for name, amount in pairs(ask.over) do count(state.used, name, text(slot), amount) end
  local holders = state.holders
  holders[ask.holder] = nil
  local free, n = free_of(ask, state), 1
  for _ in pairs(holders) do n = n + 1 end
  if ask.gone then return {given = {}, slot = slot, wait = 0, holders = n, share = -1, left = free} end
  local since, elders, others = now - ask.waited, {}, {}
  for _, told in pairs(holders) do
    if told[3] > now then
      for name, amount in pairs(told[5]) do
        others[name] = (others[name] or 0) + amount
        if told[4] < since then elders[name] = (elders[name] or 0) + amount end
      end
    end
  end
  local given, refused, wait = grant(ask, free, elders, others, n), false, 0
  for name, amount in pairs(ask.must) do
    if (given[name] or 0) < amount then refused = true end
  end
  for name, amount in pairs(given) do
    if name ~= 'seats' then count(state.used, name, text(slot), amount) end
  end
  if refused then
    for name, amount in pairs(ask.must) do
      if name ~= 'seats' then
        local missing = amount + (elders[name] or 0) - (free[name] or amount)
        wait = math.max(wait, wait_of(state.used[name] or {}, missing, now))
      end
    end
  end
  local share = share_of(ask, holders, now)
  local told = {ask.seats + (given.seats or 0), now + TTL_MS, 0, 0, {}}
  if refused then told[3], told[4], told[5] = now + WANT_MS, since, ask.must end
  holders[ask.holder] = told
  local left = {}
  for name, amount in pairs(free) do left[name] = amount - (given[name] or 0) end
  return {given = given, slot = slot, wait = wait, holders = n, share = share, left = left}
end

local asks, answers = cjson.decode(ARGV[1]), {}
local time = redis.call('TIME')
local now = tonumber(ARGV[2]) or (time[1] * 1000 + math.floor(time[2] / 1000))
for i, key in ipairs(KEYS) do
  local state = cjson.decode(redis.call('GET', key) or '{}')
  answers[i] = step(state, asks[i], now)
  if next(state.holders) or next(state.used) then
    redis.call('SET', key, cjson.encode(state), 'PX', KEPT_MS)
  end
end
return cjson.encode(answers)
"""


class RedisBank:
    """A `Bank` (see `records.py`). The server's clock counts; those of the machines may differ as they like.

    Args:
        now_ms: In place of the server's clock; for tests.
    """

    def __init__(self, store: RedisStore, now_ms: int | None = None) -> None:
        self._store, self._now_ms = store, now_ms
        source = _STEP
        for name, value in _CONSTANTS.items():
            source = source.replace(name, str(value))
        self._script = store.script(source)

    @property
    def place(self) -> str:
        return self._store.place

    def exchange(self, asks: Sequence[tuple[str, Ask]]) -> list[Given]:
        told = json.dumps([ask for _, ask in asks])
        now = "" if self._now_ms is None else str(self._now_ms)
        answers: list[Given] = json.loads(self._store.run(self._script, [PREFIX + key for key, _ in asks], [told, now]))
        return [each if each["given"] else {**each, "given": {}} for each in answers]


_CONSTANTS = {
    "SLOT_MS": SLOT_MS,
    "LEASE_MS": LEASE_MS,
    "TTL_MS": TTL_MS,
    "WANT_MS": WANT_MS,
    "KEPT_MS": _KEPT_MS,
}
