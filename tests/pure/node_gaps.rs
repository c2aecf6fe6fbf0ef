//! The node machine across gaps: connections that end and come back, snapshots, adoption, a Redis that forgot, the end.
//!
//! Each case is a table of lines; `node_support` says what a line means.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the helpers of tests may fail loudly, too")]

#[path = "../node_support/mod.rs"]
mod node_support;

use node_support::{Stand, check, check_on, ends};

/// Three sessions in the middle: one rings, one is live, one waits for its turn.
fn in_the_middle() -> Stand {
    let settings = "[ring]\nrate = 1\nburst = 2\n";
    check_on(
        Stand::ready_with(settings),
        &[
            ("order s1", "> Originate s1.1"),
            ("order s2", "> Originate s2.1"),
            ("order s3", ""),
            ("new s1", ""),
            ("answer Originate:s1.1 ok", ""),
            ("new s2", ""),
            ("answer Originate:s2.1 ok", ""),
            ("up s2", "s2 live"),
        ],
    )
}

#[test]
fn a_connection_that_ends_gives_back_what_waits_and_gives_up_the_rest_in_time() {
    check_on(
        in_the_middle(),
        &[
            ("closed", "s3 try-next-node node-lost; beat down"),
            ("wait 2999", ""),
            ("closed", ""),
            ("wait 1", "given up 2; s1 try-next-node node-lost; s2 ended node-lost"),
            ("wait 60000", ""),
        ],
    );
    check_on(
        in_the_middle(),
        &[(
            "refused",
            "s3 try-next-node node-lost; given up 2; s1 try-next-node node-lost; s2 ended node-lost; beat down",
        )],
    );
    check_on(
        in_the_middle(),
        &[
            ("closed", "s3 try-next-node node-lost; beat down"),
            ("wait 500", ""),
            ("refused", "given up 2; s1 try-next-node node-lost; s2 ended node-lost"),
        ],
    );
}

#[test]
fn a_connection_that_comes_back_goes_on() {
    let back = [
        ("closed", "s3 try-next-node node-lost; beat down"),
        ("wait 1000", ""),
        ("booted 101", "> DeviceStateList; > Status; beat starting"),
        ("answer DeviceStateList", "phones all 0"),
    ];
    let synced = |sessions| format!("synced 0 phones {sessions} channels {sessions} sessions; beat active");
    let (two, none) = (synced(2), synced(0));
    check_on(
        in_the_middle(),
        &[
            &back[..],
            &[
                ("answer Status s1:Ringing s2:Up", &two),
                ("up s1", "s1 live"),
                ("gone s2 16", "> Ping"),
                ("answer Ping ok", "s2 ended hung-up"),
            ],
        ]
        .concat(),
    );
    check_on(in_the_middle(), &[&back[..], &[("answer Status s1:Up s2:Up", &format!("s1 live; {two}"))]].concat());
    let lost = format!("s1 failed outcome-unknown; s2 ended hung-up; {none}");
    check_on(in_the_middle(), &[&back[..], &[("answer Status", &lost)]].concat());
}

