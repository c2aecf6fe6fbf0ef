-- adopt.lua: a node reports our channels that it found in its Asterisk: after a restart of the daemon, or because Redis
-- lost the session (P12). A session whose agent has been placed elsewhere is stale: the node hangs it up.
-- ARGV  1 node  2 generation  3 number (fencing.lua)  4 tries  5 alias suffix, then eight for each: session, state
--       (ringing|live), alias, extension, agent, campaign, remote (0|1), try
-- reply { 'ok', results } | { 'fenced' } | { 'unknown' } | { 'superseded' }     a result each: kept | restored | stale
-- Needs: keys fencing events sessions
local node, generation = ARGV[1], ARGV[2]
local bad = superseded(node, generation, ARGV[3])
if bad then return { bad } end
local now = clock()

local function adopt(i)
  local id, state = ARGV[i], ARGV[i + 1]
  local s = record(session_key(id))
  if is_open(s) then
    if s.node ~= node then return 'stale' end
    if s.hold then return 'kept' end
    if s.state ~= state and s.state ~= 'live' then
      drop_order(s)
      redis.call('ZREM', ns .. ':index:due', id)
      redis.call('ZADD', ns .. ':index:open', now, id)
      redis.call('HSET', session_key(id), 'state', state, 'reason', '', 'since', now, 'order', '')
      announce(id, s, state, 'found in Asterisk')
    end
    redis.call('HSET', session_key(id), 'generation', generation, 'fetch', 0)
    -- Since placement.case has changed its names are spelled otherwise: who holds them holds them by the new ones.
    for field, name in pairs({ alias = ARGV[i + 2], extension = ARGV[i + 3] }) do
      if s[field] ~= name and s[field]:lower() == name:lower() then
        release_holder((field == 'alias' and 'alias:' or 'phone:') .. s[field], id)
        redis.call('HSET', session_key(id), field, name)
        s[field] = name
      end
    end
    -- P5: what a fault took from the tables comes back with the session that they are derived from.
    redis.call('SADD', load_set(s), id)
    redis.call('ZADD', ns .. ':index:open', 'NX', now, id)
    for _, field in ipairs({ 'alias:' .. s.alias, 'phone:' .. s.extension, not s.moved_to and 'agent:' .. s.agent or nil }) do
      redis.call('HSETNX', ns .. ':holders', field, id)
    end
    return s.hangup_requested == '1' and 'stale' or 'kept'
  end
  if s and (s.reason ~= 'node-lost' or s.hangup_requested == '1' or s.hold) then return 'stale' end
  local fresh = { alias = ARGV[i + 2], extension = ARGV[i + 3], agent = ARGV[i + 4], campaign = ARGV[i + 5],
    remote = ARGV[i + 6], node = node }
  for _, field in ipairs({ 'agent:' .. fresh.agent, 'alias:' .. fresh.alias, 'phone:' .. fresh.extension }) do
    local holder = redis.call('HGET', ns .. ':holders', field)
    if holder and holder ~= id and is_open(record(session_key(holder))) then return 'stale' end
  end
  redis.call('HSET', ns .. ':holders', 'agent:' .. fresh.agent, id, 'alias:' .. fresh.alias, id,
    'phone:' .. fresh.extension, id)
  redis.call('SADD', load_set(fresh), id)
  redis.call('ZADD', ns .. ':index:open', now, id)
  redis.call('ZREM', ns .. ':index:ended', id)
  redis.call('PERSIST', session_key(id))
  redis.call('HSET', session_key(id), 'alias', fresh.alias, 'extension', fresh.extension, 'agent', fresh.agent,
    'campaign', fresh.campaign, 'remote', fresh.remote, 'node', node, 'state', state, 'reason', '', 'since', now,
    'created', s and s.created or now, 'try', ARGV[i + 7], 'tried', s and s.tried or '', 'tries', ARGV[4],
    'suffix', ARGV[5], 'give_up', 0, 'order', '', 'generation', generation,
    'fetch', 0)
  announce(id, fresh, state, 'found in Asterisk')
  return 'restored'
end

local results = {}
for i = 6, #ARGV, 8 do results[#results + 1] = adopt(i) end
return { 'ok', results }
