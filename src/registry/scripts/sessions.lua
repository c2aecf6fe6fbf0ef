-- sessions.lua: the sessions, oldest change first.
-- ARGV  1 which (open|all|one)  2 most  3 session id (for which = one)
-- reply rows of { id, alias, extension, agent, campaign, node, state, remote, reason, since ms, try, created ms,
--       rejoined from ('' = none), place in its node's line ('' = it waits for nobody) }
local which, most = ARGV[1], tonumber(ARGV[2])
local ids, lines, now = {}, {}, clock()

-- Ids in a line are 16 long, with a blank behind each.
local function place(id, s)
  if s.state ~= 'ringing' and s.state ~= 'placed' then return '' end
  if not lines[s.node] then lines[s.node] = { queued(s.node, now) } end
  local line, behind = lines[s.node][1], lines[s.node][2]
  if s.state == 'ringing' then
    local at = line:find(id, 1, true)
    return at and (at + 16) / 17 or ''
  end
  for i, message in ipairs(behind) do
    if message == s.order then return #line / 17 + i end
  end
  return ''
end

if which == 'one' then
  ids[1] = ARGV[3]
else
  if which == 'all' then ids = redis.call('ZRANGE', ns .. ':index:ended', -most, -1) end
  for _, id in ipairs(redis.call('ZRANGE', ns .. ':index:open', 0, most - 1)) do ids[#ids + 1] = id end
end
local rows = {}
for _, id in ipairs(ids) do
  local s = record(session_key(id))
  if s then
    rows[#rows + 1] = { id, s.alias, s.extension, s.agent, s.campaign, s.node, s.state, s.remote, s.reason,
      s.since, s.try, s.created, s.rejoined_from or '', place(id, s) }
  end
end
return rows
