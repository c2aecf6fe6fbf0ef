//! The lab itself, on real Asterisks: what it says about them must be true before any other test can lean on it.
#![allow(clippy::expect_used, reason = "what fails here fails the test")]

#[path = "../lab/mod.rs"]
mod lab;

use std::collections::BTreeSet;
use std::time::Duration;

use lab::baresip::Baresip;
use lab::config::{AMI_USER, LAB_USER};
use lab::phone::{Behaviour, Options, Phones, Renew, What};
use lab::redis::Redis;
use lab::{HUB, Lab, Node, Spec, Version, now, three, wait_until};

const SOON: Duration = Duration::from_secs(10);

/// Rings `cc100` from this node, waits until the phone knows, and returns how many channels there are then.
fn ring(node: &Node, phones: &Phones) -> usize {
    let before = phones.rings("cc100");
    node.ring("PJSIP/cc100", 2);
    wait_until(SOON, "the INVITE at the phone", || phones.rings("cc100") == before + 1);
    assert_eq!(phones.invites().last().map(|invite| invite.node), Some(node.address()));
    node.channels()
}

#[test]
fn phones_register_on_all_nodes_and_follow_them() {
    let lab = Lab::start(&three(60));
    println!("three Asterisks are up after {:?}", lab.took());
    let begin = now();
    let phones = Phones::register(100, 50, &lab.sip(), Behaviour::ANSWER);
    phones.wait_registered(SOON);
    println!("50 phones are registered on 3 nodes after {:?}", begin.elapsed());
    assert_eq!(phones.registrations(), 150);
    for node in lab.nodes() {
        assert_eq!(node.registered(), 50, "{:?}", node.contacts());
        assert_eq!(node.channels(), 0);
        assert!(node.cli("core show version").contains(&format!("Asterisk {}", node.version().number())));
    }
    let (a, c) = (lab.node("a"), lab.node("c"));
    phones.unregister("cc101", a.sip());
    wait_until(SOON, "cc101 to be gone", || a.registered() == 49);
    phones.register_again("cc101", a.sip(), 60);
    wait_until(SOON, "cc101 to be back", || a.registered() == 50);

    phones.unplug("cc102");
    wait_until(SOON * 2, "cc102 to be found unreachable", || a.registered() == 49 && c.registered() == 49);
    phones.plug_in("cc102");
    wait_until(SOON * 2, "cc102 to be found again", || a.registered() == 50 && c.registered() == 50);

    let old = phones_of_chan_sip(c);
    wait_until(SOON, "six chan_sip peers", || c.cli("sip show peers").contains("6 online"));
    c.ring("SIP/cc200", 3);
    wait_until(SOON, "a chan_sip call", || old.live() == 1);
}

fn phones_of_chan_sip(node: &Node) -> Phones {
    let phones = Phones::with(Options {
        first: 200,
        count: 6,
        nodes: vec![node.chan_sip()],
        behaviour: Behaviour::ANSWER,
        expires: 60,
        renew: Renew::Never,
        from: HUB,
    });
    phones.wait_registered(SOON);
    phones
}

#[test]
fn two_hundred_phones_take_hundreds_of_calls_a_second() {
    let lab = Lab::start(&three(200));
    println!("three Asterisks with 200 endpoints each are up after {:?}", lab.took());
    let begin = now();
    let phones = Phones::register(100, 200, &lab.sip(), Behaviour::Busy);
    phones.wait_registered(SOON);
    println!("200 phones are registered on 3 nodes after {:?}", begin.elapsed());
    let begin = now();
    let sessions: Vec<_> = lab.nodes().iter().map(|node| originate(node, &phones.names())).collect();
    wait_until(SOON * 3, "600 calls", || phones.invites().len() >= 600);
    println!("600 INVITEs after {:?}", begin.elapsed());
    for node in lab.nodes() {
        node.wait_channels(0, SOON * 3);
    }
    for name in phones.names() {
        assert_eq!(phones.rings(&name), 3, "{name}");
    }
    assert_eq!(phones.invites().len(), 600);
    assert!(phones.of_kind(What::Cancel).is_empty());
    drop(sessions);
    let begin = now();
    drop(lab);
    println!("the lab is gone after {:?}", begin.elapsed());
}

