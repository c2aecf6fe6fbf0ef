-- place.lua: one login, chosen and reserved in one atomic step (P1, P2, P3). With mode explain: the same choice, and
-- nothing is written.
-- ARGV  1 mode (place|explain)  2 session  3 alias  4 agent ('' = the phone's own name)  5 campaign ('' = none)
--       6 remote (0|1)  7 alias suffix  8 order expiry ms  9 tries  10 give up after ms  11 keep ended ms
-- reply { outcome, session, node, state, reason, extension, agent, rows }
--       outcome placed (in mode explain: would-place) | existing | refused | not-now (Redis was away or empty, and not all
--       nodes have reported since: nobody knows who is logged in there);
--       rows of { node, extension, why ('' = eligible), load (an integer, or a text) }, in no order
local mode, id, alias, agent, campaign, remote = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local suffix, expiry_ms, tries, give_up_ms, keep_ms = ARGV[7], tonumber(ARGV[8]), ARGV[9], tonumber(ARGV[10]), ARGV[11]
local now = clock()
local named = agent ~= ''

local targets, known, explicit = resolve(alias, suffix)
local first = targets[1] and targets[1][2] or alias
if not named then agent = explicit and alias or first end

local function reply(outcome, s, session, reason, rows)
  if outcome == 'refused' and mode == 'place' then
    note('refused', '', '', { alias = alias, agent = agent, extension = first }, reason)
  end
  return { outcome, session, s.node or '', s.state or '', reason, s.extension or '', s.agent or agent, rows }
end

-- P1: the same request again (its answer was lost, or its message came back to the inbox) finds its own session, also
-- one that is over by now: nothing rings twice.
local own = mode == 'place' and redis.call('EXISTS', session_key(id)) == 1 and record(session_key(id))
if own then
  if is_open(own) then
    held('agent:' .. own.agent, now, keep_ms)
    own = record(session_key(id))
  end
  local _, rows = survey(targets, explicit, campaign, remote, '', id, now)
  return reply('existing', own, id, own.reason, rows)
end

-- P1: who is logged in already gets the session that exists. Somebody else's phone is refused.
local fields = { 'agent:' .. agent, 'alias:' .. alias }
if not explicit then fields[3] = 'phone:' .. first end
local holders = redis.call('HMGET', ns .. ':holders', unpack(fields))
for i, field in ipairs(fields) do
  local existing, s = nil, nil
  if holders[i] then existing, s = held(field, now, keep_ms, mode == 'explain') end
  if existing then
    local _, rows = survey(targets, explicit, campaign, remote, '', id, now)
    if named and s.agent ~= agent then return reply('refused', s, existing, 'in-use', rows) end
    return reply('existing', s, existing, s.reason, rows)
  end
end

local best, rows, awaited = survey(targets, explicit, campaign, remote, '', id, now, mode == 'place' and keep_ms or nil)
if #rows == 0 then
  return reply(explicit and 'refused' or 'not-now', {}, '', explicit and 'empty-alias' or 'no-node', rows)
end
if awaited or is_silent(now) or judge.tick < judge.hold then return reply('not-now', {}, '', 'recovering', rows) end
if not best then return reply('refused', {}, '', known and 'no-eligible-node' or 'unknown-alias', rows) end
if mode == 'explain' then
  return reply('would-place', { node = best.name, extension = best.extension }, '', '', rows)
end

local s = { alias = alias, agent = agent, campaign = campaign, remote = remote, suffix = suffix, tries = tries,
  tried = '', created = now, give_up = now + give_up_ms }
assign(id, s, best, now, expiry_ms, '')
return reply('placed', s, id, '', rows)
