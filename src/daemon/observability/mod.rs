//! What the daemon shows: health checks and metrics over HTTP, answers to HAProxy, and the state that they are about. Must
//! never change what it shows.

pub(in crate::daemon) mod agent_check;
pub(in crate::daemon) mod doctor_report;
pub(in crate::daemon) mod gauges;
pub(in crate::daemon) mod http;
pub(in crate::daemon) mod metrics;
pub(in crate::daemon) mod reasons;
pub(in crate::daemon) mod status;
