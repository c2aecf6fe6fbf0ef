-- placement.lua: one login, chosen and reserved (P1, P2, P3). place.lua and settle.lua share it, so that a login of the inbox
-- is placed as any other.
-- Needs: keys events nodes sessions eligibility targets orders moves
--
-- The reply of place.lua. s: the session, {} = none.
local function reply_of(outcome, s, session, reason, agent, rows)
  return { outcome, session, s.node or '', s.state or '', reason, s.extension or '', s.agent or agent, s.alias or '', '', rows }
end

-- The same of a login that gets no session, which is an event.
local function refuse_login(reason, s, session, mode, alias, agent, rows)
  if mode ~= 'explain' then
    local told = append_event('refused', '', '', { alias = alias, agent = agent, extension = rows[1] and rows[1][2] or alias }, reason)
    -- A full or read-only Redis loses its nodes one by one; none of them is the reason.
    raise_unwritable(told)
  end
  return reply_of('refused', s, session, reason, agent, rows)
end

-- want { alias, agent ('' = the phone's own name), campaign ('' = none), remote (0|1), move (1 = the agent's session with
-- another phone ends for it), known (true = a phone need not be registered) }, rules { suffix, expiry_ms, tries, give_up_ms,
-- keep_ms, reserve (instead of assign(), or nil) }; mode place, or explain (nothing is written). best, awaited: what choose_quickly() has found, where nobody wants to see why each node was chosen or not. The
-- result is place.lua's reply.
local function place_login(mode, id, want, rules, now, best, awaited)
  local alias, agent, campaign, remote = want.alias, want.agent, want.campaign, want.remote
  local suffix, expiry_ms, tries, keep_ms = rules.suffix, rules.expiry_ms, rules.tries, rules.keep_ms
  local named = agent ~= ''

  local targets, known, explicit
  if best then
    targets, known, explicit = { { best.name, best.extension } }, true, false
  else
    targets, known, explicit = resolve(alias, suffix)
  end
  if want.known then
    for _, target in ipairs(targets) do target[3] = target[3] and 'registered' end
  end
  local first = targets[1] and targets[1][2] or alias
  if not named then agent = explicit and alias or first end

  -- P1: the same request again (its answer was lost, or its message came back to the inbox) finds its own session, also
  -- one that is over by now: nothing rings twice.
  local own = mode ~= 'explain' and redis.call('EXISTS', session_key(id)) == 1 and record(session_key(id))
  if own then
    if is_open(own) then
      open_session_of('agent:' .. own.agent, now, keep_ms)
      own = record(session_key(id))
    end
    choose_node(targets, explicit, campaign, remote, '', id, now)
    return reply_of('existing', own, id, own.reason, agent, targets)
  end

  -- P1: who is logged in already gets the session that exists. Somebody else's phone is refused, and so is another phone
  -- than that of the agent's session, unless the agent moves to it.
  local old_id, old
  local fields = { 'agent:' .. agent, 'alias:' .. alias, 'phone:' .. first }
  local holders = redis.call('HMGET', ns .. ':holders', fields[1], fields[2], fields[3])
  for i = 1, explicit and 2 or 3 do
    local existing, s = nil, nil
    if holders[i] then existing, s = open_session_of(fields[i], now, keep_ms, mode == 'explain') end
    -- The session is none of what this login asks for: neither its alias nor one of its phones.
    local elsewhere = existing and s.alias ~= alias and not is_among(targets, 2, s.extension)
    if elsewhere and want.move == '1' then
      old_id, old = existing, s
    elseif existing then
      choose_node(targets, explicit, campaign, remote, '', id, now)
      if elsewhere then return refuse_login('logged-in-elsewhere', s, existing, mode, alias, agent, targets) end
      -- A phone whose call ends for a move is not free yet.
      if (named and s.agent ~= agent) or s.moved_to then return refuse_login('in-use', s, existing, mode, alias, agent, targets) end
      return reply_of('existing', s, existing, s.reason, agent, targets)
    end
  end

  -- The choice is made as if the old session were over already (P2).
  local left = old and old.remote ~= '1' and node_row(old.node, now)
  if left then left.agents = left.agents - 1 end
  if not best then
    best, awaited = choose_node(targets, explicit, campaign, remote, '', id, now, mode ~= 'explain' and keep_ms or nil)
  end
  if left then left.agents = left.agents + 1 end
  if #targets == 0 then
    if explicit then return refuse_login('empty-alias', {}, '', mode, alias, agent, targets) end
    return reply_of('not-now', {}, '', 'no-node', agent, targets)
  end
  if awaited or is_silent(now) or judge.tick < judge.hold then return reply_of('not-now', {}, '', 'recovering', agent, targets) end
  if not best then return refuse_login(known and 'no-eligible-node' or 'unknown-alias', {}, '', mode, alias, agent, targets) end
  if mode == 'explain' then
    return reply_of('would-place', { node = best.name, extension = best.extension }, '', '', agent, targets)
  end

  local s = { alias = alias, agent = agent, campaign = campaign, remote = remote, suffix = suffix, tries = tries,
    tried = '', give_up = now + rules.give_up_ms }
  local was = old and move_out(old_id, old, id, now, keep_ms) or ''
  local reserve = rules.reserve or assign
  reserve(id, s, best, now, expiry_ms, old and 'moved from ' .. old_id or '')
  local placed = reply_of('placed', s, id, '', agent, targets)
  placed[9] = was
  return placed
end
