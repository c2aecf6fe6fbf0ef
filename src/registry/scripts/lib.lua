-- lib.lua: what every script shares. It is put before each script's own text, so a script is one round trip.
--
-- KEYS[1]  the namespace, e.g. {evenring}. Every key begins with it, so that all live in one slot of a Redis Cluster.
-- Times are milliseconds on Redis's own clock. A session is open while it is placed, ringing or live.
--
--   NS:index:nodes   SET   names of all nodes that ever registered
--   NS:index:open    ZSET  open sessions by the time of their last change
--   NS:index:due     ZSET  placed sessions by the time at which their order expires
--   NS:index:ended   ZSET  ended and failed sessions by the time they ended
--   NS:node:NAME     HASH  generation host state drain weight max_agents campaigns channels registrations version
--                          lease_until reap_at phones (the number of the last word on them)
--   NS:phones:NAME   HASH  extension -> registered | unreachable | unregistered
--   NS:contacts:NAME HASH  extension -> JSON with address, round trip, expiry (only with a second AMI user)
--   NS:local:NAME    SET   open sessions of local agents: its size is the node's load (never a counter)
--   NS:remote:NAME   SET   open sessions of remote agents
--   NS:session:ID    HASH  alias extension agent campaign remote node state reason since created try tried
--                          give_up order generation wanted
--   NS:holders       HASH  agent:A, alias:L, phone:E -> the open session that holds it
--   NS:aliases       HASH  alias -> extension@node,extension@node,...  (the operators' own table)
--   NS:QUEUE, NS:QUEUE:Q, NS:QUEUES, NS:rt:QUEUE   RSMQ's layout; our queues are logins and ring-NAME
--   NS:news:ID       PUBLISH "STATE REASON" at every change of a session
local ns = KEYS[1]

local function clock()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end

-- HGETALL as a table; nil if the key is not there.
local function record(key)
  local flat = redis.call('HGETALL', key)
  if #flat == 0 then return nil end
  local r = {}
  for i = 1, #flat, 2 do r[flat[i]] = flat[i + 1] end
  return r
end

local function session_key(id) return ns .. ':session:' .. id end

local function is_open(s)
  return s ~= nil and (s.state == 'placed' or s.state == 'ringing' or s.state == 'live')
end

local function base36(n)
  local digits, text = '0123456789abcdefghijklmnopqrstuvwxyz', ''
  repeat
    local r = n % 36
    text = digits:sub(r + 1, r + 1) .. text
    n = (n - r) / 36
  until n == 0
  return text
end

-- RSMQ's createQueue, with RSMQ's own defaults; a queue that is there stays as it is.
local function open_queue(queue)
  local attributes = ns .. ':' .. queue .. ':Q'
  if redis.call('HSETNX', attributes, 'vt', 30) == 1 then
    local t = redis.call('TIME')
    redis.call('HSET', attributes, 'delay', 0, 'maxsize', 65536, 'created', t[1], 'modified', t[1])
    redis.call('SADD', ns .. ':QUEUES', queue)
  end
end

-- RSMQ's sendMessage. The seed stands in for RSMQ's random 22 characters; the caller makes it unique.
local function enqueue(queue, body, seed)
  local t = redis.call('TIME')
  local key = ns .. ':' .. queue
  local attributes = key .. ':Q'
  open_queue(queue)
  local id = base36(tonumber(t[1] .. string.format('%06d', tonumber(t[2])))) .. redis.sha1hex(seed):sub(1, 22)
  redis.call('ZADD', key, tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000), id)
  redis.call('HSET', attributes, id, body)
  redis.call('HINCRBY', attributes, 'totalsent', 1)
  redis.call('PUBLISH', ns .. ':rt:' .. queue, redis.call('ZCARD', key))
  return id
end

-- RSMQ's deleteMessage.
local function dequeue(queue, id)
  local key = ns .. ':' .. queue
  redis.call('ZREM', key, id)
  redis.call('HDEL', key .. ':Q', id, id .. ':rc', id .. ':fr')
end

local function load_set(s)
  return ns .. (s.remote == '1' and ':remote:' or ':local:') .. s.node
end

local function drop_order(s)
  if s.order and s.order ~= '' then dequeue('ring-' .. s.node, s.order) end
end

