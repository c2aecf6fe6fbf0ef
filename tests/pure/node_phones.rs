//! How a node learns of its phones: three lists, and a question about those that no list shows as they are. What Asterisk
//! says here was measured on 16 and 22.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says why")]

#[path = "../node_support/mod.rs"]
mod node_support;

use evenring::node::roster::PhoneState;
use node_support::{Stand, check_on};

const LISTS: &str = "> DeviceStateList; > SIPpeers; > IAXpeerlist; > Status";

fn stand() -> Stand {
    let mut stand = Stand::new("");
    stand.phones_only_by_state = false;
    stand
}

#[track_caller]
fn is(stand: &Stand, phone: &str, state: PhoneState) {
    assert_eq!(stand.node.roster.state(&phone.parse().unwrap()), state, "{phone}");
}

#[test]
fn after_a_start_of_asterisk_everything_that_it_would_dial_can_ring() {
    // cc1 has a contact that nobody has asked yet, cc2 a dead one, cc3 none; of chan_sip and chan_iax2 nothing has moved.
    let mut stand = check_on(
        stand(),
        &[
            ("booted 1", LISTS),
            ("answer DeviceStateList PJSIP/cc1:UNAVAILABLE PJSIP/cc2:UNAVAILABLE PJSIP/cc3:UNAVAILABLE", ""),
            ("answer SIPpeers SIP/cc4@10.0.0.4:Unmonitored SIP/cc5@-none-:UNKNOWN SIP/cc6@10.0.0.6:UNREACHABLE", ""),
            (
                "answer IAXpeerlist IAX/cc7@10.0.0.7:OK",
                "> Getvar DIAL_CONTACTS(cc1); > Getvar DIAL_CONTACTS(cc2); > Getvar DIAL_CONTACTS(cc3); phones all 7",
            ),
            ("answer Status", "synced 2 phones 0 channels 0 sessions; beat active"),
            ("answer Getvar:DIAL_CONTACTS(cc1) value PJSIP/cc1/sip:cc1@h", "> PJSIPQualify cc1; phones changed 1"),
            ("answer Getvar:DIAL_CONTACTS(cc2) value", "> Getvar AOR(cc2,contact)"),
            ("answer Getvar:DIAL_CONTACTS(cc3) value", "> Getvar AOR(cc3,contact)"),
            ("answer Getvar:AOR(cc2,contact) value cc2;@1f", "phones changed 1"),
            ("answer Getvar:AOR(cc3,contact) value", ""),
            ("answer PJSIPQualify:cc1 ok", ""),
        ],
    );
    use PhoneState::{Registered, Unreachable, Unregistered};
    for (phone, state) in [
        ("cc1", Registered),
        ("cc2", Unreachable),
        ("cc3", Unregistered),
        ("cc4", Registered),
        ("cc5", Unregistered),
        ("cc6", Unreachable),
        ("cc7", Registered),
    ] {
        is(&stand, phone, state);
    }
    // Its first question says that cc1 is dead: no PeerStatus comes, for it was never on line.
    stand.say("contact cc1 Unreachable");
    is(&stand, "cc1", Unreachable);
}

#[test]
fn of_two_contacts_the_one_that_is_left_tells() {
    let mut stand = stand();
    for line in ["booted 1", "answer DeviceStateList PJSIP/cc1:NOT_INUSE", "answer SIPpeers", "answer IAXpeerlist"] {
        stand.say(line);
    }
    stand.say("answer Status");
    // One falls silent, the other goes.
    assert_eq!(stand.say("contact cc1 Unreachable"), "");
    assert_eq!(stand.say("contact cc1 Removed"), "");
    is(&stand, "cc1", PhoneState::Registered);
    assert_eq!(stand.say("peer PJSIP/cc1 Unreachable"), "> Getvar DIAL_CONTACTS(cc1); phones changed 1");
    stand.say("answer Getvar value");
    stand.say("answer Getvar value cc1;@1f");
    is(&stand, "cc1", PhoneState::Unreachable);
}

#[test]
fn many_are_asked_a_few_at_a_time_and_nobody_twice() {
    let mut stand = stand();
    let devices: Vec<String> = (100..220).map(|number| format!("PJSIP/cc{number}:UNAVAILABLE")).collect();
    stand.say("booted 1");
    stand.say("answer SIPpeers error Invalid/unknown command: SIPpeers");
    stand.say("answer IAXpeerlist error Permission denied");
    let asked = |said: &str| said.matches("> Getvar").count();
    let said = stand.say(&format!("answer DeviceStateList {}", devices.join(" ")));
    assert_eq!(asked(&said), 50, "{said}");
    assert_eq!(asked(&stand.say("wait 1000")), 0, "none was answered");
    for count in [50, 20, 0] {
        while stand.open.iter().any(|(name, ..)| name == "Getvar") {
            stand.say("answer Getvar value PJSIP/x/sip:x@h");
            stand.say("answer PJSIPQualify ok");
        }
        assert_eq!(asked(&stand.say("wait 99")), 0);
        assert_eq!(asked(&stand.say("wait 1")), count);
    }
    // A reload loses no events: what was asked is not asked again, and a phone that is new is.
    stand.say("reload");
    stand.say("answer SIPpeers");
    stand.say("answer IAXpeerlist");
    let said = stand.say(&format!("answer DeviceStateList {} PJSIP/cc300:UNAVAILABLE", devices.join(" ")));
    assert_eq!(said, "> Getvar DIAL_CONTACTS(cc300); phones all 121");
    // What was not answered, or not even sent, is asked again in its turn.
    for answer in ["unknown", "notsent"] {
        let said = [format!("answer Getvar {answer}"), "wait 200".to_owned()].map(|line| stand.say(&line)).concat();
        assert_eq!(said, "> Getvar DIAL_CONTACTS(cc300)", "{answer}");
    }
    // Where this user may not ask, it is not asked again on this connection.
    stand.say("answer Getvar error Permission denied");
    assert_eq!(stand.say("contact cc100 Removed"), "phones changed 1");
}

