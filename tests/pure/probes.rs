//! What has broken other AMI clients, one test each, against the daemon's real AMI task on loopback.
//!
//! Must never need Asterisk: no real one does all of this. What it does do is in `fixtures.rs` and in the lab's tests.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the helpers of tests may fail loudly, too")]
#![expect(clippy::disallowed_methods, reason = "some probes are about how long something takes")]

#[path = "../fake_ami/mod.rs"]
mod fake_ami;

use std::io::Write;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc as thread_mpsc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use evenring::ami::action::Action;
use evenring::ami::event::is_wanted;
use evenring::ami::frame::{FrameError, Item, Limits, LineEnd, Message, Splitter};
use evenring::ami::outcome::{Answer, NotSent, Tag, Unknown};
use evenring::ami_client::{FromAmi, PeerStatus, ToAmi};
use fake_ami::{BANNER, BOOTED, Client, Peer};

/// A message as text: `name=value|name=value`.
fn show(message: &Message) -> String {
    let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
    message.headers().map(|(name, value)| format!("{}={}", text(name), text(value))).collect::<Vec<_>>().join("|")
}

/// What the owner of the task hears, in short.
fn short(told: &FromAmi) -> String {
    match told {
        FromAmi::LoggedIn(version) => format!("logged in {version}"),
        FromAmi::ShuttingDown(is) => format!("shutting down: {is}"),
        FromAmi::Event(message) => show(message),
        FromAmi::Answer(Tag(tag), answer) => match answer {
            Answer::Success(message) => format!("{tag}: success, {} lines", message.headers().count()),
            Answer::Error { message, .. } => format!("{tag}: error {message}"),
            Answer::List { items } => format!("{tag}: list of {}", items.len()),
            Answer::NotSent(reason) => format!("{tag}: not sent, {reason}"),
            Answer::Unknown(reason) => format!("{tag}: unknown, {reason}"),
        },
        FromAmi::Closed { reason, .. } => format!("closed: {reason}"),
    }
}

const END: &str = "Event: End\r\n\r\n";

/// What is heard up to the next `End`.
async fn up_to_end(client: &mut Client) -> Vec<String> {
    let mut heard = Vec::new();
    loop {
        match short(&client.next().await) {
            end if end == "Event=End" => return heard,
            other => heard.push(other),
        }
    }
}

async fn send(client: &Client, tag: u64, action: Action) {
    client.to.send(ToAmi::Send(Tag(tag), None, action)).await.expect("a task");
}

/// A booted session on which these bytes are said, written in pieces of so many bytes.
async fn said(bytes: Vec<u8>, piece: usize) -> Vec<String> {
    let peer = Peer::start(move |_, mut conn| {
        if conn.login() {
            for piece in [&bytes[..], END.as_bytes()].concat().chunks(piece) {
                conn.say(piece);
            }
            conn.answer_all();
        }
    });
    let mut client = Client::start(&peer, |_| ());
    client.booted().await;
    up_to_end(&mut client).await
}

#[track_caller]
fn check(bytes: impl AsRef<[u8]>, expected: &[&str]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let bytes = bytes.as_ref();
    for piece in [1, 7, usize::MAX] {
        let found = runtime.block_on(said(bytes.to_vec(), piece));
        assert_eq!(found, expected, "in pieces of {piece}: {:?}", bytes.escape_ascii().to_string());
    }
}

#[test]
fn one_byte_at_a_time_and_split_anywhere() {
    let text = "Event: A\r\nK: v: w\r\nLast:\r\n\r\nEvent: B\r\nX: 1\r\n\r\n";
    check(text, &["Event=A|K=v: w|Last=", "Event=B|X=1"]);
    let whole = format!("{BANNER}{text}").into_bytes();
    for at in 0..whole.len() {
        let (mut splitter, mut buf, mut found) = (Splitter::new(Limits::DEFAULT), BytesMut::new(), Vec::new());
        for piece in [&whole[..at], &whole[at..]] {
            buf.extend_from_slice(piece);
            while let Some(item) = splitter.next(&mut buf).unwrap() {
                found.extend(match item {
                    Item::Message(message) => Some(show(&message)),
                    Item::Banner(_) => None,
                });
            }
        }
        assert_eq!(found, ["Event=A|K=v: w|Last=", "Event=B|X=1"], "cut at {at}");
    }
}

