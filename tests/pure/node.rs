//! The node machine, without a socket, a clock or Redis: these inputs at these times give exactly these effects.
//!
//! Each case is a table of lines; `node_support` says what a line means. Asterisk's own words are in
//! `node_fixtures.rs`, and random ones in `node_random.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the helpers of tests may fail loudly, too")]

#[path = "../node_support/mod.rs"]
mod node_support;

use node_support::{Stand, check, check_on, ends};

#[test]
fn a_login_becomes_an_originate() {
    let settings = "[ring]\ntimeout = \"20s\"\ncaller_id = '\"{agent}\" <{alias}>'\n[ring.variables]\nDESK = \"{campaign}-{session}\"\n";
    let stand = check_on(Stand::ready_with(settings), &[("order s5 2", "> Originate s5.2")]);
    let expected = "Action: Originate\r\nActionID: er-000000000000000a-o-0000000000000005-2\r\nChannel: PJSIP/cc5\r\n\
        ChannelId: evenring-0000000000000005\r\nTimeout: 20000\r\nAsync: true\r\nApplication: ConfBridge\r\n\
        Data: evenring-a5\r\nCallerID: \"a5\" <cc5x>\r\nVariable: EVENRING_ALIAS=cc5x\r\nVariable: EVENRING_EXTENSION=cc5\r\n\
        Variable: EVENRING_AGENT=a5\r\nVariable: EVENRING_CAMPAIGN=\r\nVariable: EVENRING_CLASS=local\r\n\
        Variable: EVENRING_TRY=2\r\nVariable: DESK=-0000000000000005\r\n\r\n";
    assert_eq!(stand.wire, expected);
}

#[test]
fn the_technology_is_the_one_that_can_ring() {
    let mut stand = Stand::new("");
    stand.say("booted 100");
    stand.say("answer DeviceStateList PJSIP/cc1:UNAVAILABLE SIP/cc1:NOT_INUSE");
    stand.say("answer Status");
    stand.say("order s1");
    assert!(stand.wire.contains("\r\nChannel: SIP/cc1\r\n"), "{}", stand.wire);
}

/// Every row of the table of Originates in the facts about Asterisk; where 16 and 22 differ, both.
#[test]
fn what_the_evidence_means() {
    let live = ["new s1", "ringing s1", "up s1", "response s1 ok"];
    ends(&live, "s1 live");
    ends(&[&live[..], &["gone s1 16", "answer Ping ok"]].concat(), "s1 live; > Ping; s1 ended hung-up");
    // No answer: 22, 16, chan_sip; the phone rang.
    for cause in ["19", "0", "16"] {
        let gone = format!("gone s1 {cause} ringing");
        ends(&["new s1", "ringing s1", "response s1 3", &gone], "s1 failed no-answer");
        ends(&["new s1", &gone, "response s1 3"], "s1 failed no-answer");
        // Dead or silent: it never said that it rings.
        ends(&["new s1", "response s1 3", &format!("gone s1 {cause}")], "s1 try-next-node silent");
    }
    for (cause, outcome) in [
        ("17", "failed busy"),
        ("21", "failed declined"),
        ("19", "failed phone-unavailable"),
        ("18", "try-next-node silent"),
        ("1", "try-next-node not-found"),
        ("34", "try-next-node congestion-34"),
        ("38", "try-next-node congestion-38"),
    ] {
        let (gone, outcome) = (format!("gone s1 {cause}"), format!("s1 {outcome}"));
        ends(&["new s1", "response s1 0", &gone], &outcome);
        ends(&["new s1", &gone, "response s1 0"], &outcome);
        // The events of the channel's life may be missing, and a half of the evidence as well.
        ends(&[&gone, "response s1 0"], &outcome);
        ends(&["new s1", &gone, "wait 499"], "");
        ends(&["new s1", &gone, "wait 500"], &outcome);
    }
    // The channel driver gives up before the timeout: a phone that said that it rings was there, and nobody took it.
    ends(&["new s1", "response s1 0", "gone s1 18 ringing"], "s1 failed no-answer");
    ends(&["new s1", "ringing s1", "gone s1 18", "response s1 0"], "s1 failed no-answer");
    // chan_sip says busy, declined and 480 with its own reason.
    ends(&["new s1", "response s1 5", "gone s1 17"], "s1 failed busy");
    ends(&["new s1", "gone s1 21", "response s1 5"], "s1 failed declined");
    ends(&["new s1", "response s1 5", "gone s1 19"], "s1 failed phone-unavailable");
    ends(&["new s1", "response s1 5", "wait 500"], "s1 failed busy");
    // Not registered, unreachable, no such endpoint or technology: no channel at all.
    ends(&["response s1 0"], "s1 try-next-node not-reachable");
    ends(&["response s1 3", "wait 500"], "s1 try-next-node silent");
}

