-- status.lua: lists the nodes by name, as the scripts see them. Stops before it blocks Redis for long: the rest is left to
-- the next call.
-- ARGV  1 the name behind which it begins ('' = with the first)
-- reply { rows, the name behind which the rest begins ('' = there is none) }
--       rows of { name, state, agents, remote, weight, max agents, registrations, channels, lease left ms (may be
--       negative), generation, version, host, campaigns, refused, queued,
--       runs of the keepalive command, time of the last one in ms, why, result, how it compares names,
--       the phones that it leaves out (JSON), why it is not in sync with its Asterisk, who wants its name, too,
--       its SIP URI, the host under which others reach it, 1 = nobody can tell now how it is: it may not have had the chance to
--       beat (judge.lua) }
-- Needs: keys ring_queue
local from, now = ARGV[1], clock()
-- Orders in queues that one call may read; a row costs as much as so many.
local READ_MOST, A_ROW = 5000, 50
-- Who waits for a name asks for it every second.
local CLAIM_MS = 5000
local names = redis.call('SMEMBERS', ns .. ':index:nodes')
table.sort(names)
local rows, read = {}, 0
local is_unsure = is_silent(now) or judge.tick < judge.hold
for i, name in ipairs(names) do
  if name > from then
    local n = record(ns .. ':node:' .. name) or {}
    local state = n.state or 'unknown'
    local left = tonumber(n.lease_until or '0') - now
    if left < 0 and state ~= 'stopped' then state = 'lease-expired'
    elseif n.drain == '1' and state == 'active' then state = 'draining' end
    -- By this clock its lease has ended, and not yet by the heartbeats of the others.
    local awaited = left < 0 and state ~= 'stopped' and lease_left(n.beat, n.lease, n.expired) >= 0
    local queue, behind = ring_queue_of(name, now)
    local waiting = #queue / 17 + #behind
    rows[#rows + 1] = { name, state, redis.call('SCARD', ns .. ':local:' .. name), redis.call('SCARD', ns .. ':remote:' .. name),
      n.weight or '1', n.max_agents or '', n.registrations or '0', n.channels or '0', left, n.generation or '',
      n.version or '', n.host or '', n.campaigns or '', n.refused or '0',
      waiting, n.kept or '0', n.kept_at or '0', n.kept_why or '', n.kept_result or '', n.case or 'exact', n.left_out or '',
      n.reason or '', now - tonumber(n.claimed_at or '0') < CLAIM_MS and n.claimant or '', n.sip or '', n.address or '',
      (is_unsure or awaited) and '1' or '0' }
    read = read + waiting + A_ROW
    if read > READ_MOST and i < #names then return { rows, name } end
  end
end
return { rows, '' }