/// Rings all phones from this node with one write, and leaves the AMI session open.
fn originate(node: &Node, phones: &[String]) -> std::net::TcpStream {
    use std::io::Write as _;
    let (user, secret) = lab::config::LAB_USER;
    let mut text = format!("Action: Login\r\nUsername: {user}\r\nSecret: {secret}\r\nEvents: off\r\n\r\n");
    for phone in phones {
        text += &format!(
            "Action: Originate\r\nChannel: PJSIP/{phone}\r\nApplication: Wait\r\nData: 1\r\nAsync: true\r\n\r\n"
        );
    }
    let mut session = std::net::TcpStream::connect(node.ami()).expect("connect to AMI");
    session.write_all(text.as_bytes()).expect("write to AMI");
    session
}

#[test]
fn phones_behave_as_they_are_told() {
    let lab = Lab::start(&three(1));
    let phones = Phones::register(100, 1, &lab.sip(), Behaviour::ANSWER);
    phones.wait_registered(SOON);
    for node in lab.nodes() {
        phones.behave("cc100", Behaviour::ANSWER);
        ring(node, &phones);
        wait_until(SOON, "the call to be up", || phones.live() == 1);
        assert_eq!(node.channels(), 1);
        wait_until(SOON, "Asterisk to hang up after two seconds", || phones.of_kind(What::Bye).len() == 1);
        node.wait_channels(0, SOON);

        phones.behave("cc100", Behaviour::Answer { after: Duration::from_millis(300) });
        ring(node, &phones);
        wait_until(SOON, "the call to be up", || phones.live() == 1);
        phones.hang_up("cc100");
        wait_until(SOON, "the phone to have hung up", || phones.live() == 0);
        node.wait_channels(0, SOON);

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
        assert_eq!(phones.of_kind(What::Bye).len(), 1, "only the first call was ended by Asterisk");

        phones.behave("cc100", Behaviour::Silent);
        let before = phones.repeated("cc100");
        assert_eq!(ring(node, &phones), 1);
        wait_until(SOON, "two more sendings of that INVITE", || phones.repeated("cc100") >= before + 2);
        assert_eq!(phones.rings("cc100"), 8, "a repeated INVITE is one call");
        node.ring("PJSIP/cc100", 3);
        wait_until(SOON, "a second call at once", || phones.max_ringing_at_once("cc100") == 2);
        node.cli("channel request hangup all");
        phones.forget_calls(node.address());
        wait_until(SOON, "the phone to forget", || phones.ringing("cc100") == 0);
        phones.clear_records();
    }
}

#[test]
fn nodes_die_freeze_and_lose_their_cable() {
    let lab = Lab::start(&three(5));
    let phones = Phones::register(100, 5, &lab.sip(), Behaviour::ANSWER);
    phones.wait_registered(SOON);
    for node in [lab.node("a"), lab.node("c")] {
        let first = node.pid();
        ring(node, &phones);
        wait_until(SOON, "the call to be up", || phones.live() == 1);
        node.kill9();
        assert!(!std::path::Path::new(&format!("/proc/{first}")).exists(), "the pid is Asterisk's own");
        assert_eq!(phones.live(), 1, "nobody told the phone");
        phones.forget_calls(node.address());
        let begin = now();
        node.start();
        println!("node {} is up again after {:?}", node.name(), begin.elapsed());
        assert_ne!(node.pid(), first);
        assert_eq!(node.channels(), 0);
        // contacts outlive a crash only if Asterisk had the second it takes to write them down
        for name in phones.names() {
            phones.register_again(&name, node.sip(), 60);
        }
        phones.wait_registered(SOON);
        ring(node, &phones);
        wait_until(SOON, "the call to be up", || phones.live() == 1);
        node.restart();
        wait_until(SOON, "the phone to hear of the restart", || phones.live() == 0);
        assert_eq!((node.channels(), node.registered()), (0, 5), "contacts outlive a restart, channels do not");
    }
    let b = lab.node("b");
    assert!(reaches(b), "AMI of b");
    b.link_down();
    wait_until(SOON * 2, "b to miss its phones", || b.registered() == 0);
    assert!(!reaches(b), "AMI of b without a cable");
    assert!(reaches(lab.node("a")), "AMI of a");
    b.link_up();
    wait_until(SOON * 2, "b to find its phones", || b.registered() == 5);
    assert!(reaches(b), "AMI of b with its cable");
    b.sigstop();
    assert!(!reaches(b), "AMI of a frozen b");
    b.sigcont();
    wait_until(SOON, "b to thaw", || reaches(b));
}

