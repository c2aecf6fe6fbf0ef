-- answer.lua: takes a message off the shared inbox, and sends the answer to the queue that its sender named. Only who takes
-- the message off sends one, so that repeating this does not answer twice. Names of our own keys do not come here
-- (inbox.rs); a key that is there and is no queue gets none. Put behind lib.lua.
local function is_queue(name)
  return type(redis.pcall('ZCARD', ns .. ':' .. name)) == 'number'
    and type(redis.pcall('HLEN', ns .. ':' .. name .. ':Q')) == 'number'
end

-- Whether the message is still in the inbox.
local function is_waiting(queue, id) return redis.call('ZSCORE', ns .. ':' .. queue, id) end

local function answer(queue, id, answers, body)
  local known = is_waiting(queue, id)
  dequeue(queue, id)
  if known and answers ~= '' and is_queue(answers) then enqueue(answers, body, 'answer:' .. id, wall()) end
end
