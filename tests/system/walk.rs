//! "A real node in five minutes" of README.md, as a person walks it: its blocks, run word for word on two clean hosts with a real
//! systemd, a real Asterisk each (22 and 16) and the Redis of Debian.
//!
//! Owns what a person fills in. Must never do a step that the page does not name.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says why")]

#[path = "../lab/mod.rs"]
mod lab;
#[path = "../packing/mod.rs"]
mod packing;

use std::fs;
use std::path::Path;
use std::time::Duration;

use lab::evenring::Output;
use lab::machine::Machine;
use lab::phone::{Behaviour, Phones};
use lab::{Lab, Node, Spec, Version, now, secrets, wait_for, wait_until};

const UNIT: &str = "evenring.service";
/// Phones that both hosts know; all are registered at both.
const PHONES: u32 = 4;
const SOON: Duration = Duration::from_secs(10);

/// The blocks of the section, in its order.
fn blocks() -> [String; 4] {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let section = page.split("\n## A real node in five minutes\n").nth(1).expect("the section");
    let section = section.split("\n## ").next().unwrap();
    let blocks: Vec<String> =
        section.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect();
    blocks.try_into().expect("every host, the first host, every other host, the first login")
}

/// The values for the words in capitals.
struct Filled {
    address: String,
    password: Option<String>,
}

impl Filled {
    /// A block as a person pastes it.
    fn fill(&self, block: &str) -> String {
        let filled = block.replace("REDIS-ADDRESS", &self.address);
        let filled = filled.replace("REDIS-PASSWORD", self.password.as_deref().unwrap_or("REDIS-PASSWORD"));
        let is_open = |word: &&str| ["REDIS-", "ADDRESS"].iter().any(|part| word.contains(part));
        let open: Vec<&str> = filled.split_whitespace().filter(is_open).collect();
        assert!(open.is_empty(), "nobody has filled in {open:?}");
        filled
    }
}

/// A host as it is before the walk: Asterisk with phones and without a manager, and the package in root's folder.
struct Host<'a> {
    node: &'a Node,
    machine: Machine,
}

impl<'a> Host<'a> {
    fn new(node: &'a Node, package: &Path) -> Self {
        // Debian's own file and what it includes, with the manager switched off as in Asterisk's sample
        let debian = lab::cache().join(format!("asterisk-{}/etc/asterisk", node.version().number()));
        let own = node.root().join("etc/asterisk");
        lab::run(&format!("cp -a {}/manager.conf {}/manager.d {}", debian.display(), debian.display(), own.display()));
        let conf = fs::read_to_string(own.join("manager.conf")).unwrap();
        let off = conf.replace("\nenabled = yes", "\nenabled = no");
        assert!(off.contains("\nenabled = no"), "{conf}");
        fs::write(own.join("manager.conf"), off).unwrap();
        node.restart();
        let machine = Machine::boot_with_asterisk(node);
        machine.install("/root/evenring_0.1.0_amd64.deb", fs::read(package).unwrap(), 0o644);
        Self { node, machine }
    }

    /// Runs a block; stops at the first command that fails.
    fn try_paste(&self, block: &str) -> Output {
        let script = format!("cd /root\nexport HOME=/root DEBIAN_FRONTEND=noninteractive\n{block}");
        self.machine.run(&["bash", "-eu", "-o", "pipefail", "-c", &script])
    }

    /// The same; none may fail.
    fn paste(&self, block: &str) -> Output {
        let output = self.try_paste(block);
        let (said, name) = ([output.stdout.as_str(), output.stderr.as_str()].concat(), self.node.name());
        assert!(output.status.success(), "host {name}, block:\n{block}\n{said}\n{}", self.machine.last_lines());
        println!("---- host {name}\n{said}");
        output
    }

    /// A command, as somebody; code and all that was said.
    fn says(&self, user: &str, command: &[&str]) -> (i32, String) {
        let output = self.machine.run(&[&["runuser", "-u", user, "--"], command].concat());
        (output.status.code().unwrap(), [output.stdout, output.stderr].concat())
    }

    /// What a file for a secret holds; from now on nobody may show it.
    fn keep_secret(&self, name: &str) -> String {
        let text = fs::read_to_string(self.machine.root().join("etc/evenring").join(name)).unwrap();
        secrets::keep(&format!("password = \"{}\"\n", text.trim()));
        text.trim().to_owned()
    }
}

