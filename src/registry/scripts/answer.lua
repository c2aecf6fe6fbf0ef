-- answer.lua: takes a login off the shared inbox, and sends the answer to the queue that its sender named.
-- ARGV  1 queue  2 message id  3 queue for the answer ('' = none)  4 the answer
-- reply { 'ok' }
dequeue(ARGV[1], ARGV[2])
if ARGV[3] ~= '' then enqueue(ARGV[3], ARGV[4], 'answer:' .. ARGV[2]) end
return { 'ok' }
