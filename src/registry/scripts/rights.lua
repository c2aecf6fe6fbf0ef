-- rights.lua: which commands the calling user may run. Nothing is executed: Redis only checks the ACL.
-- ARGV  commands, each with its arguments (permission.lua)
-- reply { version of Redis, for each command 1 or 0 }
-- Needs: permission
local may = { redis.REDIS_VERSION or 'before 7.0' }
for i = 1, #ARGV do may[i + 1] = is_allowed(ARGV[i]) and 1 or 0 end
return may
