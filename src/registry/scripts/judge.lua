-- judge.lua: what time it is, and which node may be called dead (P14). It is put before lib.lua and each script.
--
-- A lease is measured in ticks. A tick is a ms in which a node's heartbeat has shown that nodes could beat: a heartbeat
-- moves `tick` by the time since the last one of any node, by three eighths of a lease at most. So neither an outage of Redis nor
-- a clock that is set ends a lease. After a silence of two thirds of a lease every lease begins again, at `floor`; until
-- each node has beaten or its lease is over, nobody knows what it has, and a new login has to wait.
--
-- KEYS[1]  the namespace, e.g. {evenring}. Every key begins with it, so that all live in one slot of a Redis Cluster.
--
--   NS:judge  HASH  tick   the ms in which nodes could beat
--                   seen   time of the last heartbeat of any node
--                   lease  ms, of the node that sent it
--                   floor  the tick at which the last silence ended
--                   jump   how long that was by Redis's clock, ms, with silences shortly before; below 0: the clock went back
--                   hold   before this tick Redis may lack sessions that nodes have: a node came back to it and was unknown
--                   shift  ms to add to Redis's clock: what it was set by, or what the clock of another Redis differs by
local ns = KEYS[1]

-- One moment for the whole script; Redis stops its own clock for it as well.
local moment = redis.call('TIME')

local judge = {}
do
  local fields = { 'tick', 'seen', 'lease', 'floor', 'jump', 'hold', 'shift' }
  local known = redis.call('HMGET', ns .. ':judge', unpack(fields))
  for i, field in ipairs(fields) do judge[field] = tonumber(known[i] or 0) end
end

-- ms since 1970 as Redis has it: only for queues that other programs use, too.
local function wall() return moment[1] * 1000 + math.floor(moment[2] / 1000) end

-- ms since 1970 that no change of Redis's clock moves: for all that is compared.
local function clock() return wall() + judge.shift end

-- Whether no node beats now: Redis was away until a moment ago, its clock is another one, or no node is left.
local function is_silent(now)
  return now < judge.seen or now - judge.seen > judge.lease * 2 / 3
end

-- Redis's clock went back, by so much at least: time goes on. What the inbox hides until later by the wall is seen now.
local function went_back(ms)
  judge.shift = judge.shift + ms
  local hidden = redis.call('ZRANGEBYSCORE', ns .. ':logins', '(' .. wall(), '+inf', 'LIMIT', 0, 1000)
  for _, id in ipairs(hidden) do redis.call('ZADD', ns .. ':logins', wall(), id) end
end

-- A node speaks for itself, so each of them could. Returns what time it is.
local function hear(lease)
  local gap = clock() - judge.seen
  local advance = math.min(gap, math.floor(lease * 3 / 8))
  if gap < 0 or gap > lease * 2 / 3 then
    -- In that time nobody could. Who knows what time it is may not have been heard since an earlier silence: what can be
    -- put right is the sum.
    advance = 1
    local before = judge.tick - judge.floor <= judge.lease and math.max(judge.jump, 0) or 0
    if judge.seen == 0 then judge.jump = 0
    elseif gap > 0 then judge.jump = before + gap
    else judge.jump = before > 0 and before or gap end
    judge.floor = judge.tick + 1
  end
  -- How long it was, only a node can tell that knew the time before.
  if gap < 0 then went_back(-gap) end
  judge.tick, judge.seen, judge.lease = judge.tick + advance, clock(), lease
  redis.call('HSET', ns .. ':judge', 'tick', judge.tick, 'seen', judge.seen, 'lease', lease, 'floor', judge.floor,
    'jump', judge.jump, 'shift', judge.shift)
  return judge.seen
end

-- A daemon found that Redis's clock went on by `step` ms more (or less) than time did. Believed where it can be so: nobody has
-- beaten since, or only somebody who had just come and did not know what time it is.
local function correct(step)
  local gap = clock() - judge.seen
  local heard = gap >= 0 and gap <= judge.lease * 2 / 3
  if heard then gap = judge.tick - judge.floor <= judge.lease and judge.jump or 0 end
  if gap == 0 or step > 0 and gap < 0 then return end
  local by = step > 0 and math.min(step, gap) or step
  judge.jump = 0
  if by > 0 then judge.shift = judge.shift - by else went_back(-by) end
  if heard then judge.seen = judge.seen - by end
  redis.call('HSET', ns .. ':judge', 'shift', judge.shift, 'jump', 0, 'seen', judge.seen)
end

-- What is left of a node's lease in ticks; below 0 it is dead. beat, lease and lost are fields of its hash.
local function lease_left(beat, lease, lost)
  if not beat or lost == '1' then return -1 end
  return tonumber(lease) - judge.tick + math.max(tonumber(beat), judge.floor)
end

local function is_dead(beat, lease, lost) return lease_left(beat, lease, lost) < 0 end

-- It has not beaten since the last silence, and is not dead yet.
local function is_awaited(beat, lease, lost, state)
  return beat and tonumber(beat) < judge.floor and state ~= 'stopped' and not is_dead(beat, lease, lost)
end
