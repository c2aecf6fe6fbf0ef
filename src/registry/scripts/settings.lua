-- settings.lua: a daemon says with which settings it runs that must be the same on all nodes, and what its clock shows.
-- ARGV  1 node  2 generation  3 its settings (JSON)  4 its clock, ms since 1970
-- reply { 'ok' } | { 'fenced' } | { 'unknown' }
-- Needs: fencing
local node, generation = ARGV[1], ARGV[2]
local bad = fenced(node, generation)
if bad then return { bad } end
redis.call('HSET', ns .. ':index:settings', node, string.format('%.0f %s', tonumber(ARGV[4]) - wall, ARGV[3]))
return { 'ok' }
