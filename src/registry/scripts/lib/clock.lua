-- clock.lua: advances the logical time with each heartbeat (P14).
local jump, corrections, doubt = unpack(redis.call('HMGET', ns .. ':judge', 'jump', 'corrections', 'doubt'))
judge.jump, judge.corrections, judge.doubt = tonumber(jump or 0), tonumber(corrections or 0), tonumber(doubt or 0)

-- Redis's clock went back, by so much at least: time goes on. What the inbox hides until later by the wall is seen now.
local function went_back(ms)
  judge.shift = judge.shift + ms
  local hidden = redis.call('ZRANGEBYSCORE', ns .. ':logins', '(' .. wall, '+inf', 'LIMIT', 0, 1000)
  for _, id in ipairs(hidden) do redis.call('ZADD', ns .. ':logins', wall, id) end
end

-- A node speaks for itself, so each of them could. Returns what time it is. is_witness: its daemon has known what time it is
-- since before the last silence, so that there is no doubt any more.
local function advance(lease, is_witness)
  local gap = clock() - judge.seen
  local ticks = math.min(gap, math.floor(lease * 3 / 8))
  if gap < 0 or gap > lease * 2 / 3 then
    -- In that time nobody could. Who knows what time it is may not have been heard since an earlier silence: what can be
    -- put right is the sum.
    ticks = 1
    local before = judge.tick - judge.floor <= judge.lease and math.max(judge.jump, 0) or 0
    if judge.seen == 0 then judge.jump = 0
    elseif gap > 0 then judge.jump = before + gap
    else judge.jump = before > 0 and before or gap end
    judge.floor = judge.tick + 1
    if judge.seen > 0 and judge.doubt == 0 then judge.doubt = judge.floor end
  end
  if is_witness then judge.doubt = 0 end
  -- How long it was, only a node can tell that knew the time before.
  if gap < 0 then went_back(-gap) end
  judge.tick, judge.seen, judge.lease = judge.tick + ticks, clock(), lease
  judge.longest = math.max(judge.longest, lease)
  redis.call('HSET', ns .. ':judge', 'tick', judge.tick, 'seen', judge.seen, 'lease', lease, 'floor', judge.floor,
    'jump', judge.jump, 'longest', judge.longest, 'shift', judge.shift, 'doubt', judge.doubt)
  return judge.seen
end

-- A daemon found that Redis's clock went on by `step` ms more (or less) than time did. Believed where it can be so: nobody has
-- beaten since, or only somebody who had just come and did not know what time it is. That one has learnt the wrong time:
-- whoever has not heard of the correction is not believed the next time. A witness is believed whatever others have made of
-- the time since: it has all steps in its sum.
local function correct_clock(step, is_witness)
  local gap = clock() - judge.seen
  local heard = gap >= 0 and gap <= judge.lease * 2 / 3
  if heard then gap = judge.tick - judge.floor <= judge.lease and judge.jump or 0 end
  local is_sum = is_witness and judge.doubt > 0
  if not is_sum and (gap == 0 or step > 0 and gap < 0) then return end
  local by = step > 0 and not is_sum and math.min(step, gap) or step
  judge.jump = 0
  if by > 0 then judge.shift = judge.shift - by else went_back(-by) end
  if heard or is_sum then judge.seen = judge.seen - by end
  if is_sum then judge.seen = math.min(judge.seen, clock()) end
  judge.corrections = judge.corrections + 1
  redis.call('HSET', ns .. ':judge', 'shift', judge.shift, 'jump', 0, 'seen', judge.seen, 'corrections', judge.corrections)
end
