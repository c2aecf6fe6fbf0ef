-- receive.lua: RSMQ's receiveMessage on the shared inbox, with the visibility time always given.
-- ARGV  1 queue  2 visibility time in s
-- reply { id, body, times received } | {}
local queue, vt = ARGV[1], tonumber(ARGV[2])
local key = ns .. ':' .. queue
local now = wall()
local id = redis.call('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT', 0, 1)[1]
if not id then return {} end
redis.call('ZADD', key, now + vt * 1000, id)
redis.call('HINCRBY', key .. ':Q', 'totalrecv', 1)
local count = redis.call('HINCRBY', key .. ':Q', id .. ':rc', 1)
if count == 1 then redis.call('HSET', key .. ':Q', id .. ':fr', now) end
return { id, redis.call('HGET', key .. ':Q', id) or '', count }
