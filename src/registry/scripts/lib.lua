-- lib.lua: what every script shares. It is put before each script's own text, so a script is one round trip.
--
-- Times are milliseconds on Redis's own clock, as judge.lua has it. A session is open while it is placed, ringing or live.
--
--   NS:index:nodes   SET   names of all nodes that ever registered
--   NS:index:open    ZSET  open sessions by the time of their last change
--   NS:index:due     ZSET  placed sessions by the time at which their order expires
--   NS:index:ended   ZSET  ended and failed sessions by the time they ended
--   NS:node:NAME     HASH  generation host state drain weight max_agents campaigns channels registrations version
--                          lease_until  beat (the tick of its last heartbeat)  lease (ms; of one that stopped: its grace)
--                          beats (the number of its last heartbeat)  refused
--                          lost (1 = the others have noticed the end of its lease)  noted (the number of its last note)
--                          kept kept_at kept_why kept_result (how often the keepalive command has run, and the last run)
--                          phones (the number of the last word on them)
--                          take (the number of its daemon's last take)
--                          line (while it paces: who waits for his turn to ring, ids with a blank behind each)
--   NS:phones:NAME   HASH  extension -> registered | unreachable | unregistered
--   NS:contacts:NAME HASH  extension -> JSON with address, round trip, expiry (only with a second AMI user)
--   NS:phones:NAME:GENERATION:NUMBER, NS:contacts:...  HASH  a table that is being told in parts, for a minute at most
--   NS:index:listeners ZSET the nodes that a wake-up of the inbox reaches, by the time until which they do (receive.lua)
--   NS:local:NAME    SET   open sessions of local agents: its size is the node's load (never a counter)
--   NS:remote:NAME   SET   open sessions of remote agents
--   NS:session:ID    HASH  alias extension agent campaign remote node state reason since created try tried
--                          give_up order generation take wanted rejoined_from
--   NS:holders       HASH  agent:A, alias:L, phone:E -> the open session that holds it
--   NS:aliases       HASH  alias -> extension@node,extension@node,...  (the operators' own table)
--   NS:QUEUE, NS:QUEUE:Q, NS:QUEUES, NS:rt:QUEUE   RSMQ's layout; our queues are logins and ring-NAME
--   NS:story         STREAM what happened: event node session alias agent phone reason, see tell and note
--   NS:news:ID       PUBLISH "STATE REASON" at every change of a session
--   NS:rt:ring-NAME  PUBLISH "duty" when the node drains or resumes; anything else is RSMQ's word for a new order
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
  local bytes, digit = {}, 0
  repeat
    local r = n % 36
    digit = digit + 1
    bytes[digit] = r < 10 and 48 + r or 87 + r
    n = (n - r) / 36
  until n == 0
  return string.char(unpack(bytes)):reverse()
end

-- A table that is told in parts stands as it was until the last part is there. `number` keeps what comes late from
-- another telling out; `total` is how many fields the whole has, or nil: more parts follow. The pairs begin at ARGV[first].
-- True: this is the table now. False: a part is missing, and the table is as it was. Nil: more parts follow.
local function retell(key, number, total, first)
  local aside = key .. ':' .. number
  if #ARGV >= first then redis.call('HSET', aside, unpack(ARGV, first)) end
  if total == nil then
    redis.call('PEXPIRE', aside, 60000)
    return nil
  end
  local complete = redis.call('HLEN', aside) == total
  if complete and total > 0 then
    -- A large table goes without keeping Redis. A user who may not do that has it replaced all the same.
    redis.pcall('UNLINK', key)
    redis.call('RENAME', aside, key)
    redis.call('PERSIST', key)
  else
    redis.call('DEL', aside)
    if complete then redis.call('DEL', key) end
  end
  return complete
end

-- RSMQ's createQueue, with RSMQ's own defaults; a queue that is there stays as it is.
local function open_queue(queue)
  local attributes = ns .. ':' .. queue .. ':Q'
  if redis.call('HSETNX', attributes, 'vt', 30) == 1 then
    redis.call('HSET', attributes, 'delay', 0, 'maxsize', 65536, 'created', moment[1], 'modified', moment[1])
    redis.call('SADD', ns .. ':QUEUES', queue)
  end
end

-- RSMQ's sendMessage. The seed stands in for RSMQ's random 22 characters; the caller makes it unique. at: the time at
-- which it can be received. mark: ends the id, which has no capital letter otherwise.
local function enqueue(queue, body, seed, at, mark)
  local key = ns .. ':' .. queue
  local attributes = key .. ':Q'
  local us = moment[1] * 1000000 + moment[2]
  local id = base36(us) .. redis.sha1hex(seed):sub(1, 22 - #(mark or '')) .. (mark or '')
  redis.call('ZADD', key, at, id)
  redis.call('HSET', attributes, id, body)
  if redis.call('HINCRBY', attributes, 'totalsent', 1) == 1 then open_queue(queue) end
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

-- What this script has seen of the nodes. It looks at each once, however many sessions it is about; what it writes itself to
-- a node's row, it writes before the first of these.
local node_names, node_rows, local_agents, looked = nil, {}, {}, 0

-- How often this script has asked where a session may ring, one node at a time; the end of a session counts as ten. It is the
-- measure of what a script costs Redis: one that does much for many sessions stops at a limit, and is called again.
local function looks() return looked end

local function all_nodes()
  node_names = node_names or redis.call('SMEMBERS', ns .. ':index:nodes')
  return node_names
end

-- As refusal() takes it.
local function node_row(name)
  local n = node_rows[name]
  if not n then
    n = redis.call('HMGET', ns .. ':node:' .. name,
      'lease_until', 'state', 'drain', 'weight', 'max_agents', 'channels', 'campaigns', 'beat', 'lease', 'lost')
    node_rows[name] = n
  end
  return n
end

local function agents_on(name)
  if not local_agents[name] then local_agents[name] = redis.call('SCARD', ns .. ':local:' .. name) end
  return local_agents[name]
end

local function count_in(s, id)
  local change = redis.call('SADD', load_set(s), id)
  if s.remote ~= '1' and local_agents[s.node] then local_agents[s.node] = local_agents[s.node] + change end
end

local function count_out(s, id)
  local change = redis.call('SREM', load_set(s), id)
  if s.remote ~= '1' and local_agents[s.node] then local_agents[s.node] = local_agents[s.node] - change end
end

local function drop_order(s)
  if s.order and s.order ~= '' then dequeue('ring-' .. s.node, s.order) end
end

local function release_holder(field, id)
  if redis.call('HGET', ns .. ':holders', field) == id then redis.call('HDEL', ns .. ':holders', field) end
end

-- Writes into the story, which keeps a few more than 100,000 entries. A user who may not, or a Redis without memory, stops
-- nobody's login for that: register.lua says so. All entries have the same fields, which Redis then stores once.
local function note(event, node, id, s, reason)
  return redis.pcall('XADD', ns .. ':story', 'MAXLEN', '~', '100000', '*', 'event', event, 'node', node,
    'session', id, 'alias', s.alias or '', 'agent', s.agent or '', 'phone', s.extension or '', 'reason', reason)
end

local function note_node(event, node, reason) return note(event, node, '', {}, reason) end

-- Says that a session's state is another one now: to who waits for it, and in the story.
local function tell(id, s, state, reason)
  redis.call('PUBLISH', ns .. ':news:' .. id, state .. ' ' .. reason)
  note(state, s.node, id, s, reason)
end

-- Ends an open session: state is ended or failed. It stays readable for keep_ms.
local function finish(id, s, state, reason, now, keep_ms)
  looked = looked + 10
  drop_order(s)
  count_out(s, id)
  release_holder('agent:' .. s.agent, id)
  release_holder('alias:' .. s.alias, id)
  release_holder('phone:' .. s.extension, id)
  redis.call('ZREM', ns .. ':index:open', id)
  redis.call('ZREM', ns .. ':index:due', id)
  redis.call('ZADD', ns .. ':index:ended', now, id)
  redis.call('HSET', session_key(id), 'state', state, 'reason', reason, 'since', now, 'order', '')
  redis.call('PEXPIRE', session_key(id), keep_ms)
  s.state, s.reason = state, reason
  tell(id, s, state, reason)
end

-- The open session that a holder field names. A session whose node is dead counts as over, and is ended here (unless dry),
-- so that nobody has to wait for the next heartbeat of a survivor.
local function held(field, now, keep_ms, dry)
  local id = redis.call('HGET', ns .. ':holders', field)
  if not id then return nil end
  local s = record(session_key(id))
  if is_open(s) then
    local n = redis.call('HMGET', ns .. ':node:' .. s.node, 'beat', 'lease', 'lost')
    if not is_dead(n[1], n[2], n[3]) then return id, s end
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
  local left = tonumber(n[1]) - now
  -- More than the whole lease: the clock that wrote it was another one.
  if left < 0 or left > tonumber(n[9]) then return n[2] == 'stopped' and 'stopped' or 'lapsed' end
  if n[2] ~= 'active' then return n[2] or 'unknown-node' end
  if n[3] == '1' then return 'draining' end
  if n[7] and n[7] ~= '' and not (' ' .. n[7] .. ' '):find(' ' .. campaign .. ' ', 1, true) then return 'campaign' end
  if not phone then return 'unknown-phone' end
  if phone ~= 'registered' then return phone end
  if remote ~= '1' and n[5] and n[5] ~= '' and agents >= tonumber(n[5]) then return 'full' end
  return ''
end

-- Looks at every target {node, extension, state of the phone there} and makes it a row of a reply: {node, extension,
-- why ('' = it may ring), load}. The best of them has the lowest load, then the fewest channels; among equals the
-- session's id decides. tried is a text of node names, each with a blank on both sides. guard: a phone that another
-- session holds is not free; needed where the extensions differ from node to node, or from those of the last time.
-- Without keep_ms nothing is written. Returns the best as {name, extension} or nil, all rows, and whether one of the nodes
-- is awaited.
local function survey(rows, guard, campaign, remote, tried, id, now, keep_ms)
  local best, seen, least, fewest, awaited = {}, {}, 0, 0, false
  local in_use = {}
  -- Mostly it is the same phone on every node.
  local function is_in_use(extension)
    if in_use[extension] == nil then
      in_use[extension] = redis.call('HGET', ns .. ':holders', 'phone:' .. extension) ~= id
        and held('phone:' .. extension, now, keep_ms, not keep_ms) ~= nil
    end
    return in_use[extension]
  end
  looked = looked + #rows
  for i = 1, #rows do
    local row = rows[i]
    local name, extension = row[1], row[2]
    local n, agents = node_row(name), agents_on(name)
    awaited = awaited or is_awaited(n[8], n[9], n[10], n[2])
    local why = refusal(n, row[3], agents, campaign, remote, now)
    if why == '' and tried ~= '' and tried:find(' ' .. name .. ' ', 1, true) then why = 'tried' end
    if why == '' and guard and is_in_use(extension) then why = 'phone-in-use' end
    local load = agents / (tonumber(n[4]) or 1)
    -- Redis cuts a number to an integer
    row[3], row[4] = why, load % 1 == 0 and load or string.format('%.6g', load)
    if why == '' then
      local channels = tonumber(n[6]) or 0
      if not best[1] or load < least or (load == least and channels < fewest) then
        best, seen, least, fewest = { row }, { [name] = true }, load, channels
      elseif load == least and channels == fewest and not seen[name] then
        -- a node that is listed twice is no likelier than another
        best[#best + 1], seen[name] = row, true
      end
    end
  end
  local row = best[1]
  if not row then return nil, rows, awaited end
  if best[2] then row = best[tonumber(id:sub(-6), 16) % #best + 1] end
  return { name = row[1], extension = row[2] }, rows, awaited
end

-- Where an alias may ring: a list of {node, extension, state of the phone there}. An explicit alias wins over the
-- suffix; the suffix is taken off only where that names a phone somebody knows, so that an extension may end with it.
-- Second result: whether any node knows such a phone (always true for an explicit alias). Third: explicit or not.
local function resolve(alias, suffix)
  local list = redis.call('HGET', ns .. ':aliases', alias)
  if list then
    local targets = {}
    for extension, node in list:gmatch('([^@,%s]+)@([^@,%s]+)') do
      targets[#targets + 1] = { node, extension, redis.call('HGET', ns .. ':phones:' .. node, extension) }
    end
    return targets, true, true
  end
  local names = all_nodes()
  local function everywhere(extension)
    local targets, known = {}, false
    for i, name in ipairs(names) do
      local phone = redis.call('HGET', ns .. ':phones:' .. name, extension)
      targets[i], known = { name, extension, phone }, known or phone
    end
    return targets, known and true
  end
  if #alias <= #suffix or suffix == '' or alias:sub(-#suffix) ~= suffix then
    local targets, known = everywhere(alias)
    return targets, known, false
  end
  local targets, known = everywhere(alias:sub(1, -#suffix - 1))
  if known then return targets, true, false end
  local itself, is_known = everywhere(alias)
  return is_known and itself or targets, is_known, false
end

-- Writes a placed session with its attempt so far. order: its message in the node's queue ('' = it has none yet).
local function write_placed(id, s, order, due, now)
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
  -- What the alias means may have changed since, so the phone may be another one, and somebody's.
  local targets = resolve(s.alias, s.suffix)
  local best, _, awaited = survey(targets, true, s.campaign, s.remote, tried, id, now, keep_ms)
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

-- Places elsewhere what this node has not taken, until this script has looked at nodes often enough. Returns a list of
-- { session, where }, and 1 if some are left. What waits for the nodes to report is placed again by a heartbeat.
local function move_placed(node, why, now, expiry_ms, keep_ms, most)
  local moved = {}
  for _, set in ipairs({ ':local:', ':remote:' }) do
    for _, id in ipairs(redis.call('SMEMBERS', ns .. set .. node)) do
      local known = redis.call('HMGET', session_key(id), 'state', 'order')
      if known[1] == 'placed' and known[2] ~= '' then
        if looks() >= most then return moved, 1 end
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
  local targets = resolve(f.alias, f.suffix)
  local best, _, awaited = survey(targets, true, f.campaign, f.remote, f.tried, fresh, now, keep_ms)
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

-- Who waits on a node for their turn to ring: the line that the node tells while it paces, and behind it the first of the orders
-- to ring that it has not taken. Nobody, where there is no line.
local function queued(node, now)
  local line, behind = redis.call('HGET', ns .. ':node:' .. node, 'line') or '', {}
  if line == '' then return line, behind end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', ns .. ':ring-' .. node, '-inf', now, 'LIMIT', 0, 2000)) do
    -- An order to hang up is marked so.
    if id:sub(-1) ~= 'H' then behind[#behind + 1] = id end
  end
  return line, behind
end

-- nil if this generation may speak for this node; else why not. What is refused is counted.
local function fenced(node, generation)
  local current = redis.call('HGET', ns .. ':node:' .. node, 'generation')
  if not current then return 'unknown' end
  if current ~= generation then
    redis.call('HINCRBY', ns .. ':node:' .. node, 'refused', 1)
    return 'fenced'
  end
  return nil
end
