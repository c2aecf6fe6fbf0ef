//! The protocol of the Asterisk Manager Interface (AMI), pure: bytes, messages, events, actions and one session.
//!
//! Owns what may stand on the wire and what an answer means. Must never know sockets, files, clocks, random sources,
//! logs or what a node wants from Asterisk: everything takes (input, now) and gives effects. What is said here about
//! Asterisk was measured on 16.28.0 and 22.10.1 unless marked otherwise.
//!
//! | file | what it is |
//! |---|---|
//! | [`frame`] | bytes to messages: where a message ends |
//! | `limits` | how much a stream may hold ([`frame::Limits`]) |
//! | `seek` | a search that goes on where it stopped |
//! | `message` | one message ([`frame::Message`], borrowed: [`frame::Frame`]) and its header lines |
//! | [`event`] | a message to one of the few events that matter, or `Other` |
//! | [`item`] | the items of lists: channels and contacts |
//! | [`action`] | what we say: checked when built, so that nothing can be injected |
//! | [`id`] | ActionIDs: which answer belongs to which action |
//! | [`link`] | one session: greeting, login, boot, pings, answers, deadlines |
//! | [`outcome`] | the results of a session for its owner: effects, answers, reasons |
//! | `pending` | the actions whose answer has not come |

pub mod action;
pub mod event;
pub mod frame;
pub mod id;
pub mod item;
mod limits;
pub mod link;
mod message;
pub mod outcome;
mod pending;
mod seek;
