//! The shipped unit, user, settings and program on a machine of the lab, as README.md has them installed.
//!
//! Owns where each file lies. Must never start the service: the tests do.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says why")]

use std::fs;
use std::path::Path;

use crate::cluster::Cluster;
use crate::lab::evenring::{Cli, binary};
use crate::lab::machine::Machine;
use crate::lab::redis::Redis;
use crate::lab::{HUB, Node, config};

/// The service.
pub const UNIT: &str = "evenring.service";
/// Its state when all is well.
pub const RUNNING: &str = "active/running";
/// Its settings.
pub const SETTINGS: &str = "/etc/evenring/config.toml";
/// The secret of the manager user.
pub const AMI_SECRET: &str = "/etc/evenring/ami-secret";

/// A machine on which everything lies where README.md says; the service is not started.
pub fn machine(node: &Node, redis_url: &str) -> Machine {
    let machine = Machine::boot(node);
    let shipped =
        |name: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(name)).unwrap();
    machine.install("/usr/bin/evenring", fs::read(binary()).unwrap(), 0o755);
    machine.install("/usr/lib/systemd/system/evenring.service", shipped("evenring.service"), 0o644);
    for name in ["evenring-doctor.service", "evenring-doctor.timer"] {
        machine.install(&format!("/usr/lib/systemd/system/{name}"), shipped(name), 0o644);
    }
    machine.install("/usr/lib/sysusers.d/evenring.conf", shipped("evenring.sysusers"), 0o644);
    let settings = shipped("config.toml").replacen("# username = ", "username = ", 1);
    let settings = settings.replace("#url = \"redis://127.0.0.1:6379\"", &format!("url = \"{redis_url}\""));
    // The lab's Redis lets everybody in.
    let settings = settings.replace("#accept = []", "accept = [\"redis.default-user\"]");
    machine.install(SETTINGS, settings, 0o644);
    machine.install("/usr/lib/tmpfiles.d/evenring.conf", shipped("evenring.tmpfile"), 0o644);
    machine.install(AMI_SECRET, format!("{}\n", config::AMI_USER.1), 0o644);
    machine.ok(&["systemd-sysusers"]);
    machine.ok(&["systemd-tmpfiles", "--create", "evenring.conf"]);
    assert_eq!(machine.ok(&["stat", "-c", "%U:%G %a", AMI_SECRET]).trim(), "root:root 600");
    machine.ok(&["systemctl", "daemon-reload"]);
    machine.ok(&["systemctl", "enable", UNIT]);
    machine
}

/// A Redis and no daemon yet.
pub fn no_daemons() -> Cluster {
    let redis = Redis::start_with(HUB, &[]);
    Cluster { daemons: Vec::new(), cli: Cli::new(&redis.url()), redis }
}
