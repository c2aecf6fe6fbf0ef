-- phones.lua: which phones a node knows, and whether each can ring there.
-- ARGV  1 node  2 generation  3 mode (replace|change), then extension, state pairs
--       state registered | unreachable | unregistered | unknown (in mode change: forget the phone)
-- reply { 'ok' } | { 'fenced' } | { 'unknown' }
local node, generation, mode = ARGV[1], ARGV[2], ARGV[3]
local bad = fenced(node, generation)
if bad then return { bad } end
local key = ns .. ':phones:' .. node
if mode == 'replace' then redis.call('DEL', key) end
for i = 4, #ARGV, 2 do
  if ARGV[i + 1] == 'unknown' then
    redis.call('HDEL', key, ARGV[i])
  else
    redis.call('HSET', key, ARGV[i], ARGV[i + 1])
  end
end
return { 'ok' }
