-- try_login.lua: whether Redis would take a login now. It checks the ACL and, if nothing is missing, writes one key that ends by
-- itself: if Redis refuses that, it would refuse a login with the same error, which is the reply.
-- ARGV  commands that a login needs, each with its arguments (permission.lua)
-- reply { for each command 1 or 0 }
-- Needs: permission
local may, is_complete = {}, true
for i = 1, #ARGV do
  may[i] = is_allowed(ARGV[i]) and 1 or 0
  is_complete = is_complete and may[i] == 1
end
if is_complete then
  local key = ns .. ':index:try'
  redis.call('HSET', key, 'at', wall)
  redis.call('PEXPIRE', key, 60000)
end
return may
