//! One real Asterisk in a network namespace and a Debian root of its own.
//!
//! Owns the process, its overlay, its namespace and its cable. Must never know which phones use it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use super::{Process, Spec, run, signal, tail, try_run, wait_exit, wait_for, wait_until};

/// Which Asterisk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// 16, from Debian bullseye; has chan_sip.
    V16,
    /// 22, from Debian forky.
    V22,
}

impl Version {
    /// Which of the two this root's Asterisk is configured like.
    ///
    /// # Errors
    /// No Asterisk there, or one that does not start.
    pub fn of_root(root: &Path) -> Result<Self, String> {
        let output = Command::new("chroot").arg(root).args(["/usr/sbin/asterisk", "-V"]).output();
        let output = output.map_err(|error| format!("chroot cannot be run: {error}"))?;
        let said = String::from_utf8_lossy(&output.stdout);
        let number = said.strip_prefix("Asterisk ").and_then(|rest| rest.split('.').next());
        match number.and_then(|number| number.trim().parse::<u32>().ok()) {
            // 21 has no chan_sip any more, and the new word for its passwords
            Some(number) => Ok(if number < 21 { Self::V16 } else { Self::V22 }),
            None => {
                let error = String::from_utf8_lossy(&output.stderr);
                Err(format!("{}usr/sbin/asterisk -V said {said:?} {:?}", root.join("").display(), error.trim()))
            }
        }
    }

    /// The first number of its version.
    pub fn number(self) -> u32 {
        match self {
            Self::V16 => 16,
            Self::V22 => 22,
        }
    }
}

/// What all nodes of a lab stand on.
pub(super) struct Ground<'a> {
    /// The folder with the Debian roots.
    pub roots: &'a Path,
    /// A root that all nodes have instead of one of those.
    pub own: Option<&'a Path>,
    /// The folder of this lab.
    pub lab: &'a Path,
    /// The addresses of all nodes.
    pub nodes: &'a [Ipv4Addr],
    /// Key and certificate for AMI over TLS.
    pub certificate: &'a str,
}

/// How long Asterisk may take to boot; it takes half a second on an idle machine.
const BOOT: Duration = Duration::from_secs(60);

/// A node of the lab. All methods take `&self`, so that threads can share it.
#[derive(Debug)]
pub struct Node {
    name: &'static str,
    version: Version,
    address: Ipv4Addr,
    /// Everything on disk that is this node's.
    dir: PathBuf,
    process: Mutex<Option<Process>>,
}

impl Node {
    /// Makes namespace, cable and root; starts nothing yet.
    pub(super) fn prepare(spec: &Spec, address: Ipv4Addr, ground: &Ground<'_>) -> Self {
        let dir = ground.lab.join(format!("node-{}", spec.name));
        let node = Self { name: spec.name, version: spec.version, address, dir, process: Mutex::new(None) };
        node.plug_in();
        node.mount(ground);
        let modules = node.modules();
        let etc = node.root().join("etc/asterisk");
        fs::remove_dir_all(&etc).expect("the root has an /etc/asterisk");
        fs::create_dir(&etc).expect("make /etc/asterisk");
        for (file, text) in super::config::files(spec, &modules, address, ground) {
            fs::write(etc.join(file), text).expect("write a file of /etc/asterisk");
        }
        // else the start of res_pjsip waits ten seconds for each look-up of the host's name
        let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("the host has a name");
        let hosts = format!("127.0.0.1 localhost\n{address} {} {}\n", host.trim(), spec.name);
        fs::write(node.root().join("etc/hosts"), hosts).expect("write /etc/hosts");
        let resolver = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n";
        fs::write(node.root().join("etc/resolv.conf"), resolver).expect("write /etc/resolv.conf");
        node
    }

