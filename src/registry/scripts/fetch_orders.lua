-- fetch_orders.lua: a node fetches its orders. RSMQ's receiveMessage for up to max visible orders, and in the same step the
-- session goes placed -> ringing, so that an order that is delivered again does nothing (P1).
-- A reply may be lost, and a fetch may be carried out long after its daemon has given it up. So each fetch has a number:
-- one with a lower number than the last takes nothing, and orders of earlier fetches whose reply was lost are delivered
-- again (P4). A node with a ring queue appends them to it (ring_queue.lua).
-- ARGV  1 node  2 generation  3 visibility time in s  4 max orders  5 order expiry ms  6 keep ended ms
--       7 number of this take  8 number of the first take whose answer did not come, or this one  9 most work (keys.lua): where
--       orders are placed elsewhere, the rest may be for a next call
-- reply { 'ok', rows } | { 'not-now' } (no node has beaten for a while, or none that knows the time: how old an order is, is known after that)
--       | { 'fenced' } | { 'unknown' }
--       rows of { 'ring', session, try, alias, extension, agent, campaign, remote, waited ms } | { 'hangup', session }
--             | { 'moved', session, where } | { 'expired', session } | { 'stale', session }
-- Needs: keys fencing rsmq events sessions attempts
local node, generation, vt, max = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local expiry_ms, keep_ms, number, since = tonumber(ARGV[5]), ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8])
local most_work = tonumber(ARGV[9])
local bad = fenced(node, generation)
if bad then return { bad } end
local now = clock()
if is_silent(now) or (redis.call('HGET', ns .. ':judge', 'doubt') or '0') ~= '0' then return { 'not-now' } end
local queue = 'ring-' .. node
local key = ns .. ':' .. queue
local attributes = key .. ':Q'
local state, drain, queue_before, take = unpack(redis.call('HMGET', ns .. ':node:' .. node, 'state', 'drain', 'ring_queue', 'fetch'))
if number < tonumber(take or '0') then return { 'ok', {} } end
redis.call('HSET', ns .. ':node:' .. node, 'fetch', number)
local queue_text = queue_before or ''

-- The session's order goes to the node, unless it is too old or the node takes none now.
local function hand_out(id, s, order)
  local expires = tonumber(order.expires) or 0
  if now > expires then
    local result = place_again(id, s, 'order-expired', now, expiry_ms, keep_ms)
    if result == 'failed' then return { 'expired', id } end
    return { 'moved', id, result }
  end
  if state ~= 'active' or drain == '1' then
    local why = drain == '1' and 'draining' or state
    return { 'moved', id, place_again(id, s, why, now, expiry_ms, keep_ms) }
  end
  redis.call('ZREM', ns .. ':index:due', id)
  redis.call('ZADD', ns .. ':index:open', now, id)
  redis.call('HSET', session_key(id), 'state', 'ringing', 'since', now, 'generation', generation, 'fetch', number)
  local waits = queue_text ~= ''
  if waits and not (' ' .. queue_text):find(' ' .. id .. ' ', 1, true) then queue_text = queue_text .. id .. ' ' end
  announce(id, s, waits and 'queued' or 'ringing', s.again or '')
  return { 'ring', id, s.try, s.alias, s.extension, s.agent, s.campaign, s.remote,
    tostring(math.max(0, now - expires + expiry_ms)) }
end

local function ring(message, order)
  local id = tostring(order.session)
  local s = record(session_key(id))
  if not s or s.state ~= 'placed' or s.node ~= node or tostring(order.try) ~= s.try then
    dequeue(queue, message)
    return { 'stale', id }
  end
  return hand_out(id, s, order)
end

local function read(message)
  local readable, order = pcall(cjson.decode, redis.call('HGET', attributes, message) or '')
  return readable and type(order) == 'table' and order or nil
end

local rows = {}
if since < number then
  for _, set in ipairs({ ':local:', ':remote:' }) do
    for _, id in ipairs(redis.call('SMEMBERS', ns .. set .. node)) do
      local s = record(session_key(id))
      local order = s and s.state == 'ringing' and s.node == node and s.generation == generation
        and tonumber(s.fetch or '0') >= since and read(s.order)
      if order and s.hangup_requested == '1' then
        finish(id, s, 'ended', 'logged-out', now, keep_ms)
        rows[#rows + 1] = { 'stale', id }
      elseif order then
        -- Nobody was asked to ring it.
        s.state, s.again = 'placed', 'delivered again'
        rows[#rows + 1] = hand_out(id, s, order)
      end
    end
  end
end
for _, message in ipairs(redis.call('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT', 0, max)) do
  if spent >= most_work then break end
  -- One that was placed elsewhere may have ended the session of another, and taken its order away.
  local is_there = redis.call('ZSCORE', key, message)
  if is_there then
    redis.call('ZADD', key, now + vt * 1000, message)
    redis.call('HINCRBY', attributes, 'totalrecv', 1)
    if redis.call('HINCRBY', attributes, message .. ':rc', 1) == 1 then
      redis.call('HSET', attributes, message .. ':fr', now)
    end
  end
  local order = read(message)
  if not is_there then
    -- Nothing is left to do.
  elseif not order then
    dequeue(queue, message)
    rows[#rows + 1] = { 'stale', '' }
  elseif order.kind == 'hangup' then
    dequeue(queue, message)
    rows[#rows + 1] = { 'hangup', tostring(order.session) }
  else
    rows[#rows + 1] = ring(message, order)
  end
end
if queue_text ~= (queue_before or '') then redis.call('HSET', ns .. ':node:' .. node, 'ring_queue', queue_text) end
return { 'ok', rows }
