-- append_events.lua: a daemon appends events that only it knows to the event stream. A repeated call appends nothing.
-- ARGV  1 node  2 generation  3 number of this call, then for each three: event, session ('' = of the node), reason
-- reply { 'ok' } | { 'fenced' } | { 'unknown' }
-- Needs: keys fencing events
local node, generation, number = ARGV[1], ARGV[2], ARGV[2] .. ':' .. ARGV[3]
local bad = fenced(node, generation)
if bad then return { bad } end
local key = ns .. ':node:' .. node
if redis.call('HGET', key, 'noted') == number then return { 'ok' } end
for i = 4, #ARGV, 3 do
  local id = ARGV[i + 1]
  append_event(ARGV[i], node, id, id ~= '' and record(session_key(id)) or {}, ARGV[i + 2])
end
redis.call('HSET', key, 'noted', number)
return { 'ok' }
