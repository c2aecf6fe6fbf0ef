-- phones.lua: a node reports which phones it knows, and whether each can ring there.
-- ARGV  1 node  2 generation  3 mode (part|replace|change)  4 number of this report
--       5 how many phones the node knows (in mode replace, which ends a row of parts), then extension, state pairs
--       state registered | unreachable | unregistered | unknown (only in mode change: forget the phone)
-- reply { 'ok' } | { 'fenced' } | { 'unknown' }
-- Needs: fencing tables
local node, generation, mode, number = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local bad = fenced(node, generation)
if bad then return { bad } end
local key = ns .. ':phones:' .. node
-- A report that does not match the earlier ones is not recorded as the last: the heartbeat must notice the loss.
local fits
if mode == 'change' then
  fits = redis.call('HGET', ns .. ':node:' .. node, 'phones') == string.format('%d', number - 1)
  for i = 6, #ARGV, 2 do
    if ARGV[i + 1] == 'unknown' then
      redis.call('HDEL', key, ARGV[i])
    else
      redis.call('HSET', key, ARGV[i], ARGV[i + 1])
    end
  end
else
  local total = mode == 'replace' and tonumber(ARGV[5]) or nil
  fits = replace_table_in_parts(key, generation .. ':' .. number, total, 6)
end
if fits ~= nil then redis.call('HSET', ns .. ':node:' .. node, 'phones', fits and number or '') end
return { 'ok' }
