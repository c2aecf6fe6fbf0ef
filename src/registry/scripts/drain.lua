-- drain.lua: drains or resumes a node (P10). The flag stays until it is changed again. A draining node gets no logins;
-- orders that it has not fetched are placed on other nodes at once; its ringing and live sessions stay. Idempotent. The
-- daemon is notified, so that it gives back what it has not rung yet.
-- ARGV  1 node  2 drain (0|1)  3 order expiry ms  4 keep ended ms  5 most work (keys.lua)
--       6 who wants it, for the event ('' = nobody in particular)
-- reply { 'ok', before (0|1), others, moved, more (1 = to be said again: orders are left) } | { 'unknown' }
--       others = how many other nodes are in the rotation; moved of { session, where }
-- Needs: events nodes attempts
local node, drain = ARGV[1], ARGV[2]
local key = ns .. ':node:' .. node
local generation, before = unpack(redis.call('HMGET', key, 'generation', 'drain'))
if not generation then return { 'unknown' } end
local now = clock()
redis.call('HSET', key, 'drain', drain)
if (before == '1') ~= (drain == '1') then append_event(drain == '1' and 'node-drain' or 'node-resume', node, '', {}, ARGV[6]) end
local moved, more = {}, 0
if drain == '1' then moved, more = move_placed(node, 'draining', now, tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])) end
local others = 0
for _, name in ipairs(all_nodes()) do
  if name ~= node and not node_row(name, now).unavailable then others = others + 1 end
end
redis.call('PUBLISH', ns .. ':rt:ring-' .. node, 'admin-state')
return { 'ok', before == '1' and 1 or 0, others, moved, more }
