//! What systemd is told. Owns the few words of sd_notify that are used. Must never fail: without systemd, nothing
//! happens.

use sd_notify::NotifyState;

fn tell(state: NotifyState<'_>) {
    // No socket, or one that is full: systemd will judge by itself.
    let _ = sd_notify::notify(false, &[state]);
}

/// Ready: Asterisk is in sync and the first heartbeat went out.
pub(super) fn ready() {
    tell(NotifyState::Ready);
}

/// The node loop turns.
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
