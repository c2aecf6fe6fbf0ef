-- heartbeat.lua: renews the lease and says how the node is; then does the housekeeping that any living node may do,
-- and that one script makes happen once: it ends the sessions of nodes that are gone (an order that was not taken there
-- is placed elsewhere, P4), fails orders that nobody took in time, and forgets what ended long ago.
-- ARGV  1 node  2 generation  3 lease ms  4 state (starting|active|down)  5 channels  6 registrations
--       7 keep ended ms  8 most sessions to clean in one beat  9 order expiry ms
--       10 tries of an agent's new session when his node is lost, 0 = he logs in again himself  11 give up after ms
-- reply { 'ok', sessions, reaped, drain (0|1), refused, phones, ring, logins } | { 'fenced' } | { 'unknown' }
--       sessions of { session, state }: what Redis has for this node, unwanted = to be hung up; reaped of { session,
--       node, reason }: order-expired, node-lost, what rejoin() says, or 'placed NODE' for one placed elsewhere; refused = how often older
--       generations of this node were; phones the number of the last word on phones ('' = none); ring and logins:
--       { messages that wait in that queue (1000 at most), ms that the oldest has waited }
local node, generation, lease_ms, state = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local keep_ms, most, expiry_ms = ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9])
local bad = fenced(node, generation)
if bad then return { bad } end
local now = clock()
-- After an outage of Redis leases have ended, one a little before the other, and the calls go on. So only who has beaten
-- without a gap for as long as a lease ends the calls of others: in that time each of them could have beaten too. A gap
-- is half a lease.
local tries, give_up_ms = tonumber(ARGV[10]), tonumber(ARGV[11])
local own = redis.call('HMGET', ns .. ':node:' .. node, 'lease_until', 'steady_since', 'state', 'lost')
local steady_since = tonumber(own[2] or now)
if now - (tonumber(own[1] or '0') - lease_ms) > lease_ms / 2 then steady_since = now end
local steady = now - steady_since >= lease_ms
redis.call('HSET', ns .. ':node:' .. node, 'steady_since', steady_since, 'state', state, 'channels', ARGV[5], 'registrations', ARGV[6],
  'lease_until', now + lease_ms, 'reap_at', now + lease_ms)
if (own[3] == 'active') ~= (state == 'active') or own[4] == '1' then
  note_node(state == 'active' and 'node-up' or 'node-down', node, own[4] == '1' and 'its lease had ended' or '')
  redis.call('HSET', ns .. ':node:' .. node, 'lost', '')
end

local reaped = {}
-- calls: a node that stopped in good order left its calls in its Asterisk, so nobody is rung again.
local function reap(name, calls)
  for _, set in ipairs({ ':local:', ':remote:' }) do
    for _, id in ipairs(redis.call('SMEMBERS', ns .. set .. name)) do
      if #reaped >= most then return end
      local s = record(session_key(id))
      if is_open(s) and s.node == name and s.state == 'placed' then
        local result = place_again(id, s, 'node-lost', now, expiry_ms, keep_ms)
        reaped[#reaped + 1] = { id, name, result == 'failed' and 'node-lost' or result }
      elseif is_open(s) and s.node == name and s.state == 'live' and calls == 'lost' then
        if steady then
          finish(id, s, 'ended', 'node-lost', now, keep_ms)
          local result = tries > 0 and rejoin(id, s, tries, give_up_ms, now, expiry_ms, keep_ms)
          reaped[#reaped + 1] = { id, name, result or 'node-lost' }
        end
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
    local n = redis.call('HMGET', ns .. ':node:' .. name, 'reap_at', 'state', 'lost')
    if not n[1] or tonumber(n[1]) < now then
      if steady and n[1] and n[2] ~= 'stopped' and n[3] ~= '1' then
        redis.call('HSET', ns .. ':node:' .. name, 'lost', 1)
        note_node('node-lost', name, 'no heartbeat for a lease')
      end
      reap(name, n[2] == 'stopped' and 'kept' or 'lost')
    end
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
        note('drift', node, id, {}, 'Redis has lost its record: no load')
        redis.call('ZREM', ns .. ':index:open', id)
        redis.call('ZREM', ns .. ':index:due', id)
      end
    end
  end
end
local mine = redis.call('HMGET', ns .. ':node:' .. node, 'drain', 'refused', 'phones')
local function backlog(queue)
  local waiting = redis.call('ZRANGEBYSCORE', ns .. ':' .. queue, '-inf', now, 'WITHSCORES', 'LIMIT', 0, 1000)
  return { #waiting / 2, waiting[2] and now - math.floor(tonumber(waiting[2])) or 0 }
end
return { 'ok', sessions, reaped, mine[1] == '1' and 1 or 0, tonumber(mine[2] or '0'), mine[3] or '',
  backlog('ring-' .. node), backlog('logins') }
