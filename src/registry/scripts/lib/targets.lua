-- targets.lua: where an alias may ring, and where a session goes that cannot ring where it is.
-- Needs: keys nodes eligibility
--
-- The alias without its suffix; nil if it has none.
local function without_suffix(alias, suffix)
  if suffix ~= '' and #alias > #suffix and alias:sub(-#suffix) == suffix then return alias:sub(1, -#suffix - 1) end
  return nil
end

-- This extension on every node, and whether any of them knows such a phone.
local function everywhere(extension)
  local names = all_nodes()
  local targets, known = {}, false
  spent = spent + #names
  for i = 1, #names do
    local phone = redis.call('HGET', ns .. ':phones:' .. names[i], extension)
    targets[i], known = { names[i], extension, phone, 0 }, known or phone
  end
  return targets, known and true
end

-- Where an alias may ring: a list of { node, extension, state of the phone there, 0 }. An explicit alias wins over the
-- suffix; the suffix is taken off only where that names a phone somebody knows, so that an extension may end with it.
-- Second result: whether any node knows such a phone (always true for an explicit alias). Third: explicit or not.
local function resolve(alias, suffix)
  local list = redis.call('HGET', ns .. ':aliases', alias)
  if list then
    local targets = {}
    for extension, node in list:gmatch('([^@,%s]+)@([^@,%s]+)') do
      targets[#targets + 1] = { node, extension, redis.call('HGET', ns .. ':phones:' .. node, extension), 0 }
    end
    return targets, true, true
  end
  local stem = without_suffix(alias, suffix)
  local targets, known = everywhere(stem or alias)
  if known or not stem then return targets, known, false end
  local itself, is_known = everywhere(alias)
  return is_known and itself or targets, is_known, false
end

-- The same choice as of resolve() and choose_node(), where it needs no look at every phone: one of the first few nodes that have the
-- lowest load of all has it. Among equals the session's id decides which is the first. The best as {name, extension}, or
-- nil: only a look at everything can tell. Second result: whether one of the nodes is awaited.
local few = 8
local function choose_quickly(alias, suffix, campaign, remote, tried, id, now)
  if redis.call('HGET', ns .. ':aliases', alias) then return nil, false end
  local names, ties, least, fewest, awaited = all_nodes(), {}, 0, 0, false
  for i = 1, #names do
    local name = names[i]
    local node = node_row(name, now)
    awaited = awaited or node.awaited
    local load, channels = node.agents / node.weight, node.channels
    local no_worse = not ties[1] or load < least or (load == least and channels <= fewest)
    if no_worse and ineligible_reason(node, 'registered', campaign, remote) == ''
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
