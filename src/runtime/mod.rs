//! What every task needs and no task owns: time, random bits, waits between attempts, log lines that repeat, sockets that listen, numbers in words.
//! Must never know Asterisk, Redis or settings.

pub mod backoff;
pub mod clock;
pub(crate) mod listener;
pub(crate) mod log_throttle;
pub mod random;
pub(crate) mod words;
