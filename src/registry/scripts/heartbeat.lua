-- heartbeat.lua: renews the lease and says how the node is; then does the housekeeping that any living node may do,
-- and that one script makes happen once: it ends the sessions of nodes that are gone (an order that was not taken there
-- is placed elsewhere, P4), fails orders that nobody took in time, and forgets what ended long ago.
-- ARGV  1 node  2 generation  3 lease ms  4 state (starting|active|down)  5 channels  6 registrations
--       7 keep ended ms  8 most sessions to clean in one beat  9 order expiry ms
-- reply { 'ok', sessions, reaped, phones } | { 'fenced' } | { 'unknown' }
--       sessions of { session, state }: what Redis has for this node, unwanted = to be hung up; reaped of { session, node, reason }, the reason
--       of a session that was placed elsewhere is 'placed NODE'; phones the number of the last word on phones ('' = none)
local node, generation, lease_ms, state = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local keep_ms, most, expiry_ms = ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9])
local bad = fenced(node, generation)
if bad then return { bad } end
local now = clock()
redis.call('HSET', ns .. ':node:' .. node, 'state', state, 'channels', ARGV[5], 'registrations', ARGV[6],
  'lease_until', now + lease_ms, 'reap_at', now + lease_ms)

local reaped = {}
local function reap(name)
  for _, set in ipairs({ ':local:', ':remote:' }) do
    for _, id in ipairs(redis.call('SMEMBERS', ns .. set .. name)) do
      if #reaped >= most then return end
      local s = record(session_key(id))
      if is_open(s) and s.node == name and s.state == 'placed' then
        local result = place_again(id, s, 'node-lost', now, expiry_ms, keep_ms)
        reaped[#reaped + 1] = { id, name, result == 'failed' and 'node-lost' or result }
      elseif is_open(s) and s.node == name then
        finish(id, s, s.state == 'live' and 'ended' or 'failed', 'node-lost', now, keep_ms)
        reaped[#reaped + 1] = { id, name, 'node-lost' }
      else
        redis.call('SREM', ns .. set .. name, id)
      end
    end
  end
end
for _, name in ipairs(redis.call('SMEMBERS', ns .. ':index:nodes')) do
  if name ~= node then
    local reap_at = redis.call('HGET', ns .. ':node:' .. name, 'reap_at')
    if not reap_at or tonumber(reap_at) < now then reap(name) end
  end
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', ns .. ':index:due', '-inf', now, 'LIMIT', 0, most)) do
  local s = record(session_key(id))
  if is_open(s) and s.state == 'placed' then
    finish(id, s, 'failed', 'order-expired', now, keep_ms)
    reaped[#reaped + 1] = { id, s.node, 'order-expired' }
  end
  redis.call('ZREM', ns .. ':index:due', id)
end
redis.call('ZREMRANGEBYSCORE', ns .. ':index:ended', '-inf', now - keep_ms)

local sessions = {}
for _, set in ipairs({ ':local:', ':remote:' }) do
  for _, id in ipairs(redis.call('SMEMBERS', ns .. set .. node)) do
    local s = record(session_key(id))
    if is_open(s) and s.node == node then
      -- The order to hang up may have been lost on its way; the wish is not.
      sessions[#sessions + 1] = { id, s.wanted == '1' and 'unwanted' or s.state }
    else
      -- P5: a record that was lost is no load.
      redis.call('SREM', ns .. set .. node, id)
      if not s then
        redis.call('ZREM', ns .. ':index:open', id)
        redis.call('ZREM', ns .. ':index:due', id)
      end
    end
  end
end
return { 'ok', sessions, reaped, redis.call('HGET', ns .. ':node:' .. node, 'phones') or '' }
