//! What goes wrong before anything works: settings, names, passwords, permissions, a Redis or an Asterisk that is not
//! there or is something else (P8, P11, P13). Each case has its exit code and its words; the daemon stays where waiting
//! helps, does not spin, never panics and never shows a secret.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the helpers of tests may fail loudly, too")]

#[path = "../lab/mod.rs"]
mod lab;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lab::evenring::{Output, binary};
use lab::phone::{Behaviour, Phones};
use lab::redis::Redis;
use lab::{HUB, Lab, Node, Spec, Version, wait_for, wait_until};

const SOON: Duration = Duration::from_secs(10);
/// What no output may ever hold.
const SECRETS: [&str; 3] = ["evenring-secret", "hunter2-ami", "hunter2-redis"];

/// The program with a config file of its own. Where it has no Asterisk, its AMI address leads nowhere.
struct Program {
    dir: tempfile::TempDir,
    child: Option<Child>,
}

impl Program {
    fn new(toml: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("evenring.toml"), toml).unwrap();
        Self { dir, child: None }
    }

    /// Node a, without an Asterisk, and this Redis.
    fn without_asterisk(redis: &str) -> Self {
        Self::new(&settings("127.0.0.1:1", "evenring", "hunter2-ami", redis))
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("evenring.toml")
    }

    fn start(mut self) -> Self {
        let log = fs::File::create(self.dir.path().join("log")).unwrap();
        let child = Command::new(binary())
            .args(["run", "--config"])
            .arg(self.config())
            .env("RUNTIME_DIRECTORY", self.dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        self.child = Some(child.unwrap());
        self
    }

    fn child(&mut self) -> &mut Child {
        self.child.as_mut().unwrap()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    #[track_caller]
    fn wait_log(&mut self, text: &str) {
        wait_for(SOON + SOON, || {
            let ended = self.child().try_wait().unwrap();
            let log = self.log();
            match (log.contains(text), ended) {
                (true, _) => Ok(()),
                (false, Some(status)) => panic!("it ended ({status}) before it said {text:?}: {log}"),
                (false, None) => Err(format!("{text:?}: {log}")),
            }
        });
    }

    /// Waits for its end, and gives the exit code.
    fn end(&mut self) -> i32 {
        let status =
            wait_for(SOON, || self.child().try_wait().unwrap().ok_or_else(|| format!("the end: {}", self.log())));
        status.code().expect("no signal")
    }

    /// It stays for two seconds more, in which it needs next to no processor time; and says the right things.
    fn stays_quietly(&mut self) {
        let (begin, before) = (lab::now(), self.cpu_ticks());
        wait_until(SOON, "two seconds to pass", || begin.elapsed() > Duration::from_secs(2));
        assert!(self.child().try_wait().unwrap().is_none(), "{}", self.log());
        let ticks = self.cpu_ticks() - before;
        assert!(ticks <= 20, "{ticks} hundredths of a second of processor time in two seconds: {}", self.log());
        assert!(self.log().lines().count() < 40, "too many words: {}", self.log());
    }

    /// User and system time so far, in hundredths of a second.
    fn cpu_ticks(&mut self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child().id())).unwrap();
        let behind_name = stat.rsplit_once(')').unwrap().1;
        let field = |at: usize| behind_name.split_whitespace().nth(at).unwrap().parse::<u64>().unwrap();
        field(11) + field(12)
    }

    fn cli(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(binary());
        command.args(arguments).arg("--config").arg(self.config()).stdin(Stdio::null());
        let output: Output = command.output().unwrap().into();
        clean(&format!("{}{}", output.stdout, output.stderr));
        output
    }

    /// Runs a verb, which must end so and say this.
    #[track_caller]
    fn fails(&self, arguments: &[&str], code: i32, words: &[&str]) {
        let output = self.cli(arguments);
        let said = format!("{}{}", output.stdout, output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        for word in words {
            assert!(said.contains(word), "{arguments:?} does not say {word:?}: {said}");
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ended = child.kill();
            let _ended = child.wait();
            if !std::thread::panicking() {
                clean(&self.log());
            }
        }
    }
}

/// No panic, no secret, no control character but line ends.
#[track_caller]
fn clean(text: &str) {
    assert!(!text.contains("panicked"), "{text}");
    assert!(SECRETS.iter().all(|secret| !text.contains(secret)), "a secret: {text}");
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "a control character: {text:?}");
}

