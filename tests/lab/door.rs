//! A way to AMI that can be closed, and on which words can be spoilt.
//!
//! Owns a listener on the hub and what goes through it. Must never know what AMI is.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddrV4, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use super::{HUB, Node};

#[derive(Debug, Default)]
struct State {
    shut: bool,
    open: Vec<TcpStream>,
    /// What is said to the daemon, and what it hears instead.
    spoilt: Option<(&'static str, &'static str)>,
}

/// The door. While it is closed, connections end at once, but none is refused: nobody is taken for gone.
#[derive(Debug)]
pub struct Door {
    address: SocketAddrV4,
    state: Arc<Mutex<State>>,
}

impl Door {
    /// An open one to this node's AMI.
    pub fn to(node: &Node) -> Self {
        let listener = TcpListener::bind((HUB, 0)).expect("a port of the hub");
        let port = listener.local_addr().expect("its address").port();
        let (state, ami) = (Arc::new(Mutex::new(State::default())), node.ami());
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                if let Ok(far) = TcpStream::connect(ami) {
                    join(&near, &far, &shared);
                }
            }
        });
        Self { address: SocketAddrV4::new(HUB, port), state }
    }

    /// Where daemons connect to.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Ends all connections, and those that are made from now on.
    pub fn close(&self) {
        let mut state = self.state.lock().unwrap();
        state.shut = true;
        for stream in state.open.drain(..) {
            let _gone = stream.shutdown(Shutdown::Both);
        }
    }

    /// Lets connections through again.
    pub fn open(&self) {
        self.state.lock().unwrap().shut = false;
    }

    /// From now on the daemon hears the second text for the first, which must be as long.
    pub fn spoil(&self, said: &'static str, heard: &'static str) {
        assert_eq!(said.len(), heard.len());
        self.state.lock().unwrap().spoilt = Some((said, heard));
    }
}

fn join(near: &TcpStream, far: &TcpStream, state: &Arc<Mutex<State>>) {
    let mut locked = state.lock().unwrap();
    if locked.shut {
        return;
    }
    let twice = |stream: &TcpStream| stream.try_clone().expect("a stream twice");
    locked.open.extend([twice(near), twice(far)]);
    for (from, to, to_daemon) in [(near, far, false), (far, near, true)] {
        let (from, to, state) = (twice(from), twice(to), Arc::clone(state));
        thread::spawn(move || pass_on(from, to, to_daemon, &state));
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, to_daemon: bool, state: &Mutex<State>) {
    let mut piece = [0; 65_536];
    while let Ok(count @ 1..) = from.read(&mut piece) {
        let bytes = &mut piece[..count];
        if let Some((said, heard)) = state.lock().unwrap().spoilt.filter(|_| to_daemon) {
            for at in 0..(bytes.len() + 1).saturating_sub(said.len()) {
                let place = &mut bytes[at..at + said.len()];
                if place == said.as_bytes() {
                    place.copy_from_slice(heard.as_bytes());
                }
            }
        }
        if to.write_all(bytes).is_err() {
            break;
        }
    }
    for stream in [from, to] {
        let _gone = stream.shutdown(Shutdown::Both);
    }
}