/// Whether the node's AMI greets within a second.
fn reaches(node: &Node) -> bool {
    use std::io::Read as _;
    let wait = Duration::from_secs(1);
    let Ok(mut stream) = std::net::TcpStream::connect_timeout(&node.ami().into(), wait) else {
        return false;
    };
    stream.set_read_timeout(Some(wait)).expect("a timeout can be set");
    let mut greeting = [0; 8];
    stream.read_exact(&mut greeting).is_ok() && greeting == *b"Asterisk"
}

#[test]
fn baresip_registers_and_answers() {
    let lab = Lab::start(&three(10));
    let begin = now();
    let phones = Baresip::start(100..110, &lab.sip());
    phones.wait_registered(SOON * 3);
    println!("30 accounts of baresip are registered after {:?}", begin.elapsed());
    for node in lab.nodes() {
        wait_until(SOON, "10 contacts", || node.registered() == 10);
    }
    assert!(phones.invites().is_empty());
    let b = lab.node("b");
    b.ring("PJSIP/cc103", 1);
    wait_until(SOON, "the call to be up and over", || phones.closed().values().sum::<usize>() == 1);
    let account = format!("cc103@{}", b.address());
    assert_eq!(phones.invites().into_iter().collect::<Vec<_>>(), [(account.clone(), 1)]);
    assert_eq!(phones.established().into_iter().collect::<Vec<_>>(), [(account, 1)]);
    b.wait_channels(0, SOON);
}

#[test]
fn the_foreign_queue_client_is_there() {
    let client = std::process::Command::new(lab::python()).args(["-c", "import rsmq"]).output().expect("run Python");
    assert!(client.status.success(), "{}", String::from_utf8_lossy(&client.stderr));
}

#[test]
fn nodes_have_a_lean_ami_user_tls_and_an_iax_peer() {
    let lab = Lab::start(&three(1)[1..]);
    for node in lab.nodes() {
        let users = node.cli("manager show user evenring");
        for class in ["read perm: system,call,agent", "write perm: call,agent,reporting,originate"] {
            assert!(users.replace("          ", " ").contains(class), "{class:?} is not in {users}");
        }
        assert_eq!(lab.name_of(node.address()), node.name());
        let (address, trusted) = (node.address(), lab.certificate());
        let tls = lab::run(&format!(
            "openssl s_client -connect {address}:5039 -CAfile {} -verify_return_error -verify_ip {address}",
            trusted.display()
        ));
        assert!(tls.contains("Verify return code: 0 (ok)"), "{tls}");
    }
    let (b, c) = (lab.node("b"), lab.node("c"));
    let registered = |text: &str| text.lines().any(|line| line.starts_with("iax300") && line.contains("OK ("));
    wait_until(SOON * 2, "b's iax300 at c", || registered(&c.cli("iax2 show peers")));
    assert!(!registered(&b.cli("iax2 show peers")), "b's iax300 is a client elsewhere");
}

