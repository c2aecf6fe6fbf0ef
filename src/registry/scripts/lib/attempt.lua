-- attempt.lua: the attempts of a session: its order in the queue of a node, and what comes after that when the node cannot ring
-- it or is gone (P4, P9, P10). Put behind choice.lua.
--
-- Writes a placed session with its attempt so far. order: its message in the node's queue ('' = it has none yet).
local function write_placed(id, s, order, due, now)
  spent = spent + 20
  count_in(s, id)
  redis.call('HSET', ns .. ':holders', 'agent:' .. s.agent, id, 'alias:' .. s.alias, id, 'phone:' .. s.extension, id)
  redis.call('ZADD', ns .. ':index:open', now, id)
  redis.call('ZADD', ns .. ':index:due', due, id)
  redis.call('HSET', session_key(id), 'alias', s.alias, 'extension', s.extension, 'agent', s.agent,
    'campaign', s.campaign, 'remote', s.remote, 'node', s.node, 'state', 'placed', 'reason', s.reason, 'since', now,
    'created', s.created, 'try', s.try, 'tried', s.tried, 'tries', s.tries, 'suffix', s.suffix,
    'give_up', s.give_up, 'order', order)
end

-- Reserves the session on the row's node and puts the order into that node's queue. why: for the story, if it is not new.
local function assign(id, s, row, now, expiry_ms, why)
  local attempt, due = tonumber(s.try or '0') + 1, now + expiry_ms
  s.node, s.extension, s.state, s.reason, s.try = row.name, row.extension, 'placed', '', attempt
  local order = enqueue('ring-' .. row.name, cjson.encode({ v = 1, kind = 'ring', session = id, try = attempt,
    alias = s.alias, extension = s.extension, agent = s.agent, campaign = s.campaign, remote = s.remote == '1',
    expires = due }), id .. ':' .. attempt, now)
  write_placed(id, s, order, due, now)
  tell(id, s, 'placed', why)
end

-- How long a session waits that no node can ring before all of them have beaten again.
local retry_ms = 1000

-- No node can ring the session, as far as is known, and not all is known: it stays where it is, without an order, and is
-- placed again by a heartbeat. why says what was wrong.
local function await_nodes(id, s, why, now)
  local again = s.state == 'placed' and s.order == ''
  s.state, s.reason, s.try = 'placed', why, s.try or '0'
  write_placed(id, s, '', now + retry_ms, now)
  if not again then tell(id, s, 'placed', why .. ': waiting for the nodes to report') end
  return 'waiting'
end

-- The session's node cannot ring it: takes the next least loaded node that was not tried, or fails the session.
-- why says what was wrong there. Returns 'placed NODE', 'waiting' (see await_nodes) or 'failed'.
local function place_again(id, s, why, now, expiry_ms, keep_ms)
  local old_extension, tried = s.extension, s.tried
  -- One that drains is left out anyway, and may be asked again when it has resumed.
  if why ~= 'draining' then tried = (tried == '' and ' ' or tried) .. s.node .. ' ' end
  if s.wanted == '1' then
    finish(id, s, 'ended', 'logged-out', now, keep_ms)
    return 'failed'
  end
  -- A node that rang nobody is no try: a drain, a stop, a host that died with the order in its queue.
  local waits = s.state == 'placed' and s.order == ''
  if not waits and (s.state == 'placed' or why == 'draining' or why == 'stopping') then s.tries = tonumber(s.tries) + 1 end
  if tonumber(s.try) >= tonumber(s.tries) or now > tonumber(s.give_up) then
    finish(id, s, 'failed', why, now, keep_ms)
    return 'failed'
  end
  local best, awaited = choose(s.alias, s.suffix, s.campaign, s.remote, tried, id, now, keep_ms)
  if not best and (awaited or is_silent(now)) then
    drop_order(s)
    s.tried = tried
    return await_nodes(id, s, why, now)
  end
  if not best then
    finish(id, s, 'failed', why, now, keep_ms)
    return 'failed'
  end
  drop_order(s)
  count_out(s, id)
  if best.extension ~= old_extension then release_holder('phone:' .. old_extension, id) end
  s.tried = tried
  assign(id, s, best, now, expiry_ms, why .. ' on ' .. s.node)
  return 'placed ' .. best.name
end

-- Places elsewhere what this node has not taken, until this script has done enough. Returns a list of
-- { session, where }, and 1 if some are left. What waits for the nodes to report is placed again by a heartbeat.
local function move_placed(node, why, now, expiry_ms, keep_ms, most)
  local moved = {}
  for _, set in ipairs({ ':local:', ':remote:' }) do
    for _, id in ipairs(redis.call('SMEMBERS', ns .. set .. node)) do
      local known = redis.call('HMGET', session_key(id), 'state', 'order')
      if known[1] == 'placed' and known[2] ~= '' then
        if spent >= most then return moved, 1 end
        local s = record(session_key(id))
        if s.node == node then moved[#moved + 1] = { id, place_again(id, s, why, now, expiry_ms, keep_ms) } end
      end
    end
  end
  return moved, 0
end

-- P9: the agent of a live session that its node has lost, and that was ended just now, is rung from another node, as a
-- new session. Not one who is logged in again, or has asked to be logged out. The new id follows from the old session,
-- so that one loss makes one session. tries 0: nobody is rung. Returns 'rejoined NODE SESSION ALIAS AGENT', 'stranded
-- ALIAS AGENT' (no other node can ring the phone), or nil.
local function rejoin(id, s, tries, give_up_ms, now, expiry_ms, keep_ms)
  if tries == 0 or s.wanted == '1' then return nil end
  local fresh = redis.sha1hex(id .. ':' .. s.since):sub(1, 16)
  if record(session_key(fresh)) then return nil end
  for _, field in ipairs({ 'agent:' .. s.agent, 'alias:' .. s.alias }) do
    local holder = redis.call('HGET', ns .. ':holders', field)
    if holder and is_open(record(session_key(holder))) then return nil end
  end
  local f = { alias = s.alias, agent = s.agent, campaign = s.campaign, remote = s.remote, suffix = s.suffix,
    tries = tries, tried = ' ' .. s.node .. ' ', created = now, give_up = now + give_up_ms }
  local best, awaited = choose(f.alias, f.suffix, f.campaign, f.remote, f.tried, fresh, now, keep_ms)
  if not best and (awaited or is_silent(now)) then
    note('rejoin', s.node, id, s, 'as ' .. fresh .. ', when the other nodes have reported')
    f.node, f.extension = s.node, s.extension
    await_nodes(fresh, f, 'node-lost', now)
    redis.call('HSET', session_key(fresh), 'rejoined_from', id)
    return 'rejoined ' .. s.node .. ' ' .. fresh .. ' ' .. s.alias .. ' ' .. s.agent
  end
  if not best then
    note('stranded', s.node, id, s, 'no other node can ring the phone')
    return 'stranded ' .. s.alias .. ' ' .. s.agent
  end
  note('rejoin', s.node, id, s, 'as ' .. fresh .. ' on ' .. best.name)
  assign(fresh, f, best, now, expiry_ms, 'rejoins ' .. id)
  redis.call('HSET', session_key(fresh), 'rejoined_from', id)
  return 'rejoined ' .. best.name .. ' ' .. fresh .. ' ' .. s.alias .. ' ' .. s.agent
end
