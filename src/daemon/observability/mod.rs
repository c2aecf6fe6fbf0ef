//! What the daemon shows: health checks and metrics over HTTP, and the state that they are about. Must never change what it
//! shows.

pub(in crate::daemon) mod gauges;
pub(in crate::daemon) mod http;
pub(in crate::daemon) mod metrics;
pub(in crate::daemon) mod status;
