-- heartbeat.lua: renews the lease and records the state of the node; then does housekeeping, which any living node may do
-- and only one does: it ends the sessions of lost nodes (orders that were not fetched there are placed on other nodes, P4),
-- places expired orders again, and removes what ended long ago: sessions, unread answers, nodes.
-- ARGV  1 node  2 generation  3 lease ms  4 state (starting|active|down)  5 channels  6 registrations
--       7 keep ended ms  8 most sessions to clean in one beat  9 order expiry ms
--       10 tries of an agent's new session when their node is lost, 0 = they log in again  11 give up after ms
--       12 number of this heartbeat  13 time as the daemon expects it here, by what Redis said last and its own clock
--       (0 = it knows none)  14 by how many ms Redis's clock has stepped, as the daemon found when it was called late; or 0
--       15 most work (keys.lua): what is left to clean then is for the next heartbeat, of whichever node
--       16 a node that is dead for so many ms is forgotten
--       17 the number of corrections, as the answer said from which the daemon knows the time
-- reply { 'ok', sessions, reaped, drain (0|1), refused, phones, ring, logins, now, more (1 = sessions are left to clean),
--         corrections, counts (keys.lua, as HGETALL gives them) } | { 'late', now } (a later one was carried
--       out before, or it came at another time than expected: nothing was changed) | { 'fenced' } | { 'unknown' }
--       sessions of { session, state }: what Redis has for this node, hangup-requested = its agent or an operator asked for the end; reaped of { session,
--       node, reason }: order-expired, node-lost, what rejoin() says, 'placed NODE' for one placed elsewhere, or waiting; refused = how often older
--       generations of this node were; phones the number of the last word on phones ('' = none); ring and logins:
--       { messages that wait in that queue (1000 at most), ms that the oldest has waited }
-- Needs: keys clock fencing events nodes sessions forgetting attempts rejoin answers
local node, generation, lease_ms, state = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local keep_ms, most, expiry_ms = ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9])
local tries, give_up_ms = tonumber(ARGV[10]), tonumber(ARGV[11])
local number, expected, step = tonumber(ARGV[12]), tonumber(ARGV[13]), tonumber(ARGV[14])
local most_work, gone_ms = tonumber(ARGV[15]), tonumber(ARGV[16])
local bad = fenced(node, generation)
if bad then return { bad } end
local beats, state_before, had_expired, last_beat = unpack(redis.call('HMGET', ns .. ':node:' .. node,
  'beats', 'state', 'expired', 'beat'))
if number <= tonumber(beats or '0') then return { 'late', clock() } end
-- A step was found on the clock of then: somebody else may have corrected it since, or it is another one again.
local function differs(time) return math.abs(clock() - time) > lease_ms / 3 end
local knows = tonumber(ARGV[17]) == judge.corrections
-- What a daemon has heard since a doubtful time began says nothing about it.
local is_witness = expected > 0 and knows and (judge.doubt == 0 or tonumber(last_beat or 0) < judge.doubt)
if expected > 0 and differs(expected - step) then
  -- Who hears that is there to say it again, and knows that the clock is wrong.
  if step == 0 or differs(expected) then return { 'late', clock() } end
  if knows then correct_clock(step, is_witness) end
end
local now = advance(lease_ms, is_witness)
redis.call('HSET', ns .. ':node:' .. node, 'state', state, 'channels', ARGV[5], 'registrations', ARGV[6],
  'lease_until', now + lease_ms, 'beat', judge.tick, 'lease', lease_ms, 'beats', number)
if (state_before == 'active') ~= (state == 'active') or had_expired == '1' then
  append_event(state == 'active' and 'node-up' or 'node-down', node, '', {}, had_expired == '1' and 'its lease had expired' or '')
  redis.call('HSET', ns .. ':node:' .. node, 'expired', '', 'gone', '')
end

local reaped = {}
local more = 0
local function is_enough()
  if #reaped >= most or (reaped[1] and spent >= most_work) then more = 1 end
  return more == 1
end

