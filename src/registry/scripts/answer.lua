-- answer.lua: takes a login off the shared inbox, and sends the answer to the queue that its sender named. Only who takes
-- the message off sends one, so that repeating this does not answer twice; a name that is no queue's gets none.
-- ARGV  1 queue  2 message id  3 queue for the answer ('' = none)  4 the answer
-- reply { 'ok' }
local queue, id, answers, body = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local ours = { QUEUES = true, holders = true, aliases = true, story = true }
local known = redis.call('ZSCORE', ns .. ':' .. queue, id)
dequeue(queue, id)
if known and answers ~= '' and not ours[answers] then enqueue(answers, body, 'answer:' .. id, wall()) end
return { 'ok' }