local function release_holder(field, id)
  if redis.call('HGET', ns .. ':holders', field) == id then redis.call('HDEL', ns .. ':holders', field) end
end

local function tell(id, state, reason)
  redis.call('PUBLISH', ns .. ':news:' .. id, state .. ' ' .. reason)
end

-- Ends an open session: state is ended or failed. It stays readable for keep_ms.
local function finish(id, s, state, reason, now, keep_ms)
  drop_order(s)
  redis.call('SREM', load_set(s), id)
  release_holder('agent:' .. s.agent, id)
  release_holder('alias:' .. s.alias, id)
  release_holder('phone:' .. s.extension, id)
  redis.call('ZREM', ns .. ':index:open', id)
  redis.call('ZREM', ns .. ':index:due', id)
  redis.call('ZADD', ns .. ':index:ended', now, id)
  redis.call('HSET', session_key(id), 'state', state, 'reason', reason, 'since', now, 'order', '')
  redis.call('PEXPIRE', session_key(id), keep_ms)
  s.state, s.reason = state, reason
  tell(id, state, reason)
end

-- The open session that a holder field names. A session whose node is long gone counts as over, and is ended here
-- (unless dry), so that nobody has to wait for the next heartbeat of a survivor.
local function held(field, now, keep_ms, dry)
  local id = redis.call('HGET', ns .. ':holders', field)
  if not id then return nil end
  local s = record(session_key(id))
  if is_open(s) then
    local reap_at = tonumber(redis.call('HGET', ns .. ':node:' .. s.node, 'reap_at') or '0')
    if reap_at >= now then return id, s end
  end
  if dry then return nil end
  if is_open(s) then
    finish(id, s, s.state == 'live' and 'ended' or 'failed', 'node-lost', now, keep_ms)
  else
    redis.call('HDEL', ns .. ':holders', field)
  end
  return nil
end

-- Why this node may not ring this phone; '' if it may. The order of the checks is the order of what an operator
-- would look at first.
local function refusal(n, phone, agents, campaign, remote, now)
  if not n[1] then return 'unknown-node' end
  if tonumber(n[1]) < now then return n[2] == 'stopped' and 'stopped' or 'lapsed' end
  if n[2] ~= 'active' then return n[2] or 'unknown-node' end
  if n[3] == '1' then return 'draining' end
  if n[7] and n[7] ~= '' and not (' ' .. n[7] .. ' '):find(' ' .. campaign .. ' ', 1, true) then return 'campaign' end
  if not phone then return 'unknown-phone' end
  if phone ~= 'registered' then return phone end
  if remote ~= '1' and n[5] and n[5] ~= '' and agents >= tonumber(n[5]) then return 'full' end
  return ''
end

-- Looks at every target {node, extension} and finds the least loaded node that may ring it.
-- tried is a text of node names, each with a blank on both sides. guard: a phone that another session holds is not
-- free; needed where the extensions differ from node to node, or from those of the last time. Without keep_ms nothing
-- is written. Returns the best row or nil, and all rows.
local function survey(targets, guard, campaign, remote, tried, id, now, keep_ms)
  local rows, best = {}, nil
  for i = 1, #targets do
    local name, extension = targets[i][1], targets[i][2]
    local n = redis.call('HMGET', ns .. ':node:' .. name,
      'lease_until', 'state', 'drain', 'weight', 'max_agents', 'channels', 'campaigns')
    local agents = redis.call('SCARD', ns .. ':local:' .. name)
    local phone = redis.call('HGET', ns .. ':phones:' .. name, extension)
    local why = refusal(n, phone, agents, campaign, remote, now)
    if why == '' and tried:find(' ' .. name .. ' ', 1, true) then why = 'tried' end
    if why == '' and guard and redis.call('HGET', ns .. ':holders', 'phone:' .. extension) ~= id
      and held('phone:' .. extension, now, keep_ms, not keep_ms) then why = 'phone-in-use' end
    local row = { name = name, extension = extension, why = why, load = agents / (tonumber(n[4]) or 1),
      channels = tonumber(n[6]) or 0 }
    rows[i] = row
    if why == '' then
      if not best or row.load < best.load or (row.load == best.load and (row.channels < best.channels
        or (row.channels == best.channels and redis.sha1hex(id .. name) < redis.sha1hex(id .. best.name)))) then
        best = row
      end
    end
  end
  return best, rows
end

