-- forget.lua: a node that will not come back is taken off the list (heartbeat.lua does so after a month). Only one whose lease
-- has ended by the clock, which is not awaited after an outage, and has no session left: there is nothing to lose by a mistake.
-- ARGV  1 node
-- reply { 'forgotten' } | { 'unknown' } | { 'alive', lease left ms } | { 'busy', sessions }
-- Needs: forgetting
local node = ARGV[1]
local key = ns .. ':node:' .. node
local lease_until, lease, beat, lost, state = unpack(redis.call('HMGET', key, 'lease_until', 'lease', 'beat', 'lost', 'state'))
if is_awaited(beat, lease, lost, state) then return { 'alive', lease_left(beat, lease, lost) } end
local left = tonumber(lease_until or '0') - clock()
if left >= 0 and left <= tonumber(lease) then return { 'alive', left } end
local sessions = sessions_on(node)
if sessions > 0 then return { 'busy', sessions } end
return { forget_node(node, '') and 'forgotten' or 'unknown' }
