//! The lab itself, on real Asterisks: what it says about them must be true before any other test can lean on it.

mod lab;

use std::time::Duration;

use lab::baresip::Baresip;
use lab::phone::{Behaviour, Options, Phones, Renew, What};
use lab::redis::Redis;
use lab::{Lab, Node, now, three, wait_until};

const SOON: Duration = Duration::from_secs(10);

/// Rings `cc100` from this node, waits until the phone knows, and returns how many channels there are then.
fn ring(node: &Node, phones: &Phones) -> usize {
    let before = phones.rings("cc100");
    node.ring("PJSIP/cc100", 3);
    wait_until(SOON, "the INVITE at the phone", || phones.rings("cc100") == before + 1);
    assert_eq!(phones.invites().last().map(|invite| invite.node), Some(node.address()));
    node.channels()
}

#[test]
fn scripted_phones_do_what_they_are_told() {
    let begin = now();
    let lab = Lab::start(&three(60));
    println!("lab up after {:?}", begin.elapsed());
    let begin = now();
    let phones = Phones::register(100, 50, &lab.sip(), Behaviour::ANSWER);
    phones.wait_registered(SOON);
    println!("50 phones on 3 nodes after {:?}", begin.elapsed());
    assert_eq!(phones.registrations(), 150);
    for node in lab.nodes() {
        wait_until(SOON, "50 contacts", || node.registered() == 50);
        assert_eq!(node.channels(), 0);
    }
    for node in lab.nodes() {
        phones.behave("cc100", Behaviour::ANSWER);
        ring(node, &phones);
        wait_until(SOON, "the call to be up", || phones.live() == 1);
        assert_eq!(node.channels(), 1);
        node.wait_channels(0, SOON); // after three seconds Asterisk hangs up
        wait_until(SOON, "the phone to hear the BYE", || phones.live() == 0);
        assert_eq!(phones.of_kind(What::Bye).len(), 1);

        phones.behave("cc100", Behaviour::Ring);
        assert_eq!(ring(node, &phones), 1);
        assert_eq!((phones.ringing("cc100"), phones.live()), (1, 0));
        node.cli("channel request hangup all");
        wait_until(SOON, "the CANCEL", || phones.of_kind(What::Cancel).len() == 1);
        node.wait_channels(0, SOON);

        for behaviour in [Behaviour::Busy, Behaviour::Decline, Behaviour::Code(503), Behaviour::RingThenBusy] {
            phones.behave_on("cc100", node.address(), behaviour);
            ring(node, &phones);
            node.wait_channels(0, SOON);
            wait_until(SOON, "the call to be over", || phones.ringing("cc100") == 0);
        }
        assert_eq!(phones.max_calls_at_once("cc100"), 1);
        phones.behave("cc100", Behaviour::Silent);
        ring(node, &phones);
        // sent again after half a second and after one and a half, and still one call
        let sent = now();
        wait_until(SOON, "two retransmissions", || sent.elapsed() > Duration::from_secs(2));
        assert_eq!(phones.rings("cc100"), 7);
        node.cli("channel request hangup all");
        phones.forget_calls(node.address());
        wait_until(SOON, "the phone to forget", || phones.ringing("cc100") == 0);
        phones.clear_records();
    }
}
