-- place.lua: places one login: chooses a node and reserves it in one atomic step (P1, P2, P3). With mode explain, the
-- same choice without writing anything.
-- ARGV  1 mode (place|explain)  2 session  3 alias  4 agent ('' = the phone's own name)  5 campaign ('' = none)
--       6 remote (0|1)  7 alias suffix  8 order expiry ms  9 tries  10 give up after ms  11 keep ended ms
--       12 move (1 = the agent's session with another phone ends for it)
-- reply { outcome, session, node, state, reason, extension, agent, alias, moved from, rows }: those of the session
--       outcome placed (in mode explain: would-place) | existing | refused | not-now (Redis was away or empty, and not all
--       nodes have reported since: nobody knows who is logged in there);
--       moved from = 'SESSION EXTENSION NODE' that the agent was logged out of for this one, '' = none;
--       rows of { node, extension, why ('' = eligible), load (an integer, or a text) }, in no order
-- Needs: placement
local want = { alias = ARGV[3], agent = ARGV[4], campaign = ARGV[5], remote = ARGV[6], move = ARGV[12] }
local rules = { suffix = ARGV[7], expiry_ms = tonumber(ARGV[8]), tries = ARGV[9], give_up_ms = tonumber(ARGV[10]),
  keep_ms = ARGV[11] }
local placed = place_login(ARGV[1], ARGV[2], want, rules, clock())
-- Nodes that cannot write are silent: if Redis refuses this write, that is the reason, and no node is late.
if placed[1] == 'not-now' and ARGV[1] == 'place' then
  redis.call('HSET', ns .. ':index:try', 'at', wall)
  redis.call('PEXPIRE', ns .. ':index:try', 60000)
end
return placed
