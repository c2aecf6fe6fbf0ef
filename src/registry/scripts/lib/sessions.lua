-- sessions.lua: the records of sessions, and what is derived from them: loads, holders, indexes.
-- Needs: keys rsmq events nodes
local function load_set(s)
  return ns .. (s.remote == '1' and ':remote:' or ':local:') .. s.node
end

-- Counts a session in or out: command is SADD or SREM. What this script has seen of the node stays true to it.
local function count_session(command, s, id)
  local changed = redis.call(command, load_set(s), id)
  local row = s.remote ~= '1' and node_rows[s.node]
  if row then row.agents = row.agents + (command == 'SADD' and changed or -changed) end
end

local function drop_order(s)
  if s.order and s.order ~= '' then dequeue('ring-' .. s.node, s.order) end
end

local function release_holder(field, id)
  if redis.call('HGET', ns .. ':holders', field) == id then redis.call('HDEL', ns .. ':holders', field) end
end

-- Ends an open session: state is ended or failed. It stays readable for keep_ms. Whose end was asked for because the agent
-- moves to another phone has moved.
local function finish(id, s, state, reason, now, keep_ms)
  spent = spent + 20
  if reason == 'logged-out' and s.moved_to then reason = 'moved' end
  drop_order(s)
  count_session('SREM', s, id)
  release_holder('agent:' .. s.agent, id)
  release_holder('alias:' .. s.alias, id)
  release_holder('phone:' .. s.extension, id)
  redis.call('ZREM', ns .. ':index:open', id)
  redis.call('ZREM', ns .. ':index:due', id)
  redis.call('ZADD', ns .. ':index:ended', now, id)
  redis.call('HSET', session_key(id), 'state', state, 'reason', reason, 'since', now, 'order', '')
  redis.call('PEXPIRE', session_key(id), keep_ms)
  s.state, s.reason = state, reason
  announce(id, s, state, reason)
end

-- The open session that a holder field names. A session whose node is dead counts as over, and is ended here (unless dry),
-- so that nobody has to wait for the next heartbeat of a survivor.
local function open_session_of(field, now, keep_ms, dry)
  local id = redis.call('HGET', ns .. ':holders', field)
  if not id then return nil end
  local s = record(session_key(id))
  if is_open(s) then
    local beat, lease, expired = unpack(redis.call('HMGET', ns .. ':node:' .. s.node, 'beat', 'lease', 'expired'))
    if lease_left(beat, lease, expired) >= 0 then return id, s end
  end
  if dry then return nil end
  if is_open(s) then
    finish(id, s, (s.state == 'live' or s.state == 'held') and 'ended' or 'failed', 'node-lost', now, keep_ms)
  else
    redis.call('HDEL', ns .. ':holders', field)
  end
  return nil
end