#[test]
fn a_message_byte_by_byte_costs_no_more_the_longer_it_is() {
    let cost = |lines: usize| {
        let text = "Output: a line of the output of a command\r\n".repeat(lines) + "\r\n";
        let start = Instant::now();
        for _ in 0..(4000 / lines) {
            let (mut splitter, mut buf) = (Splitter::without_banner(Limits::DEFAULT, LineEnd::CrLf), BytesMut::new());
            let found = text.bytes().filter(|byte| {
                buf.extend_from_slice(&[*byte]);
                splitter.next(&mut buf).unwrap().is_some()
            });
            assert_eq!(found.count(), 1);
        }
        start.elapsed()
    };
    // The same number of bytes each; were they searched from the start each time, the long one would cost 100 times more.
    let best = |lines: usize| (0..3).map(|_| cost(lines)).min().unwrap();
    let (short, long) = (best(40), best(4000));
    assert!(long < short * 5, "{short:?} in short messages, {long:?} in a long one");
}

#[tokio::test]
async fn a_line_that_is_not_finished_while_an_action_is_sent_loses_nothing() {
    let peer = Peer::start(|_, mut conn| {
        conn.login();
        conn.say("Event: Half\r\nFirst: 1\r\nSec");
        let action = conn.hear_more_than_pings().unwrap();
        conn.say("ond: 2\r\n\r\n");
        conn.answer(&action, "");
        conn.say(END);
        conn.answer_all();
    });
    let mut client = Client::start(&peer, |_| ());
    client.booted().await;
    send(&client, 1, Action::core_show_channels()).await;
    assert_eq!(up_to_end(&mut client).await, ["Event=Half|First=1|Second=2", "1: success, 2 lines"]);
}

#[test]
fn long_lines_and_many_headers_pass() {
    let long = "x".repeat(100_000);
    let headers: String = (0..600).map(|n| format!("K{n}: {n}\r\n")).collect();
    let found = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(said(format!("Event: Long\r\nK: {long}\r\n\r\nEvent: Many\r\n{headers}\r\n").into(), usize::MAX));
    assert_eq!(found[0], format!("Event=Long|K={long}"));
    assert!(found[1].ends_with("|K598=598|K599=599"));
    assert_eq!(found.len(), 2);
}

/// A first connection on which this is said, and a second one that is fine.
fn once(text: Vec<u8>) -> Peer {
    Peer::start(move |number, mut conn| {
        if conn.login() && number == 0 {
            conn.say(&text);
        }
        conn.say(END);
        conn.answer_all();
    })
}

/// An event that is wanted and breaks a limit ends the connection, with a reason, and the next one is fine. One that is
/// not wanted is skipped whatever its size.
async fn breach(body: String, reason: &str) {
    let peer = once(format!("Event: Hangup\r\n{body}\r\n").into());
    let mut client = Client::start(&peer, |_| ());
    client.booted().await;
    assert_eq!(short(&client.next().await), format!("closed: {reason}; check host and port in ami.address"));
    client.booted().await;
    assert_eq!(up_to_end(&mut client).await, [""; 0]);
    assert_eq!((client.counts.unreadable.load(Relaxed), client.counts.logins.load(Relaxed)), (1, 2));

    let peer = once(format!("Event: VarSet\r\n{body}\r\n").into());
    let mut client = Client::start(&peer, |ami| ami.wanted = |name| is_wanted(name) || name == b"End");
    client.booted().await;
    assert_eq!(up_to_end(&mut client).await, [""; 0]);
    assert_eq!((client.counts.unreadable.load(Relaxed), client.counts.skipped.load(Relaxed)), (0, 1));
}

#[tokio::test]
async fn a_line_of_10_mb_is_skipped_or_ends_the_connection() {
    breach(format!("K: {}\r\n", "x".repeat(10_000_000)), "a message is longer than 8388608 bytes").await;
}

