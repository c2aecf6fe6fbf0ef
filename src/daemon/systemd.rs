//! Notifications to systemd. Owns the sd_notify messages that are used, and when the watchdog is fed. Must never fail:
//! without systemd, nothing happens.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::ids::Now;

fn tell(state: NotifyState<'_>) {
    // No socket, or one that is full: systemd will judge by itself.
    let _ = sd_notify::notify(&[state]);
}

/// Reports ready to systemd.
pub(super) fn ready() {
    tell(NotifyState::Ready);
}

/// Decides whether the watchdog is fed: the registry writer has answered, or is within its time limit. A Redis error
/// counts as an answer.
#[derive(Debug)]
pub(super) struct WriterWatchdog {
    longest: Duration,
    busy_since: Option<Now>,
}

impl WriterWatchdog {
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

/// Feeds systemd's watchdog.
pub(super) fn alive() {
    tell(NotifyState::Watchdog);
}

/// Sets the line shown by `systemctl status`. What is no text of ours cannot become another message.
pub(super) fn status(line: &str) {
    tell(NotifyState::Status(&line.replace(|c: char| c.is_control(), " ")));
}

/// Reports to systemd that the daemon is stopping.
pub(super) fn stopping() {
    tell(NotifyState::Stopping);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heart_stops_when_the_writer_does_not_answer() {
        let at = |seconds| Now(Duration::from_secs(seconds));
        let mut watchdog = WriterWatchdog::new(Duration::from_secs(10));
        assert!(watchdog.beats(at(100)), "nothing is asked");
        watchdog.asked(at(100));
        assert!(watchdog.is_busy() && watchdog.beats(at(109)) && !watchdog.beats(at(110)));
        watchdog.answered();
        assert!(!watchdog.is_busy() && watchdog.beats(at(110)));
    }
}