#[test]
fn a_real_node_in_five_minutes_on_two_hosts() {
    let [every, first, other, login] = blocks();
    // not b, which is a phone of a, too
    let lab = Lab::start(&[("a", Version::V22), ("c", Version::V16)].map(|(name, version)| Spec {
        name,
        version,
        endpoints: PHONES,
    }));
    let package = packing::pack(&lab.dir().join("package"));
    let hosts = ["a", "c"].map(|name| Host::new(lab.node(name), &package));
    let phones = Phones::register(100, PHONES, &lab.sip(), Behaviour::ANSWER);
    phones.wait_registered(SOON * 3);
    let mut filled = Filled { address: lab.node("a").address().to_string(), password: None };

    let begin = now();
    for host in &hosts {
        host.paste(&filled.fill(&every));
    }
    let shown = hosts[0].paste(&filled.fill(&first)).stdout;
    filled.password = shown.lines().last().map(str::to_owned);
    hosts[1].paste(&filled.fill(&other));
    let said = first_login(&hosts[1], &filled.fill(&login));
    println!("the walk, on two hosts: {:.0?}", begin.elapsed());

    let both = hosts.iter().filter(|host| said.stdout.contains(host.node.name())).count();
    assert!(both == 2 && said.stdout.contains("live"), "{}", said.stdout);
    assert_eq!((phones.live(), phones.rings("cc100")), (1, 1), "the agent talks, and was rung once");
    let secrets = hosts.each_ref().map(|host| ["ami-secret", "redis-password"].map(|name| host.keep_secret(name)));
    assert_eq!(secrets[0][1], secrets[1][1], "one password of Redis");
    assert_ne!(secrets[0][0], secrets[1][0], "each Asterisk has a secret of its own");
    for host in &hosts {
        let (code, said) = host.says("root", &["evenring", "doctor"]);
        // Only a Redis admin may read how Redis is set up, and doctor says so.
        let last = said.lines().last().unwrap_or_default();
        assert!(code == 0 && last.starts_with("all is well"), "{said}");
        secrets::search("the doctor's report", &said);
        // worth a note, and no more: the second host reaches Redis over a private network
        assert_eq!(said.contains("redis.url: the password is sent unencrypted"), host.node.name() == "c", "{said}");
    }
    says_nothing_false(&hosts[1]);
    tells_others_which_file(&hosts[1]);
    refuses_a_user_without_a_password(&hosts[1]);
}

/// The page says that logins of the first seconds are told `not now`, and to repeat them; a test is faster than a person.
fn first_login(host: &Host<'_>, block: &str) -> Output {
    let output = wait_for(SOON, || {
        let output = host.try_paste(block);
        let early = output.status.code() == Some(3) && output.stderr.contains("not now");
        if early { Err(output.stderr) } else { Ok(output) }
    });
    println!("---- host {}\n{}{}", host.node.name(), output.stdout, output.stderr);
    assert!(output.status.success(), "{}", host.machine.last_lines());
    output
}

/// What is set is not said to be missing: not at `config check`, and not in the sandbox, at a reload.
fn says_nothing_false(host: &Host<'_>) {
    let note = "note: redis.url: the password is sent unencrypted: use rediss:// unless this network is yours alone\n";
    let (code, said) = host.says("root", &["evenring", "config", "check"]);
    assert_eq!((code, said), (0, format!("{note}ok\n")));
    let journal = || {
        let lines = host.machine.journal(&["_SYSTEMD_UNIT=evenring.service"]);
        lines.iter().map(|line| format!("{}\n", line["MESSAGE"].as_str().unwrap_or_default())).collect::<String>()
    };
    let before = journal().len();
    host.machine.ok(&["systemctl", "reload", UNIT]);
    wait_until(SOON, "the daemon to have read its settings", || journal()[before..].contains("settings reloaded"));
    let said = journal()[before..].to_owned();
    assert!(said.contains("ok\n"), "the check of the reload is in the journal: {said}");
    for wrong in ["needs more settings", "no password", "cannot read", "may not read"] {
        assert!(!said.contains(wrong), "{said}");
    }
}

/// Who may not read the daemon's files is told which one it is, and what to set instead.
fn tells_others_which_file(host: &Host<'_>) {
    let (code, said) = host.says("nobody", &["evenring", "status"]);
    assert_eq!(code, 2, "{said}");
    for part in ["redis.password", "/etc/evenring/redis-password", "as root", "EVENRING__REDIS__PASSWORD_FILE"] {
        assert!(said.contains(part), "{said}");
    }
    let password = format!("EVENRING__REDIS__PASSWORD={}", host.keep_secret("redis-password"));
    let (code, said) = host.says("nobody", &["env", &password, "evenring", "status"]);
    assert_eq!(code, 0, "{said}");
    let (code, said) = host.says("nobody", &["env", &password, "evenring", "doctor"]);
    assert!(code == 2 && said.contains("/etc/evenring/ami-secret") && said.contains("as root"), "{said}");
    // there is one, as far as the settings go
    let (code, said) = host.says("nobody", &["evenring", "config", "check"]);
    assert!(code == 0 && !said.contains("needs more settings") && !said.contains("no password"), "{said}");
}

/// Somebody has named the user and forgotten its password.
fn refuses_a_user_without_a_password(host: &Host<'_>) {
    host.machine.install("/etc/evenring/redis-password", "", 0o600);
    let why = "redis.username is set, but no password: write it into /etc/evenring/redis-password";
    let (code, said) = host.says("root", &["evenring", "config", "check"]);
    assert!(code == 2 && said.contains(why), "{said}");
    assert!(!host.machine.run(&["systemctl", "restart", UNIT]).status.success());
    let result = ["ActiveState", "ExecMainStatus", "NRestarts"].map(|name| host.machine.property(UNIT, name));
    assert_eq!(result, ["failed", "2", "0"], "{}", host.machine.last_lines());
    assert!(host.machine.last_lines().contains(why), "{}", host.machine.last_lines());
}