#[tokio::test]
async fn a_million_headers_are_skipped_or_end_the_connection() {
    let reason = "a message has 1000001 header lines; at most 32768 are read";
    breach("K: 1\r\n".repeat(1_000_000), reason).await;
}

#[test]
fn a_stream_without_end_takes_bounded_memory() {
    let piece = vec![b'x'; 65_536];
    let feed = |first: &[u8], splitter: &mut Splitter| -> Result<(), FrameError> {
        let mut buf = BytesMut::from(first);
        for _ in 0..300_000_000 / piece.len() {
            buf.extend_from_slice(&piece);
            assert_eq!(splitter.next(&mut buf)?, None);
            assert!(buf.capacity() <= 17 << 20, "{} bytes held", buf.capacity());
        }
        Ok(())
    };
    let wanted = |name: &[u8]| name == b"Hangup";
    let mut splitter = Splitter::without_banner(Limits::DEFAULT, LineEnd::CrLf).only(wanted);
    let too_long = Err(FrameError::MessageTooLong { limit_bytes: 8 << 20 });
    assert_eq!(feed(b"Event: Hangup\r\nK: ", &mut splitter), too_long);
    assert_eq!(feed(b"K: ", &mut Splitter::without_banner(Limits::DEFAULT, LineEnd::CrLf).only(wanted)), too_long);
    let mut splitter = Splitter::without_banner(Limits::DEFAULT, LineEnd::CrLf).only(wanted);
    assert_eq!(feed(b"Event: VarSet\r\nK: ", &mut splitter), Ok(()));
    let mut buf = BytesMut::from("xx\r\n\r\nEvent: Hangup\r\n\r\n");
    let Some(Item::Message(message)) = splitter.next(&mut buf).unwrap() else { panic!("nothing") };
    assert_eq!((show(&message).as_str(), splitter.skipped()), ("Event=Hangup", 1));
}

#[test]
fn bytes_and_keys_are_kept_as_they_are() {
    check(
        b"Event: U\r\nName: J\xc3\xbcrgen \xff\xe9\x01\t\x1b\r\n\r\n",
        &["Event=U|Name=J\\xc3\\xbcrgen \\xff\\xe9\\x01\\t\\x1b"],
    );
    check("Event: Newchannel\r\nK: 1\r\nk: 2\r\nK: 3\r\n\r\n", &["Event=Newchannel|K=1|k=2|K=3"]);
    check("Event: E\r\nA: \r\nB:\r\nC:x\r\nD: a: b: c\r\n\r\n", &["Event=E|A=|B=|C=x|D=a: b: c"]);
}

#[test]
fn every_end_of_a_message_keeps_the_next_one_whole() {
    check("Event: A\r\nK: 1\n\nEvent: B\r\n\r\n", &["Event=A|K=1\\n\\nEvent: B"]);
    check("Event: A\r\nK: 1\r\n\r\n\nEvent: B\r\n\r\n", &["Event=A|K=1", "Event=B"]);
    check("\r\n\r\nEvent: A\r\n\r\n\r\n\n\r\nEvent: B\r\n\r\n", &["Event=A", "Event=B"]);
}

/// The answer to a first action is what `body` makes of its ActionID; then comes the end.
async fn answered(body: fn(&str) -> String, action: Action) -> (Vec<String>, Option<Answer>) {
    let peer = Peer::start(move |_, mut conn| {
        conn.login();
        let id = conn.hear_more_than_pings().unwrap().id().to_owned();
        conn.say(body(&id));
        conn.say(END);
        conn.answer_all();
    });
    let mut client = Client::start(&peer, |_| ());
    client.booted().await;
    send(&client, 1, action).await;
    let (mut heard, mut kept) = (Vec::new(), None);
    loop {
        let told = client.next().await;
        match short(&told) {
            end if end == "Event=End" => return (heard, kept),
            text => heard.push(text),
        }
        if let FromAmi::Answer(_, answer) = told {
            kept = Some(answer);
        }
    }
}

