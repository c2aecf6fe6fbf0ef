//! The actions whose answer has not come.
//!
//! Owns which answer belongs to whom, and the items of lists until they are complete. Must never know how a session logs
//! in or what is written. All deadlines are equally long, so the oldest is the first to end.

use std::collections::{BTreeMap, VecDeque};

use crate::ids::Now;

use super::action::Action;
use super::event::number;
use super::frame::Message;
use super::outcome::{Answer, Tag, Unknown};

/// The most items of a list, but for one of devices.
pub const LIST_ITEMS: usize = 100_000;

struct Open {
    tag: Tag,
    deadline: Now,
    /// How many bytes of the session are written when this action is.
    ends_at: u64,
    /// The items so far, if it is a list.
    items: Option<Items>,
    /// The words that mean an empty list.
    empty: Option<&'static str>,
}

/// The items of a list.
#[derive(Default)]
struct Items {
    kept: Vec<Message>,
    /// How many are kept, where more are no fault.
    most: Option<usize>,
    /// How many came beyond those.
    beyond: usize,
}

/// To whom a message belongs.
pub(super) enum Owner {
    /// To nobody here.
    Nobody,
    /// To an action that goes on.
    Kept,
    /// To an action that has ended with it.
    Ended(Tag, Answer),
}

#[derive(Default)]
pub(super) struct Pending {
    open: BTreeMap<Box<[u8]>, Open>,
    /// In the order in which they end. The first is always one that is open.
    deadlines: VecDeque<(Now, Box<[u8]>)>,
}

impl Pending {
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn contains(&self, id: &[u8]) -> bool {
        self.open.contains_key(id)
    }

    /// `devices_most`: so many items of a list of devices are kept.
    pub(super) fn insert(
        &mut self,
        id: &str,
        (tag, action): (Tag, &Action),
        devices_most: usize,
        deadline: Now,
        ends_at: u64,
    ) {
        let key: Box<[u8]> = id.as_bytes().into();
        let most = action.lists_devices().then_some(devices_most);
        let items = action.is_list().then(|| Items { most, ..Items::default() });
        self.open.insert(key.clone(), Open { tag, deadline, ends_at, items, empty: action.empty_message() });
        self.deadlines.push_back((deadline, key));
    }

    /// An answer. A list goes on after its first one.
    pub(super) fn response(&mut self, id: &[u8], message: Message) -> Owner {
        let Some(open) = self.open.get(id) else { return Owner::Nobody };
        let failed = message.response() == Some(b"Error");
        let starts = message.get("EventList").is_some_and(|value| value.eq_ignore_ascii_case(b"start"));
        if open.items.is_some() && starts && !failed {
            return Owner::Kept;
        }
        let is_empty_list =
            open.items.is_some() && open.empty.is_some_and(|text| message.get("Message") == Some(text.as_bytes()));
        let answer = match (failed, is_empty_list) {
            (true, true) => Answer::List { items: Vec::new() },
            (true, false) => Answer::Error { message: message.shown("Message"), raw: message },
            (false, _) => Answer::Success(message),
        };
        self.end(id, answer)
    }

    /// An event with an ActionID: an item if a list of that id is open.
    pub(super) fn item(&mut self, id: &[u8], message: &Message) -> Owner {
        let Some(items) = self.open.get_mut(id).and_then(|open| open.items.as_mut()) else { return Owner::Nobody };
        match message.get("EventList") {
            None => {
                match items.most {
                    Some(most) if items.kept.len() >= most => items.beyond += 1,
                    None if items.kept.len() >= LIST_ITEMS => {
                        return self.end(id, Answer::Unknown(Unknown::ListTooLong { limit: LIST_ITEMS }));
                    }
                    Some(_) | None => items.kept.push(message.clone()),
                }
                Owner::Kept
            }
            Some(end) if end.eq_ignore_ascii_case(b"Complete") => {
                let items = std::mem::take(items);
                let answer = complete(items, message);
                self.end(id, answer)
            }
            Some(_) => {
                let answer = Answer::Error {
                    message: format!("the list was {}", message.shown("EventList")),
                    raw: message.clone(),
                };
                self.end(id, answer)
            }
        }
    }

    /// The next action whose time is over.
    pub(super) fn expired(&mut self, now: Now) -> Option<Tag> {
        let (deadline, id) = self.deadlines.front()?;
        if *deadline > now {
            return None;
        }
        let open = self.open.remove(id);
        self.tidy();
        open.map(|open| open.tag)
    }

    /// When [`Pending::expired`] has something next.
    pub(super) fn next_deadline(&self) -> Option<Now> {
        self.deadlines.front().map(|(deadline, _)| *deadline)
    }

    /// Forgets all, oldest first. Of each, whether it was written to its end, given how many bytes were.
    pub(super) fn drain(&mut self, written: u64) -> Vec<(Tag, bool)> {
        let ids = std::mem::take(&mut self.deadlines);
        let still_open = |(deadline, id): (Now, Box<[u8]>)| {
            let open = self.open.get(&id)?;
            (open.deadline == deadline)
                .then(|| self.open.remove(&id))
                .flatten()
                .map(|open| (open.tag, open.ends_at <= written))
        };
        ids.into_iter().filter_map(still_open).collect()
    }

    fn end(&mut self, id: &[u8], answer: Answer) -> Owner {
        let Some(open) = self.open.remove(id) else { return Owner::Nobody };
        self.tidy();
        Owner::Ended(open.tag, answer)
    }

    /// Drops deadlines of what has ended. An id may be in use again, then with a later deadline.
    fn tidy(&mut self) {
        while let Some((deadline, id)) = self.deadlines.front() {
            if self.open.get(id).is_some_and(|open| open.deadline == *deadline) {
                return;
            }
            self.deadlines.pop_front();
        }
    }
}

fn complete(items: Items, message: &Message) -> Answer {
    let Items { kept: items, beyond, .. } = items;
    match message.get("ListItems") {
        Some(counted) if number(counted) != u64::try_from(items.len() + beyond).ok() => {
            Answer::Unknown(Unknown::ListCount { items, counted: message.shown("ListItems") })
        }
        Some(_) | None if beyond > 0 => Answer::Unknown(Unknown::ListCut { items, beyond }),
        Some(_) | None => Answer::List { items },
    }
}