#[test]
fn why_a_phone_can_not_ring_is_asked_only_where_asterisk_can_say() {
    for (contact, more) in [("value cc1;@1f", "> Getvar AOR(cc2,contact); > Getvar AOR(cc3,contact)"), ("value", "")] {
        let mut stand = stand();
        stand.say("booted 1");
        stand.say("answer DeviceStateList PJSIP/cc1:NOT_INUSE PJSIP/cc2:UNAVAILABLE PJSIP/cc3:UNAVAILABLE");
        stand.say("answer SIPpeers");
        stand.say("answer IAXpeerlist");
        // cc1 has a contact for sure: if Asterisk says none, it can not say.
        assert_eq!(stand.say("answer Getvar:DIAL_CONTACTS(cc2) value"), "> Getvar AOR(cc1,contact)");
        assert_eq!(stand.say("answer Getvar:DIAL_CONTACTS(cc3) value"), "");
        assert_eq!(stand.say(&format!("answer Getvar:AOR(cc1,contact) {contact}")), more);
    }
}

#[test]
fn an_answer_of_an_earlier_round_says_nothing() {
    let mut stand = stand();
    for line in ["booted 1", "answer DeviceStateList PJSIP/cc1:NOT_INUSE", "answer SIPpeers", "answer IAXpeerlist"] {
        stand.say(line);
    }
    stand.say("answer Status");
    assert_eq!(stand.say("reload"), "> DeviceStateList; > SIPpeers; > IAXpeerlist");
    assert_eq!(stand.say("answer SIPpeers SIP/cc2@10.0.0.2:OK"), "");
    assert_eq!(stand.say("reload"), "> DeviceStateList; > SIPpeers; > IAXpeerlist");
    assert_eq!(stand.say("answer DeviceStateList PJSIP/cc1:NOT_INUSE"), "", "the first round's");
    assert_eq!(stand.say("answer IAXpeerlist"), "");
    assert_eq!(stand.say("answer DeviceStateList PJSIP/cc1:NOT_INUSE"), "");
    assert_eq!(stand.say("answer SIPpeers"), "");
    assert_eq!(stand.say("answer IAXpeerlist"), "phones all 1");
}

/// Who is left out: `2 name PJSIP/a@b`.
fn left_out(stand: &mut Stand) -> Option<String> {
    let groups = stand.node.roster.left_out.take_news()?;
    let shown =
        groups.iter().map(|group| format!("{} {} {}", group.count, group.reason.as_str(), group.examples.join(" ")));
    Some(shown.collect::<Vec<_>>().join("; "))
}

#[test]
fn what_does_not_fit_is_left_out_and_the_rest_rings() {
    let mut stand = Stand::new("[ami]\nmax_phones = 2\n[placement]\ncase = \"fold\"");
    stand.phones_only_by_state = false;
    let names =
        "PJSIP/cc1:NOT_INUSE PJSIP/CC1:NOT_INUSE PJSIP/cc500*t1:NOT_INUSE PJSIP/+4930123:NOT_INUSE Local/a@b:INUSE";
    let devices = format!("answer DeviceStateList cut 7 {names} PJSIP/cc3:NOT_INUSE");
    let mut stand = check_on(
        stand,
        &[
            ("booted 1", LISTS),
            (&devices, ""),
            ("answer SIPpeers cut 2 SIP/cc4@10.0.0.4:Unmonitored", ""),
            ("answer IAXpeerlist", "phones all 2"),
            ("answer Status", "synced 2 phones 0 channels 0 sessions; beat active"),
        ],
    );
    is(&stand, "+4930123", PhoneState::Registered);
    let all = "1 name PJSIP/cc500*t1; 2 max-phones cc3 cc4; 9 max-devices ";
    assert_eq!(left_out(&mut stand).as_deref(), Some(all));
    // The same again is no news, what an event adds is.
    for line in ["device PJSIP/cc500*t1 INUSE", "device PJSIP/cc3 INUSE", "device Local/b@c INUSE"] {
        assert_eq!((stand.say(line), left_out(&mut stand)), (String::new(), None), "{line}");
    }
    stand.say("device SIP/x*y NOT_INUSE");
    let more = all.replace("1 name PJSIP/cc500*t1", "2 name PJSIP/cc500*t1 SIP/x*y");
    assert_eq!(left_out(&mut stand), Some(more));
    // A Redis that has forgotten is told again; a reload brings what is.
    stand.say("registered");
    assert!(left_out(&mut stand).is_some());
    stand.say("reload");
    for line in ["answer DeviceStateList PJSIP/cc1:NOT_INUSE", "answer SIPpeers"] {
        assert_eq!((stand.say(line), left_out(&mut stand)), (String::new(), None));
    }
    assert_eq!(stand.say("answer IAXpeerlist"), "phones all 1");
    assert_eq!(left_out(&mut stand).as_deref(), Some(""));
}
