//! A demo that stays: the tools inside it, and what to do with them.
//!
//! Owns the folder `bin` of the sandbox, which `./dev demo --exec` puts on the PATH. Must never write outside of it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::setup::Setup;
use crate::lab::evenring::binary;

/// `evenring`, which knows this demo's Redis, and `asterisk-a`, `-b` and `-c`: each node's own console.
pub(super) fn tools(stage: &Setup) {
    let url = stage.cluster.redis.url();
    tool(
        "evenring",
        &format!("export EVENRING__REDIS__URL='{url}' EVENRING__NODE__NAME=demo\nexec '{}'", binary().display()),
    );
    for node in stage.lab.nodes() {
        let root = node.root();
        tool(&format!("asterisk-{}", node.name()), &format!("exec chroot '{}' /usr/sbin/asterisk", root.display()));
    }
}

fn tool(name: &str, command: &str) {
    let bin = std::env::temp_dir().join("bin");
    fs::create_dir_all(&bin).expect("make the demo's bin");
    let path = bin.join(name);
    fs::write(&path, format!("#!/bin/sh\n{command} \"$@\"\n")).expect("write a tool");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("make it executable");
}

/// The commands worth a try.
pub(super) fn explain(stage: &Setup) {
    let phones = super::LOCAL + 99;
    println!(
        "\n30 agents are logged in (cc100x to cc{phones}x); cc130x to cc132x are free phones. To play with it:\n\n\
         \x20 ./dev demo --exec evenring status\n\
         \x20 ./dev demo --exec evenring sessions\n\
         \x20 ./dev demo --exec evenring logout cc105x\n\
         \x20 ./dev demo --exec evenring explain cc105x\n\
         \x20 ./dev demo --exec evenring login cc105x --wait\n\
         \x20 ./dev demo --exec evenring login cc130x --remote --wait\n\
         \x20 ./dev demo --exec asterisk-c -rx 'core show channels'\n\
         \x20 ./dev demo --exec asterisk-b -rx 'core stop now'     (b leaves the rotation)\n\
         \x20 ./dev demo --exec bash                               (a shell inside)\n\
         \x20 ./dev demo --stop\n\n\
         The daemons' logs: {}/node-*/daemon/log\n",
        stage.lab.dir().display()
    );
}
