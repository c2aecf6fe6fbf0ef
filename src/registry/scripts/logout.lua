-- logout.lua: ends the session of an alias, extension, agent or session id, in this order; an alias may
-- also be one whose session was made by its bare extension. One that has not been rung, or not by us, is ended here;
-- for any other its node gets an order to hang up.
-- ARGV  1 who  2 keep ended ms  3 alias suffix  4 who as it was written: the agent
-- reply { 'none' } | { 'not-now' } (Redis may not know of it yet) | { 'ended', session, node } | { 'asked', session, node }
-- Needs: keys hangup sessions
local who, keep_ms, suffix = ARGV[1], ARGV[2], ARGV[3]
local now = clock()
local id, s = open_session_of('alias:' .. who, now, keep_ms)
if not id then id, s = open_session_of('phone:' .. who, now, keep_ms) end
if not id then id, s = open_session_of('agent:' .. ARGV[4], now, keep_ms) end
if not id and #who > #suffix and suffix ~= '' and who:sub(-#suffix) == suffix then
  id, s = open_session_of('phone:' .. who:sub(1, -#suffix - 1), now, keep_ms)
end
if not id then
  s = record(session_key(who))
  if is_open(s) then id = who end
end
if not id then return { (is_silent(now) or judge.tick < judge.hold) and 'not-now' or 'none' } end
if s.state == 'placed' or s.hold then
  finish(id, s, 'ended', 'logged-out', now, keep_ms)
  return { 'ended', id, s.node }
end
request_hangup(id, s, 'requested', now)
return { 'asked', id, s.node }
