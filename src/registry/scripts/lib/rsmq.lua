-- rsmq.lua: RSMQ's own queues, as its clients in any language read and write them.
--
-- RSMQ's createQueue, with RSMQ's own defaults; a queue that is there stays as it is. True: it was not there.
local function open_queue(queue)
  local attributes = ns .. ':' .. queue .. ':Q'
  local is_new = redis.call('HSETNX', attributes, 'vt', 30) == 1
  if is_new then
    redis.call('HSET', attributes, 'delay', 0, 'maxsize', 65536, 'created', seconds, 'modified', seconds)
    redis.call('SADD', ns .. ':QUEUES', queue)
  end
  return is_new
end

-- RSMQ's sendMessage. at: the time at which it can be received. tail stands in for RSMQ's 22 random letters and digits; the
-- caller makes it unique.
local function enqueue(queue, body, tail, at)
  local key = ns .. ':' .. queue
  local attributes = key .. ':Q'
  -- RSMQ begins its ids with the time in µs, in base 36: ten digits, from 1973 to 2085.
  local us, digits = seconds * 1000000 + micros, { 48, 48, 48, 48, 48, 48, 48, 48, 48, 48 }
  for at = 10, 1, -1 do
    local digit = us % 36
    digits[at] = digit < 10 and 48 + digit or 87 + digit
    us = (us - digit) / 36
  end
  local id = string.char(unpack(digits)) .. tail
  redis.call('ZADD', key, at, id)
  redis.call('HSET', attributes, id, body)
  if redis.call('HINCRBY', attributes, 'totalsent', '1') == 1 then open_queue(queue) end
  redis.call('PUBLISH', ns .. ':rt:' .. queue, redis.call('ZCARD', key))
  return id
end

-- RSMQ's deleteMessage.
local function dequeue(queue, id)
  local key = ns .. ':' .. queue
  redis.call('ZREM', key, id)
  redis.call('HDEL', key .. ':Q', id, id .. ':rc', id .. ':fr')
end
