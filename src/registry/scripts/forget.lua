-- forget.lua: a node that will not come back is taken off the list, with all that is known of it. Only one that is dead and
-- has no session left. One that comes back after all registers as a new one.
-- ARGV  1 node
-- reply { 'forgotten' } | { 'unknown' } | { 'alive', lease left ms } | { 'busy', sessions }
local node = ARGV[1]
local key = ns .. ':node:' .. node
local n = redis.call('HMGET', key, 'beat', 'lease', 'lost', 'state')
local left = lease_left(n[1], n[2], n[3])
if left >= 0 and n[4] ~= 'stopped' then return { 'alive', left } end
local sessions = redis.call('SCARD', ns .. ':local:' .. node) + redis.call('SCARD', ns .. ':remote:' .. node)
if sessions > 0 then return { 'busy', sessions } end
if redis.call('SREM', ns .. ':index:nodes', node) + redis.call('DEL', key) == 0 then return { 'unknown' } end
local queue = ns .. ':ring-' .. node
redis.call('DEL', ns .. ':phones:' .. node, ns .. ':contacts:' .. node, queue, queue .. ':Q')
redis.call('SREM', ns .. ':QUEUES', 'ring-' .. node)
note_node('node-forgotten', node, '')
return { 'forgotten' }