fn command() -> Action {
    Action::new("Command").unwrap().with("Command", "core show version").unwrap()
}

fn output(answer: Option<Answer>) -> Vec<String> {
    let Some(Answer::Success(message)) = answer else { panic!("{answer:?}") };
    message.all("Output").map(|line| line.escape_ascii().to_string()).collect()
}

#[tokio::test]
async fn the_answer_to_a_command_has_all_its_lines() {
    let modern = |id: &str| {
        let lines: String = (0..5000).map(|n| format!("Output: line {n}\r\n")).collect();
        format!("Response: Success\r\nActionID: {id}\r\nMessage: Command output follows\r\n{lines}\r\n")
    };
    let (heard, answer) = answered(modern, command()).await;
    assert_eq!(heard, ["1: success, 5003 lines"]);
    assert_eq!(output(answer)[4999], "line 4999");
}

#[tokio::test]
async fn an_old_answer_to_a_command_is_one_message_and_no_event() {
    let lf = |id: &str| {
        format!(
            "Response: Follows\r\nPrivilege: Command\r\nActionID: {id}\r\nA: 1\nno colon\n\n2\n--END COMMAND--\r\n\r\n"
        )
    };
    let (heard, answer) = answered(lf, command()).await;
    assert_eq!(heard, ["1: success, 7 lines"]);
    assert_eq!(output(answer), ["A: 1", "no colon", "", "2"]);
    let crlf = |id: &str| {
        let head = format!("Response: Follows\r\nPrivilege: Command\r\nActionID: {id}\r\n");
        head + "first\r\n\r\nEvent: Fake\r\nK: 1\r\n\r\n--END COMMAND-- not yet\r\nActionID: x\r\nlast--END COMMAND--\r\n\r\n"
    };
    let (heard, answer) = answered(crlf, command()).await;
    assert_eq!(heard, ["1: success, 11 lines"]);
    let expected = ["first", "", "Event: Fake", "K: 1", "", "--END COMMAND-- not yet", "ActionID: x", "last"];
    assert_eq!(output(answer), expected);
}

#[tokio::test]
async fn a_list_of_20_000_items_is_whole() {
    let list = |id: &str| {
        let item = format!("Event: DeviceStateChange\r\nActionID: {id}\r\nDevice: PJSIP/cc\r\nState: BUSY\r\n\r\n");
        let start = format!("Response: Success\r\nActionID: {id}\r\nEventList: start\r\n\r\n");
        let end = format!("Event: X\r\nActionID: {id}\r\nEventList: Complete\r\nListItems: 20000\r\n\r\n");
        start + &item.repeat(20_000) + &end
    };
    assert_eq!(answered(list, Action::device_state_list()).await.0, ["1: list of 20000"]);
}

#[tokio::test]
async fn a_list_takes_its_own_items_and_no_others_in_any_order() {
    let list = |id: &str| {
        format!(
            "Event: Status\r\nN: 1\r\nActionID: {id}\r\n\r\nResponse: Success\r\nActionID: {id}\r\nEventList: start\r\n\r\n\
             Event: Foreign\r\n\r\nEvent: Status\r\nN: 2\r\nActionID: {id}\r\n\r\nEvent: Other\r\nActionID: theirs\r\n\r\n\
             Event: StatusComplete\r\nActionID: {id}\r\nEventList: Complete\r\nListItems: 2\r\n\r\n"
        )
    };
    let (heard, _) = answered(list, Action::status(&[])).await;
    assert_eq!(heard, ["Event=Foreign", "Event=Other|ActionID=theirs", "1: list of 2"]);
}

#[tokio::test]
async fn an_outcome_before_its_answer_is_an_event_and_the_answer_is_the_answer() {
    let early = |id: &str| {
        format!(
            "Event: OriginateResponse\r\nActionID: {id}\r\nResponse: Failure\r\n\r\nEvent: Hangup\r\nActionID: {id}\r\n\r\n\
             Response: Success\r\nActionID: {id}\r\nMessage: Originate successfully queued\r\n\r\n"
        )
    };
    let (heard, _) = answered(early, Action::new("Originate").unwrap()).await;
    assert!(heard[0].starts_with("Event=OriginateResponse|"), "{heard:?}");
    assert_eq!(heard.last().unwrap(), "1: success, 3 lines");
}

