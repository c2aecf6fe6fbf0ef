//! After any gap: ask Asterisk for everything and replace what was believed. Owns the lists and how they become
//! roster and sessions. Must never patch a guess.

use std::collections::BTreeSet;

use super::{Asterisk, Effect, Live, Node, Note, Purpose, SNAPSHOT_AGAIN, ring};
use crate::ami::action::Action;
use crate::ami::event::{DeviceState, Event};
use crate::ami::frame::Message;
use crate::ami::item::ChannelItem;
use crate::ami::outcome::Answer;
use crate::ids::{ChannelId, Now, Phone, SessionId};
use crate::node::session::{Reason, Session};

/// Which lists of the running snapshot have come.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    devices: bool,
    channels: bool,
}

impl Node {
    /// Starts a snapshot. Until it is complete the node is not in the rotation.
    pub(super) fn sync(&mut self) {
        self.asterisk = Asterisk::Syncing { again_at: None };
        self.snapshot = Snapshot::default();
        self.ask_devices();
        self.send(Purpose::Channels, None, Action::status(&ring::VARIABLES));
    }

    pub(super) fn ask_devices(&mut self) {
        self.snapshot.devices = false;
        self.send(Purpose::Devices, None, Action::device_state_list());
    }

    pub(super) fn snapshot_answer(&mut self, purpose: Purpose, answer: Answer, now: Now) {
        let devices = matches!(purpose, Purpose::Devices);
        match answer {
            Answer::List { items, .. } if devices => {
                self.roster.replace(items.iter().filter_map(device));
                self.snapshot.devices = true;
            }
            Answer::List { items, .. } => {
                self.replace_channels(&items, now);
                self.snapshot.channels = true;
            }
            // With the connection gone, the next one starts over.
            Answer::NotSent(_) | Answer::Unknown(_) if matches!(self.asterisk, Asterisk::Away { .. }) => return,
            Answer::Success(_) | Answer::Error { .. } | Answer::NotSent(_) | Answer::Unknown(_) => {
                let action = if devices { "DeviceStateList" } else { "Status" };
                let message = describe(&answer);
                self.effects.push_back(Effect::Note(Note::SnapshotFailed { action, message }));
                self.asterisk = Asterisk::Syncing { again_at: Some(now.after(SNAPSHOT_AGAIN)) };
                // Who knows how long: others can ring them now.
                self.give_waiting_back(Reason::NodeLost);
                return;
            }
        }
        if matches!(self.asterisk, Asterisk::Syncing { .. }) && self.snapshot.devices && self.snapshot.channels {
            self.asterisk = Asterisk::Ready;
            let (registered, channels) = (self.roster.registered(), self.channels.len());
            let sessions = self.sessions.len();
            self.effects.push_back(Effect::Note(Note::Synced { registered, channels, sessions }));
        }
    }

    fn replace_channels(&mut self, items: &[Message], now: Now) {
        self.channels.clear();
        let mut ours = BTreeSet::new();
        for item in items.iter().filter_map(channel) {
            self.channels.insert(item.channel.unique.into());
            if let Some(ChannelId(id)) = ChannelId::parse(item.channel.unique) {
                ours.insert(id);
                self.channel_found(id, &item, now);
            }
        }
        let restarted = std::mem::take(&mut self.restarted);
        let lost: Vec<SessionId> = self.sessions.keys().filter(|id| !ours.contains(id)).copied().collect();
        for id in lost {
            if let Some(session) = self.sessions.get_mut(&id) {
                let step = session.missing(restarted);
                self.step(id, step);
            }
        }
    }

    fn channel_found(&mut self, id: SessionId, item: &ChannelItem<'_>, now: Now) {
        let state = item.channel.state;
        if let Some(session) = self.sessions.get_mut(&id) {
            let step = session.found(state, self.ring.timeout, now);
            self.step(id, step);
            return;
        }
        let Some(login) = ring::login_of(id, |name| std::str::from_utf8(item.variable(name)?).ok()) else {
            self.effects.push_back(Effect::Note(Note::Unreadable(id)));
            return;
        };
        let session = Session::adopted(login.clone(), state, self.ring.timeout, now);
        let live = if session.is_live() { Live::Yes } else { Live::NotYet };
        self.sessions.insert(id, session);
        self.effects.push_back(Effect::Adopt(login, live));
    }

    /// The answer to a question about one session: is its channel there?
    pub(super) fn probe_answer(&mut self, id: SessionId, answer: Answer, now: Now) {
        let Answer::List { items, .. } = answer else {
            // Of a session that is known, its deadline asks again. Of a channel that nobody here knows, nobody would.
            if self.asterisk == Asterisk::Ready && !self.sessions.contains_key(&id) {
                self.sync();
            }
            return;
        };
        let unique = ChannelId(id).to_string();
        let found = items.iter().filter_map(channel).find(|item| item.channel.unique == unique.as_bytes());
        match (found, self.sessions.get_mut(&id)) {
            (Some(item), _) => self.channel_found(id, &item, now),
            (None, Some(session)) => {
                let step = session.missing(false);
                self.step(id, step);
            }
            (None, None) => {}
        }
    }
}

/// An item of a list that cannot be read is left out: the phone or channel counts as not there.
fn device(message: &Message) -> Option<(Phone, DeviceState)> {
    match Event::parse(message).ok()? {
        Event::DeviceState { phone, state } => Some((phone, state)),
        Event::FullyBooted { .. }
        | Event::Shutdown { .. }
        | Event::HangupRequest { .. }
        | Event::Reload { .. }
        | Event::ContactStatus { .. }
        | Event::PeerStatus { .. }
        | Event::Newchannel(_)
        | Event::Newstate(_)
        | Event::Hangup { .. }
        | Event::OriginateResponse { .. }
        | Event::Other => None,
    }
}

fn channel(message: &Message) -> Option<ChannelItem<'_>> {
    ChannelItem::parse(message).ok()?
}

fn describe(answer: &Answer) -> String {
    match answer {
        Answer::Success(_) | Answer::List { .. } => "not a list".to_owned(),
        Answer::Error { message, .. } => message.clone(),
        Answer::NotSent(why) => why.to_string(),
        Answer::Unknown(why) => why.to_string(),
    }
}
