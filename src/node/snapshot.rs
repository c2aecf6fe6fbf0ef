//! After any gap: ask Asterisk for everything and replace what was believed. Owns the lists and how they become
//! roster and sessions. Must never patch a guess.

use std::collections::BTreeSet;

use super::{Asterisk, Effect, Live, Node, Note, Purpose, SNAPSHOT_AGAIN, ring};
use crate::ami::{Action, Answer, ChannelItem, ChannelState, DeviceItem, Message};
use crate::ids::{ChannelId, Now, SessionId};
use crate::node::session::Session;

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
        self.send(Purpose::Devices, None, Action::device_state_list());
    }

    pub(super) fn snapshot_answer(&mut self, purpose: Purpose, answer: Answer, now: Now) {
        let devices = matches!(purpose, Purpose::Devices);
        match answer {
            Answer::List { items, .. } if devices => {
                let phones = items.iter().filter_map(DeviceItem::parse).map(|item| (item.phone, item.state));
                self.roster.replace(phones);
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
                let message = answer.describe();
                self.effects.push_back(Effect::Note(Note::SnapshotFailed { action, message }));
                self.asterisk = Asterisk::Syncing { again_at: Some(now.after(SNAPSHOT_AGAIN)) };
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
        for item in items.iter().filter_map(ChannelItem::parse) {
            self.channels.insert(item.unique.into());
            if let Some(ChannelId(id)) = ChannelId::parse(item.unique) {
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
        let live = item.state == ChannelState::Up;
        if let Some(session) = self.sessions.get_mut(&id) {
            let step = session.found(live, self.ring.timeout, now);
            self.step(id, step);
            return;
        }
        let Some(login) = ring::login_of(id, |name| item.variable(name)) else {
            self.effects.push_back(Effect::Note(Note::Unreadable(id)));
            return;
        };
        self.sessions.insert(id, Session::adopted(login.clone(), live, self.ring.timeout, now));
        self.effects.push_back(Effect::Adopt(login, if live { Live::Yes } else { Live::NotYet }));
    }

    /// The answer to a question about one session: is its channel there?
    pub(super) fn probe_answer(&mut self, id: SessionId, answer: Answer, now: Now) {
        let Answer::List { items, .. } = answer else { return };
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let unique = ChannelId(id).to_string();
        let found = items.iter().filter_map(ChannelItem::parse).find(|item| item.unique == unique.as_bytes());
        let step = match found {
            Some(item) => session.found(item.state == ChannelState::Up, self.ring.timeout, now),
            None => session.missing(false),
        };
        self.step(id, step);
    }
}
