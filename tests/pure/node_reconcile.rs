//! The node machine against Asterisk's own list of channels: after an event that could not be read, slowly but always, and for
//! everybody who asks.
//!
//! Each case is a table of lines; `node_support` says what a line means.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the helpers of tests may fail loudly, too")]

#[path = "../node_support/mod.rs"]
mod node_support;

use std::time::Duration;

use node_support::{Stand, check, check_on};

#[test]
fn an_event_that_cannot_be_read_is_a_gap_and_what_it_would_have_told_is_found() {
    let live = [("order s1", "> Originate s1.1"), ("new s1", ""), ("answer Originate ok", ""), ("up s1", "s1 live")];
    let gap = [
        ("gap", "> DeviceStateList; > Status"),
        ("answer DeviceStateList PJSIP/cc1:NOT_INUSE", "phones all 1"),
        // Its Hangup may be behind the list.
        ("answer Status", ""),
        ("wait 1999", ""),
        ("wait 1", "> Status"),
        ("answer Status", "drift s1; s1 ended hung-up"),
    ];
    check(&[&live[..], &gap].concat());
    // It came in the meantime.
    let came = [
        ("gone s1 16", "> Ping"),
        ("wait 1000", "> Status"),
        ("answer Status", ""),
        ("answer Ping ok", "s1 ended hung-up"),
    ];
    check(&[&live[..], &gap[..3], &[("wait 1000", "")], &came].concat());
    // Many of them are few questions.
    check(&[
        ("gap", "> DeviceStateList; > Status"),
        ("gap", ""),
        ("answer DeviceStateList", "phones all 0"),
        ("answer Status", ""),
        ("gap", ""),
        ("wait 4999", ""),
        ("gap", ""),
        ("wait 1", "> DeviceStateList; > Status"),
        ("closed", "beat down"),
        ("gap", ""),
        ("wait 60000", ""),
    ]);
}

#[test]
fn a_question_about_all_that_got_no_answer_is_asked_again_soon() {
    check(&[
        ("order s1", "> Originate s1.1"),
        ("new s1", ""),
        ("answer Originate ok", ""),
        ("up s1", "s1 live"),
        ("gap", "> DeviceStateList; > Status"),
        ("answer DeviceStateList", "phones all 0"),
        ("answer Status unknown", ""),
        ("wait 4999", ""),
        ("wait 1", "> Status"),
        ("answer Status", ""),
        ("wait 2000", "> Status"),
        ("answer Status", "drift s1; s1 ended hung-up"),
    ]);
}

/// Who waits for it would hold a phone, and Redis would show a login that rings nobody.
#[test]
fn a_question_about_one_login_that_got_no_answer_is_asked_again_soon() {
    check(&[
        ("order s1", "> Originate s1.1"),
        ("answer Originate unknown", "> Status"),
        ("answer Status unknown", ""),
        ("wait 999", ""),
        ("wait 1", "> Status"),
        ("answer Status", "s1 failed outcome-unknown"),
    ]);
}

/// Only a list of channels says that they were compared.
#[test]
fn a_list_of_phones_that_fails_and_comes_again_makes_nobody_forget_what_differs() {
    check(&[
        ("order s1", "> Originate s1.1"),
        ("new s1", ""),
        ("answer Originate ok", ""),
        ("up s1", "s1 live"),
        ("gap", "> DeviceStateList; > Status"),
        ("answer DeviceStateList", "phones all 0"),
        ("answer Status", ""),
        ("reload", "> DeviceStateList"),
        ("answer DeviceStateList unknown", "snapshot failed DeviceStateList no answer within 5s; beat starting"),
        ("reload", "> DeviceStateList"),
        ("answer DeviceStateList", "synced 0 phones 0 channels 1 sessions; beat active; phones all 0"),
        ("wait 2000", "> Status"),
        ("answer Status", "drift s1; s1 ended hung-up"),
    ]);
}

/// One that rings for a long time, and one that is live.
fn long_ringing() -> Stand {
    check_on(
        Stand::ready_with("[ring]\ntimeout = \"90s\"\n"),
        &[
            ("order s1", "> Originate s1.1"),
            ("order s2", "> Originate s2.1"),
            ("new s1", ""),
            ("new s2", ""),
            ("answer Originate:s1.1 ok", ""),
            ("answer Originate:s2.1 ok", ""),
            ("up s2", "s2 live"),
        ],
    )
}

#[test]
fn whatever_was_missed_mends_itself_within_a_minute() {
    let seen = |stand: &mut Stand, answers: [&str; 2]| {
        let mut seen = Vec::new();
        for answer in answers {
            for _ in 0..30 {
                let said = stand.wait(Duration::from_secs(1));
                if said.iter().any(|effect| effect == "> Status") {
                    break;
                }
            }
            seen.push(stand.say(answer));
        }
        seen
    };
    let mut stand = long_ringing();
    assert_eq!(
        seen(&mut stand, ["answer Status s2:Up", "answer Status s2:Up"])[..],
        ["", "drift s1; s1 failed outcome-unknown"]
    );
    let mut stand = long_ringing();
    let found =
        seen(&mut stand, ["answer Status s1:Up s2:Up s7:Up s8:bare", "answer Status s1:Up s2:Up s7:Up s8:bare"]);
    assert_eq!(found[..], ["", "drift s1; s1 live; drift s7; adopt s7 live"]);
    assert_eq!(stand.node.channels(), 4);
}

#[test]
fn one_question_answers_all_who_ask() {
    let mut stand = Stand::ready_with("[ring]\nrate = 1000\nburst = 1000\nat_once = 1000\n");
    for number in 1..=100 {
        assert_eq!(stand.say(&format!("order s{number}")), format!("> Originate s{number}.1"));
    }
    let mut asked = Vec::new();
    for number in 1..=100 {
        asked.push(stand.say(&format!("answer Originate:s{number}.1 unknown")));
    }
    assert_eq!(asked.iter().filter(|said| *said == "> Status").count(), 1, "{asked:?}");
    // The others asked after that question had gone out: they have the next one, together.
    assert_eq!(stand.say("answer Status s1:Ringing s2:Ringing"), "> Status");
    let rest = stand.say("answer Status s1:Ringing s2:Ringing");
    assert_eq!(rest.matches("failed outcome-unknown").count(), 98, "{rest}");
    assert!(!rest.contains("> Status"), "{rest}");
}

/// Asked while a snapshot is on its way: that one may have been made before.
#[test]
fn who_asks_in_the_middle_of_a_snapshot_has_an_answer() {
    check_on(
        long_ringing(),
        &[
            ("order s3", "> Originate s3.1"),
            ("booted", "> DeviceStateList; > Status; beat starting"),
            ("answer Originate:s3.1 unknown", "> Status"),
            ("answer DeviceStateList", "phones all 0"),
            ("answer Status s1:Ringing s2:Up s3:Ringing", "synced 0 phones 3 channels 3 sessions; beat active"),
            ("answer Status s1:Ringing s2:Up", "s3 failed outcome-unknown"),
        ],
    );
}
