//! A Debian 12 under a real systemd of its own, on a node of the lab: it shares the network with that node's Asterisk,
//! as one host would.
//!
//! Owns the file system, the control groups and all processes of the machine. Must never know what is installed there.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::evenring::Output;
use super::{Node, Process, cache, run, tail, token, try_run, try_wait_for, wait_for};

/// How systemd becomes the first process.
const BOOT: &str = include_str!("boot.sh");

/// See above. It is switched off when it is dropped.
#[derive(Debug)]
pub struct Machine {
    dir: PathBuf,
    group: String,
    /// The one that holds the namespaces: the parent of systemd.
    holder: Process,
    /// systemd, as seen from here.
    systemd: u32,
}

impl Machine {
    /// Boots it; returns when systemd has started all that it starts at boot.
    pub fn boot(node: &Node) -> Self {
        Self::boot_with(node, |_| {})
    }

    /// The same, as if the node's Asterisk were installed there: `asterisk` is in the path, and /etc/asterisk is its own.
    pub fn boot_with_asterisk(node: &Node) -> Self {
        Self::boot_with(node, |root| {
            fs::create_dir(root.join("srv/asterisk")).expect("make a folder for Asterisk");
            run(&format!("mount --rbind {} {}", node.root().display(), root.join("srv/asterisk").display()));
            symlink("/srv/asterisk/etc/asterisk", root.join("etc/asterisk")).expect("link /etc/asterisk");
            let program = root.join("usr/sbin/asterisk");
            fs::write(&program, "#!/bin/sh\nexec chroot /srv/asterisk /usr/sbin/asterisk \"$@\"\n").expect("write it");
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("set its mode");
        })
    }

    /// With what `prepare` does to its root.
    fn boot_with(node: &Node, prepare: impl FnOnce(&Path)) -> Self {
        let dir = node.dir().join("machine");
        let [root, upper, work] = ["root", "upper", "work"].map(|name| dir.join(name));
        for dir in [&root, &upper, &work] {
            fs::create_dir_all(dir).expect("make a directory of the overlay");
        }
        let lower = cache().join("debian-12");
        assert!(lower.is_dir(), "there is no {}: run ./dev setup", lower.display());
        let (lower, upper, work) = (lower.display(), upper.display(), work.display());
        run(&format!(
            "mount -t overlay overlay -o lowerdir={lower},upperdir={upper},workdir={work} {}",
            root.display()
        ));
        // one that has its id is no new machine: what is installed is not switched on at boot
        fs::write(root.join("etc/machine-id"), format!("{}{}\n", token(), token())).expect("write the machine's id");
        fs::write(root.join("etc/hostname"), node.name()).expect("write /etc/hostname");
        fs::write(root.join("etc/hosts"), format!("127.0.0.1 localhost {}\n", node.name())).expect("write /etc/hosts");
        prepare(&root);
        fs::write(dir.join("boot.sh"), BOOT).expect("write the boot script");
        let group = format!("evenring-{}", token());
        let holder = Process(start(&dir, node, &group));
        let mut machine = Self { dir, group, holder, systemd: 0 };
        machine.systemd = wait_for(Duration::from_secs(10), || machine.first_process());
        wait_for(Duration::from_secs(30), || {
            let state = machine.run(&["systemctl", "is-system-running"]).stdout;
            let up = ["running", "degraded"].contains(&state.trim());
            if up { Ok(()) } else { Err(format!("systemd to be up, not {state:?}; {}", machine.console())) }
        });
        machine
    }

    /// The only child of the holder, once it is systemd.
    fn first_process(&mut self) -> Result<u32, String> {
        if let Some(status) = self.holder.0.try_wait().expect("wait for the holder") {
            panic!("the machine did not boot ({status}): {}", self.console());
        }
        let holder = self.holder.0.id();
        let children = fs::read_to_string(format!("/proc/{holder}/task/{holder}/children")).unwrap_or_default();
        let pid = children.trim().parse().map_err(|_| "the first process of the machine".to_owned())?;
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if name.trim() == "systemd" { Ok(pid) } else { Err(format!("systemd, not {name:?}; {}", self.console())) }
    }

    fn console(&self) -> String {
        tail(&self.dir.join("console.log"))
    }

    /// The root of its file system, as seen from here.
    pub fn root(&self) -> PathBuf {
        // its own mounts are seen, too
        PathBuf::from(format!("/proc/{}/root", self.systemd))
    }