/// The cause of a ring that was cut off is 0 with chan_pjsip and 16 with chan_sip.
#[test]
fn a_ring_that_no_phone_ended_may_be_the_end_of_asterisk() {
    let stops = "answer Ping error Asterisk is shutting down";
    for cause in ["0", "16"] {
        let gone = format!("gone s1 {cause} ringing");
        for cut in
            [["response s1 0", &gone], [&gone, "response s1 0"], [&gone, "wait 500"], ["response s1 0", "wait 500"]]
        {
            let rings = [&["new s1", "ringing s1"], &cut[..]].concat();
            let asked = |then: &[&str], expected: &str| {
                ends(&[&rings[..], then].concat(), &format!("> Ping; {expected}"));
            };
            // A command of an operator.
            asked(&["answer Ping ok"], "s1 failed hung-up");
            asked(&["answer Ping unknown", "wait 2999", "wait 1"], "s1 failed hung-up");
            // It rings nobody any more: another node may, at once.
            asked(&[stops], "s1 try-next-node node-lost");
            asked(&["shutdown"], "given up 1; s1 try-next-node node-lost; beat down");
            asked(&["closed", "refused"], "beat down; given up 1; s1 try-next-node node-lost");
            asked(&["hangup s1", "answer Hangup error No such channel"], "> Hangup s1; s1 ended logged-out");
            asked(&["hangup s1", stops], "> Hangup s1; s1 ended logged-out");
        }
    }
    // What a phone said is its agent's answer, also then: nobody asks.
    ends(&["new s1", "ringing s1", "gone s1 17", "response s1 0", "shutdown"], "s1 failed busy; beat down");
}

#[test]
fn what_is_not_ours_is_ignored() {
    check(&[
        ("order s1 2", "> Originate s1.2"),
        ("response - 0", ""),
        // An earlier try of the same session, and a session that is elsewhere.
        ("response s1.1 0", ""),
        ("response s2.1 ok", ""),
        ("new 1700.1", ""),
        ("up 1700.1", ""),
        ("gone 1700.1 16", ""),
        ("response s1.2 0", "s1 try-next-node not-reachable"),
        ("response s1.2 0", ""),
    ]);
}

/// Measured with a conference, on 16 and 22: the cause is that of an agent who hangs up.
#[test]
fn asterisk_that_stops_hangs_up_as_an_agent_would_and_says_so_when_it_is_asked() {
    // Without a cause it may also be an operator's command: nobody waits to find out.
    let asked = |then: &[&str], expected: &str| {
        for gone in ["gone s1 16", "gone s1 0"] {
            ends(&[&["new s1", "up s1", gone], then].concat(), &format!("s1 live; > Ping; {expected}"));
        }
    };
    let stops = "answer Ping error Asterisk is shutting down";
    asked(&[stops, "wait 1999", "shutdown"], "given up 1; s1 ended node-lost; beat down");
    asked(&[stops, "wait 1100", "closed", "refused"], "beat down; given up 1; s1 ended node-lost");
    asked(&["closed", "refused"], "beat down; given up 1; s1 ended node-lost");
    // It takes no new calls, and lets the others end in peace.
    asked(&[stops, "wait 1999", "wait 1"], "s1 ended hung-up");
    asked(&["answer Ping error Permission denied"], "s1 ended hung-up");
    for lost in ["notsent", "unknown"] {
        asked(&[&format!("answer Ping {lost}"), "wait 2999", "wait 1"], "s1 ended hung-up");
    }
    // Who is logged out meanwhile is logged out.
    asked(&["hangup s1", "answer Hangup error No such channel"], "> Hangup s1; s1 ended logged-out");
}

#[test]
fn an_order_is_rung_once() {
    check(&[
        ("order s1", "> Originate s1.1"),
        ("order s1", ""),
        ("answer Originate ok", ""),
        ("order s1", ""),
        ("new s1", ""),
        ("up s1", "s1 live"),
        ("order s1", ""),
        ("gone s1 16", "> Ping"),
        ("answer Ping ok", "s1 ended hung-up"),
        // A Redis that lost its last second would order it again.
        ("order s1", "s1 ended hung-up"),
        ("wait 20000", ""),
        ("order s1", "s1 ended hung-up"),
        // The next try is a new one.
        ("order s1 2", "> Originate s1.2"),
    ]);
}