    fn plug_in(&self) {
        let (namespace, cable, address) = (self.namespace(), self.cable(), self.address);
        run(&format!("ip netns add {namespace}"));
        run(&format!("ip link add {cable} type veth peer name eth0 netns {namespace}"));
        run(&format!("ip link set {cable} master br0 up"));
        run(&format!("ip -n {namespace} link set lo up"));
        run(&format!("ip -n {namespace} addr add {address}/24 dev eth0"));
        run(&format!("ip -n {namespace} link set eth0 up"));
        run(&format!("ip -n {namespace} route add default via {}", super::HUB));
    }

    fn mount(&self, ground: &Ground<'_>) {
        let [root, upper, work] = ["root", "upper", "work"].map(|name| self.dir.join(name));
        for dir in [&root, &upper, &work] {
            fs::create_dir_all(dir).expect("make a directory of the overlay");
        }
        let built = ground.roots.join(format!("asterisk-{}", self.version.number()));
        let lower = ground.own.unwrap_or(&built);
        let (lower, upper, work, root) = (lower.display(), upper.display(), work.display(), root.display());
        run(&format!("mount -t overlay overlay -o lowerdir={lower},upperdir={upper},workdir={work} {root}"));
        run(&format!("mount -t proc proc {root}/proc"));
        if ground.own.is_some() {
            // a machine's own /dev is a mount of its own, which an overlay of the root does not see
            run(&format!("mount --bind /dev {root}/dev"));
        }
    }

    /// Where this root keeps Asterisk's modules, as seen from inside.
    fn modules(&self) -> PathBuf {
        let lib = self.root().join("usr/lib");
        let below =
            fs::read_dir(&lib).expect("the root has a /usr/lib").map(|entry| entry.expect("read /usr/lib").path());
        let found = std::iter::once(lib.clone())
            .chain(below)
            .map(|path| path.join("asterisk/modules"))
            .find(|path| path.is_dir());
        let found = found.unwrap_or_else(|| panic!("no asterisk/modules below {}", lib.display()));
        Path::new("/").join(found.strip_prefix(self.root()).expect("it is below the root"))
    }

