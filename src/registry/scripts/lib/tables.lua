-- tables.lua: tables of a node that are too large for one call.
-- Needs: removal
--
-- A table that is told in parts stands as it was until the last part is there. `number` keeps what comes late from
-- another telling out; `total` is how many fields the whole has, or nil: more parts follow. The pairs begin at ARGV[first].
-- True: this is the table now. False: a part is missing, and the table is as it was. Nil: more parts follow.
local function replace_table_in_parts(key, number, total, first)
  local aside = key .. ':' .. number
  if #ARGV >= first then redis.call('HSET', aside, unpack(ARGV, first)) end
  if total == nil then
    redis.call('PEXPIRE', aside, 60000)
    return nil
  end
  local complete = redis.call('HLEN', aside) == total
  if complete and total > 0 then
    unlink(key)
    redis.call('RENAME', aside, key)
    redis.call('PERSIST', key)
  else
    unlink(aside)
    if complete then unlink(key) end
  end
  return complete
end
