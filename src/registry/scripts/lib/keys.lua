-- keys.lua: the keys in Redis, and how they are read.
--
-- Times are milliseconds on Redis's own clock, as judge.lua has it. A session is open while it is placed, held, ringing or live.
--
--   NS:index:nodes   SET   names of all nodes that ever registered
--   NS:index:open    ZSET  open sessions by the time of their last change
--   NS:index:due     ZSET  placed sessions by the time at which their order expires
--   NS:index:ended   ZSET  ended and failed sessions by the time they ended
--   NS:node:NAME     HASH  generation host state drain weight max_agents campaigns channels registrations version
--                          lease_until  beat (the tick of its last heartbeat)  lease (ms; of one that stopped: its grace)
--                          beats (the number of its last heartbeat)  refused
--                          expired (1 = the other nodes have noticed the end of its lease)  gone (when they did)  noted (the number of its last note)
--                          kept kept_at kept_why kept_result (how often the keepalive command has run, and the last run)
--                          phones (the number of the last word on them)  case (exact|fold: how it compares names)
--                          sip address (where carriers and proxies reach it: node.sip, node.address; '' = not set)
--                          left_out (JSON: the phones that it leaves out, by reason, with examples)
--                          reason (why it is not in sync with its Asterisk)  claimant claimed_at (who else wants the name, and when they last asked)
--                          fetch (the number of its daemon's last fetch)  writes (of its last report, adoption or change of limits)
--                          ring_queue (while it paces: who waits for their turn to ring, ids with a blank behind each)
--   NS:phones:NAME   HASH  extension -> registered | unreachable | unregistered
--   NS:contacts:NAME HASH  extension -> JSON with address, round trip, expiry (only with a second AMI user)
--   NS:phones:NAME:GENERATION:NUMBER, NS:contacts:...  HASH  a table that is being told in parts, for a minute at most
--   NS:index:counts  HASH  refused REASON, failed REASON -> how many logins (events.lua)
--   NS:index:answers ZSET  queues that got answers, by the time at which to look whether they were taken (answers.lua)
--   NS:index:listeners ZSET the nodes that a wake-up of the inbox reaches, by the time until which they do (receive.lua)
--   NS:index:try     HASH  at: one write, to see whether Redis takes it (try_login.lua)
--   NS:index:settings HASH node -> ms by which its clock is ahead, a blank, JSON: what must be the same on all nodes (settings.lua)
--   NS:index:rivals  HASH  node -> JSON: the daemon of another host that wants its name, and when it last asked (register.lua)
--   NS:local:NAME    SET   open sessions of local agents: its size is the node's load (never a counter)
--   NS:remote:NAME   SET   open sessions of remote agents
--   NS:session:ID    HASH  alias extension agent campaign remote node state reason since created try tried
--                          give_up order generation fetch hangup_requested rejoined_from
--                          hold (ms: nobody is rung, and unless whoever asked says that it is live, it ends after so long;
--                          no daemon has a part in it)
--                          moved_to (its agent has moved to that session; this one ends as soon as its call has)
--   NS:idempotency:ID HASH request: digest of the request for which the session id was made of a key (idempotency.lua)
--   NS:holders       HASH  agent:A, alias:L, phone:E -> the open session that holds it (the agent of one that has
--                          moved_to: that one)
--   NS:aliases       HASH  alias -> extension@node,extension@node,...  (the operators' own table)
--   NS:QUEUE, NS:QUEUE:Q, NS:QUEUES, NS:rt:QUEUE   RSMQ's layout; our queues are logins and ring-NAME
--   NS:events        STREAM what happened: event node session alias agent extension reason, see announce() and append_event()
--   NS:news:ID       PUBLISH "STATE REASON" at every change of a session
--   NS:rt:ring-NAME  PUBLISH "admin-state" when the node drains or resumes; anything else is RSMQ's word for a new order

-- What this script has cost Redis so far, in commands; what is the same in every call is not counted. One that does much for
-- many sessions stops at a limit, and is called again.
local spent = 0

-- HGETALL as a table; nil if the key is not there.
local function record(key)
  local flat = redis.call('HGETALL', key)
  if #flat == 0 then return nil end
  local r = {}
  for i = 1, #flat, 2 do r[flat[i]] = flat[i + 1] end
  return r
end

local function session_key(id) return ns .. ':session:' .. id end

local function is_open(s)
  return s ~= nil and (s.state == 'placed' or s.state == 'ringing' or s.state == 'live' or s.state == 'held')
end
