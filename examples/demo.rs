//! The demo: a whole cluster on one machine. Run it with `./dev demo`.
#![allow(clippy::print_stdout, reason = "a demo prints")]

use std::time::Duration;

#[path = "../tests/lab/mod.rs"]
mod lab;

use lab::baresip::Baresip;
use lab::{Lab, three};

fn main() {
    let keep = std::env::args().any(|argument| argument == "--keep");
    let lab = Lab::start(&three(30));
    let phones = Baresip::start(100..130, &lab.sip());
    phones.wait_registered(Duration::from_secs(60));
    for node in lab.nodes() {
        println!(
            "node {} ({:?}, {}): {} phones registered",
            node.name(),
            node.version(),
            node.address(),
            node.registered()
        );
    }
    if keep {
        println!("ready");
        loop {
            std::thread::park();
        }
    }
}
