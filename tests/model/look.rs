//! Redis as it stands, as plain facts to compare with the model's. Owns the knowledge of Redis's keys, the
//! invariants that hold whatever the model says, and how time is made to pass. Must never know a rule.

use std::collections::{BTreeMap, BTreeSet};

use redis::Script;
use redis::aio::MultiplexedConnection;

use evenring::registry::queues::DEAD;

use super::inbox::REPLY;
use super::world::{Fault, Kind, Ms, World};
use crate::redis_fixture::NS;

/// Path to value.
pub type Facts = BTreeMap<String, String>;

/// Everything in Redis in one look, with its clock first.
const DUMP: &str = r"
local t = redis.call('TIME')
local out = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  local kind, flat = redis.call('TYPE', key).ok, {}
  if kind == 'hash' then flat = redis.call('HGETALL', key)
  elseif kind == 'set' then flat = redis.call('SMEMBERS', key)
  elseif kind == 'zset' then flat = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES') end
  out[#out + 1] = { key, kind, flat, tostring(redis.call('PTTL', key)) }
end
return { t[1] * 1000 + math.floor(t[2] / 1000), out }";

/// Every stored time is moved into the past by ARGV[2] ms: to the scripts it is as if that time had passed.
const AGE: &str = r"
local ns, by = ARGV[1], tonumber(ARGV[2])
local function fields(key, names)
  for _, name in ipairs(names) do
    if redis.call('HEXISTS', key, name) == 1 then redis.call('HINCRBY', key, name, -by) end
  end
end
local function scores(key)
  for _, id in ipairs(redis.call('ZRANGE', key, 0, -1)) do redis.call('ZINCRBY', key, -by, id) end
end
for _, key in ipairs(redis.call('KEYS', ns .. ':node:*')) do fields(key, { 'lease_until' }) end
fields(ns .. ':judge', { 'seen' })
for _, key in ipairs(redis.call('KEYS', ns .. ':session:*')) do
  fields(key, { 'since', 'created', 'give_up' })
  local left = redis.call('PTTL', key)
  if left > by then redis.call('PEXPIRE', key, left - by) elseif left >= 0 then redis.call('DEL', key) end
end
for _, name in ipairs({ 'open', 'due', 'ended' }) do scores(ns .. ':index:' .. name) end
scores(ns .. ':logins')
for _, key in ipairs(redis.call('KEYS', ns .. ':ring-*')) do
  if key:sub(-2) ~= ':Q' then
    scores(key)
    for _, id in ipairs(redis.call('ZRANGE', key, 0, -1)) do
      local order = cjson.decode(redis.call('HGET', key .. ':Q', id))
      if order.expires then order.expires = order.expires - by end
      redis.call('HSET', key .. ':Q', id, cjson.encode(order))
    end
  end
end
return 1";

/// The message that was no login, as it was sent.
fn buried(body: &str) -> String {
    let body: serde_json::Value = serde_json::from_str(body).expect("the script's own JSON");
    body["message"].as_str().expect("a text").to_owned()
}

#[derive(Debug, Clone, Default)]
pub struct Key {
    flat: Vec<String>,
    ttl: Ms,
}

/// One look at Redis.
#[derive(Debug, Clone, Default)]
pub struct Look {
    pub clock: Ms,
    keys: BTreeMap<String, Key>,
}

type RawKey = (String, String, Vec<String>, Ms);

impl Look {
    pub async fn at(raw: &mut MultiplexedConnection) -> Self {
        let dump = Script::new(DUMP);
        let (clock, keys): (Ms, Vec<RawKey>) = dump.prepare_invoke().invoke_async(raw).await.expect("a look at Redis");
        let strip = |key: String| key.strip_prefix(NS).and_then(|key| key.strip_prefix(':')).unwrap_or(&key).to_owned();
        let keys = keys.into_iter().map(|(key, _, flat, ttl)| (strip(key), Key { flat, ttl })).collect();
        Self { clock, keys }
    }

    pub async fn age(raw: &mut MultiplexedConnection, by: Ms) {
        let _: u8 = Script::new(AGE).arg(NS).arg(by).invoke_async(raw).await.expect("time to pass");
    }

    fn pairs(&self, key: &str) -> BTreeMap<&str, &str> {
        let flat = self.keys.get(key).map_or(&[][..], |key| &key.flat);
        flat.chunks_exact(2).map(|pair| (pair[0].as_str(), pair[1].as_str())).collect()
    }

    fn set(&self, key: &str) -> BTreeSet<&str> {
        self.keys.get(key).into_iter().flat_map(|key| key.flat.iter().map(String::as_str)).collect()
    }

    /// The rest of every key that begins so.
    fn below<'a>(&'a self, start: &'a str) -> impl Iterator<Item = &'a str> {
        self.keys.keys().filter_map(move |key| key.strip_prefix(start))
    }

    /// Where a session is now.
    pub fn node_of(&self, session: &str) -> Option<String> {
        self.pairs(&format!("session:{session}")).get("node").map(|node| (*node).to_owned())
    }

    fn open(&self) -> impl Iterator<Item = (&str, BTreeMap<&str, &str>)> {
        let sessions = self.below("session:").map(|id| (id, self.pairs(&format!("session:{id}"))));
        sessions.filter(|(_, s)| matches!(s.get("state"), Some(&("placed" | "held" | "ringing" | "live"))))
    }

    /// What is wrong whatever anybody did.
    pub fn broken(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut say = |fine: bool, what: String| {
            if !fine {
                faults.push(what);
            }
        };
        let open: BTreeMap<_, _> = self.open().collect();
        let mut holders = BTreeMap::new();
        for (id, s) in &open {
            for (kind, field) in [("agent", "agent"), ("alias", "alias"), ("phone", "extension")] {
                // Whose agent has moved to another session.
                if kind == "agent" && s.contains_key("moved_to") {
                    continue;
                }
                let other = holders.insert(format!("{kind}:{}", s[field]), *id);
                say(other.is_none(), format!("{id} and {other:?} share the {kind} {}", s[field]));
            }
            let own = format!("{}:{}", if s["remote"] == "1" { "remote" } else { "local" }, s["node"]);
            let homes = |start: &'static str| self.below(start).map(move |node| format!("{start}{node}"));
            let homes: Vec<_> =
                homes("local:").chain(homes("remote:")).filter(|key| self.set(key).contains(id)).collect();
            say(homes == [own], format!("{id} is in the sets {homes:?}"));
            say(self.keys[&format!("session:{id}")].ttl < 0, format!("{id} is open and will expire"));
            let due = self.pairs("index:due").contains_key(id);
            say(due == matches!(s["state"], "placed" | "held"), format!("{id} is {} and due is {due}", s["state"]));
            let orders = self.orders(s["node"], id);
            let visible = orders.iter().filter(|at| **at <= self.clock).count();
            match s["state"] {
                // It waits until the nodes have reported.
                "placed" if s["order"].is_empty() => {
                    say(orders.is_empty(), format!("{id} waits and has orders {orders:?}"));
                }
                "placed" => say(orders.len() == 1 && visible == 1, format!("{id} is placed with orders {orders:?}")),
                _ => say(orders.len() <= 1, format!("{id} has the orders {orders:?}")),
            }
        }
        let table: BTreeMap<_, _> = self.pairs("holders").into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        say(table == holders, format!("holders are {table:?} but should be {holders:?}"));
        let index: BTreeSet<_> = self.pairs("index:open").into_keys().collect();
        say(index == open.keys().copied().collect(), format!("index:open is {index:?}"));
        for start in ["local:", "remote:"] {
            for node in self.below(start) {
                let set = self.set(&format!("{start}{node}"));
                say(set.iter().all(|id| open.contains_key(id)), format!("{start}{node} is {set:?}"));
            }
        }
        for id in self.below("session:").filter(|id| !open.contains_key(id)) {
            say(self.keys[&format!("session:{id}")].ttl >= 0, format!("{id} is over and will never expire"));
            let left: Vec<_> =
                self.below("ring-").filter(|q| !q.ends_with(":Q") && !self.orders(q, id).is_empty()).collect();
            say(left.is_empty(), format!("{id} is over and has orders in {left:?}"));
        }
        faults
    }

    /// The orders to ring for this session in a node's queue: when each can be seen.
    fn orders(&self, node: &str, session: &str) -> Vec<Ms> {
        let bodies = self.pairs(&format!("ring-{node}:Q"));
        let queue = self.pairs(&format!("ring-{node}"));
        let mine = |id: &&str| bodies.get(*id).is_some_and(|body| body.contains(session) && body.contains("\"ring\""));
        queue.iter().filter(|(id, _)| mine(id)).map(|(_, at)| score(at)).collect()
    }

    /// The visible state; times as whole seconds since `zero`, the moment of model time 0 (the past moves away).
    pub fn facts(&self, zero: Ms) -> Facts {
        let mut facts = Facts::new();
        let when = |text: &str| second(score(text) - zero);
        for key in self.keys.keys() {
            let pairs = self.pairs(key);
            let mut put = |name: &str, value: String| facts.insert(format!("{key}.{name}"), value);
            match key.split_once(':').unwrap_or((key, "")) {
                ("node", _) => {
                    for name in [
                        "generation",
                        "host",
                        "state",
                        "drain",
                        "weight",
                        "max_agents",
                        "campaigns",
                        "channels",
                        "ring_queue",
                    ] {
                        put(name, pairs.get(name).copied().unwrap_or_default().to_owned());
                    }
                    put("fetch", pairs.get("fetch").copied().unwrap_or("0").to_owned());
                    put("refused", pairs.get("refused").copied().unwrap_or("0").to_owned());
                    // `leave` ends the lease 1 ms before its own time
                    put("lease_until", when(&(score(pairs["lease_until"]) + 1).to_string()));
                    put("beat", second(score(pairs["beat"])));
                    put("lease", pairs["lease"].to_owned());
                    put("beats", pairs.get("beats").copied().unwrap_or("0").to_owned());
                }
                ("session", _) => self.session_facts(key, zero, &mut put),
                ("phones" | "contacts", _) => {
                    drop(pairs.iter().map(|(k, v)| put(k, (*v).to_owned())).collect::<Vec<_>>())
                }
                ("aliases", _) => drop(pairs.iter().map(|(k, v)| put(k, (*v).to_owned())).collect::<Vec<_>>()),
                ("index", "ended") => drop(pairs.iter().map(|(k, v)| put(k, when(v))).collect::<Vec<_>>()),
                ("index", "open" | "due") => drop(pairs.iter().map(|(k, v)| put(k, when(v))).collect::<Vec<_>>()),
                // An hour is more than passes here: who got answers is looked after.
                ("index", "answers") => drop(pairs.keys().map(|k| put(k, "an hour".into())).collect::<Vec<_>>()),
                ("judge", _) => {
                    for name in ["tick", "floor", "hold"] {
                        put(name, second(pairs.get(name).map_or(0, |text| score(text))));
                    }
                    put("seen", when(pairs["seen"]));
                }
                // follow from the sessions, and are checked as invariants
                ("holders" | "QUEUES" | "events", _)
                | ("index", "nodes" | "counts" | "try" | "rivals" | "settings")
                | ("local" | "remote", _) => {}
                (queue, "Q") if queue.starts_with("ring-") || ["logins", DEAD, REPLY].contains(&queue) => {}
                ("logins", "") => {
                    let bodies = self.pairs("logins:Q");
                    for (id, at) in &pairs {
                        let received = bodies.get(format!("{id}:rc").as_str()).copied().unwrap_or("0");
                        put(id, format!("{} at {} rc {received}", bodies[*id], when(at)));
                    }
                }
                (DEAD, "") => drop(put("messages", self.messages(DEAD, buried))),
                (REPLY, "") => drop(put("answers", self.messages(REPLY, str::to_owned))),
                (queue, "") if queue.starts_with("ring-") => {
                    for (id, at) in &pairs {
                        let bodies = self.pairs(&format!("{key}:Q"));
                        let (name, value) = order_fact(bodies[*id], zero);
                        let received = bodies.get(format!("{id}:rc").as_str()).copied().unwrap_or("0");
                        put(&name, format!("{value} at {} rc {received}", when(at)));
                    }
                }
                (_, _) => drop(put("is", "a key that nobody knows".into())),
            }
        }
        facts
    }

    /// The messages of a queue, sorted.
    fn messages(&self, queue: &str, read: fn(&str) -> String) -> String {
        let (ids, bodies) = (self.pairs(queue), self.pairs(&format!("{queue}:Q")));
        let mut messages: Vec<_> = ids.keys().map(|id| read(bodies[*id])).collect();
        messages.sort_unstable();
        messages.join(" ")
    }

    fn session_facts(&self, key: &str, zero: Ms, put: &mut dyn FnMut(&str, String) -> Option<String>) {
        let pairs = self.pairs(key);
        let text = |name: &str| pairs.get(name).copied().unwrap_or_default();
        for name in
            ["alias", "extension", "agent", "campaign", "remote", "node", "state", "reason", "try", "rejoined_from"]
        {
            put(name, text(name).to_owned());
        }
        put("moved_to", text("moved_to").to_owned());
        put("hangup_requested", (text("hangup_requested") == "1").to_string());
        put(
            "tried",
            text("tried").split_whitespace().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(" "),
        );
        for name in ["since", "created", "give_up"] {
            put(name, second(score(text(name)) - zero));
        }
        let ttl = self.keys[key].ttl;
        put("gone_at", if ttl < 0 { "never".into() } else { second(self.clock + ttl - zero) });
    }
}

fn score(text: &str) -> Ms {
    text.parse::<f64>().map(|number| number as Ms).unwrap_or_else(|error| panic!("{text:?} is no number: {error}"))
}

fn second(ms: Ms) -> String {
    if ms < -1_000_000_000 { "never".into() } else { ms.div_euclid(1000).to_string() }
}

fn order_fact(body: &str, zero: Ms) -> (String, String) {
    let order: serde_json::Value = serde_json::from_str(body).expect("an order is JSON");
    let text = |name: &str| order[name].as_str().unwrap_or_default().to_owned();
    let value = match order["expires"].as_f64() {
        Some(at) => format!("{} {}", text("extension"), second(at as Ms - zero)),
        None => String::new(),
    };
    (format!("{} {} {}", text("session"), text("kind"), order["try"].as_f64().unwrap_or(0.0)), value)
}

/// The nodes, as the model has them.
fn node_facts(world: &World, facts: &mut Facts) {
    for (name, n) in &world.nodes {
        let mut put = |field: &str, value: String| facts.insert(format!("node:{name}.{field}"), value);
        put("generation", n.generation.clone());
        put("host", n.host.clone());
        put("state", n.state.clone());
        put("drain", u8::from(n.drain).to_string());
        put("weight", n.weight.to_string());
        put("max_agents", n.cap.map(|cap| cap.to_string()).unwrap_or_default());
        put("campaigns", n.campaigns.join(" "));
        put("channels", n.channels.to_string());
        put("ring_queue", n.line.iter().map(|id| format!("{id} ")).collect());
        put("fetch", n.take.to_string());
        put("refused", n.refused.to_string());
        put("lease_until", second(n.lease_until + 1));
        put("beat", second(n.beat));
        put("lease", n.lease.to_string());
        put("beats", n.beats.to_string());
    }
}

/// The same facts as the model has them.
pub fn facts_of(world: &World) -> Facts {
    let mut facts = Facts::new();
    node_facts(world, &mut facts);
    if let Some(seen) = world.judge.seen {
        for (name, at) in [("tick", world.judge.tick), ("floor", world.judge.floor), ("hold", world.judge.hold)] {
            facts.insert(format!("judge.{name}"), second(at));
        }
        facts.insert("judge.seen".into(), second(seen));
    }
    for (node, list) in &world.phones {
        facts.extend(list.iter().map(|(extension, state)| (format!("phones:{node}.{extension}"), state.clone())));
    }
    for (node, list) in &world.contacts {
        facts.extend(list.iter().map(|(extension, json)| (format!("contacts:{node}.{extension}"), json.clone())));
    }
    for (id, mail) in &world.inbox {
        let value = format!("{} at {} rc {}", mail.body, second(mail.visible_at), mail.received);
        facts.insert(format!("logins.{id}"), value);
    }
    if !world.answers.is_empty() {
        facts.insert(format!("{REPLY}.answers"), world.answers.join(" "));
        facts.insert(format!("index:answers.{REPLY}"), "an hour".into());
    }
    for (alias, places) in &world.aliases {
        let list: Vec<_> = places.iter().map(|(extension, node)| format!("{extension}@{node}")).collect();
        facts.insert(format!("aliases.{alias}"), list.join(","));
    }
    if !world.dead.is_empty() {
        facts.insert(format!("{DEAD}.messages"), world.dead.join(" "));
    }
    for (id, s) in &world.sessions {
        let mut put = |field: &str, value: String| facts.insert(format!("session:{id}.{field}"), value);
        put("alias", s.alias.clone());
        put("extension", s.extension.clone());
        put("agent", s.agent.clone());
        put("campaign", s.campaign.clone());
        put("remote", u8::from(s.remote).to_string());
        put("node", s.node.clone());
        put("state", s.state.to_owned());
        put("reason", s.reason.clone());
        put("try", s.attempt.to_string());
        put("rejoined_from", s.rejoined_from.clone());
        put("moved_to", s.moved_to.map(|id| id.to_string()).unwrap_or_default());
        put("hangup_requested", s.hangup_requested.to_string());
        put("tried", s.tried.iter().cloned().collect::<Vec<_>>().join(" "));
        put("since", second(s.since));
        put("created", second(s.created));
        put("give_up", s.give_up.map_or("never".into(), second));
        put("gone_at", s.gone_at.map_or("never".into(), second));
        if s.is_open() {
            facts.insert(format!("index:open.{id}"), second(s.since));
        }
        if let Some(due) = s.due {
            facts.insert(format!("index:due.{id}"), second(due));
        }
    }
    facts.extend(world.ended.iter().map(|(id, at)| (format!("index:ended.{id}"), second(*at))));
    for (node, queue) in &world.queues {
        for m in queue {
            let (kind, value) = match &m.kind {
                Kind::Ring { attempt, expires, extension } => {
                    (format!("ring {attempt}"), format!("{extension} {}", second(*expires)))
                }
                Kind::HangUp => ("hangup 0".to_owned(), String::new()),
            };
            let name = format!("ring-{node}.{} {kind}", m.session);
            facts.insert(name, format!("{value} at {} rc {}", second(m.visible_at), m.received));
        }
    }
    facts
}

/// What differs: path, Redis, model.
pub fn difference(real: &Facts, model: &Facts) -> Vec<Fault> {
    let paths: BTreeSet<_> = real.keys().chain(model.keys()).collect();
    let differs = |path: &&&String| real.get(**path) != model.get(**path);
    let show = |path: &String| format!("{path}: Redis {:?}, model {:?}", real.get(path), model.get(path));
    paths.iter().filter(differs).map(|path| show(path)).collect()
}
