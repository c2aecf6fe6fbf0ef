-- judge.lua: the logical time, and which nodes are dead (P14). It is prepended to every script.
--
-- A lease is measured in ticks. A tick is a ms in which heartbeats have shown that nodes could send them: a
-- heartbeat advances `tick` by the time since the last one of any node, at most by three eighths of a lease. So neither an
-- outage of Redis nor a changed clock ends a lease. After a silence of two thirds of a lease, every lease starts again at
-- `floor`; until each node has sent a heartbeat or its lease has expired, its sessions are unknown, and new logins wait.
--
-- KEYS[1]  the namespace, e.g. {evenring}. Every key begins with it, so that all live in one slot of a Redis Cluster.
--
--   NS:judge  HASH  tick   the ms in which nodes could beat
--                   seen   time of the last heartbeat of any node
--                   lease  ms, of the node that sent it
--                   longest  ms, of all leases that ever were
--                   floor  the tick at which the last silence ended
--                   jump   how long that was by Redis's clock, ms, with silences shortly before; below 0: the clock went back
--                   hold   before this tick Redis may lack sessions that nodes have: a node came back to it and was unknown
--                   shift  ms to add to Redis's clock: what it was set by, or what the clock of another Redis differs by
--                   corrections  how often a daemon has put that right
--                   doubt  the tick at which a silence was ended by a daemon that did not know the time; 0 = a witness has
--                          spoken since, or none is left
local ns = KEYS[1]

-- One moment for the whole script; Redis stops its own clock for it as well.
local seconds, micros = unpack(redis.call('TIME'))

local tick, seen, lease, floor, longest, hold, shift = unpack(redis.call('HMGET', ns .. ':judge',
  'tick', 'seen', 'lease', 'floor', 'longest', 'hold', 'shift'))
-- As numbers.
local judge = { tick = (tick or 0) + 0, seen = (seen or 0) + 0, lease = (lease or 0) + 0, floor = (floor or 0) + 0,
  longest = (longest or 0) + 0, hold = (hold or 0) + 0, shift = (shift or 0) + 0 }

-- ms since 1970 as Redis has it: only for queues that other programs use, too.
local wall = seconds * 1000 + math.floor(micros / 1000)

-- ms since 1970 that no change of Redis's clock moves: for all that is compared.
local function clock() return wall + judge.shift end

-- Whether no node beats now: Redis was away until a moment ago, its clock is another one, or no node is left.
local function is_silent(now)
  return now < judge.seen or now - judge.seen > judge.lease * 2 / 3
end

-- What is left of a node's lease in ticks; below 0 it is dead. beat, lease and expired are fields of its hash.
local function lease_left(beat, lease, expired)
  if not beat or expired == '1' then return -1 end
  return tonumber(lease) - judge.tick + math.max(tonumber(beat), judge.floor)
end

-- It has not beaten since the last silence, and is not dead yet.
local function is_awaited(beat, lease, expired, state)
  return beat and tonumber(beat) < judge.floor and state ~= 'stopped' and lease_left(beat, lease, expired) >= 0
end
