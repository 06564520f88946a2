"""The cache's changes in Redis, each one script: all of it happens, or nothing, whoever is killed when.

Keys, all with one hash tag, so that they share a slot of a cluster:

- `entry:ID`: a hash with everything of an entry. If it is gone (evicted by the server, or deleted by hand), the entry
  is gone, whatever else still names it.
- `exact:SCOPE`: hash of question digests to ids. `live:SCOPE`: ids sorted by number. `log:SCOPE`: the change log, a
  stream whose ids are the numbers; `last:SCOPE`: the last one. Numbers have no gaps, so a reader sees when lines are
  missing, for whatever reason.
- `worth:OWNER`, `worth-of:TENANT:OWNER`, `age:OWNER`: sorted sets for eviction. Members of the first two carry all that
  is needed to count an entry off whose hash is gone.
- `mark:MARK:OWNER`: hash of ids to digests, for dropping by document, tag or user. `size:OWNER`: hash of counts.
- `grave:OWNER`, `graves:OWNER`: tombstones, and their times. `labels:OWNER`: stream. `tally:...`: hashes.
- `lease:...`: hashes that the server lets expire. `leases:SCOPE`, `asking:USER`: sets of them.

Scripts refuse to begin when memory is out, and never stop half-way for it: each begins with a write that needs memory.
"""

from __future__ import annotations

PREFIX = "{chainops-cache}:"

_KEYS = """
local P = KEYS[1]
local call = redis.call
local function text(number) return string.format('%.0f', number) end
"""

_CHANGE = """
-- Logs begin at a number of the caller's, which is the time: beyond whatever was there before.
local function next_number(counter, log, first)
  local last = tonumber(call('GET', counter) or '') or tonumber(first) - 1
  local newest = call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
  if newest then last = math.max(last, tonumber(string.match(newest[1], '^%d+'))) end
  call('SET', counter, text(last + 1))
  return text(last + 1)
end

local function log_of(scope, first, field, value)
  local seq = next_number(P .. 'last:' .. scope, P .. 'log:' .. scope, first)
  call('XADD', P .. 'log:' .. scope, 'MAXLEN', '~', LOG_KEPT, seq .. '-0', field, value)
  return seq
end

local function member(id, tenant, size) return size .. ' ' .. #id .. ' ' .. id .. tenant end

local function parts(named)
  local size, length, rest = string.match(named, '^(%d+) (%d+) (.*)$')
  if not size then return nil end
  return tonumber(size), string.sub(rest, 1, tonumber(length)), string.sub(rest, tonumber(length) + 1)
end

local function count(owner, tenant, entries, bytes)
  local key = P .. 'size:' .. owner
  call('HINCRBY', key, 'entries', entries)
  call('HINCRBY', key, 'bytes', bytes)
  call('HINCRBY', key, 'entries of ' .. tenant, entries)
  call('HINCRBY', key, 'bytes of ' .. tenant, bytes)
end

local function uncount(owner, named)
  local size, id, tenant = parts(named)
  if call('ZREM', P .. 'worth:' .. owner, named) == 0 or not size then return end
  call('ZREM', P .. 'worth-of:' .. tenant .. ':' .. owner, named)
  count(owner, tenant, -1, -size)
end

-- Takes an entry out and logs it. Nil: it was not there.
local function take(id, first)
  local key = P .. 'entry:' .. id
  local names = {'scope', 'exact', 'owner', 'tenant', 'seq', 'bytes', 'marks', 'question', 'group', 'user'}
  local e = redis.pcall('HMGET', key, unpack(names)) -- an error where it is no hash: made by hand
  local scope, owner, tenant = e[1], e[3], e[4]
  if call('DEL', key) == 0 or not (scope and owner and tenant) then return nil end
  if call('HGET', P .. 'exact:' .. scope, e[2] or '') == id then call('HDEL', P .. 'exact:' .. scope, e[2]) end
  local seq = call('ZSCORE', P .. 'live:' .. scope, id)
  call('ZREM', P .. 'live:' .. scope, id)
  call('ZREM', P .. 'age:' .. owner, id)
  uncount(owner, member(id, tenant, e[6] or ''))
  for mark in string.gmatch(e[7] or '', '(%x+) %x*') do call('HDEL', P .. 'mark:' .. mark .. ':' .. owner, id) end
  if seq then log_of(scope, first, 'd', text(tonumber(seq))) end
  return e
end
"""

