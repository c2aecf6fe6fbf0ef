-- leave.lua: a daemon stops. Its node leaves the rotation at once; orders that it has not fetched are placed on other
-- nodes; its ringing and live sessions stay for grace ms, because their calls go on and the next daemon adopts them.
-- ARGV  1 node  2 generation  3 grace ms  4 order expiry ms  5 keep ended ms  6 number: a heartbeat with a lower one that is
--       carried out later changes nothing  7 most work (keys.lua)
-- reply { 'ok', moved, more (1 = to be said again: orders are left) } | { 'fenced' } | { 'unknown' }
--       moved of { session, where }
-- Needs: fencing events attempts
local node, generation, grace_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])
local bad = fenced(node, generation)
if bad then return { bad } end
local now = clock()
local before = redis.call('HGET', ns .. ':node:' .. node, 'state')
redis.call('HSET', ns .. ':node:' .. node, 'state', 'stopped', 'ring_queue', '', 'lease_until', now - 1,
  'beat', judge.tick, 'lease', grace_ms, 'beats', ARGV[6])
if before ~= 'stopped' then append_event('node-stopped', node, '', {}, '') end
return { 'ok', move_placed(node, 'stopped', now, tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[7])) }