-- Where an alias may ring: a list of {node, extension}. An explicit alias wins over the suffix; the suffix is taken
-- off only where that names a phone somebody knows, so that an extension may end with it.
-- Second result: whether any node knows such a phone (always true for an explicit alias). Third: explicit or not.
local function resolve(alias, suffix)
  local targets = {}
  local list = redis.call('HGET', ns .. ':aliases', alias)
  if list then
    for extension, node in list:gmatch('([^@,%s]+)@([^@,%s]+)') do targets[#targets + 1] = { node, extension } end
    return targets, true, true
  end
  local names = redis.call('SMEMBERS', ns .. ':index:nodes')
  table.sort(names)
  local stem = alias
  if #alias > #suffix and suffix ~= '' and alias:sub(-#suffix) == suffix then stem = alias:sub(1, -#suffix - 1) end
  for _, extension in ipairs({ stem, alias }) do
    local known = false
    for i, name in ipairs(names) do
      targets[i] = { name, extension }
      known = known or redis.call('HEXISTS', ns .. ':phones:' .. name, extension) == 1
    end
    if known then return targets, true, false end
  end
  for i, name in ipairs(names) do targets[i] = { name, stem } end
  return targets, false, false
end

-- Reserves the session on the row's node and puts the order into that node's queue.
local function assign(id, s, row, now, expiry_ms)
  local attempt = tonumber(s.try or '0') + 1
  s.node, s.extension, s.state, s.reason = row.name, row.extension, 'placed', ''
  redis.call('SADD', load_set(s), id)
  redis.call('HSET', ns .. ':holders', 'agent:' .. s.agent, id, 'alias:' .. s.alias, id, 'phone:' .. s.extension, id)
  redis.call('ZADD', ns .. ':index:open', now, id)
  redis.call('ZADD', ns .. ':index:due', now + expiry_ms, id)
  local order = enqueue('ring-' .. row.name, cjson.encode({ v = 1, kind = 'ring', session = id, try = attempt,
    alias = s.alias, extension = s.extension, agent = s.agent, campaign = s.campaign, remote = s.remote == '1',
    expires = now + expiry_ms }), id .. ':' .. attempt)
  redis.call('HSET', session_key(id), 'alias', s.alias, 'extension', s.extension, 'agent', s.agent,
    'campaign', s.campaign, 'remote', s.remote, 'node', s.node, 'state', 'placed', 'reason', '', 'since', now,
    'created', s.created, 'try', attempt, 'tried', s.tried, 'tries', s.tries, 'suffix', s.suffix,
    'give_up', s.give_up, 'order', order)
  tell(id, 'placed', row.name)
end

-- The session's node cannot ring it: takes the next least loaded node that was not tried, or fails the session.
-- why says what was wrong there. Returns 'placed NODE' or 'failed'.
local function place_again(id, s, why, now, expiry_ms, keep_ms)
  local failed_on, old_extension = s.node, s.extension
  local tried = (s.tried == '' and ' ' or s.tried) .. failed_on .. ' '
  if s.wanted == '1' then
    finish(id, s, 'ended', 'logged-out', now, keep_ms)
    return 'failed'
  end
  -- A node that was never asked to ring is no try: a drain, a stop, a host that died with the order in its queue.
  if s.state == 'placed' then s.tries = tonumber(s.tries) + 1 end
  if tonumber(s.try) >= tonumber(s.tries) or now > tonumber(s.give_up) then
    finish(id, s, 'failed', why, now, keep_ms)
    return 'failed'
  end
  -- What the alias means may have changed since, so the phone may be another one, and somebody's.
  local best = survey(resolve(s.alias, s.suffix), true, s.campaign, s.remote, tried, id, now, keep_ms)
  if not best then
    finish(id, s, 'failed', why, now, keep_ms)
    return 'failed'
  end
  drop_order(s)
  redis.call('SREM', load_set(s), id)
  if best.extension ~= old_extension then release_holder('phone:' .. old_extension, id) end
  s.tried = tried
  assign(id, s, best, now, expiry_ms)
  return 'placed ' .. best.name
end

-- True if this generation may speak for this node.
local function fenced(node, generation)
  local current = redis.call('HGET', ns .. ':node:' .. node, 'generation')
  if not current then return 'unknown' end
  if current ~= generation then return 'fenced' end
  return nil
end
