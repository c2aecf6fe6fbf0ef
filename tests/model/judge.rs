//! P14: which node may be called dead. Owns the ticks, by which leases are measured, and Redis's wrong clock. Must never know
//! Redis: `src/registry/scripts/judge.lua` says the same in its own words.

use super::world::{Bug, Ms, Node, World};

/// What is known of time. See `judge.lua` for each.
#[derive(Debug, Clone, Default)]
pub struct Judge {
    pub tick: Ms,
    pub seen: Option<Ms>,
    pub lease: Ms,
    pub floor: Ms,
    pub jump: Ms,
    pub hold: Ms,
    pub shift: Ms,
    pub corrections: u64,
    pub doubt: Ms,
}

/// What a session that no node can ring waits before it is placed again.
pub const AWAIT: Ms = 1_000;

impl World {
    fn gap(&self) -> Ms {
        self.judge.seen.map_or(Ms::MAX, |seen| self.now - seen)
    }

    /// No node beats now.
    pub fn is_silent(&self) -> bool {
        let gap = self.gap();
        gap < 0 || gap > self.judge.lease * 2 / 3
    }

    /// Logins of whom nothing is known have to wait.
    pub fn is_unsettled(&self) -> bool {
        self.is_silent() || self.judge.tick < self.judge.hold
    }

    /// How old an order is, nobody can tell now.
    pub fn is_timeless(&self) -> bool {
        self.is_silent() || self.judge.doubt > 0
    }

    /// What this node's daemon expects of the time, it knows from before the last silence.
    fn is_witness(&self, node: &str, knows: bool) -> bool {
        let last = self.nodes.get(node).map_or(0, |node| node.beat);
        knows && (self.judge.doubt == 0 || last < self.judge.doubt)
    }

    /// A node speaks for itself.
    pub fn hear(&mut self, is_witness: bool) {
        let (lease, gap) = (self.limits.lease, self.gap());
        let mut advance = gap.min(lease * 3 / 8);
        if gap < 0 || gap > lease * 2 / 3 {
            advance = 1;
            let is_open = self.judge.tick - self.judge.floor <= self.judge.lease;
            let before = if is_open { self.judge.jump.max(0) } else { 0 };
            self.judge.jump = match (self.judge.seen, gap) {
                (None, _) => 0,
                (Some(_), 1..) => before + gap,
                (Some(_), _) if before > 0 => before,
                (Some(_), _) => gap,
            };
            self.judge.floor = self.judge.tick + advance;
            if self.judge.seen.is_some() && self.judge.doubt == 0 {
                self.judge.doubt = self.judge.floor;
            }
        }
        if is_witness {
            self.judge.doubt = 0;
        }
        // Time does not go back.
        if gap < 0 && self.bug != Some(Bug::Timeless) {
            self.judge.shift -= gap;
            self.now -= gap;
        }
        self.judge.tick += advance;
        (self.judge.seen, self.judge.lease) = (Some(self.now), lease);
    }

    /// A node's daemon has found that Redis's clock went on by so much more than time did.
    pub fn correct(&mut self, name: &str, step: Ms) {
        let is_sum = self.judge.doubt > 0 && self.is_witness(name, true);
        if self.bug == Some(Bug::Timeless) {
            return;
        }
        let (mut gap, longest) = (self.gap(), self.judge.lease * 2 / 3);
        // Somebody who did not know what time it is has beaten before.
        let heard = (0..=longest).contains(&gap);
        if heard {
            gap = if self.judge.tick - self.judge.floor <= self.judge.lease { self.judge.jump } else { 0 };
        }
        if !is_sum && (gap == 0 || step > 0 && gap < 0) {
            return;
        }
        let by = if step > 0 && !is_sum { step.min(gap) } else { step };
        self.judge.shift -= by;
        self.judge.corrections += 1;
        self.judge.jump = 0;
        self.now -= by;
        if heard || is_sum {
            self.judge.seen = self.judge.seen.map(|seen| seen - by);
        }
        if is_sum {
            self.judge.seen = self.judge.seen.map(|seen| seen.min(self.now));
        }
    }

    /// What is left of a node's lease; below 0 it is dead.
    pub fn lease_left(&self, node: &Node) -> Ms {
        if node.lost { -1 } else { node.lease - self.judge.tick + node.beat.max(self.judge.floor) }
    }

    pub fn is_dead(&self, node: &Node) -> bool {
        self.lease_left(node) < 0 || self.bug == Some(Bug::Hasty) && node.lease_until < self.now
    }

    /// It has not beaten since the last silence, and may yet.
    pub fn awaited(&self, node: &Node) -> bool {
        node.beat < self.judge.floor && node.state != "stopped" && !self.is_dead(node)
    }

    /// Some node is awaited.
    pub fn awaits_anybody(&self) -> bool {
        self.nodes.values().any(|node| self.awaited(node))
    }

    /// One of these nodes is awaited.
    pub fn awaits(&self, targets: &[(String, String)]) -> bool {
        targets.iter().any(|(name, _)| self.nodes.get(name).is_some_and(|node| self.awaited(node)))
    }

    /// A heartbeat. `None`: one with a higher number was there before it. Else whether it came into or left the rotation,
    /// and whether the others had given it up. `knows`: it said what time it expects, and has heard of the last correction.
    pub fn beat(&mut self, name: &str, number: u64, how: (&str, usize), knows: bool) -> Option<(bool, bool)> {
        let (state, channels) = how;
        let is_late = |node: &Node| number <= node.beats && self.bug != Some(Bug::Unnumbered);
        if self.nodes.get(name).is_none_or(is_late) {
            return None;
        }
        let is_witness = self.is_witness(name, knows);
        self.hear(is_witness);
        let (tick, lease, until) = (self.judge.tick, self.limits.lease, self.now + self.limits.lease);
        let node = self.nodes.get_mut(name)?;
        let changed = (node.state == "active") != (state == "active");
        (node.state, node.channels) = (state.to_owned(), channels);
        (node.beat, node.lease, node.lease_until, node.beats) = (tick, lease, until, number);
        let lost = std::mem::take(&mut node.lost);
        if !self.awaits_anybody() {
            self.judge.doubt = 0;
        }
        Some((changed, lost))
    }

    /// A node stops in good order: for the grace its sessions stay.
    pub fn stop(&mut self, name: &str, number: u64, grace: Ms) {
        let (now, tick) = (self.now, self.judge.tick);
        let Some(node) = self.nodes.get_mut(name) else { return };
        (node.state, node.line) = ("stopped".to_owned(), Vec::new());
        (node.beat, node.lease, node.beats) = (tick, grace, number);
        // To the scripts the lease ends 1 ms before: over at once.
        node.lease_until = now - 1;
    }
}
