-- nodes.lua: the nodes as a script sees them. Each is read once per call, however many sessions the call handles; a script
-- writes to a node's hash before the first read.
-- Needs: keys
local node_names, node_rows = nil, {}

local function all_nodes()
  node_names = node_names or redis.call('SMEMBERS', ns .. ':index:nodes')
  return node_names
end

-- Whether some node may be awaited: for the longest of all leases after a silence.
local is_settling = judge.tick - judge.floor <= judge.longest

-- A node as a login sees it: unavailable (why it rings nobody now, whoever asks; or false), agents (its load), weight, most (agents;
-- or false), channels, campaigns (with a blank on both sides of each; or false: all), awaited.
local function node_row(name, now)
  local row = node_rows[name]
  if row then return row end
  spent = spent + 3
  local key = ns .. ':node:' .. name
  local lease_until, lease, state, drain, weight, most, channels, campaigns = unpack(redis.call('HMGET', key,
    'lease_until', 'lease', 'state', 'drain', 'weight', 'max_agents', 'channels', 'campaigns'))
  local left, unavailable = lease_until and lease_until - now, false
  if not left then unavailable = 'unknown-node'
  -- More than the whole lease: the clock that wrote it was another one.
  elseif left < 0 or left > tonumber(lease) then unavailable = state == 'stopped' and 'stopped' or 'lease-expired'
  elseif state ~= 'active' then unavailable = state or 'unknown-node'
  elseif drain == '1' then unavailable = 'draining' end
  row = { unavailable = unavailable, agents = redis.call('SCARD', ns .. ':local:' .. name), weight = tonumber(weight) or 1,
    most = most and tonumber(most), channels = tonumber(channels) or 0,
    campaigns = campaigns and campaigns ~= '' and ' ' .. campaigns .. ' ', awaited = false }
  if is_settling then
    local beat, expired = unpack(redis.call('HMGET', key, 'beat', 'expired'))
    row.awaited = is_awaited(beat, lease, expired, state)
  end
  node_rows[name] = row
  return row
end
