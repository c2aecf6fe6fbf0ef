//! The HTTP API of a real daemon, on a real Redis, beside a simulated node.
//!
//! Owns what a client of the API can do, and what it cannot. Must never look into the program: it sends bytes, and looks into
//! Redis.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says why")]

#[path = "../api_client/mod.rs"]
mod api_client;
#[path = "../api_client/house.rs"]
mod house;
#[path = "../lab/mod.rs"]
mod lab;
#[path = "../load_nodes/mod.rs"]
mod load_nodes;

use std::fs;
use std::process::Command;
use std::time::Duration;

use api_client::Client;
use house::{House, SOON, log_in, write_tokens};
use lab::wait_for;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_logs_in_is_live_and_logs_out() {
    let house = House::start("").await;
    let crm = house.client("crm");
    let answer = crm.post("/v1/logins", r#"{"alias":"cc100x","agent":"7","campaign":"sales"}"#);
    let login = answer.json();
    assert_eq!(
        (answer.status, &login["outcome"], &login["node"]),
        (201, &json!("placed"), &json!("tel-1")),
        "{answer:?}"
    );
    let id = login["session"].as_str().unwrap().to_owned();
    assert_eq!(answer.header("location"), Some(format!("/v1/logins/{id}").as_str()));
    let row = house.until_live(&crm, &id);
    assert_eq!((&row["state"], &row["agent"], &row["alias"]), (&json!("live"), &json!("7"), &json!("cc100x")));

    // P1: the same login again is the same session, and nothing rings.
    let (status, again) = log_in(&crm, &json!({"alias": "cc100x", "agent": "7"}));
    assert_eq!((status, &again["session"], &again["outcome"]), (200, &json!(id), &json!("existing")));

    let nodes = house.client("reader").get("/v1/nodes").json();
    assert_eq!((&nodes["nodes"][0]["agents"], &nodes["redis"]), (&json!(1), &json!("")));
    let out = crm.delete("/v1/agents/7");
    assert_eq!((out.status, &out.json()["session"]), (202, &json!(id)), "{out:?}");
    wait_for(SOON, || {
        let row = crm.get(&format!("/v1/logins/{id}")).json();
        if row["state"] == "ended" && row["reason"] == "logged-out" { Ok(()) } else { Err(format!("{row}")) }
    });
    for path in [format!("/v1/logins/{id}"), "/v1/agents/7".to_owned(), "/v1/logins/0000000000000001".to_owned()] {
        assert_eq!(crm.delete(&path).status, 202, "{path}");
    }
    let log = house.daemon.log();
    assert!(log.contains("login of another program") && log.contains("way=\"api\""), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_says_why() {
    let house = House::start("").await;
    let boss = house.client("boss");
    assert_eq!(log_in(&boss, &json!({"alias": "cc100x", "agent": "7"})).0, 201);
    let refused = |body: Value| {
        let answer = boss.post("/v1/logins", &body.to_string());
        (answer.status, answer.problem(), answer.json())
    };
    let (status, name, body) = refused(json!({"alias": "cc100x", "agent": "8"}));
    assert_eq!((status, name.as_str(), &body["login"]["agent"]), (409, "in-use", &json!("7")));
    let (status, name, _) = refused(json!({"alias": "cc101x", "agent": "7"}));
    assert_eq!((status, name.as_str()), (409, "logged-in-elsewhere"));
    let (status, name, _) = refused(json!({"alias": "nobodyx"}));
    assert_eq!((status, name.as_str()), (404, "unknown-alias"));

    let drained = boss.send("POST", "/v1/nodes/tel-1/drain", "", "").json();
    assert_eq!(
        (&drained["draining"], &drained["changed"], &drained["agents"]),
        (&json!(true), &json!(true), &json!(1))
    );
    let (status, name, body) = refused(json!({"alias": "cc101x", "agent": "9"}));
    assert_eq!((status, name.as_str()), (409, "no-eligible-node"));
    assert_eq!(body["nodes"], json!([{"name": "tel-1", "why": "draining", "load": 1.0}]));
    let explained = boss.get("/v1/explain/cc101x").json();
    assert_eq!((&explained["state"], &explained["reason"]), (&json!("refused"), &json!("no-eligible-node")));
    assert_eq!(boss.send("POST", "/v1/nodes/tel-1/resume", "", "").json()["draining"], json!(false));
    assert_eq!(boss.send("POST", "/v1/nodes/tel-9/drain", "", "").problem(), "unknown-node");
    let mut events = house.client("reader").watch("/v1/events?after=0&event=node-drain,node-resume", "");
    for kind in ["node-drain", "node-resume"] {
        let (_, event) = events.next_event();
        assert_eq!((&event["event"], &event["reason"]), (&json!(kind), &json!("by token boss")));
    }
    assert_eq!(boss.get("/v1/explain/cc101x").json()["state"], "would-place");
    assert_eq!(boss.get("/v1/phones/cc101").json()["phones"][0]["state"], "registered");
    assert_eq!(boss.get("/v1/phones/cc999").problem(), "unknown-phone");
    assert_eq!(boss.get("/v1/logins/00000000000000ff").problem(), "unknown-session");
    let targets = boss.get("/v1/prometheus/targets").json();
    assert_eq!(targets[0]["labels"]["node"], "tel-1");
    assert!(targets[0]["targets"][0].as_str().unwrap().ends_with(":9816"), "{targets}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_nobody_learns_or_changes_anything_and_with_one_what_it_allows() {
    let house = House::start("").await;
    let (_, login) = log_in(&house.client("crm"), &json!({"alias": "cc100x", "agent": "7", "campaign": "sales"}));
    house.until_live(&house.client("crm"), login["session"].as_str().unwrap());
    let calls = [
        ("GET", "/openapi.json"),
        ("GET", "/v1/nodes"),
        ("GET", "/v1/sessions"),
        ("GET", "/v1/phones/cc100"),
        ("GET", "/v1/explain/cc100x"),
        ("GET", "/v1/events"),
        ("GET", "/v1/prometheus/targets"),
        ("GET", "/v1/logins/0000000000000001"),
        ("POST", "/v1/logins"),
        ("DELETE", "/v1/logins/0000000000000001"),
        ("DELETE", "/v1/agents/7"),
        ("POST", "/v1/nodes/tel-1/drain"),
        ("POST", "/v1/nodes/tel-1/resume"),
        ("PUT", "/v1/logins"),
        ("GET", "/v1/nothing"),
        ("GET", "/metrics"),
    ];
    let before = house.state();
    for token in ["", "evr_", "x", &"a".repeat(47)] {
        let stranger = Client { address: house.address, token: token.to_owned() };
        for (method, path) in calls {
            let answer = stranger.send(method, path, "", "");
            assert_eq!((answer.status, answer.problem().as_str()), (401, "unauthorized"), "{method} {path}");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        }
    }
    let body = r#"{"alias":"cc101x","agent":"8","campaign":"support"}"#;
    let forbidden = |token: &str, method: &str, path: &str, body: &str| {
        let answer = house.client(token).send(method, path, "Content-Type: application/json\r\n", body);
        assert_eq!((answer.status, answer.problem().as_str()), (403, "forbidden"), "{token} {method} {path}");
    };
    for token in ["reader", "holder", "desk7", "sales"] {
        forbidden(token, "POST", "/v1/logins", body);
        // A holder may end holds, and this agent has no session that is none.
        if token != "holder" {
            forbidden(token, "DELETE", "/v1/agents/8", "");
        }
        forbidden(token, "POST", "/v1/nodes/tel-1/drain", "");
    }
    for token in ["crm", "holder", "desk7"] {
        for path in ["/v1/nodes", "/v1/sessions", "/v1/events", "/v1/phones/cc100", "/v1/prometheus/targets"] {
            forbidden(token, "GET", path, "");
        }
    }
    forbidden("crm", "POST", "/v1/logins?ring=none", body);
    forbidden("sales", "POST", "/v1/logins", r#"{"alias":"cc101x"}"#);
    forbidden("crm", "PUT", "/v1/logins/0000000000000001/live", "");
    assert_eq!(house.state(), before, "nothing was changed");
    // A narrowed token sees and ends what is its own.
    let id = house.client("reader").get("/v1/sessions?agent=7").json()["sessions"][0]["session"].clone();
    let path = format!("/v1/logins/{}", id.as_str().unwrap());
    for token in ["desk7", "sales"] {
        assert_eq!(house.client(token).get(&path).status, 200, "{token}");
    }
    let (status, _) = log_in(&house.client("crm"), &json!({"alias": "cc102x", "agent": "9", "campaign": "support"}));
    assert_eq!(status, 201);
    let other = house.client("reader").get("/v1/sessions?agent=9").json()["sessions"][0]["session"].clone();
    for token in ["desk7", "sales"] {
        let path = format!("/v1/logins/{}", other.as_str().unwrap());
        assert_eq!(house.client(token).get(&path).problem(), "forbidden");
        assert_eq!(house.client(token).delete(&path).problem(), "forbidden");
    }
    assert_eq!(house.client("desk7").delete("/v1/agents/7").status, 202);
    let log = house.daemon.log();
    assert!(house.tokens.values().all(|token| !log.contains(token.as_str())), "a token is in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_rings_by_itself_holds_a_node_and_says_when_its_agent_is_there() {
    let house = House::start("").await;
    // As its daemon tells Redis with `node.address`.
    house.query::<u64>(&["HSET", "{evenring}:node:tel-1", "address", "tel-1.example.net"]);
    let holder = house.client("holder");
    let hold = |body: &str| holder.post("/v1/logins?ring=none", body);
    let first = hold(r#"{"alias":"cc100x","agent":"7","ttl":"30s"}"#);
    let body = first.json();
    assert_eq!((first.status, &body["state"], &body["node"]), (201, &json!("held"), &json!("tel-1")), "{body}");
    assert_eq!((&body["extension"], &body["address"]), (&json!("cc100"), &json!("tel-1.example.net")));
    let id = body["session"].as_str().unwrap().to_owned();
    assert_eq!(first.header("location"), Some(format!("/v1/logins/{id}").as_str()));
    let again = hold(r#"{"alias":"cc100x","agent":"7"}"#);
    assert_eq!((again.status, &again.json()["session"]), (200, &json!(id)));
    let live = format!("/v1/logins/{id}/live");
    for _ in 0..2 {
        let answer = holder.send("PUT", &live, "", "");
        assert_eq!(
            (answer.status, &answer.json()["state"], &answer.json()["hold"]),
            (200, &json!("live"), &json!(true))
        );
    }
    assert_eq!(house.query::<Vec<String>>(&["ZRANGE", "{evenring}:ring-tel-1", "0", "-1"]), Vec::<String>::new());
    assert_eq!(house.client("reader").get("/v1/nodes").json()["nodes"][0]["agents"], 1, "it is load");
    assert_eq!(holder.delete(&format!("/v1/logins/{id}")).status, 202);
    assert_eq!(holder.delete("/v1/agents/7").status, 202, "harmless to repeat");
    assert_eq!(house.client("reader").get(&format!("/v1/logins/{id}")).json()["reason"], "logged-out");
    assert_eq!(holder.send("PUT", &live, "", "").problem(), "session-over");
    assert_eq!(holder.send("PUT", "/v1/logins/0000000000000001/live", "", "").problem(), "unknown-session");

    // One that nobody says anything of ends by itself, and is seen to end.
    let short = hold(r#"{"alias":"cc101x","agent":"8","ttl":"1s"}"#).json();
    let path = format!("/v1/logins/{}?wait=20s", short["session"].as_str().unwrap());
    let ended = house.client("reader").get(&path).json();
    assert_eq!((&ended["state"], &ended["reason"]), (&json!("ended"), &json!("hold-expired")));
    assert_eq!(house.client("reader").get("/v1/nodes").json()["nodes"][0]["agents"], 0);
    // What has changed before the question is answered at once.
    let begin = lab::now();
    let (_, live) = log_in(&house.client("crm"), &json!({"alias": "cc104x", "agent": "10"}));
    let path = format!("/v1/logins/{}", live["session"].as_str().unwrap());
    house.until_live(&house.client("reader"), live["session"].as_str().unwrap());
    assert_eq!(house.client("reader").get(&format!("{path}?wait=25s&state=placed")).json()["state"], "live");
    assert!(begin.elapsed() < Duration::from_secs(20), "it waited: {:?}", begin.elapsed());
    assert_eq!(house.client("reader").get(&format!("{path}?wait=1s&state=dead")).problem(), "invalid");
    house.client("crm").delete(&path);

    // A session that its node rings is none of theirs.
    let (_, rung) = log_in(&house.client("crm"), &json!({"alias": "cc102x", "agent": "9"}));
    let path = format!("/v1/logins/{}", rung["session"].as_str().unwrap());
    assert_eq!(holder.send("PUT", &format!("{path}/live"), "", "").problem(), "not-a-hold");
    assert_eq!((holder.delete(&path).status, holder.get(&path).status), (403, 403), "nor may they end or see it");
    for wrong in [
        r#"{"alias":"cc103x","ttl":"6m"}"#,
        r#"{"alias":"cc103x","ttl":"0s"}"#,
        r#"{"alias":"cc103x","require":"all"}"#,
        r#"{"alias":"cc103x","ring":"none"}"#,
    ] {
        assert_eq!(hold(wrong).problem(), "invalid", "{wrong}");
    }
    let ringing = house.client("crm").post("/v1/logins", r#"{"alias":"cc103x","ttl":"30s"}"#);
    assert_eq!(ringing.problem(), "not-a-hold");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_makes_a_login_repeatable() {
    let house = House::start("").await;
    let (crm, boss) = (house.client("crm"), house.client("boss"));
    let send = |client: &Client, key: &str, body: &str| {
        client.send(
            "POST",
            "/v1/logins",
            &format!("Content-Type: application/json\r\nIdempotency-Key: {key}\r\n"),
            body,
        )
    };
    let first = send(&crm, "k1", r#"{"alias":"cc100x","agent":"7"}"#);
    assert_eq!(first.status, 201, "{first:?}");
    let id = first.json()["session"].clone();
    let again = send(&crm, "k1", r#"{"agent":"7", "alias":"cc100x", "remote": false}"#);
    assert_eq!((again.status, &again.json()["session"]), (200, &id));
    let other = send(&crm, "k1", r#"{"alias":"cc101x","agent":"8"}"#);
    assert_eq!((other.status, other.problem().as_str()), (422, "idempotency-mismatch"));
    assert_eq!(house.client("reader").get("/v1/sessions?agent=8").json()["sessions"], json!([]));

    // Even when it is over: nothing rings again.
    let path = format!("/v1/logins/{}", id.as_str().unwrap());
    house.until_live(&crm, id.as_str().unwrap());
    assert_eq!(crm.delete(&path).status, 202);
    wait_for(SOON, || {
        let row = crm.get(&path).json();
        if row["state"] == "ended" { Ok(()) } else { Err(format!("{row}")) }
    });
    let over = send(&crm, "k1", r#"{"alias":"cc100x","agent":"7"}"#);
    assert_eq!((over.status, &over.json()["session"], &over.json()["state"]), (200, &id, &json!("ended")));
    // The keys of another token are others.
    let (status, login) = {
        let answer = send(&boss, "k1", r#"{"alias":"cc101x","agent":"8"}"#);
        (answer.status, answer.json())
    };
    assert!(status == 201 && login["session"] != id, "{login}");
    let id = id.as_str().unwrap();
    let left: i64 = house.query(&["PTTL", &format!("{{evenring}}:idempotency:{id}")]);
    assert!((590_000..=600_000).contains(&left), "placement.session_keep is 10 min: {left}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_misses_nothing_and_hears_nothing_twice() {
    let house = House::start("").await;
    let (reader, crm) = (house.client("reader"), house.client("crm"));
    let mut live = reader.watch("/v1/events?agent=7", "");
    let id = log_in(&crm, &json!({"alias": "cc100x", "agent": "7"})).1["session"].clone();
    log_in(&crm, &json!({"alias": "cc101x", "agent": "8"}));
    let mut seen = Vec::new();
    loop {
        let (place, event) = live.next_event();
        assert_eq!((&event["agent"], &event["id"]), (&json!("7"), &json!(place)));
        seen.push(place);
        if event["event"] == "live" {
            assert_eq!(event["session"], id);
            break;
        }
    }
    assert!(seen.len() >= 3 && seen.is_sorted(), "{seen:?}");
    drop(live);
    crm.delete("/v1/agents/7");
    // From the beginning, from a place in the middle, by the header: each goes on behind the place.
    let ids = |mut frames: api_client::Frames| {
        let mut ids = Vec::new();
        loop {
            let (place, event) = frames.next_event();
            ids.push(place);
            if event["event"] == "ended" {
                return ids;
            }
        }
    };
    let whole = ids(reader.watch("/v1/events?agent=7&after=0", ""));
    assert_eq!(whole[..seen.len()], seen[..]);
    let rest = ids(reader.watch("/v1/events?agent=7", &format!("Last-Event-ID: {}\r\n", seen[1])));
    assert_eq!(rest[..], whole[2..]);
    let rest = ids(reader.watch(&format!("/v1/events?agent=7&after={}", seen[0]), ""));
    assert_eq!(rest[..], whole[1..]);

    // What was trimmed away is a gap, told first.
    let _: u64 = house.query(&["XTRIM", "{evenring}:events", "MAXLEN", "=", "1"]);
    let frame = reader.watch("/v1/events", &format!("Last-Event-ID: {}\r\n", seen[0])).next_frame().unwrap();
    assert_eq!(frame, format!("event: gap\ndata: {{\"after\":\"{}\",\"reason\":\"trimmed\"}}\n", seen[0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_come_in_pages_each_once() {
    let house = House::start("").await;
    let (reader, crm) = (house.client("reader"), house.client("crm"));
    for number in 100..112 {
        assert_eq!(log_in(&crm, &json!({"alias": format!("cc{number}x"), "agent": format!("a{number}")})).0, 201);
    }
    wait_for(SOON, || {
        let live = reader.get("/v1/sessions?state=live").json()["sessions"].as_array().unwrap().len();
        if live == 12 { Ok(()) } else { Err(format!("{live} of 12 are live")) }
    });
    let (mut after, mut seen) = (String::new(), Vec::new());
    loop {
        let page = reader.get(&format!("/v1/sessions?limit=5{after}")).json();
        let rows = page["sessions"].as_array().unwrap();
        assert!(rows.len() <= 5, "{page}");
        seen.extend(rows.iter().map(|row| row["agent"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    seen.sort();
    assert_eq!(seen, (100..112).map(|number| format!("a{number}")).collect::<Vec<_>>());
    let one = reader.get("/v1/sessions?alias=cc103x&node=tel-1").json();
    assert_eq!((one["sessions"].as_array().unwrap().len(), &one["sessions"][0]["agent"]), (1, &json!("a103")));
    assert_eq!(reader.get("/v1/sessions?node=tel-9").json(), json!({"sessions": [], "next": null}));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_it_says_so_at_once_and_is_back_with_it() {
    let mut house = House::start("").await;
    let reader = house.client("reader");
    house.redis.sigstop();
    // The first may wait for an answer; from then on nobody does.
    wait_for(SOON, || {
        let answer = reader.get("/v1/nodes");
        if answer.status == 503 { Ok(()) } else { Err(format!("{answer:?}")) }
    });
    for _ in 0..3 {
        let begin = lab::now();
        let answer = reader.get("/v1/nodes");
        assert_eq!(answer.problem(), "redis-unavailable");
        assert!(answer.header("retry-after").is_some() && begin.elapsed() < Duration::from_millis(200), "{answer:?}");
    }
    house.redis.sigcont();
    wait_for(SOON, || if reader.get("/v1/nodes").status == 200 { Ok(()) } else { Err("Redis is back".to_owned()) });
    house.redis.stop();
    wait_for(SOON, || if reader.get("/v1/nodes").status == 503 { Ok(()) } else { Err("Redis is away".to_owned()) });
    let answer = house.client("crm").post("/v1/logins", r#"{"alias":"cc100x"}"#);
    assert_eq!(answer.problem(), "redis-unavailable");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_read_again_and_a_faulty_file_takes_none_away() {
    let house = House::start("").await;
    let (crm, file) = (house.client("crm"), &house.tokens_file);
    let lines: Vec<String> = fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect();
    let pid = house.daemon.pid().to_string();
    let reload = || assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    let until = |what: &str| {
        wait_for(SOON, || if house.daemon.log().contains(what) { Ok(()) } else { Err(house.daemon.log()) });
    };
    let faulty: Vec<String> = lines.iter().cloned().chain(["new read".to_owned()]).collect();
    write_tokens(file, &faulty, 0o640);
    reload();
    until("line 7: 2 words instead of three");
    assert_eq!(crm.delete("/v1/agents/1").status, 202);
    write_tokens(file, &lines, 0o644);
    reload();
    until("is accessible to everybody");
    assert_eq!(crm.delete("/v1/agents/1").status, 202);
    let without: Vec<String> = lines.into_iter().filter(|line| !line.starts_with("crm ")).collect();
    write_tokens(file, &without, 0o640);
    reload();
    until("count=5");
    assert_eq!(crm.delete("/v1/agents/1").problem(), "unauthorized");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_names_every_path_and_every_problem() {
    let house = House::start("").await;
    let page = house.client("crm").get("/openapi.json").json();
    assert!(page["openapi"].as_str().unwrap().starts_with("3.1"), "{}", page["openapi"]);
    let paths: Vec<&String> = page["paths"].as_object().unwrap().keys().collect();
    let mut routes: Vec<&str> =
        evenring::api::ROUTES.into_iter().filter(|route| route.len() > 1 && *route != "other").collect();
    routes.sort_unstable();
    assert_eq!(paths, routes);
    for (path, item) in page["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let problem = &operation["responses"]["default"]["content"]["application/problem+json"]["schema"];
            assert_eq!(problem["$ref"], "#/components/schemas/Problem", "{method} {path}");
        }
    }
    assert!(page["components"]["schemas"]["Problem"].is_object());
    let text = page.to_string();
    for name in text.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(page["components"]["schemas"][name].is_object(), "{name} is referred to and not there");
    }
}
