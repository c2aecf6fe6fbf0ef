-- targets.lua: the phones that an alias may ring, and the quick choice among them.
-- Needs: keys nodes
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
