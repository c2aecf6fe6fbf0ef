-- left_out.lua: which phones a node leaves out, and why.
-- ARGV  1 node  2 generation  3 JSON, as `evenring status` shows it
-- reply { 'ok' } | { 'fenced' } | { 'unknown' }
local node, generation = ARGV[1], ARGV[2]
local bad = fenced(node, generation)
if bad then return { bad } end
redis.call('HSET', ns .. ':node:' .. node, 'left_out', ARGV[3])
return { 'ok' }