-- calls: a node that stopped in good order left its calls in its Asterisk, so nobody is rung again.
local function reap(name, calls)
  for _, set in ipairs({ ':local:', ':remote:' }) do
    for _, id in ipairs(redis.call('SMEMBERS', ns .. set .. name)) do
      if is_enough() then return end
      local s = record(session_key(id))
      if is_open(s) and s.node == name and s.state == 'placed' and s.order == '' then
        -- It waits for the nodes to report, and is among those that are due.
      elseif is_open(s) and s.node == name and s.state == 'placed' then
        local result = place_again(id, s, 'node-lost', now, expiry_ms, keep_ms)
        reaped[#reaped + 1] = { id, name, result == 'failed' and 'node-lost' or result }
      elseif is_open(s) and s.node == name and s.state == 'live' and calls == 'expired' then
        finish(id, s, 'ended', 'node-lost', now, keep_ms)
        local result = tries > 0 and rejoin(id, s, tries, give_up_ms, now, expiry_ms, keep_ms)
        reaped[#reaped + 1] = { id, name, result or 'node-lost' }
      elseif is_open(s) and s.node == name then
        finish(id, s, (s.state == 'live' or s.state == 'held') and 'ended' or 'failed', 'node-lost', now, keep_ms)
        reaped[#reaped + 1] = { id, name, 'node-lost' }
      else
        redis.call('SREM', ns .. set .. name, id)
      end
    end
  end
end
-- The drain flag is set by operators and outlives the rest. One node per heartbeat is enough.
local is_one_gone = false
local function let_go(name, gone)
  local key = ns .. ':node:' .. name
  if not gone or gone == '' then
    redis.call('HSET', key, 'gone', now)
  elseif now - tonumber(gone) > gone_ms and not is_one_gone and sessions_on(name) == 0 then
    is_one_gone = true
    if redis.call('HGET', key, 'drain') == '1' then
      forget_phones(name)
      redis.call('HSET', key, 'gone', now)
    else
      forget_node(name, 'no heartbeat for a month')
    end
  end
end

local awaited = false
-- In a large cluster, looking at all nodes is work in itself.
spent = spent + 2 * #all_nodes()
for _, name in ipairs(all_nodes()) do
  if name ~= node then
    local beat, lease, expired, its_state, gone = unpack(redis.call('HMGET', ns .. ':node:' .. name,
      'beat', 'lease', 'expired', 'state', 'gone'))
    awaited = awaited or is_awaited(beat, lease, expired, its_state)
    if lease_left(beat, lease, expired) < 0 then
      if beat and its_state ~= 'stopped' and expired ~= '1' then
        redis.call('HSET', ns .. ':node:' .. name, 'expired', 1)
        append_event('node-lease-expired', name, '', {}, 'no heartbeat for a lease')
      end
      reap(name, its_state == 'stopped' and 'kept' or 'expired')
      let_go(name, gone)
    end
  end
end
if not awaited and judge.doubt > 0 then redis.call('HSET', ns .. ':judge', 'doubt', 0) end
-- Before all nodes have reported, neither the age of an order nor which node can ring is known.
local due = awaited and {} or redis.call('ZRANGEBYSCORE', ns .. ':index:due', '-inf', now, 'LIMIT', 0, most)
for _, id in ipairs(due) do
  if is_enough() then break end
  local s = record(session_key(id))
  redis.call('ZREM', ns .. ':index:due', id)
  if is_open(s) and s.state == 'placed' then
    local from, why = s.node, s.order == '' and s.reason or 'order-expired'
    local result = place_again(id, s, why, now, expiry_ms, keep_ms)
    reaped[#reaped + 1] = { id, from, result == 'failed' and why or result }
  elseif is_open(s) and s.state == 'held' then
    finish(id, s, 'ended', 'hold-expired', now, keep_ms)
    reaped[#reaped + 1] = { id, s.node, 'hold-expired' }
  end
end
local forgotten = redis.call('ZRANGEBYSCORE', ns .. ':index:ended', '-inf', now - keep_ms, 'LIMIT', 0, 500)
if forgotten[1] then redis.call('ZREM', ns .. ':index:ended', unpack(forgotten)) end
end_answers()

local sessions = {}
for _, set in ipairs({ ':local:', ':remote:' }) do
  for _, id in ipairs(redis.call('SMEMBERS', ns .. set .. node)) do
    local its_state, its_node, hangup_requested, hold = unpack(redis.call('HMGET', session_key(id),
      'state', 'node', 'hangup_requested', 'hold'))
    if is_open({ state = its_state }) and its_node == node and hold then
      -- Its call, if there is one, is none of the daemon's.
    elseif is_open({ state = its_state }) and its_node == node then
      -- The order to hang up may have been lost; the request is kept.
      sessions[#sessions + 1] = { id, hangup_requested == '1' and 'hangup-requested' or its_state }
    else
      -- P5: a lost record does not count as load.
      redis.call('SREM', ns .. set .. node, id)
      if not its_state then
        append_event('drift', node, id, {}, 'Redis lost the session record: no longer counted as load')
        redis.call('ZREM', ns .. ':index:open', id)
        redis.call('ZREM', ns .. ':index:due', id)
      end
    end
  end
end
local drain, refused, phones = unpack(redis.call('HMGET', ns .. ':node:' .. node, 'drain', 'refused', 'phones'))
local function backlog(queue, at)
  local waiting = redis.call('ZRANGEBYSCORE', ns .. ':' .. queue, '-inf', at, 'WITHSCORES', 'LIMIT', 0, 1000)
  return { #waiting / 2, waiting[2] and at - math.floor(tonumber(waiting[2])) or 0 }
end
return { 'ok', sessions, reaped, drain == '1' and 1 or 0, tonumber(refused or '0'), phones or '',
  backlog('ring-' .. node, now), backlog('logins', wall), now, more, judge.corrections,
  redis.call('HGETALL', ns .. ':index:counts') }
