-- answers.lua: removes a message from the shared inbox, and sends the answer to the queue that its sender named. Only the
-- call that removes the message answers, so a repetition does not answer twice. Names of our own keys never get here
-- (inbox.rs); a key that exists and is not a queue gets no answer. Unread answers are dropped after an hour, and a queue
-- that was created for answers is removed a week after the last one; queues and messages of others stay. Times are Redis's
-- own, because other programs use these queues too.
-- Needs: keys removal rsmq
--
--   NS:QUEUE:Q  evenring  time of the last answer, in a queue that was made here
local answer_keep_ms, queue_keep_ms = 3600 * 1000, 7 * 24 * 3600 * 1000
-- Ends the ids of answers.
local answer_mark = 'A'

local function is_queue(name)
  return type(redis.pcall('ZCARD', ns .. ':' .. name)) == 'number'
    and type(redis.pcall('HLEN', ns .. ':' .. name .. ':Q')) == 'number'
end

-- Whether the message is still in the inbox.
local function is_waiting(queue, id) return redis.call('ZSCORE', ns .. ':' .. queue, id) end

-- Drops old answers, most of them at most; how many.
local function drop_answers(name, now, most)
  local dropped = 0
  local old = redis.call('ZRANGEBYSCORE', ns .. ':' .. name, '-inf', now - answer_keep_ms, 'LIMIT', 0, most)
  for _, id in ipairs(old) do
    if id:sub(-22):find('^[0-9a-f]+' .. answer_mark .. '$') then
      dequeue(name, id)
      dropped = dropped + 1
    end
  end
  return dropped
end

local function answer(queue, id, answers, body)
  local known = is_waiting(queue, id)
  dequeue(queue, id)
  if not known or answers == '' or not is_queue(answers) then return end
  spent = spent + 15
  local attributes, now = ns .. ':' .. answers .. ':Q', wall
  -- More than come: a queue that nobody reads has the answers of an hour at most.
  drop_answers(answers, now, 2)
  if open_queue(answers) or redis.call('HGET', attributes, 'evenring') then
    redis.call('HSET', attributes, 'evenring', now)
  end
  enqueue(answers, body, redis.sha1hex(id):sub(1, 22 - #answer_mark) .. answer_mark, now)
  redis.call('ZADD', ns .. ':index:answers', now + answer_keep_ms, answers)
end

-- Looks after the queues that got no answer for an hour: a few, the others are looked after next time.
local function end_answers()
  local index, now = ns .. ':index:answers', wall
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', index, '-inf', now, 'LIMIT', 0, 5)) do
    local is_ours = is_queue(name)
    if not is_ours or drop_answers(name, now, 50) < 50 then
      local made = is_ours and tonumber(redis.call('HGET', ns .. ':' .. name .. ':Q', 'evenring') or '')
      local ends = made and made + queue_keep_ms
      if ends and ends > now then
        redis.call('ZADD', index, ends, name)
      else
        if ends and redis.call('ZCARD', ns .. ':' .. name) == 0 then close_queue(name) end
        redis.call('ZREM', index, name)
      end
    end
  end
end
