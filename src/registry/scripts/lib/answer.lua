-- answer.lua: takes a message off the shared inbox, and sends the answer to the queue that its sender named. Only who takes
-- the message off sends one, so that repeating this does not answer twice; a name that is no queue's gets none. Put behind
-- lib.lua.
local not_for_answers = { QUEUES = true, holders = true, aliases = true, story = true }

-- Whether the message is still in the inbox.
local function is_waiting(queue, id) return redis.call('ZSCORE', ns .. ':' .. queue, id) end

local function answer(queue, id, answers, body)
  local known = is_waiting(queue, id)
  dequeue(queue, id)
  if known and answers ~= '' and not not_for_answers[answers] then enqueue(answers, body, 'answer:' .. id, wall()) end
end
