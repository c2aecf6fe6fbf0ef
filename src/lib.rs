//! evenring: phone-alias load balancing for Asterisk, one daemon per telephony node.
//!
//! The map of the house. Imports go down only, and a test (`tests/layout.rs`) enforces it:
//!
//! | room | what it is | may use |
//! |---|---|---|
//! | `main` | arguments to a verb | all |
//! | [`cli`] | one file a verb: thin, prints what registry and daemon say | all below |
//! | [`daemon`] | the tasks: AMI socket, orders, heartbeat, notify, clock | all below |
//! | [`registry`] | the shared truth in Redis: a typed call per script, the queues | node, ami, config, ids |
//! | [`node`] | **pure**: what a node decides; (input, now) to effects | ami, config, ids |
//! | [`ami`] | **pure**: the language of the Asterisk Manager Interface | ids |
//! | [`config`] | checked settings | ids |
//! | [`ids`] | newtypes for every id, built only by parsing | nothing |
//!
//! The way of a login, top to bottom: `cli/login.rs`, `registry/scripts/place.lua`, `daemon/order_fetcher.rs`,
//! `node/session.rs`, `daemon/ami.rs`, `registry/scripts/report.lua`.

pub mod ami;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod ids;
pub mod node;
pub mod registry;
