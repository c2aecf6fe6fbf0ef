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