/// The names of the events of one short call, as a user sees them.
fn events_of_a_call(node: &Node, (user, secret): (&str, &str)) -> Vec<String> {
    use std::io::{BufRead, BufReader, Write};
    let mut stream = std::net::TcpStream::connect(node.ami()).expect("connect to AMI");
    write!(stream, "Action: Login\r\nUsername: {user}\r\nSecret: {secret}\r\n\r\n").expect("log in");
    stream.set_read_timeout(Some(SOON)).expect("a time limit");
    let mut lines = BufReader::new(stream).lines().map(|line| line.expect("a line before the time is over"));
    assert!(lines.any(|line| line == "Event: FullyBooted"), "it is booted, and says so");
    node.ring("PJSIP/cc100", 1);
    let names = lines.filter_map(|line| line.strip_prefix("Event: ").map(str::to_owned));
    let mut seen = Vec::new();
    for name in names {
        let is_last = name == "Hangup";
        seen.push(name);
        if is_last {
            break;
        }
    }
    seen
}

#[test]
fn the_event_filter_passes_what_the_daemon_wants_and_nothing_else() {
    let lab = Lab::start(&three(1)[1..]);
    let phones = Phones::register(100, 1, &lab.sip(), Behaviour::Answer { after: Duration::ZERO });
    phones.wait_registered(SOON);
    let is_wanted = |name: &String| evenring::ami::event::is_wanted(name.as_bytes());
    for node in lab.nodes() {
        let (ours, all) = (events_of_a_call(node, AMI_USER), events_of_a_call(node, LAB_USER));
        assert!(ours.iter().all(is_wanted), "{ours:?}");
        for name in ["Newchannel", "Newstate", "DeviceStateChange", "Hangup"] {
            assert!(ours.iter().any(|seen| seen == name), "{name} is missing in {ours:?}");
        }
        // How often a device changes its state differs from call to call, and a phone may register meanwhile.
        let of_the_call = |name: &&String| !["ContactStatus", "PeerStatus"].contains(&name.as_str());
        let wanted: BTreeSet<_> = all.iter().filter(|name| is_wanted(name)).filter(of_the_call).collect();
        assert!(all.iter().any(|name| !is_wanted(name)), "a call has events that nobody needs: {all:?}");
        let ours: BTreeSet<_> = ours.iter().filter(of_the_call).collect();
        assert_eq!(ours, wanted, "Asterisk {}", node.version().number());
    }
}

#[test]
fn a_root_of_ones_own_serves_as_well() {
    let root = lab::cache().join("asterisk-16");
    assert_eq!(Version::of_root(&root), Ok(Version::V16));
    let none = Version::of_root(std::path::Path::new("/proc")).expect_err("no Asterisk is there");
    assert!(none.contains("/proc/usr/sbin/asterisk"), "{none}");
    let lab = Lab::start_on(Some(&root), &[Spec { name: "a", version: Version::V16, endpoints: 1 }]);
    let phones = Phones::register(100, 1, &lab.sip(), Behaviour::ANSWER);
    phones.wait_registered(SOON);
    assert!(lab.node("a").cli("core show version").contains("Asterisk 16"));
    assert_eq!(ring(lab.node("a"), &phones), 1);
}

#[test]
fn redis_is_thrown_away_and_comes_back_empty() {
    let mut redis = Redis::start();
    let set = |redis: &Redis| lab::run(&format!("redis-cli --no-auth-warning -u {} SET k v", redis.url()));
    let size =
        |redis: &Redis| lab::run(&format!("redis-cli --no-auth-warning -u {} DBSIZE", redis.url())).trim().to_owned();
    assert_eq!(set(&redis).trim(), "OK");
    // It, and what says that this Redis has been used before.
    assert_eq!(size(&redis), "2");
    let port = redis.address().port();
    redis.kill9();
    assert!(std::net::TcpStream::connect(redis.address()).is_err());
    redis.start_again();
    assert_eq!((redis.address().port(), size(&redis).as_str()), (port, "0"));
    set(&redis);
    redis.restart();
    assert_eq!(size(&redis), "0");

    let locked = Redis::start_with(std::net::Ipv4Addr::LOCALHOST, &["--requirepass", "x"]);
    assert!(lab::run(&format!("redis-cli --no-auth-warning -u {} DBSIZE", locked.url())).contains("NOAUTH"));
    let locked = locked.with_credentials("default:x@");
    assert_eq!(size(&locked), "0");
}
