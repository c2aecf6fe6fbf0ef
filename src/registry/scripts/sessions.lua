-- sessions.lua: lists sessions, oldest change first, one page at a time. A session that changes between two pages appears
-- again on a later page, in its new state.
-- ARGV  1 which (open|ended|one)  2 most rows  3 session id (for which = one), else where the page begins: as the page before
--       it said, '' = at the first
-- reply { rows, where the next page begins ('' = this was the last) }
--       rows of { id, alias, extension, agent, campaign, node, state, remote, reason, since ms, try, created ms,
--       rejoined from ('' = none), position in its node's ring queue ('' = it waits for nobody),
--       hold (1 = whoever asked rings) }
-- Needs: keys ring_queue
local which, most, from = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local queues, now, read = {}, clock(), 0
-- Positions in queues that one page may read.
local READ_MOST = 5000

-- Who waits on a node, each with their place. Only the first of those that it has not taken: the positions of the others are theirs
-- to wait for.
local function positions_on(node)
  if not queues[node] then
    local queue, behind = ring_queue_of(node, now)
    local positions, count = {}, 0
    for waiting in queue:gmatch('%S+') do count, positions[waiting] = count + 1, count + 1 end
    for i, message in ipairs(behind) do positions[message] = count + i end
    queues[node], read = positions, read + count + #behind
  end
  return queues[node]
end

local function position(id, s)
  if s.state == 'ringing' then return positions_on(s.node)[id] or '' end
  if s.state == 'placed' then return positions_on(s.node)[s.order] or '' end
  return ''
end

-- Sessions of the same moment stand in the order of their ids, so a page begins behind the id that the last one ended with,
-- wherever that session is now.
local ids, scores = { from }, {}
if which ~= 'one' then
  local index = ns .. ':index:' .. which
  local score, last = from:match('^(%S+) (%S+)$')
  ids = {}
  for _, id in ipairs(score and redis.call('ZRANGEBYSCORE', index, score, score) or {}) do
    if id > last and #ids < most then ids[#ids + 1], scores[#ids + 1] = id, score end
  end
  local rest = redis.call('ZRANGEBYSCORE', index, score and '(' .. score or '-inf', '+inf', 'WITHSCORES', 'LIMIT', 0, most - #ids)
  for i = 1, #rest, 2 do ids[#ids + 1], scores[#ids + 1] = rest[i], rest[i + 1] end
end

local rows, next_page = {}, ''
for i, id in ipairs(ids) do
  local s = record(session_key(id))
  if s then
    rows[#rows + 1] = { id, s.alias, s.extension, s.agent, s.campaign, s.node, s.state, s.remote, s.reason,
      s.since, s.try, s.created, s.rejoined_from or '', position(id, s), s.hold and '1' or '' }
  end
  if which ~= 'one' and (i == most or read > READ_MOST) then
    next_page = scores[i] .. ' ' .. id
    break
  end
end
return { rows, next_page }
