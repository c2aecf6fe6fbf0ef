//! evenring: phone-alias load balancing for Asterisk, one daemon per telephony node.
//!
//! The map of the house. Imports go down only, no two files import each other, and a test (`tests/pure/layout.rs`) enforces both:
//!
//! | module | what it is | may use |
//! |---|---|---|
//! | `main` | arguments to a command | all |
//! | [`cli`] | one file for each command: thin, prints what registry and daemon say | all below |
//! | [`daemon`] | the tasks that join Asterisk and Redis: node loop, orders, inbox, registry writer, health | all below |
//! | [`api`] | the HTTP API: a thread of its own, talks to Redis alone | registry, node, config, ring_policy, runtime, ids |
//! | [`registry`] | the client of Redis: a typed call for each script, the queues | node, ami, config, ring_policy, ids |
//! | [`ami_client`] | the client of Asterisk: connection, codec, reconnecting | ami, config, runtime, ids |
//! | [`node`] | **pure**: what a node decides; (input, now) to effects | ami, ring_policy, ids |
//! | [`ami`] | **pure**: the language of the Asterisk Manager Interface | ids |
//! | [`config`] | checked settings from file, environment and secret files | ring_policy, ids |
//! | [`ring_policy`] | **pure**: how a phone is rung, and the templates in it | ids |
//! | [`runtime`] | clock, random bits, backoff, log throttle | ids |
//! | [`ids`] | newtypes for every id, built only by parsing | nothing |
//!
//! The way of a login, file by file (`README.md` says what each hands on; a test walks it):
//!
//! ```text
//! cli/login.rs
//! registry/mod.rs
//! registry/scripts/place.lua
//! registry/scripts/lib/placement.lua
//! registry/scripts/lib/eligibility.lua
//! registry/scripts/lib/orders.lua
//! daemon/order_fetcher.rs
//! daemon/node_loop.rs
//! node/orders.rs
//! node/ring.rs
//! daemon/node_loop.rs
//! ami_client/connection.rs
//! ami_client/codec.rs
//! ami/link.rs
//! node/session.rs
//! daemon/node_loop/pending.rs
//! daemon/registry_writer.rs
//! registry/scripts/report.lua
//! cli/watch.rs
//! ```
//!
//! The way of an AMI event is in `docs/architecture.md`.

pub mod ami;
pub mod ami_client;
pub mod api;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod ids;
pub mod node;
pub mod registry;
pub mod ring_policy;
pub mod runtime;
