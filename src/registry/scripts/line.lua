-- line.lua: a node that paces says who waits there for his turn to ring. Always the whole line, so that nothing is counted.
-- ARGV  1 node  2 generation  3 the line: sessions in their order, each with a blank behind it
-- reply { 'ok' } | { 'fenced' } | { 'unknown' }
local node, generation = ARGV[1], ARGV[2]
local bad = fenced(node, generation)
if bad then return { bad } end
local key = ns .. ':node:' .. node
local before = redis.call('HGET', key, 'line') or ''
redis.call('HSET', key, 'line', ARGV[3])
-- The story has who comes into the line, and whose turn it is.
local was, is = {}, {}
for id in before:gmatch('%S+') do was[id] = true end
for id in ARGV[3]:gmatch('%S+') do is[id] = true end
local function turn(line, other, event)
  local place = 0
  for id in line:gmatch('%S+') do
    place = place + 1
    local s = not other[id] and record(session_key(id))
    if s and s.state == 'ringing' and s.node == node then
      note(event, node, id, s, event == 'queued' and 'place ' .. place or '')
    end
  end
end
turn(before, is, 'ringing')
turn(ARGV[3], was, 'queued')
return { 'ok' }
