"""What the store itself does, in Lua: each verb is one script, done whole or not at all.

Time is the store's own, the only clock that all members have in common; a test gives another. All keys of a
cluster are in one hash slot. Those that a script always needs are named to it, in one order: see ``valkey``.
"""

import hashlib
from typing import Final, NamedTuple

# Shards that one beat looks at whose time is over, and leases.
_LOOKS: Final = 200


class Script(NamedTuple):
    """A script, and what the store calls it once it has been sent there."""

    text: str
    digest: str


def _script(text: str, *, asks_time: bool = True) -> Script:
    text = (_TIME + text if asks_time else text).strip()
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


# When leases end, and the time of shards, is told in milliseconds. Whatever is stored ends by itself as well,
# later, in case that nobody is there to look: `keep` sees to that, and never shortens what others need.
_TIME: Final = """
local now = tonumber(ARGV[1])
if not now then
  local t = redis.call('TIME')
  now = t[1] * 1000 + math.floor(t[2] / 1000)
end
local function left(member)
  local ends = member and redis.call('ZSCORE', KEYS[1], member)
  return ends and math.max(0, tonumber(ends) - now) or 0
end
local function spare(ttl) return math.max(2 * ttl, 10000) end
local function keep(key, ttl)
  if redis.call('PTTL', key) < ttl then redis.call('PEXPIRE', key, ttl) end
end
"""

# KEYS leases, cards, reserved, until, common   ARGV now, member, card, ttl, reserved, prefix, random, common,
# the shard that the member has claimed last, and its fence
# A member whose newest claim was lost counts as one that was not alive: it has to see what it owns still.
# What is overdue is looked at from a place at random, so that shards whose owners live hide no others.
BEAT: Final = _script(
    f"""
local me, ttl, day = ARGV[2], tonumber(ARGV[4]), 86400000
local known = left(me) > 0 and 1 or 0
if ARGV[9] ~= '' then
  local fence = redis.call('HGET', ARGV[6] .. 'o:' .. ARGV[9], 'f')
  if tonumber(fence or 0) < tonumber(ARGV[10]) then known = 0 end
end
local news = false
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, {_LOOKS})) do
  news = true
  redis.call('ZREM', KEYS[1], gone)
  redis.call('HDEL', KEYS[2], gone)
  redis.call('HDEL', KEYS[3], gone)
end
redis.call('ZADD', KEYS[1], now + ttl, me)
if known == 0 or redis.call('HGET', KEYS[2], me) ~= ARGV[3] then news = true end
redis.call('HSET', KEYS[2], me, ARGV[3])
redis.call('HSETNX', KEYS[2], '/news', math.floor(1000000 * tonumber(ARGV[7])))
if news then redis.call('HINCRBY', KEYS[2], '/news', 1) end
redis.call('HSET', KEYS[3], me, ARGV[5])
for n = 1, 3 do redis.call('PEXPIRE', KEYS[n], day) end
if ARGV[8] ~= '' then
  redis.call('SET', KEYS[5], ARGV[8], 'NX')
  keep(KEYS[5], day)
end
local due = redis.call('ZCOUNT', KEYS[4], '-inf', now)
if due > 0 then
  local first, last = 0, due - 1
  if due > {_LOOKS} then
    first = math.floor((due + {_LOOKS}) * tonumber(ARGV[7])) - {_LOOKS}
    last = math.min(last, first + {_LOOKS} - 1)
  end
  for _, shard in ipairs(redis.call('ZRANGE', KEYS[4], math.max(0, first), last)) do
    local o, s = ARGV[6] .. 'o:' .. shard, ARGV[6] .. 's:' .. shard
    local owned = redis.call('HMGET', o, 'm', 't')
    if left(owned[1]) > 0 then
      keep(o, spare(tonumber(owned[2])))
      keep(s, spare(tonumber(owned[2])))
    else
      redis.call('UNLINK', o, s)
      redis.call('ZREM', KEYS[4], shard)
    end
  end
end
return known
"""
)

# KEYS leases, o, s, until, common   ARGV now, member, shard, ttl, least fence
# Gives -1 without a lease, 0 owned by another, 1 mine already, 2 taken; owner, fence, the lease left; and
# with what is taken its records.
CLAIM: Final = _script(
    """
local me, ttl = ARGV[2], tonumber(ARGV[4])
if left(me) <= 0 then return {-1, '', 0, 0} end
local o = redis.call('HMGET', KEYS[2], 'm', 'f')
local fence = tonumber(o[2] or 0)
if o[1] == me then return {1, me, fence, 0} end
local lasts = left(o[1])
if lasts > 0 then return {0, o[1], fence, lasts} end
fence = math.max(fence, tonumber(ARGV[5])) + 1
redis.call('HSET', KEYS[2], 'm', me, 'f', fence, 't', ttl)
redis.call('ZADD', KEYS[4], now + ttl, ARGV[3])
for _, n in ipairs({2, 3, 4, 5}) do keep(KEYS[n], spare(ttl)) end
return {2, me, fence, 0, redis.call('HGETALL', KEYS[3])}
"""
)

