-- limits.lua: updates a node's weight, caps and addresses, the phones that it leaves out, or why it is not in sync, while its daemon runs.
-- ARGV  1 node  2 generation  3 number (fencing.lua), then field, value pairs of its row (keys.lua)
-- reply { 'ok' } | { 'fenced' } | { 'unknown' } | { 'superseded' }
-- Needs: fencing
local node, generation = ARGV[1], ARGV[2]
local bad = superseded(node, generation, ARGV[3])
if bad then return { bad } end
redis.call('HSET', ns .. ':node:' .. node, unpack(ARGV, 4))
return { 'ok' }
