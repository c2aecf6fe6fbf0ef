-- line.lua: a node that paces says who waits there for his turn to ring. Always the whole line, so that nothing is counted.
-- ARGV  1 node  2 generation  3 the line: sessions in their order, each with a blank behind it
-- reply { 'ok' } | { 'fenced' } | { 'unknown' }
local node, generation = ARGV[1], ARGV[2]
local bad = fenced(node, generation)
if bad then return { bad } end
redis.call('HSET', ns .. ':node:' .. node, 'line', ARGV[3])
return { 'ok' }