fn settings(ami: &str, user: &str, secret: &str, redis: &str) -> String {
    format!(
        "[node]\nname = \"a\"\n[ami]\naddress = \"{ami}\"\nusername = \"{user}\"\nsecret = \"{secret}\"\nlogin_timeout = \"3s\"\n\
         [redis]\nurl = \"{redis}\"\n[log]\nformat = \"text\"\n[ring]\ntimeout = \"4s\"\n"
    )
}

fn connection(redis: &Redis) -> redis::Connection {
    redis::Client::open(redis.url()).unwrap().get_connection().unwrap()
}

#[test]
fn settings_that_are_wrong() {
    let wrong = |toml: &str, words: &[&str]| {
        let program = Program::new(toml);
        for verb in [&["run"][..], &["status"], &["config", "check"]] {
            program.fails(verb, 2, words);
        }
    };
    wrong("[redis]\nulr = \"redis://x\"\n", &["unknown key redis.ulr", "did you mean redis.url?"]);
    wrong("[node]\nname = \"a b\"\n", &["node.name", "the node name"]);
    wrong("[redis]\nurl = \"redis://:hunter2-redis@a/0@b\"\n", &["redis.url"]);
    wrong("node.name = \n", &["evenring.toml"]);
    let missing = Program::new("");
    fs::remove_file(missing.config()).unwrap();
    missing.fails(&["status"], 2, &["evenring.toml", "No such file"]);
    missing.fails(&["run"], 2, &["evenring.toml", "No such file"]);
    for (file, words) in [("/nonexistent/secret", "No such file"), ("/proc", "cannot read /proc")] {
        let program = Program::new(&format!("[ami]\nusername = \"u\"\nsecret_file = \"{file}\"\n"));
        program.fails(&["run"], 2, &["ami.secret_file", file, words]);
        program.fails(&["config", "check"], 2, &["ami.secret_file", file, words]);
    }
    Program::new("").fails(&["run"], 2, &["ami.username is not set"]);
}

#[test]
fn names_that_are_none() {
    let program = Program::without_asterisk("redis://127.0.0.1:1");
    let long = "a".repeat(65);
    for (alias, words) in [
        ("cc100\r\nAction: Originate", r"\r\nAction"),
        ("cc100\nx", r"\n"),
        ("cc100,cc101", "','"),
        ("cc\x1b[31m", r"\u{1b}"),
        ("", "the alias is empty"),
        (&long, "at most 64"),
    ] {
        let what = if alias.contains(char::is_control) { "control character" } else { "the alias" };
        program.fails(&["login", alias], 2, &[what, words]);
        program.fails(&["explain", alias], 2, &[what, words]);
        program.fails(&["logout", alias], 2, &[what, words]);
        program.fails(&["alias", "set", alias, "cc100@a"], 2, &[what, words]);
        let what = if alias.contains(char::is_control) { "control character" } else { "the agent id" };
        program.fails(&["login", "cc100x", "--agent", alias], 2, &[what]);
    }
    program.fails(&["alias", "set", "desk", "cc100"], 2, &["EXTENSION@NODE"]);
    // The system itself lets no NUL through.
    assert!(Command::new(binary()).args(["login", "cc\0"]).output().is_err());
}

