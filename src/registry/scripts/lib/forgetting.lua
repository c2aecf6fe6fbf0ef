-- forgetting.lua: removes a node with all that is known about it.
-- Needs: removal events
local function sessions_on(node)
  return redis.call('SCARD', ns .. ':local:' .. node) + redis.call('SCARD', ns .. ':remote:' .. node)
end

-- What a node has told of its phones; it tells that again when it comes back.
local function forget_phones(node) unlink(ns .. ':phones:' .. node, ns .. ':contacts:' .. node) end

-- A node without sessions is taken off the list, with all that is known of it. One that comes back after all registers as a
-- new one. False: there is no such node.
local function forget_node(node, why)
  if redis.call('SREM', ns .. ':index:nodes', node) + redis.call('DEL', ns .. ':node:' .. node) == 0 then return false end
  forget_phones(node)
  redis.call('HDEL', ns .. ':index:settings', node)
  redis.call('HDEL', ns .. ':index:rivals', node)
  close_queue('ring-' .. node)
  append_event('node-forgotten', node, '', {}, why)
  return true
end