#[tokio::test]
async fn answers_to_nobody_harm_nobody() {
    let strays = |id: &str| {
        format!(
            "Response: Success\r\nActionID: who\r\n\r\nResponse: Error\r\nMessage: Missing action in request\r\n\r\n\
             Nonsense: 1\r\n\r\nResponse: Success\r\nActionID: {id}\r\n\r\n"
        )
    };
    assert_eq!(answered(strays, Action::new("Other").unwrap()).await.0, ["1: success, 2 lines"]);
}

#[tokio::test]
async fn a_server_that_closes_in_the_middle_loses_what_was_not_whole_and_comes_back() {
    let peer = Peer::start(|number, mut conn| {
        conn.login();
        if number == 0 {
            conn.say("Event: Whole\r\n\r\nEvent: Torn\r\nK: ");
        } else {
            conn.say(END);
            conn.answer_all();
        }
    });
    let mut client = Client::start(&peer, |_| ());
    client.booted().await;
    assert_eq!(short(&client.next().await), "Event=Whole");
    let began = Instant::now();
    let lost = short(&client.next().await);
    assert!(lost.starts_with("closed: Asterisk closed the connection while in use"), "{lost}");
    client.booted().await;
    // The first wait is a quarter of a second at most; the rest is for a busy machine.
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(up_to_end(&mut client).await, [""; 0]);
}

#[tokio::test]
async fn what_is_open_when_the_connection_drops_is_unknown_and_never_said_again() {
    let (seen, heard) = thread_mpsc::channel();
    let peer = Peer::start(move |number, mut conn| {
        conn.login();
        if number == 0 {
            seen.send(conn.hear_more_than_pings().unwrap().text).unwrap();
            return;
        }
        while let Some(said) = conn.hear_more_than_pings() {
            conn.answer(&said, "");
            seen.send(said.text).unwrap();
        }
    });
    let mut client = Client::start(&peer, |_| ());
    client.booted().await;
    send(&client, 1, Action::new("Originate").unwrap()).await;
    assert_eq!(short(&client.next().await), "1: unknown, the connection ended before the answer came");
    assert!(short(&client.next().await).starts_with("closed: "));
    // In the gap an action has its answer at once.
    send(&client, 2, Action::new("Originate").unwrap()).await;
    assert_eq!(short(&client.next().await), "2: not sent, the session is over");
    client.booted().await;
    send(&client, 3, Action::new("Second").unwrap()).await;
    assert_eq!(short(&client.next().await), "3: success, 2 lines");
    assert!(heard.recv().unwrap().starts_with("Action: Originate\r\n"));
    assert!(heard.recv().unwrap().starts_with("Action: Second\r\n"), "nothing is said again");
    assert!(heard.try_recv().is_err());
}

#[tokio::test]
async fn a_server_that_does_not_work_is_asked_less_and_less_often() {
    let (seen, heard) = thread_mpsc::channel();
    let peer = Peer::start(move |_, _| seen.send(Instant::now()).unwrap());
    let mut client = Client::start(&peer, |_| ());
    for _ in 0..4 {
        assert!(short(&client.next().await).starts_with("closed: Asterisk closed the connection before its greeting"));
    }
    let times: Vec<Instant> = heard.try_iter().collect();
    let gaps: Vec<u128> = times.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect();
    // The first waits are at least 125, 250 and 500 ms.
    assert!(gaps.len() == 3 && gaps.iter().zip([120, 245, 495]).all(|(gap, least)| *gap >= least), "{gaps:?}");
}