#[test]
fn a_file_of_aliases_is_taken_whole_or_not_at_all() {
    let redis = Redis::start();
    let program = Program::without_asterisk(&redis.url());
    let cli = |arguments: &[&str]| {
        let output = program.cli(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", output.stderr);
        output.stdout
    };
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let many: String = (0..1200).map(|n| format!("desk{n:04} cc{n}@tel-1 cc{n}@tel-2\n")).collect();
    let good = file("good", &format!("# all desks\n{many}"));
    assert!(cli(&["alias", "import", &good, "--dry-run"]).contains("1200 new, 0 changed, 0 unchanged, 0 removed"));
    assert_eq!(cli(&["alias", "export"]), "", "that was dry");
    assert!(
        cli(&["alias", "import", &good]).ends_with("1200 new, 0 changed, 0 unchanged, 0 removed, 0 not in the file\n")
    );
    assert_eq!(cli(&["alias", "export"]), many);
    let bad = file("bad", "desk0001 cc1@tel-9\ndesk0002 cc2\n");
    program.fails(&["alias", "import", &bad], 2, &["line 2: \"cc2\": write EXTENSION@NODE", "nothing was changed"]);
    program.fails(&["alias", "import", "/nowhere"], 2, &["cannot read /nowhere"]);
    assert_eq!(cli(&["alias", "export"]), many);
    let other = file("other", "desk0000 cc0@tel-1 cc0@tel-2\ndesk0001 cc1@tel-9\nnew cc1@tel-3\n");
    let told: serde_json::Value = serde_json::from_str(&cli(&["alias", "import", &other, "--json"])).unwrap();
    let expected = serde_json::json!(
        {"new": 1, "changed": 1, "same": 1, "removed": 0, "kept": 1198, "dry_run": false});
    assert_eq!(told, expected);
    let told = cli(&["alias", "import", &other, "--replace"]);
    assert!(told.contains("- desk0002\n") && told.contains("- and 1188 more\n"), "{told}");
    assert_eq!(cli(&["alias", "export"]), "desk0000 cc0@tel-1 cc0@tel-2\ndesk0001 cc1@tel-9\nnew cc1@tel-3\n");
}

/// Every verb that asks Redis.
const VERBS: [&[&str]; 10] = [
    &["login", "cc100x"],
    &["login", "cc100x", "--wait", "--json"],
    &["logout", "cc100x"],
    &["status"],
    &["sessions"],
    &["explain", "cc100x"],
    &["phones"],
    &["alias", "list"],
    &["alias", "export"],
    &["alias", "set", "desk", "cc100@a"],
];

#[test]
fn a_redis_that_is_not_there() {
    let mut redis = Redis::start();
    redis.kill9();
    let mut program = Program::without_asterisk(&redis.url()).start();
    for verb in VERBS {
        program.fails(verb, 3, &["is not reachable", "check that it is running"]);
    }
    program.wait_log("Redis unavailable");
    program.stays_quietly();
    redis.start_again();
    let begin = lab::now();
    program.wait_log("registered");
    assert!(begin.elapsed() < lab::at_this_load(Duration::from_secs(2)), "{:?}", begin.elapsed());
    program.wait_log("Redis is back");
    // It came back empty: first the nodes have to say what they have.
    program.fails(&["login", "cc100x", "--wait"], 1, &["cc100x: no node knows this phone"]);
}

#[test]
fn a_redis_that_cannot_be_written() {
    let full: &[&str] = &["--maxmemory", "100kb", "--maxmemory-policy", "noeviction"];
    let replica: &[&str] = &["--replicaof", "127.0.0.1", "1"];
    for (arguments, advice) in [(full, "raise maxmemory"), (replica, "point redis.url at the primary")] {
        let redis = Redis::start_with(Ipv4Addr::LOCALHOST, arguments);
        let mut program = Program::without_asterisk(&redis.url()).start();
        program.fails(&["alias", "set", "desk", "cc100@a"], 3, &["accepts no writes", advice]);
        program.wait_log(advice);
        assert!(program.log().contains("Redis unavailable"), "{}", program.log());
        program.stays_quietly();
    }
}

#[test]
fn a_redis_that_refuses_the_password() {
    let redis = Redis::start_with(Ipv4Addr::LOCALHOST, &["--requirepass", "the-right-one"]);
    let wrong = redis.url().replace("redis://", "redis://:hunter2-redis@");
    for url in [wrong, redis.url()] {
        let mut program = Program::without_asterisk(&url).start();
        for verb in VERBS {
            program.fails(verb, 3, &["denied access", "the password and the ACL"]);
        }
        program.wait_log("denied access");
        program.stays_quietly();
    }
}

#[test]
fn a_node_name_that_is_held() {
    let redis = Redis::start();
    let mut connection = connection(&redis);
    let () = redis::cmd("HSET")
        .arg(&["{evenring}:node:a", "host", "other-host/x", "generation", "00000000000000ff", "beat", "0"])
        .arg(&["lease", "100000"])
        .query(&mut connection)
        .unwrap();
    let mut program = Program::without_asterisk(&redis.url()).start();
    program.wait_log("another daemon holds this node's name: waiting for its lease to expire");
    assert!(program.log().contains("other-host/x"), "{}", program.log());
    program.stays_quietly();
    let () = redis::cmd("HSET").arg(&["{evenring}:node:a", "expired", "1"]).query(&mut connection).unwrap();
    program.wait_log("registered");
}

#[test]
fn a_second_daemon_of_the_same_name() {
    let redis = Redis::start();
    let mut first = Program::without_asterisk(&redis.url()).start();
    first.wait_log("registered");
    let mut second = Program::without_asterisk(&redis.url());
    let dir = format!("lock_dir = {:?}\n[ami]", first.dir.path());
    let toml = fs::read_to_string(second.config()).unwrap().replacen("[ami]", &dir, 1);
    fs::write(second.config(), toml).unwrap();
    second = second.start();
    assert_eq!(second.end(), 4);
    let pid = first.child().id();
    let log = second.log();
    assert!(log.contains(&format!("the name of node a is taken: another daemon (pid {pid}, generation")), "{log}");
    assert!(log.contains("give this one another node.name"), "{log}");
    first.stays_quietly();
    // A place where no lock can be: it says so, and waits for the lease like a stranger.
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut third = Program::without_asterisk(&redis.url());
    let dir = format!("lock_dir = {:?}\n[ami]", file.path());
    let toml = fs::read_to_string(third.config()).unwrap().replacen("[ami]", &dir, 1);
    fs::write(third.config(), toml).unwrap();
    third = third.start();
    third.wait_log("no lock on the node name");
    third.wait_log("another daemon holds this node's name");
    first.stays_quietly();
}

/// Counts connections, and says this to each.
fn greeter(words: &'static [u8]) -> (SocketAddrV4, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            counted.fetch_add(1, Ordering::Relaxed);
            let mut stream = stream.unwrap();
            let _gone = stream.write_all(words);
            let _gone = stream.read_to_end(&mut Vec::new());
        }
    });
    (SocketAddrV4::new(Ipv4Addr::LOCALHOST, port), count)
}

