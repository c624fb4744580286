"""What the store has Redis do in one step, in Lua: `fleet.redis_store`."""

from __future__ import annotations

TAKE_LEASE = """
local held = redis.pcall('GET', KEYS[1])
if type(held) == 'string' and held ~= ARGV[4] and redis.call('PTTL', KEYS[1]) >= 0 then
  local is_json, lease = pcall(cjson.decode, held)
  local holder = is_json and type(lease) == 'table' and lease.router_id
  if type(holder) == 'string' and holder ~= ARGV[1] then return 0 end
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""
"""Compare the holder and write, in one step; what is no lease record, never ends, or is not believed (exactly
ARGV[4]) holds nothing."""

READ_HASHES = """
local found = {}
for at, key in ipairs(KEYS) do
  found[at] = {}
  local fields = redis.pcall('HLEN', key)
  if type(fields) == 'number' and fields <= tonumber(ARGV[1]) then
    local all, size = redis.call('HGETALL', key), 0
    for _, text in ipairs(all) do size = size + #text end
    if size <= tonumber(ARGV[2]) then found[at] = all end
  end
end
return found
"""
"""Those that are no hash, or far too large, are empty: none of them holds up the others."""

UPDATE_HASH = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV))
return 1
"""


SHARE_QUOTAS = """
local now, member = redis.call('TIME'), ARGV[1]
now = now[1] + now[2] / 1e6
local minute, fresh, forget, most = 60, tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])

local function spend(kind, amount, limit, seconds)
  if limit == cjson.null then return nil end
  kind = kind or { limit = limit, level = limit }
  local level = kind.level + limit - kind.limit
  level = math.min(limit, level + math.max(0, seconds) * limit / minute)
  return { limit = limit, level = math.max(-limit, math.min(limit, level - amount)) }
end

local function is_number(value)
  return type(value) == 'number' and math.abs(value) < 1e15
end

local function is_level(kind)
  return kind == nil or (type(kind) == 'table' and is_number(kind.limit) and is_number(kind.level))
end

local function is_entry(entry)
  local is_sound = type(entry) == 'table' and type(entry.members) == 'table' and is_number(entry.at)
  if not is_sound or not is_level(entry.requests) or not is_level(entry.tokens) then return false end
  for _, one in pairs(entry.members) do
    if type(one) ~= 'table' then return false end
    for at = 1, 4 do if not is_number(one[at]) then return false end end
  end
  return true
end

local entries, count = {}, 0
local all = redis.pcall('HGETALL', KEYS[1])
if all.err then redis.call('DEL', KEYS[1]); all = {} end
for at = 1, #all, 2 do
  local good, entry = pcall(cjson.decode, all[at + 1])
  if good and is_entry(entry) and count < most then
    entries[all[at]] = entry
    count = count + 1
  else
    redis.call('HDEL', KEYS[1], all[at])
  end
end

local changed = {}
for _, one in ipairs(cjson.decode(ARGV[2])) do
  local id, requests, requests_counted, tokens, tokens_counted, in_flight = unpack(one, 1, 6)
  local entry = entries[id]
  if not entry and count < most then
    entry = { at = now, members = {} }
    entries[id] = entry
    count = count + 1
  end
  if entry then
    local known = entry.members[member]
    local seconds = now - entry.at
    local new_requests = requests - (known and known[1] or requests_counted)
    local new_tokens = tokens - (known and known[2] or tokens_counted)
    entry.requests = spend(entry.requests, new_requests, one[7], seconds)
    entry.tokens = spend(entry.tokens, new_tokens, one[8], seconds)
    entry.at = now
    entry.members[member] = { requests, tokens, in_flight, now }
    changed[id] = true
  end
end

local found = {}
for id, entry in pairs(entries) do
  local seconds, is_full, elsewhere, own = now - entry.at, true, 0, cjson.null
  for _, name in ipairs({ 'requests', 'tokens' }) do
    if entry[name] then
      entry[name] = spend(entry[name], 0, entry[name].limit, seconds)
      if entry[name].level < entry[name].limit then is_full = false end
    end
  end
  entry.at = now
  local under_way = 0
  for name, one in pairs(entry.members) do
    if now - one[4] > forget then
      entry.members[name] = nil
    elseif now - one[4] <= fresh then
      under_way = under_way + one[3]
      if name ~= member then elsewhere = elsewhere + one[3] end
    end
  end
  if entry.members[member] then own = { entry.members[member][1], entry.members[member][2] } end
  if is_full and under_way == 0 then
    redis.call('HDEL', KEYS[1], id)
  else
    if changed[id] then redis.call('HSET', KEYS[1], id, cjson.encode(entry)) end
    found[#found + 1] = { id, entry.requests and entry.requests.level or cjson.null,
      entry.tokens and entry.tokens.level or cjson.null, own, elsewhere }
  end
end
redis.call('EXPIRE', KEYS[1], 600)
return cjson.encode(found)
"""
"""`fleet.quota_book.QuotaBook.share`; what others wrote there that is no entry is taken away."""