/// It was written to a connection that ended, and Asterisk may read it yet: what is said too early is rung elsewhere, too.
#[test]
fn an_originate_that_asterisk_reads_late_makes_no_second_call() {
    let gap = [
        ("order s1", "> Originate s1.1"),
        ("answer Originate unknown", "> Status"),
        ("closed", "beat down"),
        ("answer Status unknown", ""),
        ("wait 30", ""),
        ("booted 101", "> DeviceStateList; > Status; beat starting"),
        ("answer DeviceStateList", "phones all 0"),
        ("answer Status", "synced 0 phones 0 channels 1 sessions; beat active"),
    ];
    let late = [("wait 300", ""), ("new s1", ""), ("up s1", "s1 live"), ("wait 2000", "")];
    check(&[&gap[..], &late].concat());
    // It was over before anybody listened again, or never read.
    let never = [("wait 999", ""), ("wait 1", "> Status"), ("answer Status", "s1 failed outcome-unknown")];
    check(&[&gap[..], &never].concat());
    check(&[&gap[..], &[("wait 1000", "> Status"), ("answer Status s1:Ringing", ""), ("up s1", "s1 live")]].concat());
    // The one that would have read it is gone.
    let restarted = [
        &gap[..5],
        &[
            ("restarted 0", "> DeviceStateList; > Status; beat starting"),
            ("answer DeviceStateList", "phones all 0"),
            ("answer Status", "s1 try-next-node node-lost; synced 0 phones 0 channels 0 sessions; beat active"),
        ],
    ];
    check(&restarted.concat());
    // Who has asked to be logged out meanwhile is hung up when it is there.
    let hangup_requested = [("hangup s1", ""), ("wait 300", ""), ("new s1", "> Hangup s1")];
    check(&[&gap[..], &hangup_requested].concat());
}

#[test]
fn an_asterisk_that_was_restarted_has_lost_its_calls() {
    let lost = "s1 try-next-node node-lost; s2 ended node-lost; synced 0 phones 0 channels 0 sessions; beat active";
    let back = [("closed", "s3 try-next-node node-lost; beat down"), ("wait 1500", "")];
    // Whatever it says of its uptime: that is a difference of wall times.
    for booted in ["restarted 0", "restarted 5000", "restarted"] {
        check_on(
            in_the_middle(),
            &[
                &back[..],
                &[
                    (booted, "> DeviceStateList; > Status; beat starting"),
                    ("answer DeviceStateList", "phones all 0"),
                    ("answer Status", lost),
                ],
            ]
            .concat(),
        );
    }
    // It says so twice.
    check_on(
        in_the_middle(),
        &[
            &back[..],
            &[
                ("restarted 0", "> DeviceStateList; > Status; beat starting"),
                ("wait 50", ""),
                ("booted 0", "> DeviceStateList; > Status"),
                // It asked twice, and the first answer is one of before.
                ("answer DeviceStateList", ""),
                ("answer DeviceStateList", "phones all 0"),
                ("answer Status", lost),
            ],
        ]
        .concat(),
    );
}

/// A clock that was stepped, or an Asterisk 13, which says nothing of its uptime: it is the one it was.
#[test]
fn no_clock_says_that_the_calls_are_gone() {
    let lost = "s1 failed outcome-unknown; s2 ended hung-up; synced 0 phones 0 channels 0 sessions; beat active";
    for booted in ["booted 0", "booted 90000", "booted"] {
        let steps = [
            ("closed", "s3 try-next-node node-lost; beat down"),
            ("wait 1500", ""),
            (booted, "> DeviceStateList; > Status; beat starting"),
            ("answer DeviceStateList", "phones all 0"),
            ("answer Status", lost),
        ];
        check_on(in_the_middle(), &steps);
    }
    // One that may not be asked which it is loses nothing; one that does not answer is asked again.
    let mut stand = in_the_middle();
    stand.started = None;
    let asked = "> CoreStatus; > DeviceStateList; > Status";
    let steps = [
        ("closed", "s3 try-next-node node-lost; beat down"),
        ("booted", "> CoreStatus; > DeviceStateList; > Status; beat starting"),
        ("answer CoreStatus unknown", "snapshot failed CoreStatus no answer within 5s"),
        ("answer DeviceStateList", "phones all 0"),
        ("answer Status s1:Up s2:Up", "s1 live"),
        ("wait 1000", asked),
        ("answer CoreStatus error Permission denied", ""),
        ("answer DeviceStateList", "phones all 0"),
        ("answer Status s1:Up", "s2 ended hung-up; synced 0 phones 1 channels 1 sessions; beat active"),
        ("closed", "beat down"),
        ("booted", "> CoreStatus; > DeviceStateList; > Status; beat starting"),
        ("answer CoreStatus process 2026-11-27 10:00:01", ""),
        ("answer DeviceStateList", "phones all 0"),
        ("answer Status", "s1 ended node-lost; synced 0 phones 0 channels 0 sessions; beat active"),
    ];
    check_on(stand, &steps);
}

