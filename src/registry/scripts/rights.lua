-- rights.lua: which commands the calling user may run. Nothing is executed: Redis only checks the ACL.
-- ARGV  commands, each with its arguments, blank-separated; NS stands for the namespace
-- reply { version of Redis, for each command 1 or 0 }
local may = { redis.REDIS_VERSION or 'before 7.0' }
for i = 1, #ARGV do
  local words = {}
  for word in ARGV[i]:gmatch('%S+') do words[#words + 1] = (word:gsub('^NS', function() return ns end)) end
  -- A command that this Redis does not know is an error.
  local known, allowed = pcall(redis.acl_check_cmd, unpack(words))
  may[i + 1] = known and allowed and 1 or 0
end
return may
