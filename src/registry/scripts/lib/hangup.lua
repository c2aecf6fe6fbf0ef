-- hangup.lua: asks the node of a session to hang up.
-- Needs: keys rsmq events
--
-- The request is kept: should the order be lost, the node's next heartbeat says it again.
local function request_hangup(id, s, why, now)
  redis.call('HSET', session_key(id), 'hangup_requested', 1)
  if s.hangup_requested ~= '1' then append_event('logout', s.node, id, s, why) end
  enqueue('ring-' .. s.node, cjson.encode({ v = 1, kind = 'hangup', session = id }),
    id .. '00000H', now)
end
