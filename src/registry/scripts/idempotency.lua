-- idempotency.lua: keeps what a session id was first used for, so that the same key with another request is noticed. The session
-- id is made of the key.
-- ARGV  1 session  2 digest of the request  3 keep ms
-- reply { 'ok' } | { 'other' } (the id was used for another request)
local key = ns .. ':idempotency:' .. ARGV[1]
local is_new = redis.call('HSETNX', key, 'request', ARGV[2]) == 1
if not is_new and redis.call('HGET', key, 'request') ~= ARGV[2] then return { 'other' } end
redis.call('PEXPIRE', key, ARGV[3])
return { 'ok' }
