//! Redis behind Sentinel, and its primary killed or frozen under real daemons: logins are back by themselves, nobody is
//! rung twice, and a primary that was left gets no more writes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says why")]

#[path = "../lab/mod.rs"]
mod lab;
#[path = "../load_nodes/mod.rs"]
mod load_nodes;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use evenring::config::Settings;
use evenring::ids::SessionId;
use evenring::node::session::Class;
use evenring::registry::view::{SessionState, ShownNodeState, Verdict, Which};
use evenring::registry::{LoginRequest, Registry, RegistryError};
use evenring::runtime::random::new_session;
use lab::evenring::{Cli, Daemon, Following};
use lab::phone::{Behaviour, Phones};
use lab::sentinel::{Rules, Watched};
use lab::{HUB, Lab, Spec, Version, now, wait_for, wait_until};
use load_nodes::daemons::SimDaemon;
use load_nodes::{Settings as SimSettings, Sim, SimNode};

/// How soon logins work again: Sentinel alone takes 2.2 s (killed) or 3.2 s (frozen) until it names the new primary.
const LIMIT: Duration = Duration::from_millis(3_500);
/// The same for a primary that is frozen, with room for a busy machine.
const LIMIT_FROZEN: Duration = Duration::from_millis(5_000);
const SOON: Duration = Duration::from_secs(20);
/// Sessions that are live when the primary goes.
const LIVE: u32 = 10;

struct Scene {
    watched: Watched,
    nodes: Vec<SimNode>,
    daemons: Vec<SimDaemon>,
    cli: Cli,
    registry: Registry,
    _dir: tempfile::TempDir,
}

fn settings(cli: &Cli) -> Settings {
    Settings::load(Some(cli.config()), std::iter::empty()).unwrap()
}

fn request(number: u32) -> LoginRequest {
    LoginRequest {
        alias: format!("cc{number}x").parse().unwrap(),
        agent: None,
        campaign: None,
        class: Class::Local,
        moves: false,
        hold: None,
    }
}

impl Scene {
    /// Two real daemons beside simulated nodes. The poll is slow: what is quick is so by a wake-up.
    async fn start() -> Self {
        let watched = Watched::start(Ipv4Addr::LOCALHOST, &Rules::default());
        let (url, dir, all) = (watched.url("redis", ""), tempfile::tempdir().unwrap(), Sim::new());
        let (mut nodes, mut daemons) = (Vec::new(), Vec::new());
        for name in ["a", "b"] {
            let node = all.node(SimSettings { phones: 60, ..SimSettings::default() }).await;
            let binary = Path::new(env!("CARGO_BIN_EXE_evenring"));
            let more = "[placement]\npoll = \"10s\"\n";
            daemons.push(SimDaemon::start(binary, dir.path(), name, node.address(), &url, more));
            nodes.push(node);
        }
        let cli = Cli::new(&url);
        let registry = Registry::new(&settings(&cli)).unwrap();
        let mut scene = Self { watched, nodes, daemons, cli, registry, _dir: dir };
        scene
            .until("both nodes in the rotation", SOON, async |registry| {
                let nodes = registry.nodes().await.unwrap_or_default();
                nodes.len() == 2
                    && nodes.iter().all(|node| node.state == ShownNodeState::Active && node.registrations == Some(60))
            })
            .await;
        for number in 0..LIVE {
            scene.login(100 + number).await;
        }
        scene.wait_live(LIVE as usize, SOON).await;
        scene
    }

