-- bare.lua: the floor of placement: the reads and writes of one login, with no check and no choice.
-- ARGV  1 session  2 alias  3 extension  4 number of the node
-- reply { session, node, rows }
local ns, id, alias, extension = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
redis.call('HMGET', ns .. ':judge', 'tick', 'seen', 'lease', 'floor', 'longest', 'hold', 'shift')
redis.call('HGET', ns .. ':aliases', alias)
local names = redis.call('SMEMBERS', ns .. ':index:nodes')
redis.call('HEXISTS', ns .. ':phones:' .. names[1], extension)
redis.call('EXISTS', ns .. ':session:' .. id)
redis.call('HMGET', ns .. ':holders', 'agent:' .. extension, 'alias:' .. alias, 'phone:' .. extension)
local rows = {}
for i, name in ipairs(names) do
  local n = redis.call('HMGET', ns .. ':node:' .. name,
    'lease_until', 'lease', 'state', 'drain', 'weight', 'max_agents', 'channels', 'campaigns')
  rows[i] = { name, extension, n[3], redis.call('SCARD', ns .. ':local:' .. name),
    redis.call('HGET', ns .. ':phones:' .. name, extension) }
end
local node = names[tonumber(ARGV[4]) + 1]
redis.call('SADD', ns .. ':local:' .. node, id)
redis.call('HSET', ns .. ':holders', 'agent:' .. extension, id, 'alias:' .. alias, id, 'phone:' .. extension, id)
redis.call('ZADD', ns .. ':index:open', now, id)
redis.call('ZADD', ns .. ':index:due', now + 10000, id)
local queue = ns .. ':ring-' .. node
local body = cjson.encode({ v = 1, kind = 'ring', session = id, try = 1, alias = alias, extension = extension,
  agent = extension, campaign = '', remote = false, expires = now + 10000 })
local message = t[1] .. t[2] .. redis.sha1hex(id):sub(1, 16)
redis.call('HSETNX', queue .. ':Q', 'vt', 30)
redis.call('ZADD', queue, now, message)
redis.call('HSET', queue .. ':Q', message, body)
redis.call('HINCRBY', queue .. ':Q', 'totalsent', 1)
redis.call('PUBLISH', ns .. ':rt:ring-' .. node, redis.call('ZCARD', queue))
redis.call('HSET', ns .. ':session:' .. id, 'alias', alias, 'extension', extension, 'agent', extension,
  'campaign', '', 'remote', '0', 'node', node, 'state', 'placed', 'reason', '', 'since', now, 'created', now,
  'try', 1, 'tried', '', 'tries', 3, 'suffix', 'x', 'give_up', now + 60000, 'order', message)
redis.call('PUBLISH', ns .. ':news:' .. id, 'placed ')
redis.call('XADD', ns .. ':events', 'MAXLEN', '~', '100000', '*', 'event', 'placed', 'node', node, 'session', id,
  'alias', alias, 'agent', extension, 'extension', extension, 'reason', '')
return { id, node, rows }