#[test]
fn while_asterisk_is_away_orders_go_back() {
    check_on(
        Stand::new(""),
        &[
            ("order s1", "s1 try-next-node node-lost"),
            ("refused", ""),
            ("order s2", "s2 try-next-node node-lost"),
            ("booted 1", "> DeviceStateList; > Status"),
            ("order s3", "s3 try-next-node node-lost"),
            ("answer DeviceStateList PJSIP/cc1:NOT_INUSE confbridge:1:INUSE", "phones all 1"),
            ("answer Status 1700.1:Up", "synced 1 phones 1 channels 0 sessions; beat active"),
            // What was never tried may be ordered again.
            ("order s1", "> Originate s1.1"),
            ("closed", "beat down"),
            ("order s4", "s4 try-next-node node-lost"),
        ],
    );
}

#[test]
fn asterisk_refuses() {
    check(&[
        ("order s1", "> Originate s1.1"),
        ("answer Originate error Extension does not exist.", "s1 try-next-node refused: Extension does not exist."),
        ("order s2", "> Originate s2.1"),
        ("hangup s2", ""),
        ("answer Originate error Permission denied", "s2 ended logged-out"),
    ]);
}

#[test]
fn what_was_not_sent_waits_and_is_sent_once() {
    check(&[
        ("order s1", "> Originate s1.1"),
        ("answer Originate notsent", ""),
        ("order s1", ""),
        ("wait 199", ""),
        ("wait 1", "> Originate s1.1"),
        ("answer Originate ok", ""),
        ("wait 5000", ""),
        ("response s1 0", "s1 try-next-node not-reachable"),
        // Called off before it was known that it was not sent: never rung.
        ("order s2", "> Originate s2.1"),
        ("hangup s2", ""),
        ("answer Originate notsent", "s2 ended logged-out"),
        // The connection ended before it was written: others ring it at once.
        ("wait 200", ""),
        ("order s3", "> Originate s3.1"),
        ("closed", "beat down"),
        ("answer Originate notsent", "s3 try-next-node node-lost"),
        ("wait 20000", ""),
    ]);
}

#[test]
fn what_may_have_been_sent_is_asked_for_and_never_sent_again() {
    let asked = [("order s1", "> Originate s1.1"), ("answer Originate unknown", "> Status")];
    let missing = [("answer Status", "s1 failed outcome-unknown"), ("wait 20000", "")];
    check(&[&asked[..], &missing].concat());
    check(&[&asked[..], &[("answer Status s1:Ringing", ""), ("up s1", "s1 live")]].concat());
    check(&[&asked[..], &[("answer Status s1:Up", "s1 live"), ("response s1 ok", "")]].concat());
    // No answer to the question, either.
    check(
        &[&asked[..], &[("answer Status unknown", ""), ("wait 3000", "> Status; s1 failed outcome-unknown")]].concat(),
    );
    // Meanwhile Asterisk itself tells.
    check(&[&asked[..], &[("response s1 0", "s1 try-next-node not-reachable"), ("answer Status", "")]].concat());
    check(&[&asked[..], &[("new s1", ""), ("gone s1 17", ""), ("response s1 0", "s1 failed busy")]].concat());
    check(&[&asked[..], &[("gone s1 17", ""), ("wait 500", "s1 failed busy")]].concat());
    // Called off meanwhile.
    check(&[&asked[..], &[("hangup s1", ""), ("answer Status", "s1 ended logged-out")]].concat());
    check(&[&asked[..], &[("hangup s1", ""), ("answer Status s1:Ringing", "> Hangup s1")]].concat());
    // It comes after all: whose is it, and does Redis still want it?
    let late = [
        ("new s1", "> Status"),
        ("answer Status s1:Ringing", "adopt s1 ringing"),
        ("stale s1", "drift s1; > Hangup s1"),
        ("gone s1 0", "s1 ended logged-out"),
    ];
    check(&[&asked[..], &missing[..1], &late].concat());
}

