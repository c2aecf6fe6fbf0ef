//! The package, in a clean Debian 12 under a real systemd: install, configure, upgrade while agents talk, remove, purge.
//!
//! It is packed as `./dev package` does it, from the program that this test was built with (or EVENRING_BIN).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says why")]

#[path = "../cluster/mod.rs"]
mod cluster;
#[path = "../lab/mod.rs"]
mod lab;
#[path = "../packing/mod.rs"]
mod packing;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cluster::{Cluster, SOON};
use lab::evenring::Cli;
use lab::machine::Machine;
use lab::phone::{Behaviour, Phones};
use lab::redis::Redis;
use lab::{HUB, Lab, Spec, Version, config, now, run, wait_for, wait_until};

/// Where an operator has put the package.
const PACKAGE: &str = "/srv/evenring.deb";
const UNIT: &str = "evenring.service";
const TIMER: &str = "evenring-doctor.timer";
const SETTINGS: &str = "/etc/evenring/config.toml";
const SECRET: &str = "/etc/evenring/ami-secret";
/// Who is on the phone during the upgrade.
const AGENTS: u32 = 100;

/// The same package as the next version, with sample settings that have changed.
fn next_version(package: &Path, dir: &Path) -> PathBuf {
    let (tree, next) = (dir.join("next"), dir.join("next.deb"));
    run(&format!("dpkg-deb -R {} {}", package.display(), tree.display()));
    let change = |file: &str, from: &str, to: &str| {
        let text = fs::read_to_string(tree.join(file)).unwrap();
        assert!(text.contains(from), "no {from:?} in {file}: {text}");
        fs::write(tree.join(file), text.replacen(from, to, 1)).unwrap();
    };
    change("DEBIAN/control", "\nVersion: ", "\nVersion: 1:");
    change("etc/evenring/config.toml", "[log]\n", "[log]\n# A remark of the next version.\n");
    run(&format!("dpkg-deb -Znone -b {} {}", tree.display(), next.display()));
    next
}

/// `apt-get WORDS`, as an operator's script would.
fn apt(machine: &Machine, words: &[&str]) {
    let apt = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--yes", "-o", "Dpkg::Options::=--force-confold"];
    machine.ok(&[&apt[..], words].concat());
}

fn install(machine: &Machine, package: &Path) {
    machine.install(PACKAGE, fs::read(package).unwrap(), 0o644);
    apt(machine, &["install", PACKAGE]);
}

#[test]
fn from_the_first_installation_to_the_purge() {
    let lab = Lab::start(&[Spec { name: "a", version: Version::V22, endpoints: AGENTS }]);
    let package = packing::pack(&lab.dir().join("package"));
    let next = next_version(&package, lab.dir());
    let phones = Phones::register(100, AGENTS, &lab.sip(), Behaviour::ANSWER);
    let redis = Redis::start_with(HUB, &[]);
    let cluster = Cluster { daemons: Vec::new(), cli: Cli::new(&redis.url()), redis };
    let machine = Machine::boot(lab.node("a"));

    install(&machine, &package);
    is_installed(&machine);
    configure(&machine, &cluster.redis.url());
    phones.wait_registered(SOON * 3);
    cluster.wait_phones("a", AGENTS.into());
    idles(&machine, &cluster);

    for number in 100..100 + AGENTS {
        cluster.login(&format!("cc{number}x"));
    }
    wait_until(SOON * 3, "all agents to talk", || {
        cluster.agents()["a"] == u64::from(AGENTS) && live(&cluster) == AGENTS
    });
    assert_eq!(phones.live(), AGENTS as usize);
    let settings = machine.ok(&["cat", SETTINGS]);
    let (pid, generation) = (machine.property(UNIT, "MainPID"), cluster.node("a")["generation"].clone());
    let out = out_of_rotation(&cluster, || install(&machine, &next));
    println!("upgrade with {AGENTS} live calls: out of the rotation for {out:.0?}");
    assert!(out <= lab::at_this_load(Duration::from_secs(2)), "{out:?}");
    assert_ne!((machine.property(UNIT, "MainPID"), cluster.node("a")["generation"].clone()), (pid, generation));
    all_talk(&phones, &cluster);
    assert_eq!(machine.ok(&["cat", SETTINGS]), settings, "what the operator wrote stays");
    assert!(machine.ok(&["cat", "/etc/evenring/config.toml.dpkg-dist"]).contains("A remark of the next version."));

    // Back to the version of before, as docs/deployment.md says it.
    machine.install(PACKAGE, fs::read(&package).unwrap(), 0o644);
    apt(&machine, &["install", "--allow-downgrades", PACKAGE]);
    all_talk(&phones, &cluster);
    assert_eq!(machine.ok(&["cat", SETTINGS]), settings, "what the operator wrote stays");

    machine.ok(&["systemctl", "enable", "--now", TIMER]);
    apt(&machine, &["remove", "evenring"]);
    assert_eq!(machine.state(TIMER), "inactive/dead", "nothing is left that would start it");
    assert_eq!(cluster.node("a")["state"], "stopped", "it left the rotation");
    assert!(!machine.root().join("usr/bin/evenring").exists());
    assert_eq!(machine.ok(&["cat", SETTINGS]), settings, "a removal leaves the settings");
    assert_eq!(phones.live(), AGENTS as usize, "nobody is cut by a removal");
    apt(&machine, &["purge", "evenring"]);
    is_purged(&machine);
    assert!(machine.run(&["find", "/etc/systemd/system", "-name", TIMER]).stdout.is_empty(), "nor enabled");
}