    /// Writes a file there. The folder is made if need be.
    pub fn install(&self, path: &str, content: impl AsRef<[u8]>, mode: u32) {
        let path = self.root().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().expect("a file lies in a folder")).expect("make the folder");
        fs::write(&path, content).expect("write a file of the machine");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set its mode");
    }

    /// A command, as root of the machine.
    pub fn run(&self, command: &[&str]) -> Output {
        self.command(command).output().expect("run nsenter").into()
    }

    /// The same; panics if it fails.
    pub fn ok(&self, command: &[&str]) -> String {
        let output = self.run(command);
        assert!(output.status.success(), "{command:?} failed: {}{}", output.stdout, output.stderr);
        output.stdout
    }

    fn command(&self, command: &[&str]) -> Command {
        let mut enter = Command::new("nsenter");
        enter.args(["-t", &self.systemd.to_string(), "-a", "-r", "-w", "--"]).args(command).stdin(Stdio::null());
        enter.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("SYSTEMD_COLORS", "0");
        enter
    }

    /// A property of a unit.
    pub fn property(&self, unit: &str, name: &str) -> String {
        self.ok(&["systemctl", "show", unit, "--property", name, "--value"]).trim().to_owned()
    }

    /// `active/running`, `activating/start`, …
    pub fn state(&self, unit: &str) -> String {
        format!("{}/{}", self.property(unit, "ActiveState"), self.property(unit, "SubState"))
    }

    /// Waits until a unit has this state, and this in its status line.
    pub fn wait_unit(&self, unit: &str, state: &str, status: &str, timeout: Duration) {
        wait_for(timeout, || {
            let (is, said) = (self.state(unit), self.property(unit, "StatusText"));
            let there = is == state && said.contains(status);
            let missing = || format!("{unit}: {state} {status:?}, not {is} {said:?}: {}", self.last_lines());
            if there { Ok(()) } else { Err(missing()) }
        });
    }

    /// The end of the journal, for a panic.
    pub fn last_lines(&self) -> String {
        self.ok(&["journalctl", "--no-pager", "--output=cat", "--lines=30"])
    }

    /// The lines of the journal that match, oldest first.
    pub fn journal(&self, matches: &[&str]) -> Vec<serde_json::Value> {
        let text = self.ok(&[&["journalctl", "--no-pager", "--output=json", "--all"], matches].concat());
        text.lines().map(|line| serde_json::from_str(line).expect("journalctl writes JSON")).collect()
    }

    /// The directory of a unit in a tree of control groups (`memory`, `pids`), as seen from here.
    pub fn control_group(&self, unit: &str, tree: &str) -> PathBuf {
        let all = self.root().join("sys/fs/cgroup");
        let own = all.join(tree);
        let group = self.property(unit, "ControlGroup");
        if own.is_dir() { own } else { all }.join(group.trim_start_matches('/'))
    }
}

fn start(dir: &Path, node: &Node, group: &str) -> Child {
    let console = fs::File::create(dir.join("console.log")).expect("make the console log");
    // each step execs, so the child holds the namespaces
    Command::new("unshare")
        .args(["--mount", "--propagation", "private", "/bin/bash"])
        .args([dir.join("boot.sh"), dir.join("root")])
        .args([&node.namespace(), group])
        .stdin(Stdio::null())
        .stdout(console.try_clone().expect("the console twice"))
        .stderr(console)
        .spawn()
        .expect("start unshare")
}

/// How long what systemd had started may take to be gone.
const GONE: Duration = Duration::from_secs(2);

impl Drop for Machine {
    fn drop(&mut self) {
        // systemd dies with it, and with systemd all others
        let _gone = self.holder.0.kill();
        let _gone = self.holder.0.wait();
        // a group can be removed when its last process is gone
        let _left = try_wait_for(GONE, || {
            groups(&self.group).iter().try_for_each(|group| remove(group)).map_err(|error| error.to_string())
        });
        try_run(&format!("umount -l {}", self.dir.join("root").display()));
    }
}

/// The directories of a control group, in all trees of this machine.
fn groups(name: &str) -> Vec<PathBuf> {
    let all = Path::new("/sys/fs/cgroup");
    let trees = fs::read_dir(all).into_iter().flatten().flatten().map(|tree| tree.path());
    trees.chain([all.to_owned()]).map(|tree| tree.join(name)).filter(|group| group.is_dir()).collect()
}

/// Removes a control group with those below it.
fn remove(group: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(group)?.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()) {
        remove(&entry)?;
    }
    fs::remove_dir(group)
}
