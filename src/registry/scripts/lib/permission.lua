-- permission.lua: what the ACL allows the user that runs the script.
--
-- Whether this user may run a command: its name and arguments, blank-separated; NS stands for the namespace. Nothing is
-- executed. A command that this Redis does not know is not allowed.
local function is_allowed(line)
  local words = {}
  for word in line:gmatch('%S+') do words[#words + 1] = (word:gsub('^NS', function() return ns end)) end
  local known, allowed = pcall(redis.acl_check_cmd, unpack(words))
  return known and allowed
end
