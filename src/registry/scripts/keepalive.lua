-- keepalive.lua: records that the operators' keepalive command starts on a node, or has ended there. The record outlives
-- the daemon, so that a restart of the daemon does not make the command run more often.
-- ARGV  1 node  2 generation  3 begin|end  4 for begin: why; for end: its result  5 for begin: at most once in so many ms
-- reply { 'ok' } | { 'wait', ms } | { 'fenced' } | { 'unknown' }
-- Needs: fencing events
local node, generation, what, text = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local bad = fenced(node, generation)
if bad then return { bad } end
local key = ns .. ':node:' .. node
if what == 'begin' then
  local now = clock()
  local left = tonumber(redis.call('HGET', key, 'kept_at') or '0') + tonumber(ARGV[5]) - now
  if left > 0 then return { 'wait', left } end
  redis.call('HINCRBY', key, 'kept', 1)
  redis.call('HSET', key, 'kept_at', now, 'kept_why', text, 'kept_result', '')
else
  redis.call('HSET', key, 'kept_result', text)
end
append_event('keepalive', node, '', {}, text)
return { 'ok' }