#[test]
fn a_lost_answer_does_not_undo_what_is_known() {
    check(&[
        ("order s1", "> Originate s1.1"),
        ("new s1", ""),
        ("answer Originate unknown", ""),
        ("ringing s1", ""),
        ("response s1 3", ""),
        ("gone s1 0 ringing", "s1 failed no-answer"),
        ("order s2", "> Originate s2.1"),
        ("new s2", ""),
        ("up s2", "s2 live"),
        ("answer Originate unknown", ""),
        ("gone s2 16", "> Ping"),
        ("answer Ping ok", "s2 ended hung-up"),
    ]);
}

#[test]
fn no_word_at_all_is_asked_for_in_the_end() {
    check_on(
        Stand::ready_with("[ring]\ntimeout = \"4s\"\n"),
        &[
            ("order s1", "> Originate s1.1"),
            ("answer Originate ok", ""),
            ("wait 6999", ""),
            ("wait 1", "> Status"),
            ("answer Status", "s1 failed outcome-unknown"),
            ("order s2", "> Originate s2.1"),
            ("wait 7000", "> Status"),
            ("wait 3000", "s2 failed outcome-unknown"),
        ],
    );
    // Over before it could be said that it was live.
    ends(&["gone s1 16", "response s1 ok"], "s1 ended hung-up");
}

#[test]
fn a_hang_up_finds_its_channel() {
    // Before Newchannel, Asterisk would say that there is no such channel, and ring all the same.
    check(&[
        ("order s1", "> Originate s1.1"),
        ("hangup s1", ""),
        ("answer Originate ok", ""),
        ("new s1", "> Hangup s1"),
        ("answer Hangup ok", ""),
        ("response s1 0", ""),
        ("gone s1 0", "s1 ended logged-out"),
        ("wait 20000", ""),
    ]);
    check(&[("order s1", "> Originate s1.1"), ("hangup s1", ""), ("ringing s1", "> Hangup s1")]);
    check(&[("order s1", "> Originate s1.1"), ("hangup s1", ""), ("response s1 ok", "> Hangup s1")]);
    check(&[("order s1", "> Originate s1.1"), ("hangup s1", ""), ("response s1 0", "s1 ended logged-out")]);
    // Already over.
    check(&[
        ("order s1", "> Originate s1.1"),
        ("new s1", ""),
        ("up s1", "s1 live"),
        ("hangup s1", "> Hangup s1"),
        ("answer Hangup error No such channel", "s1 ended logged-out"),
    ]);
    // Of one that nobody here knows, the heartbeats tell until Asterisk has been asked: it may come yet.
    check(&[
        ("hangup s9", ""),
        ("recorded s9:hangup-requested", ""),
        ("wait 900", ""),
        ("recorded s9:hangup-requested", "> Status"),
        ("answer Status", "drift s9; s9 ended logged-out"),
    ]);
    check(&[
        ("hangup s9", ""),
        ("new s9", "> Status"),
        ("answer Status s9:Ringing", "adopt s9 ringing"),
        ("stale s9", "drift s9; > Hangup s9"),
        ("gone s9 0", "s9 ended logged-out"),
    ]);
    // Only half of the evidence.
    check(&[
        ("order s1", "> Originate s1.1"),
        ("new s1", ""),
        ("hangup s1", "> Hangup s1"),
        ("response s1 0", ""),
        ("wait 500", "s1 ended logged-out"),
    ]);
}

#[test]
fn a_hang_up_that_is_lost_is_asked_for_again() {
    let live = [("order s1", "> Originate s1.1"), ("new s1", ""), ("up s1", "s1 live"), ("hangup s1", "> Hangup s1")];
    check(
        &[
            &live[..],
            &[
                ("answer Hangup unknown", "hang-up of s1 failed no answer within 5s"),
                ("wait 3000", "> Hangup s1"),
                ("answer Hangup ok", ""),
                ("gone s1 16", "s1 ended logged-out"),
            ],
        ]
        .concat(),
    );
    check(
        &[
            &live[..],
            &[
                ("closed", "beat down"),
                ("booted 100", "> DeviceStateList; > Status; beat starting"),
                ("answer DeviceStateList", "phones all 0"),
                ("answer Status s1:Up", "> Hangup s1; synced 0 phones 1 channels 1 sessions; beat active"),
            ],
        ]
        .concat(),
    );
    // Lost while it rang, and then the phone was answered.
    check(&[
        ("order s1", "> Originate s1.1"),
        ("new s1", ""),
        ("hangup s1", "> Hangup s1"),
        ("answer Hangup notsent", "hang-up of s1 failed the session is over"),
        ("up s1", "s1 live"),
        ("wait 2999", ""),
        ("wait 1", "> Hangup s1"),
    ]);
}

