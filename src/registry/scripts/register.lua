-- register.lua: a daemon takes a node's name with a new generation, or registers again after Redis lost its data.
-- ARGV  1 node  2 generation  3 host: who holds the name, up to the first blank. The same holder with a new generation
--       is its next life, which has proved that the one before is dead: it takes over at once. Anybody else waits for
--       the end of the lease. What stands behind the blank is for people.
--       4 lease ms  5 weight  6 max agents ('' = no cap)  7 campaigns, blank-separated ('' = all)  8 version
--       9 1 = this generation was registered before: where Redis does not know the node, it has lost more than that.
--       A Redis that has never heard of any node may be one that has lost everything, too
--       10 exact|fold: whether capitals make another alias or extension there
--       11 its SIP URI  12 the host under which others reach it ('' = not set)
-- reply { 'ok', previous generation or '', why the stream of events cannot be written or '' } | { 'held', host, lease left ms }
-- Needs: keys clock rsmq events
local node, generation, host, lease_ms = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local key = ns .. ':node:' .. node
local n = record(key)
local empty = judge.tick == 0
local now = advance(lease_ms, false)
local function who(text) return text:match('^%S*') end
local left = n and lease_left(n.beat, n.lease, n.expired) or -1
-- Two hosts want one name: both are named, once for as long as it lasts.
local function shown(holder) return (holder:gsub('^([^/%s]*)%S*', '%1')) end
local function note_rival(holder)
  local key = ns .. ':index:rivals'
  local known, before = pcall(cjson.decode, redis.call('HGET', key, node) or '')
  if not known or before.rival ~= host or before.holder ~= holder or wall - (tonumber(before.at) or 0) > 60000 then
    append_event('name-conflict', node, '', {}, 'held by ' .. shown(holder) .. ', wanted by ' .. shown(host))
  end
  redis.call('HSET', key, node, cjson.encode({ holder = holder, rival = host, at = string.format('%.0f', wall) }))
end
if n and n.state ~= 'stopped' and n.generation ~= generation and who(n.host or '') ~= who(host) and left >= 0 then
  redis.call('HSET', key, 'claimant', host, 'claimed_at', now)
  note_rival(n.host or '')
  return { 'held', n.host or '', left }
end
local previous = n and n.generation or ''
-- The first one that comes back says so: in two thirds of a lease all the others have beaten twice.
if previous == '' and (empty or ARGV[9] == '1') and judge.tick >= judge.hold then
  redis.call('HSET', ns .. ':judge', 'hold', judge.tick + math.floor(lease_ms * 2 / 3))
end
redis.call('SADD', ns .. ':index:nodes', node)
-- In this order Redis stores a new row, and finds sooner what stands first: what every login looks at.
redis.call('HSETNX', key, 'drain', 0)
redis.call('HSET', key, 'state', 'starting', 'beat', judge.tick, 'lease', lease_ms, 'expired', '',
  'lease_until', now + lease_ms, 'weight', ARGV[5], 'max_agents', ARGV[6], 'channels', 0, 'campaigns', ARGV[7],
  'gone', '', 'generation', generation, 'host', host, 'version', ARGV[8], 'registrations', 0, 'phones', '', 'ring_queue', '',
  'case', ARGV[10], 'sip', ARGV[11], 'address', ARGV[12], 'left_out', '', 'reason', '', 'claimant', '')
-- The takes, heartbeats and other calls of the next life are numbered anew.
if previous ~= generation then redis.call('HDEL', key, 'fetch', 'beats', 'writes') end
-- An RSMQ client sends only into queues that exist.
open_queue('logins')
open_queue('ring-' .. node)
local noted = ''
if previous ~= generation or n.state ~= 'starting' then noted = append_event('node-starting', node, '', {}, 'version ' .. ARGV[8]) end
return { 'ok', previous, type(noted) == 'table' and noted.err or '' }
