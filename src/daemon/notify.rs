//! What systemd is told. Owns the few words of sd_notify that are used, and what keeps the watchdog quiet. Must never
//! fail: without systemd, nothing happens.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::ids::Now;

fn tell(state: NotifyState<'_>) {
    // No socket, or one that is full: systemd will judge by itself.
    let _ = sd_notify::notify(&[state]);
}

/// Ready: Asterisk is in sync and the first heartbeat went out.
pub(super) fn ready() {
    tell(NotifyState::Ready);
}

/// Whether the heart beats: whoever writes the heartbeat has answered, or may still do so. That Redis is away is an
/// answer.
#[derive(Debug)]
pub(super) struct Heart {
    longest: Duration,
    busy_since: Option<Now>,
}

impl Heart {
    pub(super) fn new(longest: Duration) -> Self {
        Self { longest, busy_since: None }
    }

    pub(super) fn asked(&mut self, now: Now) {
        self.busy_since = Some(now);
    }

    pub(super) fn answered(&mut self) {
        self.busy_since = None;
    }

    pub(super) fn is_busy(&self) -> bool {
        self.busy_since.is_some()
    }

    pub(super) fn beats(&self, now: Now) -> bool {
        self.busy_since.is_none_or(|since| now.since(since) < self.longest)
    }
}

/// The node loop turns, and the heart beats.
pub(super) fn alive() {
    tell(NotifyState::Watchdog);
}

/// One line for `systemctl status`.
pub(super) fn status(line: &str) {
    tell(NotifyState::Status(line));
}

/// Stopping.
pub(super) fn stopping() {
    tell(NotifyState::Stopping);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heart_stops_when_the_writer_does_not_answer() {
        let at = |seconds| Now(Duration::from_secs(seconds));
        let mut heart = Heart::new(Duration::from_secs(10));
        assert!(heart.beats(at(100)), "nothing is asked");
        heart.asked(at(100));
        assert!(heart.is_busy() && heart.beats(at(109)) && !heart.beats(at(110)));
        heart.answered();
        assert!(!heart.is_busy() && heart.beats(at(110)));
    }
}
