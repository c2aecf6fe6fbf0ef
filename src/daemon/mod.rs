//! The tasks: sockets, timers and what runs beside them.

pub mod codec;
