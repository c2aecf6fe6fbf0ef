-- holds.lua: a hold: the choice and the reservation of a login, without a ring. Whoever asked rings by other means and says so
-- (confirm.lua); until then it ends after its time (heartbeat.lua).
-- Needs: keys events orders
--
-- How long a hold stays without a word: 1 s to 5 minutes.
local function hold_ms(text) return math.max(1000, math.min(tonumber(text) or 30000, 300000)) end

-- Reserves the session on the row's node, as assign() does for one that is rung.
local function assign_held(id, s, row, now, ms, why)
  s.node, s.extension, s.state, s.reason, s.try, s.hold = row.name, row.extension, 'held', '', 1, ms
  s.give_up = now + ms
  write_placed(id, s, '', now + ms .. '', now .. '')
  redis.call('HSET', session_key(id), 'hold', ms)
  announce(id, s, 'held', why)
end

-- Who asks again for a hold that exists has its time begin anew.
local function renew_hold(id, now, ms)
  redis.call('ZADD', ns .. ':index:due', 'XX', now + ms, id)
  redis.call('HSET', session_key(id), 'hold', ms)
end
