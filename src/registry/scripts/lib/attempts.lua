-- attempts.lua: the next attempt of a session whose node cannot ring it or is lost (P4, P10).
-- Needs: keys events sessions eligibility targets quick_choice orders
--
-- Where a session goes that has been somewhere else. What its alias means may have changed since, so its phone may be another
-- one, and somebody's.
local function choose_again(alias, suffix, campaign, remote, tried, id, now, keep_ms)
  local best, awaited = choose_quickly(alias, suffix, campaign, remote, tried, id, now)
  if best and not is_in_use(best.extension, id, now, keep_ms) then return best, false end
  local targets, known = resolve(alias, suffix)
  if not known then return nil, awaited end
  return choose_node(targets, true, campaign, remote, tried, id, now, keep_ms)
end

-- How long a session waits that no node can ring before all of them have beaten again.
local retry_ms = 1000

-- No node can ring the session, as far as is known, and not all is known: it stays where it is, without an order, and is
-- placed again by a heartbeat. why says what was wrong.
local function await_nodes(id, s, why, now)
  local again = s.state == 'placed' and s.order == ''
  s.state, s.reason, s.try = 'placed', why, s.try or '0'
  write_placed(id, s, '', string.format('%.0f', now + retry_ms), string.format('%.0f', now))
  if not again then announce(id, s, 'placed', why .. ': waiting for the nodes to report') end
  return 'waiting'
end

-- The session's node cannot ring it: takes the next least loaded node that was not tried, or fails the session.
-- why says what was wrong there. Returns 'placed NODE', 'waiting' (see await_nodes) or 'failed'.
local function place_again(id, s, why, now, expiry_ms, keep_ms)
  local old_extension, tried = s.extension, s.tried
  -- One that drains is left out anyway, and may be asked again when it has resumed.
  if why ~= 'draining' then tried = (tried == '' and ' ' or tried) .. s.node .. ' ' end
  if s.hangup_requested == '1' then
    finish(id, s, 'ended', 'logged-out', now, keep_ms)
    return 'failed'
  end
  -- A node that rang nobody is no try: a drain, a stop, a host that died with the order in its queue.
  local waits = s.state == 'placed' and s.order == ''
  if not waits and (s.state == 'placed' or why == 'draining' or why == 'stopping') then s.tries = tonumber(s.tries) + 1 end
  if tonumber(s.try) >= tonumber(s.tries) or now > tonumber(s.give_up) then
    finish(id, s, 'failed', why, now, keep_ms)
    return 'failed'
  end
  local best, awaited = choose_again(s.alias, s.suffix, s.campaign, s.remote, tried, id, now, keep_ms)
  if not best and (awaited or is_silent(now)) then
    drop_order(s)
    s.tried = tried
    return await_nodes(id, s, why, now)
  end
  if not best then
    finish(id, s, 'failed', why, now, keep_ms)
    return 'failed'
  end
  drop_order(s)
  count_session('SREM', s, id)
  if best.extension ~= old_extension then release_holder('phone:' .. old_extension, id) end
  s.tried = tried
  assign(id, s, best, now, expiry_ms, why .. ' on ' .. s.node)
  return 'placed ' .. best.name
end

-- Places elsewhere what this node has not taken, until this script has done enough. Returns a list of
-- { session, where }, and 1 if some are left. What waits for the nodes to report is placed again by a heartbeat.
local function move_placed(node, why, now, expiry_ms, keep_ms, most)
  local moved = {}
  for _, set in ipairs({ ':local:', ':remote:' }) do
    for _, id in ipairs(redis.call('SMEMBERS', ns .. set .. node)) do
      local state, order = unpack(redis.call('HMGET', session_key(id), 'state', 'order'))
      if state == 'placed' and order ~= '' then
        if spent >= most then return moved, 1 end
        local s = record(session_key(id))
        if s.node == node then moved[#moved + 1] = { id, place_again(id, s, why, now, expiry_ms, keep_ms) } end
      end
    end
  end
  return moved, 0
end
