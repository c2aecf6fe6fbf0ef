//! The phones that are left out, counted by reason with a few examples. Owns when a change is reported. Must never decide
//! which phones are left out: the lists, their names and the roster do.

use std::collections::BTreeSet;

use super::keyword::keywords;
use crate::ami::frame::Message;
use crate::ami::item::without_id;
use crate::ids::{Extension, Technology};

keywords! {
    /// Why a phone is left out.
    Why {
        /// Its name is no id: it could not be dialled safely.
        Name = "name",
        /// There are more phones than `ami.max_phones`.
        MaxPhones = "max-phones",
        /// There are more devices than `ami.max_devices`: what these are is not known.
        MaxDevices = "max-devices",
    }
}

/// Those that are left out for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Why.
    pub reason: Why,
    /// How many.
    pub count: usize,
    /// The first of them, escaped.
    pub examples: Vec<String>,
}

/// Examples of each group.
const EXAMPLES: usize = 5;
/// Maximum length of a kept name; Asterisk's own names are not longer.
const NAME_BYTES: usize = 80;
/// Maximum number of names that are remembered.
const NAMES_MOST: usize = 100_000;

/// What one round of lists said, and the events since.
#[derive(Debug, Default)]
struct Round {
    names: BTreeSet<Box<[u8]>>,
    phones: BTreeSet<Extension>,
    devices: usize,
}

/// All that are left out.
#[derive(Debug, Default)]
pub struct LeftOut {
    is: Round,
    /// As the lists say that are on their way.
    next: Round,
    /// The last report.
    told: Vec<Group>,
    /// Something may be different from that.
    changed: bool,
}

impl LeftOut {
    /// A new round of lists begins.
    pub(super) fn begin(&mut self) {
        self.next = Round::default();
    }

    /// The items of a list, and how many more it had than are kept.
    pub(super) fn listed(&mut self, items: &[Message], beyond: usize) {
        self.next.devices += beyond;
        for (technology, name) in items.iter().filter_map(without_id) {
            self.next.add(technology, name);
        }
    }

    /// The lists have all come: what they said is so.
    pub(super) fn set_admin_state(&mut self) {
        self.is = std::mem::take(&mut self.next);
        self.changed = true;
    }

    /// An event named a phone whose name is not a valid id.
    pub(super) fn name(&mut self, technology: Technology, name: &[u8]) {
        self.changed |= self.is.add(technology, name);
    }

    /// There was no room for this one.
    pub(super) fn phone(&mut self, extension: Extension) {
        if self.is.phones.len() < NAMES_MOST {
            self.changed |= self.is.phones.insert(extension);
        }
    }

    /// How many, by reason.
    pub fn counts(&self) -> [(Why, usize); 3] {
        let Round { names, phones, devices } = &self.is;
        [(Why::Name, names.len()), (Why::MaxPhones, phones.len()), (Why::MaxDevices, *devices)]
    }

    /// Reports everything again: Redis lost its data.
    pub(super) fn tell_again(&mut self) {
        self.told.clear();
        self.changed = true;
    }

    /// The phones left out, if they differ from the last report.
    pub fn take_news(&mut self) -> Option<Vec<Group>> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let groups = self.groups();
        if groups == self.told {
            return None;
        }
        self.told.clone_from(&groups);
        Some(groups)
    }

    fn groups(&self) -> Vec<Group> {
        let counts = self.counts().into_iter().filter(|(_, count)| *count > 0);
        let examples = |why| match why {
            Why::Name => self.is.names.iter().take(EXAMPLES).map(|name| name.escape_ascii().to_string()).collect(),
            Why::MaxPhones => self.is.phones.iter().take(EXAMPLES).map(ToString::to_string).collect(),
            Why::MaxDevices => Vec::new(),
        };
        counts.map(|(why, count)| Group { reason: why, count, examples: examples(why) }).collect()
    }
}

impl Round {
    fn add(&mut self, technology: Technology, name: &[u8]) -> bool {
        let name = [technology.as_str().as_bytes(), b"/", name.get(..NAME_BYTES).unwrap_or(name)].concat();
        self.names.len() < NAMES_MOST && self.names.insert(name.into())
    }
}

/// Whether the difference is worth a log line: a reason is new or gone, or its number halved or doubled.
pub fn differs_much(said: &[Group], now: &[Group]) -> bool {
    let count = |groups: &[Group], why| groups.iter().find(|group| group.reason == why).map_or(0, |group| group.count);
    Why::ALL.into_iter().any(|why| {
        let (before, after) = (count(said, why), count(now, why));
        before != after && (before.min(after) == 0 || before.max(after) >= 2 * before.min(after))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str) -> Message {
        Message::new(format!("Event: DeviceStateChange\r\nDevice: {name}\r\nState: NOT_INUSE\r\n"))
    }

    fn shown(groups: &[Group]) -> String {
        let group = |g: &Group| format!("{} {} ({})", g.count, g.reason.as_str(), g.examples.join(" "));
        groups.iter().map(group).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn who_is_left_out_is_counted_once_and_told_when_it_changes() {
        let mut left = LeftOut::default();
        assert_eq!(left.take_news(), None);
        let items = ["PJSIP/cc100", "PJSIP/cc500@tenant1", "SIP/a b", "Local/x@y", "PJSIP/cc500@tenant1"].map(device);
        let peer = "Event: PeerEntry\r\nChanneltype: IAX\r\nObjectName: ex\u{1b}[31m\r\n";
        left.begin();
        left.listed(&items, 0);
        left.listed(&[Message::new(peer)], 0);
        assert_eq!(left.take_news(), None, "until all lists have come");
        left.set_admin_state();
        let news = left.take_news().unwrap();
        assert_eq!(shown(&news), "3 name (IAX2/ex\\x1b[31m PJSIP/cc500@tenant1 SIP/a b)");
        left.name(Technology::Pjsip, b"cc500@tenant1");
        assert_eq!(left.take_news(), None, "that one is known");
        // The same lists again are no news.
        left.begin();
        left.listed(&items, 0);
        left.listed(&[Message::new(peer)], 0);
        left.set_admin_state();
        assert_eq!(left.take_news(), None);
        left.begin();
        left.listed(&items[..1], 7);
        left.set_admin_state();
        for number in 0..6 {
            left.phone(format!("cc10{number}").parse().unwrap());
        }
        left.phone("cc100".parse().unwrap());
        let now = left.take_news().unwrap();
        assert_eq!(shown(&now), "6 max-phones (cc100 cc101 cc102 cc103 cc104), 7 max-devices ()");
        left.tell_again();
        assert_eq!(left.take_news(), Some(now));
        left.begin();
        left.set_admin_state();
        assert_eq!(left.take_news(), Some(Vec::new()), "nobody is left out");
    }

    #[test]
    fn people_are_told_again_when_it_is_much() {
        let name = |count| vec![Group { reason: Why::Name, count, examples: Vec::new() }];
        let other = vec![Group { reason: Why::MaxPhones, count: 1, examples: Vec::new() }];
        assert!(differs_much(&[], &name(1)) && differs_much(&name(1), &[]) && differs_much(&name(1), &other));
        assert!(differs_much(&name(10), &name(20)) && differs_much(&name(10), &name(5)));
        assert!(!differs_much(&name(10), &name(19)) && !differs_much(&name(10), &name(6)) && !differs_much(&[], &[]));
    }
}
