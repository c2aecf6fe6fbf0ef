-- confirm.lua: whoever has a hold says that its agent is on the phone. Idempotent.
-- ARGV  1 session
-- reply { 'live' } | { 'none' } (there is no such session) | { 'rung' } (it is none of a hold: its node says when it is live)
--       | { 'over', state, reason }
-- Needs: keys events
local id, now = ARGV[1], clock()
local s = record(session_key(id))
if not s then return { 'none' } end
if not is_open(s) then return { 'over', s.state, s.reason } end
if not s.hold then return { 'rung' } end
if s.state == 'held' then
  redis.call('ZREM', ns .. ':index:due', id)
  redis.call('ZADD', ns .. ':index:open', now, id)
  redis.call('HSET', session_key(id), 'state', 'live', 'since', now)
  announce(id, s, 'live', '')
end
return { 'live' }
