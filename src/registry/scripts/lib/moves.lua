-- moves.lua: an agent who is logged in wants another phone. Only `login --move` does that (P7).
-- Needs: keys hangup sessions
--
-- Logs the agent out of the session, for the session `to`. A call is hung up by its node. Until that has happened it keeps its
-- phone, its alias and its place in the load (P1, P5); the agent is free at once. Gives what it was: 'SESSION EXTENSION NODE'.
local function move_out(id, s, to, now, keep_ms)
  local was = id .. ' ' .. s.extension .. ' ' .. s.node
  spent = spent + 10
  if s.state == 'placed' or s.hold then
    finish(id, s, 'ended', 'moved', now, keep_ms)
  else
    redis.call('HSET', session_key(id), 'moved_to', to)
    release_holder('agent:' .. s.agent, id)
    request_hangup(id, s, 'moved', now)
  end
  return was
end