    async fn until(
        &mut self,
        what: &str,
        most: Duration,
        mut ready: impl AsyncFnMut(&mut Registry) -> bool,
    ) -> Duration {
        let begin = now();
        while !ready(&mut self.registry).await {
            assert!(begin.elapsed() < lab::at_this_load(most), "waited {most:?} for {what}; {}", self.logs());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        begin.elapsed()
    }

    fn logs(&self) -> String {
        self.daemons.iter().map(|daemon| format!("{}\n----\n", daemon.log())).collect()
    }

    async fn login(&mut self, number: u32) -> SessionId {
        let placement = self.registry.place(&request(number), new_session()).await.unwrap();
        assert_eq!(placement.verdict, Verdict::Placed, "{placement:?}");
        placement.session.unwrap()
    }

    async fn live(registry: &mut Registry) -> BTreeMap<String, String> {
        let rows = registry.sessions(Which::Open).await.unwrap_or_default();
        rows.into_iter().filter(|row| row.state == SessionState::Live).map(|row| (row.alias, row.node)).collect()
    }

    async fn wait_live(&mut self, count: usize, most: Duration) -> Duration {
        self.until(&format!("{count} live sessions"), most, async |registry| Self::live(registry).await.len() == count)
            .await
    }

    /// Logs in again and again until it works. How long that took, and the slowest refusal on the way.
    async fn back(&mut self, number: u32) -> (Duration, Duration) {
        let (begin, mut slowest, mut words) = (now(), Duration::ZERO, Vec::new());
        loop {
            let asked = now();
            let result = self.registry.place(&request(number), new_session()).await;
            match result {
                Ok(placement) if placement.verdict == Verdict::Placed => break,
                Ok(placement) => words.push(format!("{:?} {:?}", placement.reason, placement.nodes)),
                Err(error) => {
                    assert!(error.is_outage(), "{error}");
                    slowest = slowest.max(asked.elapsed());
                    words.push(error.to_string());
                }
            }
            assert!(begin.elapsed() < SOON, "no login in {SOON:?}: {words:#?}\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let took = begin.elapsed();
        words.dedup();
        println!("refused meanwhile with: {words:#?}");
        assert!(!words.is_empty(), "there was no outage");
        (took, slowest)
    }

    /// The primary goes by `fault`; all that must hold afterwards.
    async fn fails_over(&mut self, what: &str, limit: Duration, fault: impl FnOnce(&mut Watched)) {
        let before = Self::live(&mut self.registry).await;
        let follower = self.cli.follow(&["events", "--follow", "--since", "1h", "--json"]);
        follower.wait_line("\"live\"", SOON);
        fault(&mut self.watched);
        // A user who asks in the middle is told at once.
        let begin = now();
        let output = self.cli.run(&["login", "cc150x"]);
        assert_eq!(output.status.code(), Some(3), "{}{}", output.stdout, output.stderr);
        let told = begin.elapsed();
        let (took, slowest) = self.back(130).await;
        let took = told + took;
        let repaired = self.wait_live(LIVE as usize + 1, SOON).await;
        println!(
            "{what}: logins work again after {took:?}; the command line said no after {told:?}, the slowest refusal took \
             {slowest:?}; all sessions live {repaired:?} later"
        );
        assert!(took <= lab::at_this_load(limit), "{took:?}; {}", self.logs());
        // Two heartbeats, and room for a busy machine.
        assert!(
            repaired <= lab::at_this_load(Duration::from_millis(4_000)),
            "{repaired:?}, more than two heartbeats; {}",
            self.logs()
        );
        let most = lab::at_this_load(Duration::from_secs(2));
        assert!(slowest < most && told < most, "{slowest:?} {told:?}");
        let mut after = Self::live(&mut self.registry).await;
        after.remove("cc130x");
        assert_eq!(after, before, "nobody is moved");
        // By a wake-up of the new primary: the poll comes every 10 s.
        self.login(131).await;
        let woken = self.wait_live(LIVE as usize + 2, SOON).await;
        println!("{what}: the next login is live after {woken:?}");
        assert!(woken < lab::at_this_load(Duration::from_secs(2)), "{woken:?}: no wake-up; {}", self.logs());
        let rings = self.nodes.iter().map(|node| node.rings().len()).sum::<usize>();
        assert_eq!(rings, LIVE as usize + 2, "one Originate each");
        assert_eq!(self.nodes.iter().map(SimNode::live).sum::<usize>(), LIVE as usize + 2);
        for daemon in &self.daemons {
            let log = daemon.log();
            assert_eq!(log.matches(" starting ").count(), 1, "the same life; {log}");
            assert!(Path::new(&format!("/proc/{}/exe", daemon.pid())).exists(), "{log}");
        }
        assert_eq!(self.cli.run(&["status"]).status.code(), Some(0));
        let output = self.cli.run(&["login", "cc132x", "--wait"]);
        assert_eq!(output.status.code(), Some(0), "{}{}", output.stdout, output.stderr);
        self.nothing_is_missing(&follower);
    }

    /// Who followed the event stream all the time has each entry once, in order, and all that the new primary has.
    fn nothing_is_missing(&self, follower: &Following) {
        let events = self.cli.run(&["events", "--json"]).ok();
        let last = events.lines().last().expect("a events");
        follower.wait_line(last, SOON);
        let seen = follower.lines();
        let places: Vec<(u64, u64)> = seen.iter().map(|line| place(line)).collect();
        assert!(places.is_sorted_by(|a, b| a < b), "in order, and none twice: {seen:#?}");
        let missed: Vec<&str> = events.lines().filter(|line| !seen.iter().any(|seen| seen == line)).collect();
        assert!(missed.is_empty() && seen.len() > 3 * LIVE as usize, "missed {missed:#?} of {events}");
    }
}

/// Of an entry as `evenring events --json` shows it.
fn place(line: &str) -> (u64, u64) {
    let entry: serde_json::Value = serde_json::from_str(line).unwrap();
    let (time, number) = entry["id"].as_str().unwrap().split_once('-').unwrap();
    (time.parse().unwrap(), number.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_is_killed() {
    let mut scene = Scene::start().await;
    scene.fails_over("kill -9", LIMIT, |watched| watched.servers[0].kill9()).await;
    assert_ne!(scene.watched.primary(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_is_killed_while_a_sentinel_is_dead() {
    let mut scene = Scene::start().await;
    scene.watched.kill_sentinel();
    assert_eq!(scene.cli.run(&["status"]).status.code(), Some(0), "two of three sentinels do");
    scene.fails_over("kill -9, one sentinel dead", LIMIT, |watched| watched.servers[0].kill9()).await;
}

/// How many scripts a server was asked to run, and whether it is a primary.
fn scripts_run(connection: &mut redis::Connection) -> (u64, bool) {
    let info: String = redis::cmd("INFO").arg("commandstats").arg("replication").query(connection).unwrap();
    let calls = |line: &str| line.split("calls=").nth(1)?.split(',').next()?.parse::<u64>().ok();
    let evals = info.lines().filter(|line| line.starts_with("cmdstat_eval"));
    (evals.filter_map(calls).sum(), info.contains("role:master"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_is_frozen_and_comes_back() {
    let mut scene = Scene::start().await;
    let old = redis::Client::open(scene.watched.servers[0].url()).unwrap();
    let mut old = old.get_connection().unwrap();
    let (before, _) = scripts_run(&mut old);
    scene.fails_over("SIGSTOP", LIMIT_FROZEN, |watched| watched.servers[0].sigstop()).await;
    scene.watched.servers[0].sigcont();
    // What lay in its sockets when it froze is carried out now, or refused: there is no way to call that back.
    let mut last = scripts_run(&mut old);
    wait_until(SOON, "the old primary to have done it", || {
        std::mem::replace(&mut last, scripts_run(&mut old)).0 == last.0
    });
    let (thawed, was_primary) = last;
    println!(
        "after the thaw: {} scripts from its sockets; it still calls itself a primary: {was_primary}",
        thawed - before
    );
    for number in 133..143 {
        scene.login(number).await;
        let old = redis::Client::open(scene.watched.servers[0].url()).unwrap().get_connection();
        let (scripts, is_primary) = scripts_run(&mut old.unwrap());
        assert_eq!(scripts, thawed, "a write to the old primary (it calls itself a primary: {is_primary})");
    }
    scene.wait_live(LIVE as usize + 13, SOON).await;
    let old = redis::Client::open(scene.watched.servers[0].url()).unwrap();
    wait_for(SOON, || match scripts_run(&mut old.get_connection().unwrap()) {
        (scripts, false) if scripts == thawed => Ok(()),
        other => Err(format!("the old primary to become a replica, without a script: {other:?}, {thawed}")),
    });
}

/// The rules for Redis in docs/SECURITY.md, with what Sentinel needs.
fn acl() -> String {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/SECURITY.md")).unwrap();
    let line = readme.lines().find(|line| line.starts_with("user evenring on >CHANGE-ME resetkeys")).expect("the ACL");
    line.strip_prefix("user ").unwrap().replace("CHANGE-ME", "redis-word")
}

fn registry(url: &str, more: &str) -> Registry {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("[redis]\nurl = \"{url}\"\n{more}\n")).unwrap();
    Registry::new(&Settings::load(Some(file.path()), std::iter::empty()).unwrap()).unwrap()
}

/// What `evenring doctor` says of Redis: how bad, and what. `admin` may look at how the server is set up.
fn doctor(url: &str, more: &str, admin: &str) -> BTreeMap<String, (String, String)> {
    let file = tempfile::NamedTempFile::new().unwrap();
    let settings = format!("[redis]\nurl = \"{url}\"\n{more}\n");
    std::fs::write(file.path(), &settings).unwrap();
    lab::secrets::keep(&settings);
    let mut command = std::process::Command::new(lab::evenring::binary());
    command.args(["doctor", "--json", "--manager-conf", "/nonexistent", "--config"]).arg(file.path());
    let output = command.env("EVENRING_REDIS_ADMIN_URL", admin).output().unwrap();
    let findings: Vec<BTreeMap<String, String>> =
        serde_json::from_str(&lab::evenring::Output::from(output).stdout).unwrap();
    let of_redis = findings.into_iter().filter(|finding| finding["check"].starts_with("redis"));
    let said = |finding: BTreeMap<String, String>| {
        (finding["check"].clone(), (finding["level"].clone(), format!("{} -> {}", finding["finding"], finding["fix"])))
    };
    of_redis.map(said).collect()
}

/// The doctor finds the primary by the sentinels, with the users that the pages tell people to make.
fn the_doctor(watched: &Watched, url: &str, trusts: &str) {
    // Redis's default user takes any password here.
    let admin = watched.url("rediss", "default:any@");
    let good = doctor(url, trusts, &admin);
    let bad: Vec<_> = good.iter().filter(|(_, (level, _))| level != "ok").map(|(check, _)| check.as_str()).collect();
    assert_eq!(bad, ["redis.default-user"], "it takes any password here: {good:?}");
    assert!(good["redis.sentinel"].1.starts_with("all 3 sentinels name "), "{good:?}");
    assert!(good["redis.replicas"].1.starts_with("replicas: 2, min-replicas-to-write 1"), "{good:?}");
    assert!(good["redis.acl"].1.contains("exactly the rights"), "{good:?}");

    // In clear, by loopback: the certificates of the settings are for those who speak TLS.
    let replica = doctor(url, trusts, &watched.servers[1].url().replace("redis://", "redis://default:any@"));
    assert_eq!(replica["redis.replicas"].0, "failure", "{replica:?}");
    assert!(replica["redis.replicas"].1.contains("or at the sentinels"), "{replica:?}");
    let client = redis::Client::open(watched.servers[0].url()).unwrap();
    let mut primary = client.get_connection().unwrap();
    let mut least = |count: u32| {
        let mut command = redis::cmd("CONFIG");
        command.arg("SET").arg("min-replicas-to-write").arg(count).exec(&mut primary).unwrap();
    };
    least(0);
    let lax = doctor(url, trusts, &admin);
    assert_eq!(lax["redis.replicas"].0, "warning", "{lax:?}");
    assert!(lax["redis.replicas"].1.contains("min-replicas-max-lag 2"), "{lax:?}");
    least(1);
    let denied = doctor(url, &trusts.replace("sentinel-word", "wrong"), &admin);
    assert_eq!(denied["redis"].0, "failure", "{denied:?}");
    assert!(denied["redis"].1.contains("redis.sentinel_username"), "{denied:?}");
    let no_admin = doctor(url, trusts, &watched.url("rediss", "evenring:redis-word@"));
    assert_eq!(no_admin["redis.server"].0, "failure", "{no_admin:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_and_users_with_few_rights_on_redis_and_on_the_sentinels() {
    let dir = tempfile::tempdir().unwrap();
    lab::config::certificate(dir.path());
    let (cert, key) = (dir.path().join("certificate.pem"), dir.path().join("key.pem"));
    let (acl, poor) = (format!("{} +role", acl()), acl().replace("evenring on", "poor on"));
    let redis: Vec<&str> =
        ["--user"].into_iter().chain(acl.split(' ')).chain(["--user"]).chain(poor.split(' ')).collect();
    let sentinel = "user evenring on >sentinel-word resetkeys resetchannels -@all +role +sentinel|masters";
    let watched = Watched::start(Ipv4Addr::LOCALHOST, &Rules { redis: &redis, sentinel, tls: Some((&cert, &key)) });
    let login = "sentinel_username = \"evenring\"\nsentinel_password = \"sentinel-word\"";
    let trusts = format!("ca_file = \"{}\"\n{login}", cert.display());
    let (plain, tls) = ("evenring:redis-word@", watched.url("rediss", "evenring:redis-word@"));
    assert_eq!(registry(&tls, &trusts).nodes().await.unwrap(), []);

    // Who may not ask for the role, or is somebody else to Redis or to the sentinels, is told so.
    for (url, more) in [
        (watched.url("rediss", "poor:redis-word@"), trusts.clone()),
        (watched.url("rediss", "evenring:wrong@"), trusts.clone()),
        (tls.clone(), trusts.replace("sentinel-word", "wrong")),
    ] {
        let error = registry(&url, &more).nodes().await.unwrap_err();
        assert!(matches!(error, RegistryError::Denied { .. }), "{url}: {error:?}");
        assert!(!format!("{error} {error:?}").contains("-word"), "{error:?}");
    }
    // Nobody vouches for this certificate; no such primary; no sentinel there.
    for (url, more, words) in [
        (tls.clone(), login, "certificate"),
        (tls.replace("mymaster", "other"), trusts.as_str(), "`sentinel monitor`"),
        (format!("redis+sentinel://{plain}127.0.0.1:1/mymaster"), login, "not reachable"),
    ] {
        let error = registry(&url, more).nodes().await.unwrap_err();
        assert!(error.is_outage() && error.to_string().contains(words), "{url}: {error}");
    }
    the_doctor(&watched, &tls, &trusts);
}

/// Protected mode is for connections from other hosts only: this address is no loopback address.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_in_protected_mode_is_no_wrong_password() {
    lab::run("ip addr add 10.78.0.2/32 dev lo");
    let watched = Watched::start(Ipv4Addr::new(10, 78, 0, 2), &Rules::default());
    let mut primary = redis::Client::open(watched.servers[0].url()).unwrap().get_connection().unwrap();
    redis::cmd("CONFIG").arg(&["SET", "protected-mode", "yes"]).exec(&mut primary).unwrap();
    for login in ["", "evenring:redis-word@"] {
        let error = registry(&watched.url("redis", login), "").nodes().await.unwrap_err();
        assert!(matches!(error, RegistryError::Unfit { .. }), "{login}: {error:?}");
        assert!(error.to_string().contains("not about evenring's password"), "{login}: {error}");
    }
    drop(watched);
    lab::run("ip addr del 10.78.0.2/32 dev lo");
}

#[test]
fn a_call_on_a_real_asterisk_survives_the_failover() {
    let lab = Lab::start(&[Spec { name: "a", version: Version::V22, endpoints: 10 }]);
    let phones = Phones::register(100, 2, &lab.sip(), Behaviour::ANSWER);
    phones.wait_registered(SOON);
    let mut watched = Watched::start(HUB, &Rules::default());
    let url = watched.url("redis", "");
    let (cli, mut daemon) = (Cli::new(&url), Daemon::start(lab.node("a"), &url, "[ring]\ntimeout = \"4s\"\n"));
    let row = |arguments: &[&str], list: &str, id: &str, key: &str| {
        let output = cli.run(&[arguments, &["--json"]].concat());
        let all: serde_json::Value = serde_json::from_str(&output.stdout).unwrap_or_default();
        let rows = all[list].as_array().cloned().unwrap_or_default();
        rows.into_iter().find(|row| row[key] == id).unwrap_or_default()
    };
    let wait = |what: &str, done: &dyn Fn() -> bool| {
        wait_for(SOON, || if done() { Ok(()) } else { Err(format!("{what}; {}", daemon.log())) });
    };
    wait("the node with its phones", &|| {
        let node = row(&["status"], "nodes", "a", "name");
        node["state"] == "active" && node["registrations"].as_u64() >= Some(2)
    });
    let live = cli.run(&["login", "cc100x", "--agent", "7", "--wait", "--json"]).ok();
    let live: serde_json::Value = serde_json::from_str(&live).unwrap();
    let id = live["session"].as_str().unwrap().to_owned();

    let begin = now();
    watched.servers[0].kill9();
    wait("the first login after the failover", &|| cli.run(&["login", "cc101x"]).status.success());
    let took = begin.elapsed();
    println!("kill -9 beside a real Asterisk: logins work again after {took:?}");
    assert!(took <= lab::at_this_load(LIMIT), "{took:?}; {}", daemon.log());
    wait("the session", &|| row(&["sessions"], "sessions", &id, "session")["state"] == "live");
    wait("the second call", &|| phones.live() == 2);
    assert_eq!((phones.rings("cc100"), phones.rings("cc101")), (1, 1));
    assert!(cli.run(&["logout", "7"]).status.success());
    wait("the end of the first call", &|| phones.live() == 1);
    assert!(daemon.is_running());
}
