-- line.lua: a node that paces says who waits there for his turn to ring. Always the whole line, so that nothing is counted.
-- Each who comes into it or leaves it is told to the story; where these are many, some are for a next call, and until then
-- the line in Redis has them as they were.
-- ARGV  1 node  2 generation  3 the line: sessions in their order, each with a blank behind it  4 most changes
-- reply { 'ok' } | { 'more' } (to be said again) | { 'fenced' } | { 'unknown' }
-- Needs: keys fencing events
local node, generation, most = ARGV[1], ARGV[2], tonumber(ARGV[4])
local bad = fenced(node, generation)
if bad then return { bad } end
local key = ns .. ':node:' .. node
local before = redis.call('HGET', key, 'line') or ''
local was, is = {}, {}
for id in before:gmatch('%S+') do was[id] = true end
for id in ARGV[3]:gmatch('%S+') do is[id] = true end

local told, line, tag = 0, {}, 'ok'
local function tells(id, event, reason)
  if told == most then
    tag = 'more'
    return false
  end
  told = told + 1
  local s = record(session_key(id))
  if s and s.state == 'ringing' and s.node == node then append_event(event, node, id, s, reason) end
  return true
end

for id in before:gmatch('%S+') do
  if not is[id] and not tells(id, 'ringing', '') then line[#line + 1] = id .. ' ' end
end
local place = 0
for id in ARGV[3]:gmatch('%S+') do
  place = place + 1
  if was[id] or tells(id, 'queued', 'place ' .. place) then line[#line + 1] = id .. ' ' end
end
redis.call('HSET', key, 'line', table.concat(line))
return { tag }
