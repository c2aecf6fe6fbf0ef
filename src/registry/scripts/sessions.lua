-- sessions.lua: the sessions, oldest change first.
-- ARGV  1 which (open|all|one)  2 most  3 session id (for which = one)
-- reply rows of { id, alias, extension, agent, campaign, node, state, remote, reason, since ms, try, created ms,
--       rejoined from ('' = none) }
local which, most = ARGV[1], tonumber(ARGV[2])
local ids = {}
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
      s.since, s.try, s.created, s.rejoined_from or '' }
  end
end
return rows