# KEYS leases, o, s, until, common   ARGV now, member, shard, fence, ttl, n, then n names and values to store,
# then names to drop. Gives 1 or 0, owner, fence.
WRITE: Final = _script(
    """
local o = redis.call('HMGET', KEYS[2], 'm', 'f')
if o[1] ~= ARGV[2] or o[2] ~= ARGV[4] then return {0, o[1] or '', tonumber(o[2] or 0)} end
local ttl, last = tonumber(ARGV[5]), 6 + 2 * tonumber(ARGV[6])
for n = 7, last, 2 do redis.call('HSET', KEYS[3], ARGV[n], ARGV[n + 1]) end
for n = last + 1, #ARGV do redis.call('HDEL', KEYS[3], ARGV[n]) end
redis.call('HSET', KEYS[2], 't', ttl)
redis.call('ZADD', KEYS[4], now + ttl, ARGV[3])
redis.call('PEXPIRE', KEYS[2], spare(ttl))
redis.call('PEXPIRE', KEYS[3], spare(ttl))
keep(KEYS[4], spare(ttl))
keep(KEYS[5], spare(ttl))
return {1, o[1], tonumber(o[2])}
"""
)

# KEYS leases, o   ARGV now, member, fence, to or ''. Gives 1 or 0, owner, fence.
RELEASE: Final = _script(
    """
local o, to = redis.call('HMGET', KEYS[2], 'm', 'f'), ARGV[4]
if o[1] ~= ARGV[2] or o[2] ~= ARGV[3] or (to ~= '' and left(to) <= 0) then
  return {0, o[1] or '', tonumber(o[2] or 0)}
end
if to == '' then redis.call('HDEL', KEYS[2], 'm') else redis.call('HSET', KEYS[2], 'm', to) end
return {1, to, redis.call('HINCRBY', KEYS[2], 'f', 1)}
"""
)

# KEYS leases, reserved   ARGV now, member, wanted, most. Gives how many the member may have.
RESERVE: Final = _script(
    """
local others, all = 0, redis.call('HGETALL', KEYS[2])
for n = 1, #all, 2 do
  if all[n] ~= ARGV[2] and left(all[n]) > 0 then others = others + tonumber(all[n + 1]) end
end
local given = math.max(0, math.min(tonumber(ARGV[3]), tonumber(ARGV[4]) - others))
if left(ARGV[2]) > 0 then redis.call('HSET', KEYS[2], ARGV[2], given) end
return given
"""
)

# KEYS leases, cards   ARGV now. Gives member, card, how long its lease lasts, of each.
MEMBERS: Final = _script(
    """
local found = {}
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')) do
  found[#found + 1] = member
  found[#found + 1] = redis.call('HGET', KEYS[2], member) or ''
  found[#found + 1] = left(member)
end
return found
"""
)

# KEYS leases, cards, reserved   ARGV member, card. Gives 1 or 0.
BURY: Final = _script(
    """
if redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('HINCRBY', KEYS[2], '/news', 1)
redis.call('HDEL', KEYS[3], ARGV[1])
return 1
""",
    asks_time=False,
)

# KEYS leases, cards, reserved, until, common   ARGV member
LEAVE: Final = _script(
    """
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
redis.call('HINCRBY', KEYS[2], '/news', 1)
if redis.call('HLEN', KEYS[2]) == 1 then redis.call('DEL', KEYS[2]) end
if redis.call('EXISTS', KEYS[1], KEYS[4]) == 0 then redis.call('DEL', KEYS[5]) end
return 1
""",
    asks_time=False,
)

# KEYS common   ARGV offered, instead of what or ''. Gives what is there from now on.
COMMON: Final = _script(
    """
local found = redis.call('GET', KEYS[1])
if found and found ~= ARGV[2] then return found end
if found then
  redis.call('SET', KEYS[1], ARGV[1], 'KEEPTTL')
else
  redis.call('SET', KEYS[1], ARGV[1], 'PX', 86400000)
end
return ARGV[1]
""",
    asks_time=False,
)

# KEYS e   ARGV keep, ttl, then of each event its number, the number after that, and what it says.
# Members begin with their numbers, and are ordered by their bytes.
APPEND: Final = _script(
    """
for n = 3, #ARGV, 3 do
  redis.call('ZREMRANGEBYLEX', KEYS[1], '[' .. ARGV[n], '(' .. ARGV[n + 1])
  redis.call('ZADD', KEYS[1], 0, ARGV[n] .. ARGV[n + 2])
end
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - tonumber(ARGV[1]))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
""",
    asks_time=False,
)
