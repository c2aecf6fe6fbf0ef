-- events.lua: appends events for `evenring events`, and notifies commands that wait for a session.
--
-- Logins that were refused or have failed are counted, by the first word of the reason: a number stands only where it became
-- true, so that each login is counted once in the cluster, whoever placed it. The heartbeat returns them (heartbeat.lua).
--
-- Writes into the stream of events, which keeps a few more than 100,000 entries. A user who may not, or a Redis without memory, stops
-- nobody's login for that: register.lua says so. All entries have the same fields, which Redis then stores once. An event of
-- a node has no session: id '', s {}.
local function append_event(event, node, id, s, reason)
  if event == 'refused' or event == 'failed' then
    redis.pcall('HINCRBY', ns .. ':index:counts', event .. ' ' .. (reason:match('^[a-z-]*[a-z]') or 'other'), 1)
  end
  return redis.pcall('XADD', ns .. ':events', 'MAXLEN', '~', '100000', '*', 'event', event, 'node', node,
    'session', id, 'alias', s.alias or '', 'agent', s.agent or '', 'extension', s.extension or '', 'reason', reason)
end

-- Says that a session's state is another one now: to who waits for it, and in the stream of events.
local function announce(id, s, state, reason)
  redis.call('PUBLISH', ns .. ':news:' .. id, state .. ' ' .. reason)
  append_event(state, s.node, id, s, reason)
end

-- Redis takes no writes now: raises its own error, so that nobody hears another reason. result: of an append_event().
local function raise_unwritable(result)
  local is_unwritable = { OOM = true, MISCONF = true, READONLY = true, NOREPLICAS = true }
  if type(result) == 'table' and is_unwritable[tostring(result.err):match('^-?(%u+)')] then error(result) end
end
