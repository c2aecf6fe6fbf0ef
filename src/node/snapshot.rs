//! Snapshots: after any gap, query everything from Asterisk and replace what was known. Owns when a node is in sync, and how
//! the list of channels becomes sessions; `phones` has the lists of phones. Must never keep unconfirmed state.

use std::collections::BTreeSet;
use std::time::Duration;

use super::rights::is_denied;
use super::{Asterisk, Effect, Live, Node, Note, Purpose, ring};
use crate::ami::action::Action;
use crate::ami::frame::Message;
use crate::ami::item::ChannelItem;
use crate::ami::outcome::{Answer, Unknown};
use crate::ids::{ChannelId, Now, SessionId};
use crate::node::session::{Login, Reason, Session};

/// A failed snapshot is tried again after this.
const SNAPSHOT_AGAIN: Duration = Duration::from_secs(1);

/// What of the running snapshot has come.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    identity: bool,
    channels: bool,
}

/// The lists whose item count was wrong the last time.
#[derive(Debug, Default)]
pub(super) struct Miscounted {
    pub(super) devices: bool,
    channels: bool,
}

impl Node {
    /// Starts a snapshot. Until it is complete the node is not in the rotation.
    pub(super) fn sync(&mut self) {
        self.asterisk = Asterisk::Syncing { again_at: None };
        self.snapshot = Snapshot::default();
        // Asterisk answers in order: whose channels they are is known before they come.
        self.send(Purpose::Identity, None, Action::core_status());
        self.ask_phones(true);
        self.send(Purpose::Channels, None, Action::status(&ring::VARIABLES));
    }

    pub(super) fn identity_answer(&mut self, answer: Answer, now: Now) {
        match answer {
            Answer::Success(message) => self.is_process(process(&message)),
            answer if is_denied(&answer) => self.is_process(None),
            Answer::List { .. } | Answer::Error { .. } | Answer::NotSent(_) | Answer::Unknown(_) => {
                return self.snapshot_failed("CoreStatus", &answer, now);
            }
        }
        self.snapshot.identity = true;
        self.in_sync();
    }

    pub(super) fn channels_answer(&mut self, answer: Answer, now: Now) {
        match answer {
            Answer::List { items } => {
                self.miscounted.channels = false;
                self.replace_channels(&items, true, now);
            }
            Answer::Unknown(Unknown::ListCount { items, counted }) if self.miscounted.channels => {
                let items = self.accepted("Status", items, counted);
                self.replace_channels(&items, false, now);
            }
            Answer::Success(_) | Answer::Error { .. } | Answer::NotSent(_) | Answer::Unknown(_) => {
                self.miscounted.channels = matches!(answer, Answer::Unknown(Unknown::ListCount { .. }));
                return self.snapshot_failed("Status", &answer, now);
            }
        }
        self.snapshot.channels = true;
        self.channel_check.synced(now);
        self.in_sync();
    }

    /// A list that is counted wrongly twice in a row will not come right: what could be read is better than no node.
    pub(super) fn accepted(&mut self, action: &'static str, items: Vec<Message>, counted: String) -> Vec<Message> {
        self.effects.push_back(Effect::Note(Note::Miscounted { action, found: items.len(), counted }));
        items
    }

    pub(super) fn snapshot_failed(&mut self, action: &'static str, answer: &Answer, now: Now) {
        // With the connection gone, the next one starts over.
        if self.is_away() && matches!(answer, Answer::NotSent(_) | Answer::Unknown(_)) {
            return;
        }
        self.effects.push_back(Effect::Note(Note::SnapshotFailed { action, message: describe(answer) }));
        // A login that may not have it would be refused again: another one begins with a snapshot.
        let again_at = if is_denied(answer) { None } else { Some(now.after(SNAPSHOT_AGAIN)) };
        self.asterisk = Asterisk::Syncing { again_at };
        // Who knows how long: others can ring them now.
        self.give_waiting_back(Reason::NodeLost);
    }

    pub(super) fn in_sync(&mut self) {
        let Snapshot { identity, channels } = self.snapshot;
        let phones = self.lists.are_complete();
        if matches!(self.asterisk, Asterisk::Syncing { .. }) && identity && phones && channels {
            self.asterisk = Asterisk::Ready;
            let (registered, channels) = (self.roster.registered(), self.channels.len());
            let sessions = self.sessions.len();
            self.effects.push_back(Effect::Note(Note::Synced { registered, channels, sessions }));
        }
    }

    /// `all`: no channel is missing in it.
    fn replace_channels(&mut self, items: &[Message], all: bool, now: Now) {
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
        let judged = all || restarted;
        let lost: Vec<SessionId> = self.sessions.keys().filter(|id| judged && !ours.contains(id)).copied().collect();
        for id in lost {
            if let Some(session) = self.sessions.get_mut(&id) {
                let step = session.missing(restarted, now);
                self.step(id, step);
            }
        }
    }

    pub(super) fn channel_found(&mut self, id: SessionId, item: &ChannelItem<'_>, now: Now) {
        let state = item.channel.state;
        if let Some(session) = self.sessions.get_mut(&id) {
            let step = session.found(state, self.ring.timeout, now);
            // It has been rung after all.
            if !session.is_waiting() {
                self.waiting.leave(id);
            }
            self.step(id, step);
            return;
        }
        let Some(login) = login_of(id, item) else {
            self.effects.push_back(Effect::Note(Note::Unreadable(id)));
            return;
        };
        let session = Session::adopted(login.clone(), state, self.ring.timeout, now);
        let live = if session.is_live() { Live::Yes } else { Live::NotYet };
        self.sessions.insert(id, session);
        self.effects.push_back(Effect::Adopt(login, live));
    }
}

/// Which Asterisk it is: when it started, in its own words. They are written down at its start and stay as they are however
/// its clock is set, so they are compared and never reckoned with.
fn process(status: &Message) -> Option<Box<[u8]>> {
    let (date, time) = (status.get("CoreStartupDate")?, status.get("CoreStartupTime")?);
    Some([date, b" ", time].concat().into())
}

/// Whose channel it is.
pub(super) fn login_of(id: SessionId, item: &ChannelItem<'_>) -> Option<Login> {
    ring::login_of(id, |name| std::str::from_utf8(item.variable(name)?).ok())
}

pub(super) fn channel(message: &Message) -> Option<ChannelItem<'_>> {
    ChannelItem::parse(message).ok()?
}

pub(super) fn describe(answer: &Answer) -> String {
    match answer {
        Answer::Success(_) | Answer::List { .. } => "not a list".to_owned(),
        Answer::Error { message, .. } => message.clone(),
        Answer::NotSent(why) => why.to_string(),
        Answer::Unknown(why) => why.to_string(),
    }
}
