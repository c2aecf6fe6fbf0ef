-- removal.lua: how keys and queues are taken away.
--
-- Takes keys away without keeping Redis, however large they are. A user who may not do that has them taken away all the same.
local function unlink(...)
  if type(redis.pcall('UNLINK', ...)) ~= 'number' then redis.call('DEL', ...) end
end

-- RSMQ's deleteQueue.
local function close_queue(queue)
  local key = ns .. ':' .. queue
  unlink(key, key .. ':Q')
  redis.call('SREM', ns .. ':QUEUES', queue)
end