#[test]
fn a_list_that_is_counted_wrongly_twice_keeps_no_node_out() {
    let mut steps = [
        ("closed", "s3 try-next-node node-lost; beat down"),
        ("booted", "> DeviceStateList; > Status; beat starting"),
        ("answer DeviceStateList", "phones all 0"),
        ("answer Status counted 5 s1:Ringing", "snapshot failed Status the list has 1 items, but Asterisk counted 5"),
        ("wait 1000", "> DeviceStateList; > Status"),
        (
            "answer DeviceStateList counted 2 PJSIP/cc1:NOT_INUSE",
            "snapshot failed DeviceStateList the list has 1 items, but Asterisk counted 2",
        ),
        ("wait 1000", "> DeviceStateList; > Status"),
        ("answer DeviceStateList counted 3 PJSIP/cc1:NOT_INUSE", "miscounted DeviceStateList 1 not 3; phones all 1"),
    ];
    // Who is not among what could be read may be there all the same.
    let taken = "miscounted Status 1 not 6; synced 1 phones 1 channels 2 sessions; beat active";
    let other = [("answer Status counted 6 s1:Ringing", taken), ("gone s2 16", "> Ping")];
    check_on(in_the_middle(), &[&steps[..], &other].concat());
    // Unless Asterisk is another one.
    steps[1] = ("restarted", "> DeviceStateList; > Status; beat starting");
    let taken = "miscounted Status 1 not 6; s2 ended node-lost; synced 1 phones 1 channels 1 sessions; beat active";
    let other = [("answer Status counted 6 s1:Ringing", taken)];
    check_on(in_the_middle(), &[&steps[..], &other].concat());
    // One good list in between, and it begins anew.
    let steps = [
        ("booted", "> DeviceStateList; > Status"),
        ("answer Status counted 5", "snapshot failed Status the list has 0 items, but Asterisk counted 5"),
        ("answer DeviceStateList", "phones all 0"),
        ("wait 1000", "> DeviceStateList; > Status"),
        ("answer Status", ""),
        ("answer DeviceStateList", "synced 0 phones 0 channels 0 sessions; beat active; phones all 0"),
        ("closed", "beat down"),
        ("booted", "> DeviceStateList; > Status; beat starting"),
        ("answer Status counted 5", "snapshot failed Status the list has 0 items, but Asterisk counted 5"),
    ];
    check_on(Stand::new(""), &steps);
}

#[test]
fn deadlines_do_not_count_while_asterisk_is_away() {
    let settings = "[ring]\ntimeout = \"4s\"\n";
    let asked = [("order s1", "> Originate s1.1"), ("wait 6500", ""), ("closed", "beat down"), ("wait 2000", "")];
    check_on(
        Stand::ready_with(settings),
        &[
            &asked[..],
            &[
                ("booted 109", "> DeviceStateList; > Status; beat starting"),
                ("wait 2999", ""),
                ("answer DeviceStateList", "phones all 0"),
                ("answer Status s1:Ringing", "synced 0 phones 1 channels 1 sessions; beat active"),
            ],
        ]
        .concat(),
    );
    check_on(
        Stand::ready_with(settings),
        &[&asked[..], &[("wait 1000", "given up 1; s1 try-next-node node-lost")]].concat(),
    );
}

