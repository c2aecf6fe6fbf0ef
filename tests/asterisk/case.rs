//! `placement.case = "fold"` on a real Asterisk, where `PJSIP/CC190` and `PJSIP/cc190` are two endpoints.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says why")]

#[path = "../cluster/mod.rs"]
mod cluster;
#[path = "../lab/mod.rs"]
mod lab;

use std::process::Command;

use cluster::{Cluster, SHORT, SOON};
use lab::evenring::{Sections, binary};
use lab::phone::{Behaviour, Phones};
use lab::{Lab, Spec, Version};
use serde_json::Value;

#[test]
fn an_agent_who_types_as_they_like_is_rung_at_the_endpoint_as_asterisk_spells_it() {
    let lab = Lab::start(&["a", "b"].map(|name| Spec { name, version: Version::V22, endpoints: 2 }));
    for node in lab.nodes() {
        // Its contact is the one of cc100.
        let settings = node.root().join("etc/asterisk/pjsip.conf");
        let text = std::fs::read_to_string(&settings).unwrap();
        std::fs::write(&settings, text + "\n[CC190](phone-endpoint)\naors = cc100\n").unwrap();
        node.cli("module reload res_pjsip.so");
    }
    let phones = Phones::register(100, 1, &lab.sip(), Behaviour::ANSWER);
    phones.wait_registered(SOON);
    let fold = format!("{SHORT}[placement]\ncase = \"fold\"\n");
    let cluster = Cluster::with(&lab, &Sections { rest: &fold, ..Sections::default() });
    for node in ["a", "b"] {
        assert_eq!(cluster.node(node)["case"], "fold");
        // The command line has the default: names that Redis has are in small letters for everybody.
        cluster.wait_why("cc190x", node, "", SOON);
    }
    let fold = |arguments: &[&str]| {
        let mut command = Command::new(binary());
        command.args(arguments).args(["--json", "--config"]).arg(cluster.cli.config());
        let output = command.env("EVENRING__PLACEMENT__CASE", "fold").output().unwrap();
        let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        (value, output.status.code().unwrap())
    };
    assert_eq!(fold(&["phones", "CC190"]).0["phones"].as_array().unwrap().len(), 2);
    let (live, code) = fold(&["login", "Cc190X", "--agent", "7", "--wait"]);
    assert_eq!((code, &live["state"]), (0, &"live".into()), "{live} {}", cluster.logs());
    let session = cluster.session(live["session"].as_str().unwrap());
    assert_eq!((&session["alias"], &session["extension"]), (&"cc190x".into(), &"cc190".into()));
    let again = fold(&["login", "cc190x", "--agent", "7"]).0;
    assert_eq!((&again["session"], phones.rings("cc100")), (&live["session"], 1));
    assert_eq!(fold(&["logout", "CC190X"]).0["reason"], "logged-out");

    let (findings, _) = cluster.json_and_code(&["doctor"]);
    let told = findings.as_array().unwrap().iter().any(|finding| {
        finding["finding"]
            .as_str()
            .unwrap()
            .contains("placement.case differs: fold on a, b; exact in this configuration")
    });
    assert!(told, "{findings}");
}
