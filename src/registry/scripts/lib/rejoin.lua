-- rejoin.lua: rings an agent whose live call was lost with its node from another node (P9).
-- Needs: keys events orders attempts
--
-- P9: the agent of a live session that its node has lost, and that was ended just now, is rung from another node, as a
-- new session. Not one who is logged in again, or has asked to be logged out. The new id follows from the old session,
-- so that one loss makes one session. tries 0: nobody is rung. Returns 'rejoined NODE SESSION ALIAS AGENT', 'stranded
-- ALIAS AGENT' (no other node can ring the phone), or nil.
local function rejoin(id, s, tries, give_up_ms, now, expiry_ms, keep_ms)
  if tries == 0 or s.hangup_requested == '1' or s.hold then return nil end
  local fresh = redis.sha1hex(id .. ':' .. s.since):sub(1, 16)
  if record(session_key(fresh)) then return nil end
  for _, field in ipairs({ 'agent:' .. s.agent, 'alias:' .. s.alias }) do
    local holder = redis.call('HGET', ns .. ':holders', field)
    if holder and is_open(record(session_key(holder))) then return nil end
  end
  local f = { alias = s.alias, agent = s.agent, campaign = s.campaign, remote = s.remote, suffix = s.suffix,
    tries = tries, tried = ' ' .. s.node .. ' ', give_up = now + give_up_ms }
  local best, awaited = choose_again(f.alias, f.suffix, f.campaign, f.remote, f.tried, fresh, now, keep_ms)
  if not best and (awaited or is_silent(now)) then
    append_event('rejoin', s.node, id, s, 'as ' .. fresh .. ', when the other nodes have reported')
    f.node, f.extension = s.node, s.extension
    await_nodes(fresh, f, 'node-lost', now)
    redis.call('HSET', session_key(fresh), 'rejoined_from', id)
    return 'rejoined ' .. s.node .. ' ' .. fresh .. ' ' .. s.alias .. ' ' .. s.agent
  end
  if not best then
    append_event('stranded', s.node, id, s, 'no other node can ring the phone')
    return 'stranded ' .. s.alias .. ' ' .. s.agent
  end
  append_event('rejoin', s.node, id, s, 'as ' .. fresh .. ' on ' .. best.name)
  assign(fresh, f, best, now, expiry_ms, 'rejoins ' .. id)
  redis.call('HSET', session_key(fresh), 'rejoined_from', id)
  return 'rejoined ' .. best.name .. ' ' .. fresh .. ' ' .. s.alias .. ' ' .. s.agent
end
