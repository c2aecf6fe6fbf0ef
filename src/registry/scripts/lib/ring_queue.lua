-- ring_queue.lua: who waits on a node for their turn to ring.
--
-- Who waits on a node for their turn to ring: the line that the node tells while it paces, and behind it the first of the orders
-- to ring that it has not taken. Nobody, where there is no line.
local function ring_queue_of(node, now)
  local line, behind = redis.call('HGET', ns .. ':node:' .. node, 'line') or '', {}
  if line == '' then return line, behind end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', ns .. ':ring-' .. node, '-inf', now, 'LIMIT', 0, 2000)) do
    -- An order to hang up is marked so.
    if id:sub(-1) ~= 'H' then behind[#behind + 1] = id end
  end
  return line, behind
end
