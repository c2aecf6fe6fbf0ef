-- quick_choice.lua: the same choice as eligibility.lua makes, without a look at every phone.
-- Needs: keys nodes eligibility targets
--
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
      and (tried == '' or not tried:find(' ' .. name .. ' ', 1, true)) then
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
