-- forget.lua: a node that will not come back is taken off the list (heartbeat.lua does so after a month). Only one whose lease
-- has ended by the clock, which is not awaited after an outage, and has no session left: there is nothing to lose by a mistake.
-- ARGV  1 node
-- reply { 'forgotten' } | { 'unknown' } | { 'alive', lease left ms } | { 'busy', sessions }
local node = ARGV[1]
local key = ns .. ':node:' .. node
local n = redis.call('HMGET', key, 'lease_until', 'lease', 'beat', 'lost', 'state')
if is_awaited(n[3], n[2], n[4], n[5]) then return { 'alive', lease_left(n[3], n[2], n[4]) } end
local left = tonumber(n[1] or '0') - clock()
if left >= 0 and left <= tonumber(n[2]) then return { 'alive', left } end
local sessions = sessions_on(node)
if sessions > 0 then return { 'busy', sessions } end
return { forget_node(node, '') and 'forgotten' or 'unknown' }
