-- settle.lua: settles logins from the shared inbox in order: each is placed, removed from the inbox and answered in one
-- step; what is no login goes to logins-dead. A message that another daemon has removed is skipped, and one that cannot be placed now stays in the inbox. Stops
-- after enough work: the rest is left to the next call.
-- ARGV  1 queue  2 alias suffix  3 order expiry ms  4 tries  5 give up after ms  6 keep ended ms  7 most work (keys.lua),
--       then twelve for each message: its id, the queue for the answer ('' = none), the answer if it is no login ('' = it is
--       one), session, alias, agent ('' = the phone's own name), campaign ('' = none), remote (0|1), the alias as it was
--       written, move (0|1), hold ms (hold.lua; '' = its phone is rung), known (0|1)
-- reply a row for each message that was settled, one at least: { 'gone' } | { 'answered' } | as of place.lua, without its rows
-- Needs: keys rsmq quick_choice holds placement answers
local queue, now, most = ARGV[1], clock(), tonumber(ARGV[7])
local expiry_ms = tonumber(ARGV[3])
local rules = { suffix = ARGV[2], expiry_ms = expiry_ms, tries = ARGV[4], give_up_ms = tonumber(ARGV[5]),
  keep_ms = ARGV[6] }

-- Of ids and words, so nothing in it needs escaping. The order of the fields is that of the answer to what is no login.
local function answer_of(alias, placed)
  return string.format('{"alias":"%s","session":"%s","node":"%s","state":"%s","reason":"%s","outcome":"%s",'
    .. '"session_alias":"%s","extension":"%s","agent":"%s","moved_from":"%s"}', alias, placed[2], placed[3],
    placed[1] == 'refused' and 'refused' or placed[4], placed[5], placed[1], placed[8], placed[6],
    placed[2] ~= '' and placed[7] or '', placed[9]:match('^%x*'))
end

-- What is no login is kept for people: what was wrong, when, and the message as it was sent. The oldest make room.
local dead_most = 1000
local function bury(id, refusal)
  spent = spent + 15
  local message = redis.call('HGET', ns .. ':' .. queue .. ':Q', id) or ''
  local dead = { reason = cjson.decode(refusal).reason, at = string.format('%.0f', wall), message = message }
  enqueue('logins-dead', cjson.encode(dead), redis.sha1hex(id):sub(1, 22), wall)
  local dead_key = ns .. ':logins-dead'
  local over = redis.call('ZCARD', dead_key) - dead_most
  local oldest = over > 0 and redis.call('ZRANGEBYSCORE', dead_key, '-inf', '+inf', 'LIMIT', 0, over) or {}
  for _, old in ipairs(oldest) do dequeue('logins-dead', old) end
end

local function settle(i)
  local id, answers, refusal_text = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if not is_waiting(queue, id) then return { 'gone' } end
  if refusal_text ~= '' then
    bury(id, refusal_text)
    answer(queue, id, answers, refusal_text)
    return { 'answered' }
  end
  local want = { alias = ARGV[i + 4], agent = ARGV[i + 5], campaign = ARGV[i + 6], remote = ARGV[i + 7],
    move = ARGV[i + 9], known = ARGV[i + 11] == '1' }
  local is_hold = ARGV[i + 10] ~= ''
  local session, best, awaited = ARGV[i + 3], nil, nil
  if want.move ~= '1' and not want.known then
    best, awaited = choose_quickly(want.alias, rules.suffix, want.campaign, want.remote, '', session, now)
  end
  rules.expiry_ms, rules.reserve = expiry_ms, nil
  if is_hold then rules.expiry_ms, rules.reserve = hold_ms(ARGV[i + 10]), assign_held end
  local placed = place_login('place', session, want, rules, now, best, awaited)
  if is_hold and placed[1] == 'existing' and placed[4] == 'held' then renew_hold(placed[2], now, rules.expiry_ms) end
  if placed[1] ~= 'not-now' then answer(queue, id, answers, answer_of(ARGV[i + 8], placed)) end
  placed[10] = nil
  return placed
end

local results = {}
for i = 8, #ARGV, 12 do
  results[#results + 1] = settle(i)
  if spent >= most then break end
end
return results
