-- choice.lua: where a login may ring, and which of these nodes it gets (P2, P3). Put behind lib.lua.
--
-- Why this node may not ring this phone; '' if it may. The order of the checks is the order of what an operator
-- would look at first.
local function refusal(n, phone, agents, campaign, remote)
  if n[CLOSED] then return n[CLOSED] end
  if n[CAMPAIGNS] and not n[CAMPAIGNS]:find(' ' .. campaign .. ' ', 1, true) then return 'campaign' end
  if not phone then return 'unknown-phone' end
  if phone ~= 'registered' then return phone end
  if remote ~= '1' and n[MOST] and agents >= n[MOST] then return 'full' end
  return ''
end

-- Whether another session holds this phone.
local function is_in_use(extension, id, now, keep_ms)
  return redis.call('HGET', ns .. ':holders', 'phone:' .. extension) ~= id
    and held('phone:' .. extension, now, keep_ms, not keep_ms) ~= nil
end

local function is_tried(tried, name) return tried:find(' ' .. name .. ' ', 1, true) end

-- Looks at every target {node, extension, state of the phone there} and makes it a row of a reply: {node, extension,
-- why ('' = it may ring), load}. The best of them has the lowest load, then the fewest channels; among equals the
-- session's id decides. tried is a text of node names, each with a blank on both sides. guard: a phone that another
-- session holds is not free; needed where the extensions differ from node to node, or from those of the last time.
-- Without keep_ms nothing is written. Returns the best as {name, extension} or nil, all rows, and whether one of the nodes
-- is awaited.
local function survey(rows, guard, campaign, remote, tried, id, now, keep_ms)
  local best, seen, least, fewest, awaited = {}, {}, 0, 0, false
  -- Mostly it is the same phone on every node.
  local in_use = {}
  spent = spent + #rows
  for i = 1, #rows do
    local row = rows[i]
    local name, extension = row[1], row[2]
    local n, agents = node_row(name, now), agents_on(name)
    awaited = awaited or n[AWAITED]
    local why = refusal(n, row[3], agents, campaign, remote)
    if why == '' and tried ~= '' and is_tried(tried, name) then why = 'tried' end
    if why == '' and guard then
      if in_use[extension] == nil then in_use[extension] = is_in_use(extension, id, now, keep_ms) end
      if in_use[extension] then why = 'phone-in-use' end
    end
    local load = agents / n[WEIGHT]
    -- Redis cuts a number to an integer
    row[3], row[4] = why, load % 1 == 0 and load or string.format('%.6g', load)
    if why == '' then
      local channels = n[CHANNELS]
      if not best[1] or load < least or (load == least and channels < fewest) then
        best, seen, least, fewest = { row }, { [name] = true }, load, channels
      elseif load == least and channels == fewest and not seen[name] then
        -- a node that is listed twice is no likelier than another
        best[#best + 1], seen[name] = row, true
      end
    end
  end
  local row = best[1]
  if not row then return nil, rows, awaited end
  if best[2] then row = best[tonumber(id:sub(-6), 16) % #best + 1] end
  return { name = row[1], extension = row[2] }, rows, awaited
end

-- The alias without its suffix; nil if it has none.
local function without_suffix(alias, suffix)
  if suffix ~= '' and #alias > #suffix and alias:sub(-#suffix) == suffix then return alias:sub(1, -#suffix - 1) end
  return nil
end

-- Where an alias may ring: a list of {node, extension, state of the phone there}. An explicit alias wins over the
-- suffix; the suffix is taken off only where that names a phone somebody knows, so that an extension may end with it.
-- Second result: whether any node knows such a phone (always true for an explicit alias). Third: explicit or not.
local function resolve(alias, suffix)
  local list = redis.call('HGET', ns .. ':aliases', alias)
  if list then
    local targets = {}
    for extension, node in list:gmatch('([^@,%s]+)@([^@,%s]+)') do
      targets[#targets + 1] = { node, extension, redis.call('HGET', ns .. ':phones:' .. node, extension) }
    end
    return targets, true, true
  end
  local names = all_nodes()
  local function everywhere(extension)
    local targets, known = {}, false
    spent = spent + #names
    for i, name in ipairs(names) do
      local phone = redis.call('HGET', ns .. ':phones:' .. name, extension)
      targets[i], known = { name, extension, phone }, known or phone
    end
    return targets, known and true
  end
  local stem = without_suffix(alias, suffix)
  local targets, known = everywhere(stem or alias)
  if known or not stem then return targets, known, false end
  local itself, is_known = everywhere(alias)
  return is_known and itself or targets, is_known, false
end

-- The same choice as of resolve() and survey(), where it needs no look at every phone: one of the first few nodes that have the
-- lowest load of all has it. Among equals the session's id decides which is the first. The best as {name, extension}, or
-- nil: only a look at everything can tell. Second result: whether one of the nodes is awaited.
local few = 8
local function seek(alias, suffix, campaign, remote, tried, id, now)
  if redis.call('HGET', ns .. ':aliases', alias) then return nil, false end
  local names, ties, least, fewest, awaited = all_nodes(), {}, 0, 0, false
  for i = 1, #names do
    local name = names[i]
    local n, agents = node_row(name, now), agents_on(name)
    awaited = awaited or n[AWAITED]
    local load, channels = agents / n[WEIGHT], n[CHANNELS]
    local no_worse = not ties[1] or load < least or (load == least and channels <= fewest)
    if no_worse and refusal(n, 'registered', agents, campaign, remote) == ''
      and (tried == '' or not is_tried(tried, name)) then
      if load ~= least or channels ~= fewest then ties, least, fewest = {}, load, channels end
      ties[#ties + 1] = name
    end
  end
  spent = spent + #names / 5
  local extension, first = without_suffix(alias, suffix) or alias, tonumber(id:sub(-6), 16)
  for i = 1, math.min(#ties, few) do
    local name = ties[(first + i) % #ties + 1]
    spent = spent + 1
    if redis.call('HGET', ns .. ':phones:' .. name, extension) == 'registered' then
      return { name = name, extension = extension }, awaited
    end
  end
  return nil, awaited
end

-- Where a session goes that has been somewhere else. What its alias means may have changed since, so its phone may be another
-- one, and somebody's.
local function choose(alias, suffix, campaign, remote, tried, id, now, keep_ms)
  local best, awaited = seek(alias, suffix, campaign, remote, tried, id, now)
  if best and not is_in_use(best.extension, id, now, keep_ms) then return best, false end
  local targets, known = resolve(alias, suffix)
  if not known then return nil, awaited end
  local _
  best, _, awaited = survey(targets, true, campaign, remote, tried, id, now, keep_ms)
  return best, awaited
end
