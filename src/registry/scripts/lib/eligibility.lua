-- eligibility.lua: which nodes may ring a login, and which of them is the best (P2, P3): the active node with the lowest load
-- on which the phone is registered.
-- Needs: keys nodes sessions
--
-- Why this node may not ring this phone; '' if it may. The order of the checks is the order of what an operator
-- would look at first.
local function ineligible_reason(node, phone, campaign, remote)
  if node.unavailable then return node.unavailable end
  if node.campaigns and not node.campaigns:find(' ' .. campaign .. ' ', 1, true) then return 'campaign' end
  if not phone then return 'unknown-phone' end
  if phone ~= 'registered' then return phone end
  if node.most and remote ~= '1' and node.agents >= node.most then return 'full' end
  return ''
end

-- Whether another session holds this phone.
local function is_in_use(extension, id, now, keep_ms)
  return redis.call('HGET', ns .. ':holders', 'phone:' .. extension) ~= id
    and open_session_of('phone:' .. extension, now, keep_ms, not keep_ms) ~= nil
end

-- Whether a row has this value in this column.
local function is_among(rows, column, value)
  for _, row in ipairs(rows) do
    if row[column] == value then return true end
  end
  return false
end

-- Looks at every target { node, extension, state of the phone there, 0 } and makes it a row of a reply: { node, extension,
-- why ('' = it may ring), load }. The best of them has the lowest load, then the fewest channels; among equals the
-- session's id decides. tried is a text of node names, each with a blank on both sides. guard: a phone that another
-- session holds is not free; needed where the extensions differ from node to node, or from those of the last time.
-- Without keep_ms nothing is written. Returns the best as { name, extension } or nil, and whether one of the nodes is awaited.
local function choose_node(rows, guard, campaign, remote, tried, id, now, keep_ms)
  local best, equals, least, fewest, awaited = nil, nil, 0, 0, false
  -- Mostly it is the same phone on every node.
  local in_use = {}
  spent = spent + #rows
  for i = 1, #rows do
    local row = rows[i]
    local name, extension, phone = row[1], row[2], row[3]
    local node = node_row(name, now)
    awaited = awaited or node.awaited
    local why = ineligible_reason(node, phone, campaign, remote)
    if why == '' and tried ~= '' and tried:find(' ' .. name .. ' ', 1, true) then why = 'tried' end
    if why == '' and guard then
      if in_use[extension] == nil then in_use[extension] = is_in_use(extension, id, now, keep_ms) end
      if in_use[extension] then why = 'phone-in-use' end
    end
    local load, channels = node.agents / node.weight, node.channels
    -- Redis cuts a number to an integer
    row[3], row[4] = why, load % 1 == 0 and load or string.format('%.6g', load)
    if why ~= '' then
      -- Not this one.
    elseif not best or load < least or (load == least and channels < fewest) then
      best, equals, least, fewest = row, nil, load, channels
    elseif load == least and channels == fewest then
      equals = equals or { best }
      -- A node that an alias lists twice is no likelier than another.
      if not guard or not is_among(equals, 1, name) then equals[#equals + 1] = row end
    end
  end
  if not best then return nil, awaited end
  if equals then best = equals[tonumber(id:sub(-6), 16) % #equals + 1] end
  return { name = best[1], extension = best[2] }, awaited
end
