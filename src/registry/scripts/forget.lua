-- forget.lua: forgets a node that will not come back (heartbeat.lua does so after a month). Only a node whose lease has
-- expired by the clock, that is not awaited after an outage and has no sessions: nothing is lost by a mistake.
-- ARGV  1 node
-- reply { 'forgotten' } | { 'unknown' } | { 'alive', lease left ms } | { 'busy', sessions }
-- Needs: forgetting
local node = ARGV[1]
local key = ns .. ':node:' .. node
local lease_until, lease, beat, expired, state = unpack(redis.call('HMGET', key, 'lease_until', 'lease', 'beat', 'expired', 'state'))
if is_awaited(beat, lease, expired, state) then return { 'alive', lease_left(beat, lease, expired) } end
local left = tonumber(lease_until or '0') - clock()
if left >= 0 and left <= tonumber(lease) then return { 'alive', left } end
local sessions = sessions_on(node)
if sessions > 0 then return { 'busy', sessions } end
return { forget_node(node, '') and 'forgotten' or 'unknown' }