#[test]
fn a_port_that_is_no_manager() {
    let redis = Redis::start();
    let program = |address: SocketAddrV4| {
        Program::new(&settings(&address.to_string(), "evenring", "hunter2-ami", &redis.url())).start()
    };
    // Redis waits to be spoken to.
    let mut silent = program(redis.address());
    silent.wait_log("no complete login within 3s (stuck before its greeting); check that this port is Asterisk's AMI");
    silent.stays_quietly();
    let (address, count) = greeter(b"SSH-2.0-OpenSSH_9.9\r\n");
    let mut other = program(address);
    other.wait_log("the peer is not Asterisk's AMI");
    assert!(other.log().contains("check host and port in ami.address"), "{}", other.log());
    other.stays_quietly();
    assert!(count.load(Ordering::Relaxed) < 30, "{count:?} attempts");
    // A manager that ends in the middle of its first word.
    let (address, count) =
        greeter(b"Asterisk Call Manager/11.0.0\r\nResponse: Error\r\nMessage: Asterisk is shutting down\r\n\r\n");
    let mut ending = program(address);
    ending.wait_log("Asterisk is shutting down");
    ending.stays_quietly();
    assert!(count.load(Ordering::Relaxed) < 30, "{count:?} attempts");
}

/// A user of AMI with these classes; the last two lines of its section.
fn add_user(node: &Node, name: &str, classes: &str) {
    let path = node.root().join("etc/asterisk/manager.conf");
    let text = fs::read_to_string(&path).unwrap();
    let user = format!("\n[{name}]\nsecret = hunter2-ami\npermit = 10.77.0.0/255.255.255.0\n{classes}\n");
    fs::write(path, text + &user).unwrap();
    node.cli("manager reload");
}

fn with_user(node: &Node, redis: &Redis, user: &str, secret: &str) -> Program {
    Program::new(&settings(&node.ami().to_string(), user, secret, &redis.url())).start()
}

