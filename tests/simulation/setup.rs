//! What an episode is like: how many nodes and phones, which faults, how fast. Owns what the seed decides before anything
//! happens. Must never change afterwards.

use std::collections::BTreeMap;
use std::time::Duration;

use evenring::ring_policy::{RingSettings, RingTarget};

use super::dice::Dice;
use super::faults::{ALL, Fault, GENTLE};
use super::model::world::{Bug, Limits, Ms};

/// A bug that the simulation builds into its own parts, to see that it would be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// Redis believes every generation.
    Fence,
    /// A session is load only when it rings: logins that come together pile up.
    Reservation,
    /// An Originate whose outcome is unknown counts as not sent.
    Resend,
    /// A lease that has ended by the clock makes a node dead.
    Hasty,
    /// A daemon that stood still rings what it had taken before: its clock stood still, too.
    Sleeper,
    /// Nobody notices that the clock of Redis has stepped.
    Timeless,
    /// An order that nobody took fails.
    Impatient,
    /// The number of a heartbeat means nothing.
    Unnumbered,
}

impl Plant {
    pub const ALL: [(&'static str, Self); 8] = [
        ("fence", Self::Fence),
        ("reservation", Self::Reservation),
        ("resend", Self::Resend),
        ("hasty", Self::Hasty),
        ("sleeper", Self::Sleeper),
        ("timeless", Self::Timeless),
        ("impatient", Self::Impatient),
        ("unnumbered", Self::Unnumbered),
    ];

    /// What it is in the rules.
    pub fn bug(self) -> Option<Bug> {
        match self {
            Self::Fence | Self::Resend | Self::Sleeper => None,
            Self::Reservation => Some(Bug::Blind),
            Self::Hasty => Some(Bug::Hasty),
            Self::Timeless => Some(Bug::Timeless),
            Self::Impatient => Some(Bug::Impatient),
            Self::Unnumbered => Some(Bug::Unnumbered),
        }
    }
}

#[derive(Debug)]
pub struct Setup {
    pub phones: usize,
    pub weights: Vec<u32>,
    pub caps: Vec<Option<u32>>,
    pub ring: RingSettings,
    pub limits: Limits,
    pub faults: Vec<Fault>,
    /// The mean time between two faults, and between two logins.
    pub fault_gap: Ms,
    pub login_gap: Ms,
    pub longest_call: Ms,
    pub wire_delay: Ms,
    /// Of 10,000 requests to Redis so many have no answer; of 10,000 wake-ups so many are lost.
    pub redis_faults: u64,
    pub lost_wakeups: u32,
    /// Of 10,000 heartbeats so many are carried out long after.
    pub late_beats: u32,
    /// In so many of 10,000 delicate moments something goes wrong just there.
    pub strikes: u32,
    pub chaos: Ms,
    pub resend: bool,
    pub sleeper: bool,
    /// Nothing fails, operators only do their work: every order must be rung.
    pub gentle: bool,
}

const RING: Ms = 5_000;
const LEASE: Ms = 3_000;

fn ring(dice: &mut Dice) -> RingSettings {
    let (rate, burst, at_once) = if dice.chance(3_000) { (2, 2, 3) } else { (50, 100, 300) };
    RingSettings {
        dial: "{technology}/{extension}".parse().expect("a template"),
        target: RingTarget::Application { name: "ConfBridge".into(), data: None },
        caller_id: "{extension}".parse().expect("a template"),
        timeout: Duration::from_millis(RING.unsigned_abs()),
        variables: BTreeMap::new(),
        rate,
        burst,
        at_once,
    }
}

impl Setup {
    pub fn new(dice: &mut Dice, plant: Option<Plant>) -> Self {
        let nodes = 2 + dice.index(3);
        let equal = dice.chance(6_000);
        let weights = (0..nodes).map(|_| if equal { 1 } else { 1 + u32::try_from(dice.index(3)).unwrap_or(0) });
        let weights: Vec<u32> = weights.collect();
        let capped = dice.chance(2_000);
        let caps = (0..nodes).map(|_| (capped && dice.chance(5_000)).then_some(3)).collect();
        // Few kinds of faults at a time find more than all at once.
        let share = [1_000, 2_500, 5_000, 10_000][dice.index(4)];
        let gentle = dice.chance(1_000);
        let some: &[Fault] = if gentle { &GENTLE } else { &ALL };
        let faults = some.iter().copied().filter(|_| gentle || dice.chance(share)).collect();
        let tries = 2 + u32::try_from(dice.index(2)).unwrap_or(0);
        let give_up = RING * Ms::from(tries) + LEASE;
        let limits = Limits { lease: LEASE, expiry: 10_000, keep: 60_000, visibility: RING + 10_000, tries, give_up };
        Self {
            phones: 3 + dice.index(7),
            weights,
            caps,
            ring: ring(dice),
            limits,
            faults,
            fault_gap: [300, 1_000, 4_000][dice.index(3)],
            login_gap: [60, 250, 1_000][dice.index(3)],
            longest_call: [2_000, 10_000, 60_000][dice.index(3)],
            wire_delay: [2, 20, 200][dice.index(3)],
            redis_faults: if gentle { 0 } else { [0, 0, 20, 300][dice.index(4)] },
            gentle,
            lost_wakeups: [0, 100, 3_000][dice.index(3)],
            late_beats: if gentle { 0 } else { [0, 0, 20, 1_000][dice.index(4)] },
            strikes: [0, 20, 100][dice.index(3)],
            chaos: dice.span(10_000, 60_000),
            resend: plant == Some(Plant::Resend),
            sleeper: plant == Some(Plant::Sleeper),
        }
    }

    /// Whether all nodes are alike, so that a burst must spread evenly.
    pub fn is_equal(&self) -> bool {
        self.weights.iter().all(|weight| *weight == 1) && self.caps.iter().all(Option::is_none)
    }
}