#[test]
fn channels_of_ours_are_adopted() {
    let stand = check_on(
        Stand::new(""),
        &[
            ("booted 100", "> DeviceStateList; > Status"),
            ("answer Status s1:Up s2:Ringing s3:bare 1700.1:Up", "adopt s1 live; adopt s2 ringing; unreadable s3"),
            ("answer DeviceStateList", "synced 0 phones 4 channels 2 sessions; beat active; phones all 0"),
            // The outcome of an earlier daemon's Originate counts.
            ("response s2 3", ""),
            ("gone s2 19 ringing", "s2 failed no-answer"),
            // An order for what was adopted rings nobody.
            ("order s1", ""),
            ("stale s1 s5", "drift s1; > Hangup s1; drift s5; > Hangup s5"),
            ("answer Hangup:s1 ok", ""),
            ("answer Hangup:s5 error No such channel", ""),
            ("gone s1 16", "s1 ended logged-out"),
        ],
    );
    assert_eq!((stand.node.sessions().count(), stand.node.channels()), (0, 2));
}

#[test]
fn an_adopted_channel_that_does_not_ring_is_not_taken_for_one_that_does() {
    check_on(
        Stand::new(""),
        &[
            ("booted 100", "> DeviceStateList; > Status"),
            ("answer DeviceStateList", "phones all 0"),
            ("answer Status s1:Down", "adopt s1 ringing; synced 0 phones 1 channels 1 sessions; beat active"),
            ("response s1 3", ""),
            ("gone s1 19", "s1 try-next-node silent"),
        ],
    );
}

#[test]
fn a_redis_that_has_forgotten_is_told_everything() {
    check_on(
        in_the_middle(),
        &[
            ("device PJSIP/cc1 NOT_INUSE", "phones changed 1"),
            ("registered", "adopt s1 ringing; adopt s2 live; adopt s3 ringing; phones all 1"),
            ("registered", "adopt s1 ringing; adopt s2 live; adopt s3 ringing; phones all 1"),
            // The agent is logged in elsewhere by now.
            ("stale s3", "drift s3; s3 ended logged-out"),
            ("wait 5000", ""),
        ],
    );
}

#[test]
fn a_reload_asks_for_the_phones_again() {
    check(&[
        ("reload", "> DeviceStateList"),
        ("order s1", "> Originate s1.1"),
        ("answer DeviceStateList PJSIP/cc1:NOT_INUSE", "phones all 1"),
        ("closed", "beat down"),
        ("reload", ""),
        ("booted 100", "> DeviceStateList; > Status; beat starting"),
        ("answer DeviceStateList", "phones all 0"),
        // In the middle of a snapshot, too.
        ("reload", "> DeviceStateList"),
        ("answer Status s1:Ringing", ""),
        (
            "answer DeviceStateList PJSIP/cc2:NOT_INUSE",
            "synced 1 phones 1 channels 1 sessions; beat active; phones all 1",
        ),
    ]);
}

#[test]
fn a_snapshot_that_is_refused_is_tried_again_and_nobody_waits_for_it() {
    check_on(
        Stand::new(""),
        &[
            ("booted 100", "> DeviceStateList; > Status"),
            ("answer DeviceStateList error No such module", "snapshot failed DeviceStateList No such module"),
            ("answer Status", ""),
            ("order s1", "s1 try-next-node node-lost"),
            ("wait 999", ""),
            ("wait 1", "> DeviceStateList; > Status"),
            ("answer Status unknown", "snapshot failed Status no answer within 5s"),
            ("answer DeviceStateList", "phones all 0"),
            ("wait 1000", "> DeviceStateList; > Status"),
            ("answer DeviceStateList", "phones all 0"),
            ("answer Status ok", "snapshot failed Status not a list"),
            ("wait 1000", "> DeviceStateList; > Status"),
            ("answer DeviceStateList", "phones all 0"),
            ("answer Status", "synced 0 phones 0 channels 0 sessions; beat active"),
        ],
    );
    // A login that may not have it keeps its rights as long as it lasts.
    let refused = [
        ("booted 100", "> DeviceStateList; > Status"),
        ("answer DeviceStateList error Permission denied", "snapshot failed DeviceStateList Permission denied"),
        ("answer Status error Permission denied", "snapshot failed Status Permission denied"),
        ("wait 29999", ""),
    ];
    let mut stand = check_on(
        Stand::new(""),
        &[refused.as_slice(), &[("wait 1", "> Logoff"), ("answer Logoff ok", ""), ("wait 60000", "")]].concat(),
    );
    assert_eq!(stand.say("closed"), "beat down");
    // Somebody says that it is repaired.
    check_on(Stand::new(""), &[refused.as_slice(), &[("settings", "> Logoff"), ("settings", "")]].concat());
    // A reload that takes the permission away.
    check_on(
        in_the_middle(),
        &[
            ("reload", "> DeviceStateList"),
            (
                "answer DeviceStateList error Permission denied",
                "snapshot failed DeviceStateList Permission denied; s3 try-next-node node-lost; beat starting",
            ),
            ("up s1", "s1 live"),
        ],
    );
}