#[test]
fn an_asterisk_that_lets_us_do_nothing_or_too_little() {
    let lab = Lab::start(&[Spec { name: "a", version: Version::V22, endpoints: 3 }]);
    let (node, redis) = (&lab.nodes()[0], Redis::start_with(HUB, &[]));
    let mut wrong = with_user(node, &redis, "evenring", "hunter2-ami");
    wrong.wait_log(
        "Asterisk refused the login of evenring: Authentication failed; check user, secret, permit and deny in manager.conf",
    );
    wrong.stays_quietly();
    let attempts = || fs::read_to_string(node.log()).unwrap().matches("failed to authenticate").count();
    assert!((1..10).contains(&attempts()), "{} attempts", attempts());
    wrong.fails(&["login", "cc100x"], 1, &["no node knows this phone"]);
    drop(wrong);

    add_user(node, "nothing", "read = system,call,agent\nwrite = originate");
    let mut nothing = with_user(node, &redis, "nothing", "hunter2-ami");
    nothing.wait_log("Asterisk refuses part of the snapshot");
    let log = nothing.log();
    assert!(log.contains("Permission denied") && log.contains("write classes (call, reporting)"), "{log}");
    nothing.stays_quietly();
    drop(nothing);

    add_user(node, "deaf", "read = call,agent\nwrite = originate,call,reporting,agent");
    let mut deaf = with_user(node, &redis, "deaf", "hunter2-ami");
    deaf.wait_log("the user lacks read = system");
    deaf.stays_quietly();
    drop(deaf);

    let phones = Phones::register(100, 1, &lab.sip(), Behaviour::ANSWER);
    phones.wait_registered(SOON);
    add_user(node, "mute", "read = system,call,agent\nwrite = call,reporting,agent");
    let mut mute = with_user(node, &redis, "mute", "hunter2-ami");
    mute.wait_log("in sync with Asterisk");
    let failed = || mute.cli(&["login", "cc100x", "--wait"]);
    let output = wait_for(SOON, || match failed() {
        output if output.stdout.contains("refused") => Ok(output),
        output => Err(format!("{output:?}")),
    });
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.contains("failed: refused: Permission denied"), "{output:?}");
    drop(mute);
    rubbish_in_the_queues(node, &redis, &phones);
}

/// RSMQ's layout, by hand.
fn put(connection: &mut redis::Connection, queue: &str, id: &str, body: &[u8]) {
    let key = format!("{{evenring}}:{queue}");
    let () = redis::cmd("ZADD").arg(&key).arg(0).arg(id).query(connection).unwrap();
    let () = redis::cmd("HSET").arg(format!("{key}:Q")).arg(id).arg(body).query(connection).unwrap();
}

fn rubbish_in_the_queues(node: &Node, redis: &Redis, phones: &Phones) {
    let mut program = with_user(node, redis, "evenring", lab::config::AMI_USER.1);
    program.wait_log("in sync with Asterisk");
    let mut connection = connection(redis);
    for (at, body) in [
        &b""[..],
        b"\xff\x00\r\n\r\nAction: Originate",
        b"[]",
        b"7",
        b"{\"kind\":\"ring\"}",
        b"{\"kind\":\"hangup\",\"session\":\"x\\r\\ny\"}",
        b"{\"kind\":\"ring\",\"session\":{\"a\":[1]},\"try\":null}",
        b"{\"alias\":\"cc100\\r\\nAction: x\"}",
        b"{\"alias\":\"cc100x\",\"unknown\":1}",
    ]
    .iter()
    .enumerate()
    {
        put(&mut connection, "ring-a", &format!("0000000{at}aaaaaaaaaaaaaaaaaaaaaaaa"), body);
        put(&mut connection, "logins", &format!("0000000{at}bbbbbbbbbbbbbbbbbbbbbbbb"), body);
    }
    wait_until(SOON, "both queues to be empty", || {
        let left = |connection: &mut redis::Connection, queue: &str| -> u64 {
            redis::cmd("ZCARD").arg(format!("{{evenring}}:{queue}")).query(connection).unwrap()
        };
        left(&mut connection, "ring-a") + left(&mut connection, "logins") == 0
    });
    program.wait_log("invalid message in the inbox dropped");
    program.wait_log("unreadable order dropped");
    program.fails(&["login", "nobodyx"], 1, &["nobodyx: no node knows this phone", "check the spelling"]);
    program.fails(&["login", "cc101x"], 1, &["no node can ring this phone now", "unregistered"]);
    let output = program.cli(&["login", "cc100x", "--wait"]);
    assert_eq!(output.status.code(), Some(0), "{output:?} {}", program.log());
    assert_eq!(phones.rings("cc100"), 1);
    program.fails(&["logout", "cc100x"], 0, &["ended"]);
    assert!(Path::new(&program.config()).exists());
    program.stays_quietly();
}