#[tokio::test]
async fn a_peer_that_goes_silent_is_found_within_two_ping_intervals() {
    let peer = Peer::start(|_, mut conn| {
        conn.login();
        // Reads, and says nothing more.
        while conn.hear().is_some() {}
    });
    let span = Duration::from_millis(800);
    let mut client = Client::start(&peer, |ami| (ami.link.ping_interval, ami.link.ping_timeout) = (span, span));
    client.booted().await;
    let silent = Instant::now();
    send(&client, 1, Action::new("Originate").unwrap()).await;
    assert_eq!(short(&client.next().await), "1: unknown, the connection ended before the answer came");
    let closed = short(&client.next().await);
    let took = silent.elapsed();
    assert!(closed.starts_with("closed: Asterisk did not answer a ping within 800ms"), "{closed}");
    // Two intervals, and what a busy machine adds.
    assert!(took < span * 3, "{took:?}");
    assert_eq!(client.counts.silent.load(Relaxed), 1);
}

#[tokio::test]
async fn a_flood_waits_for_a_slow_owner_and_nothing_is_lost() {
    const EVENTS: usize = 100_000;
    let mut text = Vec::new();
    for number in 0..EVENTS {
        write!(text, "Event: Flood\r\nNumber: {number}\r\nPadding: {:300}\r\n\r\n", "").unwrap();
    }
    let peer = Peer::start(move |_, mut conn| {
        conn.login();
        // Pings are answered behind what was said before, as Asterisk does.
        conn.say(&text);
        conn.answer_all();
    });
    let span = Duration::from_millis(1_000);
    let mut client = Client::start(&peer, |ami| (ami.link.ping_interval, ami.link.ping_timeout) = (span, span));
    client.booted().await;
    for number in 0..EVENTS {
        // The case itself: an owner that takes longer than a ping may.
        if number < 1500 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let told = client.next().await;
        let FromAmi::Event(message) = &told else { panic!("after {number} events: {}", short(&told)) };
        assert_eq!(message.get("Number"), Some(number.to_string().as_bytes()));
    }
    assert!(client.counts.held.load(Relaxed) > 0, "the owner was slow");
    assert_eq!(client.counts.logins.load(Relaxed), 1);
}

#[tokio::test]
async fn a_server_that_stops_reading_is_still_read() {
    let peer = Peer::start(|_, mut conn| {
        conn.login();
        conn.hear();
        for number in 0..500 {
            conn.say(format!("Event: Go on\r\nNumber: {number}\r\n\r\n"));
        }
        conn.say(END);
        thread::park();
    });
    let mut client = Client::start(&peer, |ami| ami.link.ping_interval = Duration::from_secs(60));
    client.booted().await;
    let mut large = Action::new("Large").unwrap();
    for _ in 0..50 {
        large = large.with("Line", "x".repeat(1000)).unwrap();
    }
    for tag in 0..400 {
        send(&client, tag, large.clone()).await;
    }
    let heard = up_to_end(&mut client).await;
    let events = heard.iter().filter(|text| text.starts_with("Event=Go on|")).count();
    let refused =
        heard.iter().filter(|text| text.contains("not sent, Asterisk has not read 1") && text.ends_with("bytes yet"));
    assert_eq!(events, 500);
    assert!(refused.count() + events >= heard.len(), "{:?}", heard.last());
}

#[tokio::test]
async fn an_answer_that_comes_after_its_time_harms_nobody() {
    let peer = Peer::start(|_, mut conn| {
        conn.login();
        let late = conn.hear_more_than_pings().unwrap();
        let next = conn.hear_more_than_pings().unwrap();
        conn.answer(&late, "");
        conn.answer(&next, "");
        conn.say(END);
        conn.answer_all();
    });
    let mut client = Client::start(&peer, |ami| ami.link.action_timeout = Duration::from_millis(200));
    client.booted().await;
    send(&client, 1, Action::new("Slow").unwrap()).await;
    assert_eq!(short(&client.next().await), "1: unknown, no answer within 200ms");
    send(&client, 2, Action::new("Next").unwrap()).await;
    assert_eq!(up_to_end(&mut client).await, ["2: success, 2 lines"]);
}

