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
--                          lost (1 = the others have noticed the end of its lease)  gone (when they did)  noted (the number of its last note)
--                          kept kept_at kept_why kept_result (how often the keepalive command has run, and the last run)
--                          phones (the number of the last word on them)  case (exact|fold: how it compares names)
--                          left_out (JSON: the phones that it leaves out, by reason, with examples)
--                          take (the number of its daemon's last take)
--                          line (while it paces: who waits for his turn to ring, ids with a blank behind each)
--   NS:phones:NAME   HASH  extension -> registered | unreachable | unregistered
--   NS:contacts:NAME HASH  extension -> JSON with address, round trip, expiry (only with a second AMI user)
--   NS:phones:NAME:GENERATION:NUMBER, NS:contacts:...  HASH  a table that is being told in parts, for a minute at most
--   NS:index:answers ZSET  queues that got answers, by the time at which to look whether they were taken (answer.lua)
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

-- Takes keys away without keeping Redis, however large they are. A user who may not do that has them taken away all the same.
local function unlink(...)
  if type(redis.pcall('UNLINK', ...)) ~= 'number' then redis.call('DEL', ...) end
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
    unlink(key)
    redis.call('RENAME', aside, key)
    redis.call('PERSIST', key)
  else
    unlink(aside)
    if complete then unlink(key) end
  end
  return complete
end

-- RSMQ's createQueue, with RSMQ's own defaults; a queue that is there stays as it is. True: it was not there.
local function open_queue(queue)
  local attributes = ns .. ':' .. queue .. ':Q'
  local is_new = redis.call('HSETNX', attributes, 'vt', 30) == 1
  if is_new then
    redis.call('HSET', attributes, 'delay', 0, 'maxsize', 65536, 'created', moment[1], 'modified', moment[1])
    redis.call('SADD', ns .. ':QUEUES', queue)
  end
  return is_new
end

-- RSMQ's deleteQueue.
local function close_queue(queue)
  local key = ns .. ':' .. queue
  unlink(key, key .. ':Q')
  redis.call('SREM', ns .. ':QUEUES', queue)
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
local node_names, node_rows, local_agents = nil, {}, {}

-- What this script has cost Redis so far, in commands; what is the same in every call is not counted. One that does much for
-- many sessions stops at a limit, and is called again.
local spent = 0

local function all_nodes()
  node_names = node_names or redis.call('SMEMBERS', ns .. ':index:nodes')
  return node_names
end

-- What stands where in a node_row(): why it rings nobody now, whoever asks, or false; numbers, most agents or nil; its campaigns
-- with a blank on both sides of each, or false: all; whether it is awaited. (One more table for each node would cost every login.)
local CLOSED, WEIGHT, MOST, CHANNELS, CAMPAIGNS, AWAITED = 1, 4, 5, 6, 7, 8

local function node_row(name, now)
  local n = node_rows[name]
  if n then return n end
  spent = spent + 3
  n = redis.call('HMGET', ns .. ':node:' .. name,
    'lease_until', 'state', 'drain', 'weight', 'max_agents', 'channels', 'campaigns', 'beat', 'lease', 'lost')
  local left, state, closed = n[1] and tonumber(n[1]) - now, n[2], false
  if not left then closed = 'unknown-node'
  -- More than the whole lease: the clock that wrote it was another one.
  elseif left < 0 or left > tonumber(n[9]) then closed = state == 'stopped' and 'stopped' or 'lapsed'
  elseif state ~= 'active' then closed = state or 'unknown-node'
  elseif n[3] == '1' then closed = 'draining' end
  n[AWAITED], n[CLOSED] = is_awaited(n[8], n[9], n[10], state), closed
  n[WEIGHT], n[MOST], n[CHANNELS] = tonumber(n[4]) or 1, tonumber(n[5] or ''), tonumber(n[6]) or 0
  n[CAMPAIGNS] = n[7] and n[7] ~= '' and ' ' .. n[7] .. ' '
  node_rows[name] = n
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
  spent = spent + 20
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

local function sessions_on(node)
  return redis.call('SCARD', ns .. ':local:' .. node) + redis.call('SCARD', ns .. ':remote:' .. node)
end

-- What a node has told of its phones; it tells that again when it comes back.
local function forget_phones(node) unlink(ns .. ':phones:' .. node, ns .. ':contacts:' .. node) end

-- A node without sessions is taken off the list, with all that is known of it. One that comes back after all registers as a
-- new one. False: there is no such node.
local function forget_node(node, why)
  if redis.call('SREM', ns .. ':index:nodes', node) + redis.call('DEL', ns .. ':node:' .. node) == 0 then return false end
  forget_phones(node)
  close_queue('ring-' .. node)
  note_node('node-forgotten', node, why)
  return true
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