#[test]
fn what_was_rung_after_all_waits_no_more() {
    let mut stand = Stand::ready();
    for line in ["order s1", "booted 100", "answer Originate:s1.1 notsent", "wait 1500"] {
        stand.say(line);
    }
    assert_eq!(stand.line, "s1");
    stand.say("answer Status s1:Ringing");
    stand.say("wait 1500");
    assert_eq!(stand.line, "", "its phone rings");
}

#[test]
fn a_daemon_that_stops_gives_back_what_it_has_not_rung() {
    check_on(
        in_the_middle(),
        &[
            ("stopping", "s3 try-next-node stopping"),
            ("order s4", "s4 try-next-node stopping"),
            ("wait 5000", ""),
            ("up s1", "s1 live"),
        ],
    );
    check(&[
        ("order s1", "> Originate s1.1"),
        ("stopping", ""),
        ("answer Originate notsent", "s1 try-next-node stopping"),
    ]);
}

#[test]
fn p10_a_node_that_drains_gives_back_what_it_has_not_rung_and_keeps_the_rest() {
    check_on(
        in_the_middle(),
        &[
            ("drain", "s3 try-next-node draining"),
            ("drain", ""),
            ("order s4", "s4 try-next-node draining"),
            ("wait 5000", ""),
            ("up s1", "s1 live"),
            ("hangup s1", "> Hangup s1"),
            ("resume", ""),
            ("order s4 2", "> Originate s4.2"),
        ],
    );
    check(&[
        ("order s1", "> Originate s1.1"),
        ("drain", ""),
        ("answer Originate notsent", "s1 try-next-node draining"),
    ]);
}

/// P8: a process that stood still (SIGSTOP, a paused machine) rings nobody whom others have given up or have rung since.
#[test]
fn what_was_taken_before_a_long_standstill_is_not_rung_after_it() {
    check(&[
        ("order s1 1 2999", "> Originate s1.1"),
        ("order s2 1 3000", "s2 try-next-node node-lost"),
        ("wait 500", ""),
    ]);
    // Ringing and live ones are what they were: only what waits is given back.
    let stood = "s3 try-next-node node-lost; > Hangup s2";
    check_on(in_the_middle(), &[("stand 3000", ""), ("hangup s2", stood), ("wait 1000", "")]);
    check_on(in_the_middle(), &[("stand 900", ""), ("hangup s2", "> Hangup s2"), ("wait 100", "> Originate s3.1")]);
}

#[test]
fn a_channel_that_nobody_knows_is_not_forgotten_when_the_question_about_it_is_lost() {
    for lost in ["answer Status unknown", "answer Status notsent"] {
        check(&[
            ("new s1", "> Status"),
            (lost, ""),
            ("wait 999", ""),
            ("wait 1", "> Status"),
            ("answer Status s1:Up", "adopt s1 live"),
        ]);
    }
    // One that is known has a deadline of its own.
    check(&[("order s1", "> Originate s1.1"), ("answer Originate unknown", "> Status"), ("answer Status unknown", "")]);
}