#[tokio::test]
async fn an_owner_that_has_gone_ends_the_task_and_the_connection() {
    let (seen, heard) = thread_mpsc::channel();
    let peer = Peer::start(move |_, mut conn| {
        conn.login();
        while conn.hear().is_some() {}
        seen.send(()).unwrap();
    });
    let mut client = Client::start(&peer, |_| ());
    client.booted().await;
    client.from.close();
    let to = client.to.clone();
    drop(client.to);
    to.send(ToAmi::Logoff).await.unwrap();
    tokio::task::spawn_blocking(move || heard.recv_timeout(Duration::from_secs(10))).await.unwrap().unwrap();
}

#[test]
fn nothing_can_be_slipped_into_an_action() {
    for bad in ["x\r\n\r\nAction: Command\r\nCommand: core stop now", "x\ny: z", "x\ry", "\0"] {
        assert!(Action::ping().with("Value", bad).is_err() && Action::new(bad.to_owned()).is_err());
        assert!(Action::ping().encode(bad, &mut BytesMut::new()).is_err());
    }
}

#[tokio::test]
async fn a_wrong_password_is_said_so_and_not_hammered() {
    let (seen, heard) = thread_mpsc::channel();
    let peer = Peer::start(move |_, mut conn| {
        seen.send(Instant::now()).unwrap();
        conn.say(BANNER);
        for words in ["Response: Success\r\nChallenge: 1\r\n", "Response: Error\r\nMessage: Authentication failed\r\n"]
        {
            let said = conn.hear().unwrap();
            assert!(!said.text.contains("labsecret"));
            conn.say(format!("{words}ActionID: {}\r\n\r\n", said.id()));
        }
    });
    let mut client = Client::start(&peer, |_| ());
    for _ in 0..2 {
        let FromAmi::Closed { reason, needs_people, peer } = client.next().await else { panic!("not closed") };
        assert!(reason.starts_with("Asterisk refused the login of lab: Authentication failed"), "{reason}");
        assert!(needs_people && peer == PeerStatus::Responding);
    }
    let (first, second) = (heard.recv().unwrap(), heard.recv().unwrap());
    assert!(second - first >= Duration::from_millis(120), "{:?}", second - first);
}

#[tokio::test]
async fn what_does_not_greet_like_asterisk_is_refused() {
    let peer = Peer::start(|_, mut conn| {
        conn.say("220 mail.example.net ESMTP\r\n");
        assert_eq!(conn.hear(), None, "nothing is said to a stranger");
    });
    let mut client = Client::start(&peer, |_| ());
    let FromAmi::Closed { reason, needs_people, .. } = client.next().await else { panic!("not closed") };
    assert!(reason.starts_with("the peer is not Asterisk's AMI") && reason.contains("220 mail"), "{reason}");
    assert!(needs_people);
}

#[tokio::test]
async fn what_never_left_this_machine_was_not_sent() {
    // The server accepts, reads the login, and then nothing: what does not fit into the kernel's buffers was not sent.
    let peer = Peer::start(|number, mut conn| {
        if number == 0 && conn.login_only() {
            conn.say(BOOTED);
            conn.hear();
            conn.say(END);
            // Closes while most of it waits.
        }
    });
    let mut client = Client::start(&peer, |_| ());
    client.booted().await;
    let mut large = Action::new("Large").unwrap();
    for _ in 0..100 {
        large = large.with("Line", "x".repeat(1000)).unwrap();
    }
    for tag in 0..200 {
        send(&client, tag, large.clone()).await;
    }
    let (mut not_sent, mut unknown) = (0, 0);
    while not_sent + unknown < 200 {
        match client.next().await {
            FromAmi::Answer(_, Answer::NotSent(NotSent::Closed | NotSent::Clogged { .. })) => not_sent += 1,
            FromAmi::Answer(_, Answer::Unknown(Unknown::Closed)) => unknown += 1,
            FromAmi::Event(_) | FromAmi::Closed { .. } => {}
            other @ (FromAmi::LoggedIn(_) | FromAmi::ShuttingDown(_) | FromAmi::Answer(_, _)) => {
                panic!("{}", short(&other))
            }
        }
    }
    assert!(unknown >= 1 && not_sent >= 1, "{unknown} unknown, {not_sent} not sent");
}
