-- fencing.lua: which daemon may speak for a node (P6).
--
-- nil if this generation may speak for this node; else why not. What is refused is counted.
local function fenced(node, generation)
  local current = redis.call('HGET', ns .. ':node:' .. node, 'generation')
  if not current then return 'unknown' end
  if current ~= generation then
    redis.call('HINCRBY', ns .. ':node:' .. node, 'refused', 1)
    return 'fenced'
  end
  return nil
end

-- The same for a call that has a number. 'superseded': a call that this daemon sent later has been carried out. A Redis that was
-- frozen carries out what waits in its connections in any order, also what its sender has given up and said again since.
local function superseded(node, generation, number)
  local bad = fenced(node, generation)
  if bad then return bad end
  local key = ns .. ':node:' .. node
  if tonumber(number) <= tonumber(redis.call('HGET', key, 'writes') or 0) then return 'superseded' end
  redis.call('HSET', key, 'writes', number)
  return nil
end
