-- phones.lua: which phones a node knows, and whether each can ring there.
-- ARGV  1 node  2 generation  3 mode (replace|change)  4 number of this word, then extension, state pairs
--       state registered | unreachable | unregistered | unknown (in mode change: forget the phone)
-- reply { 'ok' } | { 'fenced' } | { 'unknown' }
local node, generation, mode = ARGV[1], ARGV[2], ARGV[3]
local bad = fenced(node, generation)
if bad then return { bad } end
local key = ns .. ':phones:' .. node
if mode == 'replace' then redis.call('DEL', key) end
-- A change to something else than what the node said last would hide that the rest is lost: the heartbeat must see it.
local before = redis.call('HGET', ns .. ':node:' .. node, 'phones')
local fits = mode == 'replace' or before == string.format('%d', ARGV[4] - 1)
redis.call('HSET', ns .. ':node:' .. node, 'phones', fits and ARGV[4] or '')
for i = 5, #ARGV, 2 do
  if ARGV[i + 1] == 'unknown' then
    redis.call('HDEL', key, ARGV[i])
  else
    redis.call('HSET', key, ARGV[i], ARGV[i + 1])
  end
end
return { 'ok' }