    /// `a`, `b`, `c`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Which Asterisk it is.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Its address on the bridge.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Where PJSIP phones register.
    pub fn sip(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.address, 5060)
    }

    /// Where chan_sip phones register (Asterisk 16 only).
    pub fn chan_sip(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.address, 5070)
    }

    /// AMI, as seen from the hub. The node's own daemon uses 127.0.0.1.
    pub fn ami(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.address, 5038)
    }

    /// The network namespace: `ip netns exec <this> …` runs something on the node.
    pub fn namespace(&self) -> String {
        format!("ev-{}", self.name)
    }

    /// The node's end of the cable at the bridge.
    fn cable(&self) -> String {
        format!("cable-{}", self.name)
    }

    /// The root of its file system, for tests that change a configuration file.
    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// The process id. Panics if it does not run.
    pub fn pid(&self) -> u32 {
        self.with_process(|process| process.0.id())
    }

    fn with_process<T>(&self, act: impl FnOnce(&mut Process) -> T) -> T {
        let mut process = self.process.lock().unwrap();
        act(process.as_mut().unwrap_or_else(|| panic!("Asterisk {} does not run", self.name)))
    }

    /// A folder for what runs on this node beside Asterisk.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn console(&self) -> PathBuf {
        self.dir.join("console.log")
    }

    /// Asterisk's own log.
    pub fn log(&self) -> PathBuf {
        self.root().join("var/log/asterisk/messages")
    }

    /// Starts Asterisk, also after an end of any kind; returns when it is fully booted.
    pub fn start(&self) {
        self.start_unbooted();
        self.wait_booted();
    }

    /// As [`Self::start`], with a clock of its own that [`Self::step_clock`] sets. It stays as it was set over an end. Needs
    /// Asterisk 22: the machine's libfaketime wants a libc as new.
    pub fn start_with_own_clock(&self) {
        let library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
        fs::copy(library, self.root().join("libfaketime.so")).expect("libfaketime of the machine");
        if !self.root().join("clock").exists() {
            self.step_clock(0);
        }
        let clock = "/usr/bin/env LD_PRELOAD=/libfaketime.so FAKETIME_TIMESTAMP_FILE=/clock FAKETIME_NO_CACHE=1 \
                     FAKETIME_DONT_FAKE_MONOTONIC=1";
        self.launch(&clock.split_whitespace().collect::<Vec<_>>());
        self.wait_booted();
    }

    /// Sets the clock of an Asterisk that has its own to so many seconds from the machine's.
    pub fn step_clock(&self, seconds: i64) {
        let (clock, next) = (self.root().join("clock"), self.root().join("clock.next"));
        fs::write(&next, format!("{seconds:+}s\n")).expect("write the clock");
        fs::rename(next, clock).expect("set the clock");
    }

    /// Starts Asterisk and returns at once, while it still loads its modules.
    pub fn start_unbooted(&self) {
        self.launch(&[]);
    }

    /// Starts it by way of these words.
    fn launch(&self, by: &[&str]) {
        let mut process = self.process.lock().unwrap();
        assert!(process.is_none(), "Asterisk {} runs already", self.name);
        let socket = self.root().join("run/asterisk");
        // what is left of a killed one
        let _missing = fs::remove_dir_all(&socket);
        fs::create_dir_all(&socket).expect("make /run/asterisk");
        let console =
            fs::OpenOptions::new().create(true).append(true).open(self.console()).expect("open the console log");
        // `ip` and `chroot` exec, so this one pid is Asterisk's
        let child = Command::new("ip")
            .args(["netns", "exec", &self.namespace(), "chroot"])
            .arg(self.root())
            .args(by)
            .args(["/usr/sbin/asterisk", "-f", "-C", "/etc/asterisk/asterisk.conf"])
            .stdin(Stdio::null())
            .stdout(console.try_clone().expect("the log twice"))
            .stderr(console)
            .process_group(0)
            .spawn()
            .expect("start ip netns exec");
        *process = Some(Process(child));
    }

    /// Waits for the end of the boot.
    pub fn wait_booted(&self) {
        wait_until(BOOT, &format!("Asterisk {} to boot; {}", self.name, self.console().display()), || {
            let status = self.with_process(|process| process.0.try_wait().expect("wait for Asterisk"));
            assert!(status.is_none(), "Asterisk {} ended while booting: {status:?}; {}", self.name, self.tail());
            self.try_cli("core waitfullybooted").is_ok_and(|text| text.contains("fully booted"))
        });
    }

    fn tail(&self) -> String {
        format!("{}\n{}", tail(&self.console()), tail(&self.log()))
    }

    /// As if the power went: no goodbye to anybody.
    pub fn kill9(&self) {
        drop(self.process.lock().unwrap().take());
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(&self) {
        let Some(mut process) = self.process.lock().unwrap().take() else {
            return;
        };
        signal(&process.0, "TERM");
        wait_exit(&mut process.0, Duration::from_secs(30), &format!("Asterisk {}", self.name));
    }

    /// Stop and start.
    pub fn restart(&self) {
        self.stop();
        self.start();
    }

    /// Freezes the process: its sockets stay open and say nothing.
    pub fn sigstop(&self) {
        self.with_process(|process| signal(&process.0, "STOP"));
    }

    /// The thaw.
    pub fn sigcont(&self) {
        self.with_process(|process| signal(&process.0, "CONT"));
    }

    /// Pulls the node's cable: nothing gets through, and nobody is told.
    pub fn link_down(&self) {
        run(&format!("ip link set {} down", self.cable()));
    }

    /// Puts it back.
    pub fn link_up(&self) {
        run(&format!("ip link set {} up", self.cable()));
    }

    /// What `asterisk -rx COMMAND` prints. Panics if Asterisk does not answer.
    pub fn cli(&self, command: &str) -> String {
        self.try_cli(command).unwrap_or_else(|text| {
            panic!("`asterisk -rx {command:?}` on node {} failed: {text}; {}", self.name, self.tail())
        })
    }

    /// Says it and goes on: the console of an Asterisk that stops answers when it has stopped, or after a minute.
    pub fn say_cli(&self, command: &str) {
        let mut console = self.asterisk_rx(command);
        thread::spawn(move || drop(console.output()));
    }

    fn asterisk_rx(&self, command: &str) -> Command {
        let mut console = Command::new("chroot");
        console.arg(self.root()).args(["/usr/sbin/asterisk", "-rx", command]);
        console
    }

    /// As [`Self::cli`]; what it said instead if it does not answer.
    pub fn try_cli(&self, command: &str) -> Result<String, String> {
        let output = self.asterisk_rx(command).output();
        let output = output.map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        if output.status.success() { Ok(text) } else { Err(text) }
    }

    /// How many channels there are.
    pub fn channels(&self) -> usize {
        let text = self.cli("core show channels count");
        let count = text.lines().find_map(|line| line.split_once(" active channel")?.0.trim().parse().ok());
        count.unwrap_or_else(|| panic!("`core show channels count` on node {} said: {text}", self.name))
    }

    /// Waits until there are exactly so many channels.
    pub fn wait_channels(&self, count: usize, timeout: Duration) {
        wait_for(timeout, || match self.channels() {
            found if found == count => Ok(()),
            found => Err(format!(
                "{count} channels on node {}; there are {found}: {}",
                self.name,
                self.cli("core show channels")
            )),
        });
    }

    /// The PJSIP phones with a contact that is not known to be unreachable.
    pub fn registered(&self) -> usize {
        self.try_registered().unwrap_or_else(|text| panic!("the contacts of node {}: {text}", self.name))
    }

    /// The same; what Asterisk said instead if it does not answer.
    pub fn try_registered(&self) -> Result<usize, String> {
        Ok(self.try_contacts()?.iter().filter(|(_, status)| status != "Unavail").count())
    }

    /// Name and status (`Avail`, `Unavail`, `NonQual`, …) of each PJSIP contact.
    pub fn contacts(&self) -> Vec<(String, String)> {
        self.try_contacts().unwrap_or_else(|text| panic!("the contacts of node {}: {text}", self.name))
    }

    fn try_contacts(&self) -> Result<Vec<(String, String)>, String> {
        let text = self.try_cli("pjsip show contacts")?;
        let lines = text.lines().filter_map(|line| line.trim_start().strip_prefix("Contact:"));
        let contacts = lines.filter_map(|line| {
            let mut words = line.split_whitespace();
            let name = words.next()?.split_once('/')?.0;
            Some((name.to_owned(), words.nth(1)?.to_owned()))
        });
        Ok(contacts.filter(|(name, _)| !name.starts_with('<')).collect())
    }

    /// How many PJSIP contacts are on disk, so that Asterisk knows them again after [`Self::kill9`]. It writes what has
    /// changed once a second.
    pub fn saved(&self) -> usize {
        let dir = self.root().join("var/lib/asterisk");
        if dir.join("astdb.sqlite3-journal").exists() {
            return 0; // just writing
        }
        let database = fs::read(dir.join("astdb.sqlite3")).unwrap_or_default();
        let keys = String::from_utf8_lossy(&database).into_owned();
        let names = keys.split("/registrar/contact/").skip(1).filter_map(|rest| Some(rest.split_once(";@")?.0));
        names.collect::<std::collections::BTreeSet<_>>().len()
    }

    /// Rings a phone (`PJSIP/cc100`) from the console and, if it answers, lets it wait so many seconds.
    pub fn ring(&self, phone: &str, seconds: u32) {
        let text = self.cli(&format!("channel originate {phone} application Wait {seconds}"));
        assert!(text.trim().is_empty(), "node {} does not ring {phone}: {text}", self.name);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill9();
        let root = self.root();
        try_run(&format!("ip link del {}", self.cable()));
        try_run(&format!("ip netns del {}", self.namespace()));
        // lazily, for a test may still have a shell in there
        try_run(&format!("umount -l {}/proc", root.display()));
        try_run(&format!("umount -l {}", root.display()));
    }
}
