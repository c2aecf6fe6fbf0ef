-- report.lua: a node reports the outcomes of its sessions. Fenced by generation; idempotent.
-- ARGV  1 node  2 generation  3 number (fencing.lua)  4 order expiry ms  5 keep ended ms  6 tries of an agent's new session
--       when their call is lost with this node's Asterisk, 0 = they log in again  7 give up after ms  8 state of the node:
--       one that is not active is out of the rotation before its sessions are settled  9 most work (keys.lua), then for each
--       session three: session, what (live|ended|failed|try-next-node), reason
--       try-next-node = this node could not ring the phone: the next node is tried (P4)
-- reply { 'ok', results } | { 'fenced' } | { 'unknown' } | { 'superseded' }
--       a result each, for the first of them, one at least (the rest is for a next call): done | placed NODE | waiting | failed | gone (no such open session on this node) | what rejoin() says
-- Needs: keys fencing events sessions attempts rejoin
local node, generation, expiry_ms, keep_ms = ARGV[1], ARGV[2], tonumber(ARGV[4]), ARGV[5]
local bad = superseded(node, generation, ARGV[3])
if bad then return { bad } end
local now = clock()
local results = {}
local tries, give_up_ms = tonumber(ARGV[6]), tonumber(ARGV[7])
if ARGV[8] ~= 'active' and redis.call('HGET', ns .. ':node:' .. node, 'state') == 'active' then
  redis.call('HSET', ns .. ':node:' .. node, 'state', ARGV[8])
  append_event('node-down', node, '', {}, '')
end
for i = 10, #ARGV, 3 do
  local id, what, reason = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local s = record(session_key(id))
  local result = 'done'
  if not is_open(s) or s.node ~= node or s.state == 'placed' or s.hold then
    result = 'gone'
  elseif what == 'live' then
    if s.state == 'ringing' then
      drop_order(s)
      redis.call('ZADD', ns .. ':index:open', now, id)
      redis.call('HSET', session_key(id), 'state', 'live', 'reason', '', 'since', now, 'order', '',
        'generation', generation)
      announce(id, s, 'live', '')
      spent = spent + 12
    end
  elseif what == 'try-next-node' and s.state == 'ringing' then
    result = place_again(id, s, reason, now, expiry_ms, keep_ms)
  elseif what == 'ended' then
    finish(id, s, 'ended', reason, now, keep_ms)
    if reason == 'node-lost' then
      result = rejoin(id, s, tries, give_up_ms, now, expiry_ms, keep_ms) or result
    end
  else
    finish(id, s, 'failed', reason, now, keep_ms)
  end
  results[#results + 1] = result
  if spent >= tonumber(ARGV[9]) then break end
end
return { 'ok', results }