_PUT = """
local first, id, scope, exact, owner, tenant = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local bytes, created, worth, marks, sum = ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[11]
local key = P .. 'entry:' .. id

local function replace(other)
  if take(other, first) then return end
  -- Not there: but if the server has evicted it, its line in the log is still to be taken back.
  local seq = call('ZSCORE', P .. 'live:' .. scope, other)
  call('ZREM', P .. 'live:' .. scope, other)
  if seq then log_of(scope, first, 'd', text(tonumber(seq))) end
end

local old = call('HGET', P .. 'exact:' .. scope, exact)
if ARGV[14] ~= '' then
  local there = old and redis.pcall('HGET', P .. 'entry:' .. old, 'seq')
  if (type(there) == 'string' and there or '0') ~= ARGV[14] then return '0' end
end
call('SADD', P .. 'owners', owner)
local use = redis.pcall('HMGET', key, 'owner', 'hits', 'used')
local hits, used = '0', created
if use[1] == owner and use[2] and use[3] then hits, used = use[2], use[3] end
if old and old ~= id then replace(old) end
replace(id)
local seq = log_of(scope, first, 'p', id)
call('HSET', key, 'scope', scope, 'exact', exact, 'owner', owner, 'tenant', tenant, 'bytes', bytes,
  'created', created, 'marks', marks, 'sum', sum, 'seq', seq, 'seal', redis.sha1hex(sum .. seq),
  'hits', hits, 'used', used, unpack(ARGV, 15))
call('HSET', P .. 'exact:' .. scope, exact, id)
call('ZADD', P .. 'live:' .. scope, seq, id)
call('ZADD', P .. 'age:' .. owner, created, id)
local named = member(id, tenant, bytes)
local value = tonumber(worth) + (tonumber(used) - tonumber(created)) / HALF_LIFE_S
call('ZADD', P .. 'worth:' .. owner, value, named)
call('ZADD', P .. 'worth-of:' .. tenant .. ':' .. owner, value, named)
count(owner, tenant, 1, bytes)
for mark, digest in string.gmatch(marks, '(%x+) (%x*)') do
  call('HSET', P .. 'mark:' .. mark .. ':' .. owner, id, digest)
end
if ARGV[12] ~= '' then
  local log = P .. 'labels:' .. owner
  local number = next_number(P .. 'learned:' .. owner, log, first)
  call('XADD', log, 'MAXLEN', '~', LABELS_KEPT, number .. '-0', 'label', ARGV[12], 'by', ARGV[13])
end
return seq
"""

_LABEL = """
local log = P .. 'labels:' .. ARGV[2]
local number = next_number(P .. 'learned:' .. ARGV[2], log, ARGV[1])
call('XADD', log, 'MAXLEN', '~', LABELS_KEPT, number .. '-0', 'label', ARGV[3], 'by', ARGV[4])
return number
"""

_READ = """
local function read(id, ...)
  local e = id and redis.pcall('HMGET', P .. 'entry:' .. id, 'seq', 'head', ...)
  return e and not e.err and e or nil -- an error where it is no hash: made by hand
end

local function at(scope, seq) return call('ZRANGEBYSCORE', P .. 'live:' .. scope, seq, seq, 'LIMIT', 0, 1)[1] end
"""

_WHOLE = """
local how, scope, what = ARGV[1], ARGV[2], ARGV[3]
local id = what
if how == 'exact' then id = call('HGET', P .. 'exact:' .. scope, what) end
if how == 'seq' then id = at(scope, what) end
local found = read(id, 'body', 'vector_sum', 'sum', 'seal')
if not found or not found[1] then return false end
return {id, found}
"""