#[test]
fn what_waits_can_be_called_off() {
    let stand = check_on(
        Stand::ready_with("[ring]\nrate = 1\nburst = 1\n"),
        &[
            ("order s1", "> Originate s1.1"),
            ("order s2", ""),
            ("order s3", ""),
            ("hangup s2", "s2 ended logged-out"),
            ("wait 1000", "> Originate s3.1"),
            ("wait 1000", ""),
        ],
    );
    assert_eq!(stand.node.sessions().count(), 2);
}

#[test]
fn rings_are_paced() {
    let mut stand = Stand::ready();
    let originates = |seen: &str| seen.matches("> Originate").count();
    let at_once: usize = (1..=150).map(|n| originates(&stand.say(&format!("order s{n}")))).sum();
    assert_eq!(at_once, 100);
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.push(originates(&stand.say("wait 200")));
    }
    assert_eq!(seen, [10, 10, 10, 10, 10]);
    assert_eq!(stand.say("wait 10000"), "", "and nothing is left");
}

#[test]
fn who_waits_for_the_bucket_or_the_cap_is_told_to_redis_in_order() {
    let mut stand = Stand::ready_with("[ring]\nrate = 10\nburst = 2\nat_once = 3\n");
    for (line, effects, told) in [
        ("order s1", "> Originate s1.1", ""),
        ("order s2", "> Originate s2.1", ""),
        ("order s3", "", ""),
        ("order s4", "", ""),
        ("order s5", "", ""),
        ("order s6", "", ""),
        // A line is told when it has settled, and then at most ten times a second.
        ("wait 19", "", ""),
        ("wait 1", "", "s3 s4 s5 s6"),
        ("hangup s5", "s5 ended logged-out", "s3 s4 s5 s6"),
        ("wait 80", "> Originate s3.1", "s3 s4 s5 s6"),
        ("wait 20", "", "s4 s6"),
        // Three ring now: there are tokens, and nobody is rung.
        ("wait 15000", "", "s4 s6"),
        ("new s2", "", "s4 s6"),
        ("up s2", "s2 live; > Originate s4.1", "s6"),
        // An answered phone is no ringing one; nor is one that does not answer.
        ("response s1 0", "s1 try-next-node not-reachable; > Originate s6.1", "s6"),
        ("wait 100", "", ""),
    ] {
        assert_eq!((stand.say(line).as_str(), stand.line.as_str()), (effects, told), "{line}");
    }
    // Redis has forgotten everything: it hears of a line again, and of none it hears nothing.
    let mut stand = Stand::ready_with("[ring]\nrate = 1\nburst = 1\n");
    stand.say("order s1");
    stand.say("order s2");
    stand.say("wait 100");
    assert_eq!(std::mem::take(&mut stand.line), "s2");
    stand.say("registered");
    stand.say("wait 20");
    assert_eq!(stand.line, "s2");
}

