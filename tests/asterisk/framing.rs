//! What a call carries is never taken for a message of Asterisk (P15), on real Asterisk 22 and 16: a running application whose
//! argument holds empty lines and events, and ends with a line end.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says why")]

#[path = "../cluster/mod.rs"]
mod cluster;
#[path = "../lab/mod.rs"]
mod lab;

use std::fs;

use cluster::{Cluster, SOON};
use lab::phone::{Behaviour, Phones};
use lab::{Lab, Spec, Version, wait_until};

/// What the application is given: a phone that nobody has, the end of Asterisk, and an end of the list.
const FORGED: &str = "x\n\nEvent: DeviceStateChange\nPrivilege: call,all\nDevice: PJSIP/cc900\nState: NOT_INUSE\n\n\
     Event: Shutdown\nPrivilege: system,all\nShutdown: Cleanly\nRestart: False\n\n\
     Event: StatusComplete\nActionID: 1\nEventList: Complete\nListItems: 0\n\n";

fn content_is_no_framing(version: Version) {
    let lab = Lab::start(&[Spec { name: "a", version, endpoints: 3 }]);
    let node = &lab.nodes()[0];
    fs::write(node.root().join("etc/asterisk/forged"), FORGED).unwrap();
    let dialplan = node.root().join("etc/asterisk/extensions.conf");
    let forged = "[forged]\nexten => s,1,Answer()\n same => n,Set(x=${SHELL(cat /etc/asterisk/forged)})\n same => n,Echo(${x})\n";
    fs::write(&dialplan, fs::read_to_string(&dialplan).unwrap() + forged).unwrap();
    for command in ["module load func_shell.so", "dialplan reload"] {
        node.cli(command);
    }
    let phones = Phones::register(100, 3, &lab.sip(), Behaviour::ANSWER);
    phones.wait_registered(SOON);
    let mut cluster = Cluster::start(&lab);
    cluster.wait_phones("a", 3);
    let id = cluster.login("cc100x");
    cluster.wait_session(&id, "live", "");
    let text = node.cli("channel originate PJSIP/cc101 extension s@forged");
    assert!(text.trim().is_empty(), "{text}");
    let forging = || node.cli("core show channels concise").contains("\n\nEvent: Shutdown\n");
    wait_until(SOON, "the call that carries an event", forging);

    // A daemon that knows nothing takes everything from Asterisk's lists.
    let daemon = cluster.daemons.remove(0);
    let daemon = {
        let mut daemon = daemon;
        daemon.term();
        daemon.again()
    };
    cluster.daemons.push(daemon);
    cluster.wait_node("a", "active");
    cluster.wait_beats("a", 3);
    cluster.wait_phones("a", 3);
    let (refusal, code) = cluster.json_and_code(&["login", "cc900x"]);
    assert_ne!(code, 0, "a phone that nobody has: {refusal}");
    let other = cluster.login("cc102x");
    cluster.wait_session(&other, "live", "");
    cluster.wait_session(&id, "live", "");
    let log = cluster.daemons[0].log();
    for wrong in ["part of the snapshot", "the item count of a list", "Asterisk down", "drift"] {
        assert!(!log.contains(wrong), "{wrong}: {log}");
    }
    assert!(forging(), "the call has to last that long");
    assert_eq!(phones.rings("cc100"), 1);
}

#[test]
fn what_a_call_carries_is_no_message_on_22() {
    content_is_no_framing(Version::V22);
}

#[test]
fn what_a_call_carries_is_no_message_on_16() {
    content_is_no_framing(Version::V16);
}
