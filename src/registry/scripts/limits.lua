-- limits.lua: a node's share and caps have changed while its daemon runs.
-- ARGV  1 node  2 generation  3 weight  4 max agents ('' = no cap)  5 campaigns, blank-separated ('' = all)
-- reply { 'ok' } | { 'fenced' } | { 'unknown' }
local node, generation = ARGV[1], ARGV[2]
local bad = fenced(node, generation)
if bad then return { bad } end
redis.call('HSET', ns .. ':node:' .. node, 'weight', ARGV[3], 'max_agents', ARGV[4], 'campaigns', ARGV[5])
return { 'ok' }
