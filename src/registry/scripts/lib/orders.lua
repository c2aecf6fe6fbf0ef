-- orders.lua: an attempt of a session on a node: its reservation, and its order in that node's queue (P4).
-- Needs: keys rsmq events sessions
--
-- Writes a placed or held session with its attempt so far. order: its message in the node's queue ('' = it has none yet). due and now
-- are texts: Redis prints every number that it gets, and slowly. Lua prints 14 digits, and a time in ms has 13.
local function write_placed(id, s, order, due, now)
  spent = spent + 20
  count_session('SADD', s, id)
  redis.call('HSET', ns .. ':holders', 'agent:' .. s.agent, id, 'alias:' .. s.alias, id, 'phone:' .. s.extension, id)
  redis.call('ZADD', ns .. ':index:open', now, id)
  redis.call('ZADD', ns .. ':index:due', due, id)
  redis.call('HSET', session_key(id), 'alias', s.alias, 'extension', s.extension, 'agent', s.agent,
    'campaign', s.campaign, 'remote', s.remote, 'node', s.node, 'state', s.state, 'reason', s.reason, 'since', now,
    'created', s.created or now, 'try', s.try, 'tried', s.tried, 'tries', s.tries, 'suffix', s.suffix,
    'give_up', s.give_up, 'order', order)
end

-- Reserves the session on the row's node and puts the order into that node's queue. why: for the stream of events, if it is not new.
local function assign(id, s, row, now, expiry_ms, why)
  local attempt, due, at = tonumber(s.try or '0') + 1, now + expiry_ms, now .. ''
  s.node, s.extension, s.state, s.reason, s.try = row.name, row.extension, 'placed', '', attempt
  local order = enqueue('ring-' .. row.name, cjson.encode({ v = 1, kind = 'ring', session = id, try = attempt,
    alias = s.alias, extension = s.extension, agent = s.agent, campaign = s.campaign, remote = s.remote == '1',
    expires = due }), string.format('%s%06d', id, attempt), at)
  write_placed(id, s, order, due .. '', at)
  announce(id, s, 'placed', why)
end
