-- contacts.lua: replaces the contact details of a node's phones (address, round trip, expiry).
-- ARGV  1 node  2 generation, then extension, JSON pairs
-- reply { 'ok' } | { 'fenced' } | { 'unknown' }
local node, generation = ARGV[1], ARGV[2]
local bad = fenced(node, generation)
if bad then return { bad } end
local key = ns .. ':contacts:' .. node
redis.call('DEL', key)
for i = 3, #ARGV, 2 do redis.call('HSET', key, ARGV[i], ARGV[i + 1]) end
return { 'ok' }