_AT = """
local found = {}
for number = 2, #ARGV do
  local id = at(ARGV[1], ARGV[number])
  local e = read(id, 'body_sum', 'vector_sum', 'sum', 'seal')
  if e and e[1] then
    -- One text for each, because clients read many short ones slowly. No part has line breaks, but perhaps the id.
    local parts = {e[1], e[3] or '', e[4] or '', e[5] or '', e[6] or '', e[2] or '', id}
    found[#found + 1] = table.concat(parts, '\\n')
  end
end
return found
"""

_NEWEST = """
local found = {}
for _, id in ipairs(call('ZREVRANGE', P .. 'age:' .. ARGV[1], ARGV[2], ARGV[3])) do
  local e = read(id, 'body', 'vector_sum', 'sum', 'seal', 'hits', 'used')
  found[#found + 1] = {id, call('HGET', P .. 'entry:' .. id, 'question'), e}
end
return found
"""

_UPDATE = """
local key = P .. 'entry:' .. ARGV[1]
local now = call('HMGET', key, 'sum', 'seq')
if now[1] ~= ARGV[2] or not now[2] then return 0 end
call('HSET', key, 'head', ARGV[3], 'sum', ARGV[4], 'group', ARGV[5], 'seal', redis.sha1hex(ARGV[4] .. now[2]))
return 1
"""

_CHANGES = """
local scope, after, began, limit = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local last = tonumber(call('GET', P .. 'last:' .. scope) or '0')
local lines = {}

local function of(id)
  return redis.pcall('HMGET', P .. 'entry:' .. id, 'seq', 'vector', 'embedder', 'created', 'vector_sum')
end

-- An entry that is gone, or stands for another line by now, is told as taken out: a page is never empty for that.
local function add(seq, id)
  local e = of(id)
  if e[1] ~= seq then
    -- A server that is killed while it writes its file leaves half a script there, and most carry that out when they
    -- are restarted once more: its line names what was never stored. Who has the number since then is in `live`.
    id = at(scope, seq)
    e = id and of(id) or {}
  end
  if e[1] ~= seq then lines[#lines + 1] = {seq, seq} else lines[#lines + 1] = {seq, false, id, unpack(e, 2)} end
end

if after > last or began > last then return false end
if after == last then return lines end
if after == 0 and began == 0 then began = last end
if after < began then
  local live = P .. 'live:' .. scope
  local ids = call('ZRANGEBYSCORE', live, '(' .. text(after), text(began), 'WITHSCORES', 'LIMIT', 0, limit)
  for n = 1, #ids, 2 do add(text(tonumber(ids[n + 1])), ids[n]) end
  local reached = lines[#lines] and tonumber(lines[#lines][1]) or 0
  if #lines < limit and reached < began then lines[#lines + 1] = {text(began), '0'} end
  return lines
end
for n, line in ipairs(call('XRANGE', P .. 'log:' .. scope, text(after + 1), '+', 'COUNT', limit)) do
  local seq = tonumber(string.match(line[1], '^%d+'))
  if seq ~= after + n then return false end
  if line[2][1] == 'p' then add(text(seq), line[2][2]) else lines[#lines + 1] = {text(seq), line[2][2]} end
end
if #lines == 0 then return false end
return lines
"""