/// `core stop gracefully`: no new calls, and the others end in peace.
#[test]
fn asterisk_that_shuts_down_leaves_the_rotation_and_keeps_its_calls() {
    let stand = Stand::ready_with("[ring]\nat_once = 1\n");
    let steps = [
        ("order s1", "> Originate s1.1"),
        ("new s1", ""),
        ("up s1", "s1 live"),
        ("answer Originate ok", ""),
        ("order s2", "> Originate s2.1"),
        ("order s3", ""),
        ("shutting-down", "s3 try-next-node stopping; beat stopping"),
        // What was under way comes to nothing, and is no try.
        ("answer Originate error Asterisk is shutting down", "s2 try-next-node stopping"),
        ("order s4", "s4 try-next-node stopping"),
        ("recorded s1:live", ""),
        ("hangs-up s1", ""),
        ("gone s1 16", "s1 ended hung-up"),
        // core abort shutdown
        ("goes-on", "beat active"),
        ("order s4 2", "> Originate s4.2"),
    ];
    check_on(stand, &steps);
}

/// It takes no new connection either, so that nobody can look; but it lives, and so may its calls.
#[test]
fn calls_of_an_asterisk_that_shuts_down_are_not_given_up_when_the_connection_is_lost() {
    let refused = [("shutting-down", ""), ("closed", ""), ("wait 2999", "")];
    let given_up = "given up 1; s1 ended node-lost";
    let live =
        [("order s1", "> Originate s1.1"), ("new s1", ""), ("up s1", "s1 live"), ("shutting-down", "beat stopping")];
    let lost = [&live[..], &[("closed", "beat down")], &refused, &refused].concat();
    check(&[&lost[..], &[("wait 60000", ""), ("refused", given_up)]].concat());
    // Silence is another matter.
    check(&[&lost[..], &[("closed", ""), ("wait 2999", ""), ("closed", ""), ("wait 1", given_up)]].concat());
}

/// A daemon that starts while Asterisk is down knows none of the calls that ended with it.
#[test]
fn what_redis_knows_of_an_asterisk_that_is_gone_is_ended() {
    let recorded = "recorded s1:live s2:ringing s3:placed s4:hangup-requested";
    let steps = [
        (recorded, ""),
        // It says nothing: who knows?
        ("closed", ""),
        (recorded, ""),
        ("wait 1000", ""),
        (recorded, ""),
        ("refused", ""),
        (recorded, ""),
        ("wait 1000", ""),
        (recorded, "drift s1; s1 ended node-lost; drift s2; s2 failed node-lost; drift s4; s4 ended logged-out"),
    ];
    check_on(Stand::new(""), &steps);
}

/// Only a phone asks for its hang-up, so that is not a call that was lost with its Asterisk.
#[test]
fn a_phone_that_has_hung_up_was_not_lost_whatever_becomes_of_asterisk() {
    let over = "s1 live; s1 ended hung-up";
    ends(&["new s1", "up s1", "hangs-up s1", "gone s1 16"], over);
    ends(&["new s1", "up s1", "hangs-up s1", "gone s1 0"], over);
    let lost = "s1 live; given up 1; s1 ended hung-up; beat down";
    ends(&["new s1", "up s1", "hangs-up s1", "shutdown"], lost);
    // Another Asterisk, or none any more.
    ends(&["new s1", "up s1", "hangs-up s1", "closed", "refused"], "s1 live; beat down; given up 1; s1 ended hung-up");
    // A phone that refuses has not hung up a call.
    ends(&["new s1", "ringing s1", "hangs-up s1", "response s1 0", "gone s1 21"], "s1 failed declined");
    ends(
        &["new s1", "ringing s1", "hangs-up s1", "up s1", "shutdown"],
        "s1 live; given up 1; s1 ended node-lost; beat down",
    );
    // Who is logged out is logged out, whoever was first.
    ends(&["new s1", "up s1", "hangs-up s1", "hangup s1", "gone s1 16"], "s1 live; > Hangup s1; s1 ended logged-out");
    check(&[("order s1", "> Originate s1.1"), ("hangs-up s1", ""), ("hangs-up 1700.1", ""), ("new s1", "")]);
}
