-- ring_queue.lua: a node reports the logins that wait because of its pacing; always the whole queue, so that nothing has to
-- be counted. Each login that joins or leaves it becomes an event; if there are many, some are left to the next call, and
-- until then the queue in Redis keeps them unchanged.
-- ARGV  1 node  2 generation  3 the queue: sessions in their order, each with a blank behind it  4 most changes
-- reply { 'ok' } | { 'more' } (to be said again) | { 'fenced' } | { 'unknown' }
-- Needs: keys fencing events
local node, generation, most = ARGV[1], ARGV[2], tonumber(ARGV[4])
local bad = fenced(node, generation)
if bad then return { bad } end
local key = ns .. ':node:' .. node
local before = redis.call('HGET', key, 'ring_queue') or ''
local was, is = {}, {}
for id in before:gmatch('%S+') do was[id] = true end
for id in ARGV[3]:gmatch('%S+') do is[id] = true end

local told, queue, tag = 0, {}, 'ok'
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
  if not is[id] and not tells(id, 'ringing', '') then queue[#queue + 1] = id .. ' ' end
end
local position = 0
for id in ARGV[3]:gmatch('%S+') do
  position = position + 1
  if was[id] or tells(id, 'queued', 'position ' .. position) then queue[#queue + 1] = id .. ' ' end
end
redis.call('HSET', key, 'ring_queue', table.concat(queue))
return { tag }
