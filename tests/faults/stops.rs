//! An Asterisk ends with a whole shift on it, while others log in fast: a part of the table.
//!
//! Owns what strikes there. Must never look whether it did harm.

use std::time::Duration;

use evenring::registry::view::ShownNodeState;

use super::ground::Ground;
use super::judge::Calls;
use super::round::{Fault, Limits, Live};
use super::setup::{PATIENCE, Setup};
use super::table::{A, AT_ONCE, LOST, NEXT_PING, NO_LIMITS, ms, start_asterisk};
use crate::lab::wait_for;

/// Agents on the Asterisk that stops, and elsewhere. When it has lost the former it looks empty, to whoever looks at loads
/// alone.
const SHIFT: Live = Live::OnA(300, 6);
/// Half of 300 ring on each of the other two: `ring.burst` at once and the others at `ring.rate`, which is a second; and
/// time for a busy machine.
const ELSEWHERE: Option<Duration> = Some(ms(5_000));

pub(super) fn all() -> Vec<Fault> {
    let stop = Fault {
        ground: Ground::Callers,
        live: SHIFT,
        logins: 180,
        every: ms(20),
        hold: ms(4_000),
        limits: Limits { out: AT_ONCE, elsewhere: ELSEWHERE, ..NO_LIMITS },
        ..LOST
    };
    vec![
        Fault {
            name: "stop-now",
            what: "`core stop now` of an Asterisk with 300 agents; started again after 4 s",
            strike: |stage| {
                stage.deafen(A);
                stage.lab.node(A).say_cli("core stop now");
            },
            repair: |stage| start_again(stage),
            ..stop
        },
        Fault {
            name: "stop-kill",
            what: "kill -9 of an Asterisk with 300 agents; started again after 4 s",
            strike: |stage| {
                stage.deafen(A);
                stage.lab.node(A).kill9();
            },
            repair: |stage| start_again(stage),
            ..stop
        },
        Fault {
            name: "stop-gracefully",
            what: "`core stop gracefully` of an Asterisk with 300 agents, and after 4 s `core abort shutdown`",
            calls: Calls::Stay,
            strike: |stage| stage.lab.node(A).say_cli("core stop gracefully"),
            repair: abort_shutdown,
            limits: Limits { out: NEXT_PING, ..NO_LIMITS },
            ..stop
        },
    ]
}

/// Takes an announced stop back. On a busy machine the console that announces it may come late: a stop that comes behind its
/// own end is for ever.
pub fn abort_shutdown(stage: &mut Setup) -> Vec<String> {
    wait_for(PATIENCE, || {
        let rows = stage.nodes().map_err(|error| error.to_string())?;
        let row = rows.iter().find(|row| row.name == A).ok_or("no such node")?;
        if row.state == ShownNodeState::Stopping { Ok(()) } else { Err(format!("{A} to be stopping: {row:?}")) }
    });
    stage.lab.node(A).cli("core abort shutdown");
    Vec::new()
}

/// One that has stopped, or was killed.
fn start_again(stage: &mut Setup) -> Vec<String> {
    stage.lab.node(A).kill9();
    start_asterisk(stage, A)
}
