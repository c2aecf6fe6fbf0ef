-- queue.lua: the queues, for operators: what waits in them, and what becomes of logins that nobody could read. A queue of orders is
-- its node's alone: its messages are neither given back nor dropped. Times are Redis's own, as RSMQ's clients have them.
-- ARGV  1 what (list|peek|retry|drop)  2 queue ('' for list)  3 most rows  4 list: the name behind which it begins ('' = with
--       the first); peek: where it begins, from 0; retry, drop: a message ('' = the oldest ones)
-- reply list { rows of { name, messages, how many of them can be received, ms that the oldest of these has waited, sent, received },
--         the name behind which the rest begins ('' = there is none) }
--       peek { rows of { id, body, times received, sent ms }, '' }
--       retry, drop { how many, 'more' ('' = none are left) }
--       retry puts the messages of logins-dead into logins again; what is no wrapped message is left
-- Needs: rsmq
local what, queue, most, from = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local key = ns .. ':' .. queue
local attributes = key .. ':Q'

if what == 'list' then
  local names, rows = redis.call('SMEMBERS', ns .. ':QUEUES'), {}
  table.sort(names)
  for _, name in ipairs(names) do
    if name > from then
      if #rows == most then return { rows, rows[most][1] } end
      local its = ns .. ':' .. name
      local sent, received = unpack(redis.call('HMGET', its .. ':Q', 'totalsent', 'totalrecv'))
      local oldest = redis.call('ZRANGEBYSCORE', its, '-inf', wall, 'WITHSCORES', 'LIMIT', 0, 1)
      -- Of messages that a reader has, or that are for later, there are few.
      local hidden = redis.call('ZRANGEBYSCORE', its, '(' .. wall, '+inf', 'LIMIT', 0, 1000)
      local all = redis.call('ZCARD', its)
      rows[#rows + 1] = { name, all, all - #hidden,
        oldest[2] and wall - math.floor(tonumber(oldest[2])) or 0, sent or '0', received or '0' }
    end
  end
  return { rows, '' }
end

if what == 'peek' then
  local rows, at = {}, tonumber(from) or 0
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', key, '-inf', '+inf', 'LIMIT', at, most)) do
    local body, count = unpack(redis.call('HMGET', attributes, id, id .. ':rc'))
    -- RSMQ begins its ids with the time in µs, in base 36.
    local us = tonumber(id:sub(1, 10), 36) or 0
    rows[#rows + 1] = { id, body or '', count or '0', string.format('%.0f', us / 1000) }
  end
  return { rows, '' }
end

local ids = from ~= '' and { from } or redis.call('ZRANGEBYSCORE', key, '-inf', '+inf', 'LIMIT', 0, most)
local done = 0
for _, id in ipairs(ids) do
  local body = redis.call('ZSCORE', key, id) and redis.call('HGET', attributes, id)
  local readable, dead = pcall(cjson.decode, body or '')
  if what == 'drop' and body then
    dequeue(queue, id)
    done = done + 1
  elseif what == 'retry' and readable and type(dead) == 'table' and type(dead.message) == 'string' then
    enqueue('logins', dead.message, redis.sha1hex(id):sub(1, 22), wall)
    dequeue(queue, id)
    done = done + 1
  end
end
return { done, from == '' and done > 0 and redis.call('ZCARD', key) > 0 and 'more' or '' }