_DROP = """
local first, owner, reason, now = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local wanted = cjson.decode(ARGV[5])
local names = {'owner', 'scope', 'tenant', 'unknown', 'created', 'marks'}

local function is_mentioned(group, marks)
  for mark, digest in string.gmatch(marks, '(%x+) (%x*)') do
    for _, one in ipairs(group[mark] or {}) do
      if one[1] == '' or (digest ~= one[1]) == one[2] then return true end
    end
  end
  return false
end

local function fits(id)
  local e = redis.pcall('HMGET', P .. 'entry:' .. id, unpack(names))
  if e[1] ~= owner then return false end
  if wanted.scope and e[2] ~= wanted.scope then return false end
  if wanted.tenant and e[3] ~= wanted.tenant then return false end
  if wanted.unknown and e[4] ~= wanted.unknown then return false end
  if wanted.before and (tonumber(e[5]) or 0) > tonumber(wanted.before) then return false end
  for _, group in ipairs(wanted.groups) do
    if not is_mentioned(group, e[6] or '') then return false end
  end
  return true
end

local gone = {}
for n = 6, #ARGV do
  local id = ARGV[n]
  local e = fits(id) and take(id, first)
  if e then
    gone[#gone + 1] = id
    if reason ~= '' then
      call('HSET', P .. 'grave:' .. owner, id,
        cjson.encode({e[8] or '', e[9] or '', reason, now, e[4], e[10] or ''}))
      call('ZADD', P .. 'graves:' .. owner, now, id)
    end
  end
end
if reason ~= '' and #gone > 0 then
  local graves = P .. 'graves:' .. owner
  local old = call('ZRANGEBYSCORE', graves, '-inf', '(' .. tostring(tonumber(now) - GRAVES_KEPT_S), 'LIMIT', 0, 1000)
  local spare = call('ZCARD', graves) - GRAVES_KEPT
  if spare > 0 then
    for _, id in ipairs(call('ZRANGE', graves, 0, math.min(spare, 1000) - 1)) do old[#old + 1] = id end
  end
  for _, id in ipairs(old) do
    call('ZREM', graves, id)
    call('HDEL', P .. 'grave:' .. owner, id)
  end
end
return gone
"""

_DISCARD = """
for n = 2, #ARGV do take(ARGV[n], ARGV[1]) end
return 0
"""

_ENFORCE = """
local first, owner, entries, bytes, each = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local batch, gone = tonumber(ARGV[6]), {}

local function evict(named)
  local _, id = parts(named)
  if id and take(id, first) then gone[#gone + 1] = id end
  uncount(owner, named) -- still there only if its hash was gone already
  if id then call('ZREM', P .. 'age:' .. owner, id) end
  batch = batch - 1
end

if each then
  local sizes = call('HGETALL', P .. 'size:' .. owner)
  for n = 1, #sizes, 2 do
    local tenant, over = string.match(sizes[n], '^entries of (.*)$'), tonumber(sizes[n + 1]) - each
    if tenant and over > 0 and batch > 0 then
      local least = call('ZRANGE', P .. 'worth-of:' .. tenant .. ':' .. owner, 0, math.min(over, batch) - 1)
      for _, named in ipairs(least) do evict(named) end
    end
  end
end
while batch > 0 do
  local size = call('HMGET', P .. 'size:' .. owner, 'entries', 'bytes')
  if tonumber(size[1] or '0') <= entries and tonumber(size[2] or '0') <= bytes then break end
  local least = call('ZRANGE', P .. 'worth:' .. owner, 0, 0)[1]
  if not least then
    call('DEL', P .. 'size:' .. owner) -- counts of what the server has evicted whole
    break
  end
  evict(least)
end
return {batch, gone}
"""

_SERVED = """
local owner, now = ARGV[1], ARGV[2]
for n = 3, #ARGV, 2 do
  local id = ARGV[n]
  local key = P .. 'entry:' .. id
  local e = redis.pcall('HMGET', key, 'owner', 'tenant', 'bytes', 'used')
  local named = e[1] == owner and e[2] and e[3] and member(id, e[2], e[3])
  local worth = named and call('ZSCORE', P .. 'worth:' .. owner, named)
  if worth then
    call('HINCRBY', key, 'hits', ARGV[n + 1])
    call('HSET', key, 'used', now)
    local value = tonumber(worth) + (tonumber(now) - (tonumber(e[4]) or tonumber(now))) / HALF_LIFE_S
    call('ZADD', P .. 'worth:' .. owner, value, named)
    call('ZADD', P .. 'worth-of:' .. e[2] .. ':' .. owner, value, named)
  end
end
return 0
"""