fn live(cluster: &Cluster) -> u32 {
    cluster.sessions().iter().map(|session| u32::from(session["state"] == "live")).sum()
}

/// Every link of an installed page leads to something that is installed.
fn links_work(docs: &Path) {
    let (mut open, mut dead, mut pages) = (vec![docs.to_owned()], Vec::new(), 0);
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|end| end == "md") {
            let text = fs::read_to_string(&path).unwrap();
            pages += 1;
            let links = text.split("](").skip(1).map(|rest| rest.split([')', '#']).next().unwrap());
            let gone = |link: &&str| !link.contains("://") && !path.parent().unwrap().join(link).exists();
            dead.extend(links.filter(gone).map(|link| format!("{}: {link}", path.display())));
        }
    }
    assert!(pages > 12 && dead.is_empty(), "{pages} pages, dead links: {dead:?}");
}

/// What lies there, and that nothing runs that is not configured.
fn is_installed(machine: &Machine) {
    assert!(machine.ok(&["evenring", "--version"]).starts_with("evenring "));
    assert_eq!(machine.run(&["dpkg", "--verify", "evenring"]).ok(), "", "all files are as packed");
    assert!(machine.ok(&["dpkg-query", "-W", "-f", "${Conffiles}", "evenring"]).contains(SETTINGS));
    assert_eq!(machine.ok(&["stat", "-c", "%U:%G %a", SETTINGS]).trim(), "root:root 644");
    for name in ["ami-secret", "ami-contacts-secret", "redis-password", "redis-sentinel-password"] {
        let path = format!("/etc/evenring/{name}");
        assert_eq!(machine.ok(&["stat", "-c", "%U:%G %a %s", &path]).trim(), "root:root 600 0", "{path}");
    }
    assert!(machine.ok(&["getent", "passwd", "evenring"]).contains(":/usr/sbin/nologin"), "the user");
    assert_eq!(machine.ok(&["systemctl", "is-enabled", UNIT]).trim(), "enabled");
    assert_eq!(machine.state(UNIT), "inactive/dead", "not started before it is configured");
    let timer = machine.run(&["systemctl", "is-enabled", TIMER]);
    assert_eq!(timer.stdout.trim(), "disabled", "whoever wants the regular check enables it: {}", timer.stderr);
    for page in ["1 evenring", "1 evenring-alias-set", "5 evenring", "8 evenring"] {
        let (section, name) = page.split_once(' ').unwrap();
        let shown = machine.run(&["man", "--warnings", "-E", "ascii", section, name]);
        assert!(shown.status.success() && shown.stderr.is_empty(), "man {page}: {}{}", shown.stdout, shown.stderr);
        assert!(shown.stdout.contains("evenring"), "man {page}: {}", shown.stdout);
    }
    links_work(&machine.root().join("usr/share/doc/evenring"));
    let script = "set -e; . /usr/share/bash-completion/completions/evenring; COMP_WORDS=(evenring dra) COMP_CWORD=1; \
                  _evenring evenring dra evenring; echo \"${COMPREPLY[*]}\"";
    assert_eq!(machine.ok(&["bash", "-c", script]).trim(), "drain", "what bash completes");
    for path in ["zsh/vendor-completions/_evenring", "fish/vendor_completions.d/evenring.fish"] {
        let text = fs::read_to_string(machine.root().join("usr/share").join(path)).unwrap();
        assert!(text.contains("drain") && text.contains("doctor"), "{path}");
    }
    // started all the same, it says what is missing, once
    assert!(!machine.run(&["systemctl", "start", UNIT]).status.success());
    assert_eq!(
        (machine.property(UNIT, "ExecMainStatus"), machine.property(UNIT, "NRestarts")),
        ("2".into(), "0".into())
    );
    assert!(machine.last_lines().contains("ami.username is not set"), "{}", machine.last_lines());
}

