-- forget.lua: a node that will not come back is taken off the list, with all that is known of it. Only one whose lease has
-- ended by the clock, which is not awaited after an outage, and has no session left: there is nothing to lose by a mistake. One that comes back after all registers as a new one.
-- ARGV  1 node
-- reply { 'forgotten' } | { 'unknown' } | { 'alive', lease left ms } | { 'busy', sessions }
local node = ARGV[1]
local key = ns .. ':node:' .. node
local n = redis.call('HMGET', key, 'lease_until', 'lease', 'beat', 'lost', 'state')
if is_awaited(n[3], n[2], n[4], n[5]) then return { 'alive', lease_left(n[3], n[2], n[4]) } end
local left = tonumber(n[1] or '0') - clock()
if left >= 0 and left <= tonumber(n[2]) then return { 'alive', left } end
local sessions = redis.call('SCARD', ns .. ':local:' .. node) + redis.call('SCARD', ns .. ':remote:' .. node)
if sessions > 0 then return { 'busy', sessions } end
if redis.call('SREM', ns .. ':index:nodes', node) + redis.call('DEL', key) == 0 then return { 'unknown' } end
local queue = ns .. ':ring-' .. node
redis.call('DEL', ns .. ':phones:' .. node, ns .. ':contacts:' .. node, queue, queue .. ':Q')
redis.call('SREM', ns .. ':QUEUES', 'ring-' .. node)
note_node('node-forgotten', node, '')
return { 'forgotten' }
