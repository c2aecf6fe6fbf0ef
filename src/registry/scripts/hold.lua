-- hold.lua: a login that nobody rings (holds.lua): chooses a node and reserves it in one atomic step, as place.lua does. An agent
-- has one session, so the same agent gets it again: a hold has its time begin anew then.
-- ARGV  1 session  2 alias  3 agent ('' = the phone's own name)  4 campaign ('' = none)  5 remote (0|1)  6 alias suffix
--       7 ms that it stays without a word  8 keep ended ms  9 move (as of place.lua)  10 known (1 = the phone need not be registered)
-- reply that of place.lua; outcome placed: the session is held
-- Needs: placement holds
local want = { alias = ARGV[2], agent = ARGV[3], campaign = ARGV[4], remote = ARGV[5], move = ARGV[9], known = ARGV[10] == '1' }
local ms = hold_ms(ARGV[7])
local rules = { suffix = ARGV[6], expiry_ms = ms, tries = '1', give_up_ms = ms, keep_ms = ARGV[8], reserve = assign_held }
local now = clock()
local placed = place_login('place', ARGV[1], want, rules, now)
if placed[1] == 'existing' and placed[4] == 'held' then renew_hold(placed[2], now, ms) end
return placed
