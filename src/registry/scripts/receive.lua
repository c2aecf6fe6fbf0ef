-- receive.lua: RSMQ's receiveMessage on the shared inbox for up to so many messages, with the visibility time always given.
-- It also assigns listeners: a wake-up of the inbox reaches all nodes that listen, so only a few do. A node that passes its
-- name takes a seat if one is free, or renews its own; a seat that is not renewed becomes free.
-- ARGV  1 queue  2 visibility time in s  3 most messages  4 node ('' = it wants no seat)  5 a seat is kept for ms  6 seats
-- reply { whether this node has a seat (0|1), rows of { id, body, times received } }
local queue, vt, most, node, keep_ms, seats = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local key = ns .. ':' .. queue
local attributes = key .. ':Q'
local now = wall

local seated = 0
if node ~= '' then
  local held = ns .. ':index:listeners'
  -- One that is kept for longer than that was given by another clock.
  redis.call('ZREMRANGEBYSCORE', held, '-inf', now)
  redis.call('ZREMRANGEBYSCORE', held, '(' .. (now + keep_ms), '+inf')
  if redis.call('ZSCORE', held, node) or redis.call('ZCARD', held) < seats then
    redis.call('ZADD', held, now + keep_ms, node)
    seated = 1
  end
end

local rows = {}
for i, id in ipairs(redis.call('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT', 0, most)) do
  redis.call('ZADD', key, now + vt * 1000, id)
  local count = redis.call('HINCRBY', attributes, id .. ':rc', 1)
  if count == 1 then redis.call('HSET', attributes, id .. ':fr', now) end
  rows[i] = { id, redis.call('HGET', attributes, id) or '', count }
end
if #rows > 0 then redis.call('HINCRBY', attributes, 'totalrecv', #rows) end
return { seated, rows }