_LEASING = """
local fields = {'holder', 'expires', 'question', 'vector', 'tenant'}
local function lease_key(scope, exact) return P .. 'lease:' .. #scope .. ':' .. scope .. ':' .. exact end

local function is_valid(lease, now)
  local expires = tonumber(lease[2] or '')
  return lease[1] and expires and expires > now and expires <= now + LONGEST_LEASE_S
end
"""

_LEASE = """
local scope, exact, holder, now, expires, user = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5], ARGV[6]
local key = lease_key(scope, exact)
local held = call('HMGET', key, unpack(fields))
if is_valid(held, now) and held[1] ~= holder then return held end
call('SADD', P .. 'leases:' .. scope, exact)
call('EXPIRE', P .. 'leases:' .. scope, 2 * LONGEST_LEASE_S)
call('DEL', key)
call('HSET', key, 'holder', holder, 'expires', expires, unpack(ARGV, 7))
call('PEXPIRE', key, math.max(1, math.ceil((tonumber(expires) - now) * 1000)))
if user ~= '' then
  call('SADD', P .. 'asking:' .. user, key)
  call('EXPIRE', P .. 'asking:' .. user, 2 * LONGEST_LEASE_S)
end
return false
"""

_RENEW = """
local lost = {}
for n = 3, #ARGV, 2 do
  local key = lease_key(ARGV[n], ARGV[n + 1])
  local held = call('HMGET', key, 'holder', 'expires')
  if held[1] == ARGV[1] and tonumber(held[2] or '') then
    local more = (tonumber(ARGV[2]) - tonumber(held[2])) * 1000
    call('HSET', key, 'expires', ARGV[2])
    call('PEXPIRE', key, math.max(1, math.ceil(call('PTTL', key) + more)))
    call('EXPIRE', P .. 'leases:' .. ARGV[n], 2 * LONGEST_LEASE_S)
  else
    lost[#lost + 1] = {ARGV[n], ARGV[n + 1]}
  end
end
return lost
"""

_RELEASE = """
local key = lease_key(ARGV[2], ARGV[3])
if call('HGET', key, 'holder') ~= ARGV[1] then return 0 end
call('SREM', P .. 'leases:' .. ARGV[2], ARGV[3])
return call('DEL', key)
"""

_LEASES = """
local found, set = {}, P .. 'leases:' .. ARGV[1]
for _, exact in ipairs(call('SMEMBERS', set)) do
  local held = call('HMGET', lease_key(ARGV[1], exact), unpack(fields))
  if is_valid(held, tonumber(ARGV[2])) then found[#found + 1] = {exact, held} end
end
return found
"""

_FORGET = """
local count = 0
local asking = P .. 'asking:' .. ARGV[1]
for _, key in ipairs(call('SMEMBERS', asking)) do
  if ARGV[2] == '' or call('HGET', key, 'tenant') == ARGV[2] then
    count = count + call('DEL', key)
    call('SREM', asking, key)
  end
end
return count
"""


BODIES = {
    "put": _PUT,
    "label": _LABEL,
    "whole": _WHOLE,
    "at": _AT,
    "newest": _NEWEST,
    "update": _UPDATE,
    "changes": _CHANGES,
    "drop": _DROP,
    "discard": _DISCARD,
    "enforce": _ENFORCE,
    "served": _SERVED,
    "lease": _LEASE,
    "renew": _RENEW,
    "release": _RELEASE,
    "leases": _LEASES,
    "forget": _FORGET,
}
"""By name."""


_CHANGING = ("take", "log_of", "next_number", "uncount", "member")


def source(body: str, **numbers: float) -> str:
    """A script's whole text: with the functions that it uses, and its limits written in."""
    parts = [_KEYS]
    parts += [_CHANGE] if any(f"{name}(" in body for name in _CHANGING) else []
    parts += [_READ] if "read(" in body or " at(" in body else []
    parts += [_LEASING] if "lease_key(" in body else []
    whole = "".join([*parts, body])
    for name, number in numbers.items():
        whole = whole.replace(name, f"{number:g}" if number < 1e6 else f"{number:.0f}")
    return whole