#[test]
fn what_redis_has_wrong_is_repaired_when_it_lasts() {
    let live = [("order s1", "> Originate s1.1"), ("new s1", ""), ("up s1", "s1 live")];
    // Redis has what is not here.
    check(&[
        ("recorded s7:live s8:ringing s9:placed s6:gone", ""),
        ("wait 899", ""),
        ("recorded s7:live s8:ringing s9:placed s6:gone", ""),
        ("wait 1", ""),
        ("recorded s7:live s8:ringing s9:placed s6:gone", "> Status"),
        (
            "answer Status",
            "drift s6; s6 failed outcome-unknown; drift s7; s7 ended hung-up; drift s8; s8 failed outcome-unknown",
        ),
        ("recorded s9:placed", ""),
        ("wait 10000", ""),
        ("recorded s9:placed", ""),
    ]);
    // Asterisk has it: this node had missed it.
    check(&[
        ("recorded s7:live", ""),
        ("wait 900", ""),
        ("recorded s7:live", "> Status"),
        ("answer Status s7:Up", "adopt s7 live"),
        ("recorded s7:live", ""),
    ]);
    // A difference that goes away was a report on its way.
    check(&[("recorded s7:live", ""), ("wait 800", ""), ("recorded", ""), ("wait 800", ""), ("recorded s7:live", "")]);
    // Redis has lost what is here, or that it is live.
    let again = "drift s1; adopt s1 live";
    check(&[&live[..], &[("recorded", ""), ("wait 1000", ""), ("recorded", again), ("recorded s1:live", "")]].concat());
    check(&[&live[..], &[("recorded s1:ringing", ""), ("wait 1000", ""), ("recorded s1:ringing", again)]].concat());
    check(&[&live[..], &[("recorded s1:live", ""), ("wait 1000", ""), ("recorded s1:live", "")]].concat());
    check(&[
        ("order s1", "> Originate s1.1"),
        ("recorded", ""),
        ("wait 1000", ""),
        ("recorded", "drift s1; adopt s1 ringing"),
    ]);
    // What is being hung up needs no mending.
    check(
        &[&live[..], &[("hangup s1", "> Hangup s1"), ("recorded", ""), ("wait 1000", ""), ("recorded", "")]].concat(),
    );
    // A gap begins the count anew, and nothing is compared in it.
    check(&[
        ("recorded s7:live", ""),
        ("closed", "beat down"),
        ("wait 1000", ""),
        ("recorded s7:live", ""),
        ("booted 101", "> DeviceStateList; > Status; beat starting"),
        ("answer DeviceStateList", "phones all 0"),
        ("answer Status", "synced 0 phones 0 channels 0 sessions; beat active"),
        ("recorded s7:live", ""),
    ]);
}

#[test]
fn what_redis_has_ended_while_it_waited_is_not_rung() {
    check_on(
        Stand::ready_with("[ring]\nrate = 1\nburst = 3\n"),
        &[
            ("order s1", "> Originate s1.1"),
            ("order s2", "> Originate s2.1"),
            ("order s3", "> Originate s3.1"),
            ("order s4", ""),
            ("recorded s1:ringing s2:ringing s3:ringing", ""),
            ("wait 950", ""),
            ("recorded s1:ringing s2:ringing s3:ringing", "drift s4"),
            ("wait 5000", ""),
        ],
    );
}

#[test]
fn what_is_dialled_is_spelled_as_asterisk_spells_it() {
    let devices = "answer DeviceStateList PJSIP/CC1:NOT_INUSE PJSIP/cc2:UNAVAILABLE PJSIP/Cc2:NOT_INUSE";
    let dials = |toml: &str| {
        let mut stand = Stand::new(toml);
        ["booted 100", devices, "answer Status"].into_iter().for_each(|line| drop(stand.say(line)));
        ["order s1", "order s2"].map(|line| {
            stand.say(line);
            stand.wire.lines().find_map(|line| line.strip_prefix("Channel: ")).unwrap().to_owned()
        })
    };
    assert_eq!(dials(""), ["PJSIP/cc1", "PJSIP/cc2"]);
    assert_eq!(dials("[placement]\ncase = \"fold\""), ["PJSIP/CC1", "PJSIP/Cc2"]);
}

/// Its lease begins with a heartbeat that Redis took: when that is over, others may call it dead and ring who waits here.
#[test]
fn nobody_is_rung_after_the_lease_before_redis_has_said_who_is_still_here() {
    let lapsed = [
        ("order s1", "> Originate s1.1"),
        ("recorded s1:ringing", ""),
        ("order s2", ""),
        ("order s3", ""),
        ("stand 2990", ""),
        ("order s4", "> Originate s2.1; > Originate s3.1"),
    ];
    let settings = "[ring]\nrate = 1\nburst = 1\n";
    // Still within the lease.
    check_on(Stand::ready_with(settings), &[&lapsed[..5], &[("order s4", "> Originate s2.1")]].concat());
    let over = [&lapsed[..4], &[("wait 900", ""), ("stand 2100", ""), ("order s4 1 1500", "")]].concat();
    check_on(
        Stand::ready_with(settings),
        &[&over[..], &[("wait 2000", ""), ("recorded s1:ringing s3:ringing s4:ringing", "drift s2; > Originate s3.1")]]
            .concat(),
    );
    // Too old by then (P8): s2 and s3 were placed 10.2 s ago, s4 8.7 s.
    let all = "recorded s1:ringing s2:ringing s3:ringing s4:ringing";
    let late = [("wait 7200", ""), (all, "s2 try-next-node node-lost; s3 try-next-node node-lost; > Originate s4.1")];
    check_on(Stand::ready_with(settings), &[&over[..], &late].concat());
}
