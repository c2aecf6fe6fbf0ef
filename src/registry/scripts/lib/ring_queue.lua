-- ring_queue.lua: the logins that wait on a node because of its pacing.
--
-- Returns the ring queue that the node reports while it paces, and the first of the orders that it has not fetched. Both are
-- empty if there is no ring queue.
local function ring_queue_of(node, now)
  local queue, behind = redis.call('HGET', ns .. ':node:' .. node, 'ring_queue') or '', {}
  if queue == '' then return queue, behind end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', ns .. ':ring-' .. node, '-inf', now, 'LIMIT', 0, 2000)) do
    -- An order to hang up is marked so.
    if id:sub(-1) ~= 'H' then behind[#behind + 1] = id end
  end
  return queue, behind
end