/// As README.md says.
fn configure(machine: &Machine, redis_url: &str) {
    let settings = machine.ok(&["cat", SETTINGS]).replacen("# username = ", "username = ", 1);
    let settings = settings.replace("#url = \"redis://127.0.0.1:6379\"", &format!("url = \"{redis_url}\""));
    machine.install(SETTINGS, settings, 0o644);
    machine.install(SECRET, format!("{}\n", config::AMI_USER.1), 0o600);
    machine.ok(&["systemctl", "start", UNIT]);
    machine.wait_unit(UNIT, "active/running", "active: ", SOON);
}

/// What an idle service costs, over five heartbeats.
fn idles(machine: &Machine, cluster: &Cluster) {
    let pid = machine.property(UNIT, "MainPID");
    let proc = machine.root().join("proc").join(&pid);
    let ran = || -> u64 {
        let text = fs::read_to_string(proc.join("schedstat")).unwrap();
        text.split_whitespace().next().unwrap().parse().unwrap()
    };
    let (before, begin) = (ran(), now());
    cluster.wait_beats("a", 5);
    let share = 100.0 * Duration::from_nanos(ran() - before).as_secs_f64() / begin.elapsed().as_secs_f64();
    let status = fs::read_to_string(proc.join("status")).unwrap();
    let of = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    let (rss, threads) = (of("VmRSS:"), of("Threads:"));
    let files = fs::read_dir(proc.join("fd")).unwrap().count();
    println!(
        "idle, {AGENTS} phones: RSS {rss} KiB, {share:.2} % of a core, {files} file descriptors, {threads} threads"
    );
    // The second one writes the log.
    assert!(rss < 20 << 10 && share < 2.0 && files < 32 && threads == 2);
}

/// Does something and waits until the node is in the rotation of its next life; for how long it was not in one.
fn out_of_rotation(cluster: &Cluster, act: impl FnOnce()) -> Duration {
    let generation = cluster.node("a")["generation"].clone();
    let deadline = now() + SOON * 6;
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut left: Option<Instant> = None;
            // the look before it was seen out, so that the time is not too short
            let mut before = now();
            loop {
                let look = now();
                let node = cluster.node("a");
                if node["state"] != "active" {
                    left = left.or(Some(before));
                } else if node["generation"] != generation {
                    return now() - left.unwrap_or(before);
                }
                assert!(look < deadline, "no next life: {node}");
                before = look;
            }
        });
        act();
        watch.join().expect("the watch")
    })
}

/// Nobody was cut, nobody rung again, and Redis knows them all.
fn all_talk(phones: &Phones, cluster: &Cluster) {
    wait_for(SOON, || match (cluster.agents()["a"], live(cluster)) {
        (agents, live) if agents == u64::from(AGENTS) && live == AGENTS => Ok(()),
        (agents, live) => Err(format!("{AGENTS} agents, not {agents}, of whom {live} are live")),
    });
    let cut = phones.names().iter().filter(|name| phones.rings(name) != 1).count();
    println!("cut: {}, rung again: {cut}", AGENTS as usize - phones.live());
    assert_eq!((phones.live(), cut), (AGENTS as usize, 0));
}

fn is_purged(machine: &Machine) {
    let root = machine.root();
    for path in ["etc/evenring", "run/evenring", "usr/share/doc/evenring", "usr/lib/systemd/system/evenring.service"] {
        assert!(!root.join(path).exists(), "{path} is left");
    }
    let left = machine.ok(&["find", "/etc", "/usr", "/var/lib/systemd", "-xdev", "-name", "*evenring*"]);
    assert_eq!(left, "", "left behind");
    assert!(!machine.run(&["dpkg", "-s", "evenring"]).status.success());
    assert_eq!(machine.run(&["systemctl", "is-enabled", UNIT]).stdout.trim(), "");
    assert!(machine.run(&["getent", "passwd", "evenring"]).status.success(), "the number of the user stays taken");
}
