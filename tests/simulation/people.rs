//! The agents: who logs in where, clicks twice, asks again because the answer was lost, logs out. Owns their wishes. Must
//! never know how a login is placed.

use evenring::ids::SessionId;

use super::Sim;
use super::agenda::Event;
use super::model::rules::Wish;
use super::model::world::{Chosen, Session};

impl Sim {
    fn wish(&mut self) -> Wish {
        let phone = self.dice.index(self.setup.phones);
        let alias = match self.dice.index(12) {
            0 => "desk".to_owned(),
            1 => format!("e{phone}"),
            _ => format!("e{phone}x"),
        };
        let agent = match self.dice.index(6) {
            0 => None,
            1 => Some(format!("a{}", self.dice.index(self.setup.phones))),
            _ => Some(format!("a{phone}")),
        };
        let (remote, moves) = (self.dice.chance(1_000), self.dice.chance(4_000));
        Wish { alias, agent, campaign: String::new(), remote, moves, hold: None }
    }

    fn new_session(&mut self) -> SessionId {
        self.sessions += 1;
        SessionId::from_bits(self.sessions)
    }

    /// Somebody wants to log in.
    pub fn login(&mut self) -> bool {
        let wait = self.dice.span(1, self.setup.login_gap * 2);
        if self.chaos() {
            self.agenda.put(self.now + wait, Event::Login);
        }
        let (wish, id) = (self.wish(), self.new_session());
        if self.dice.chance(800) {
            let (other, at) = (self.new_session(), self.now + self.dice.upto(5));
            self.agenda.put(at, Event::Again(Box::new(wish.clone()), other));
        }
        if self.dice.chance(800) {
            let at = self.now + self.dice.delay(3_000);
            self.agenda.put(at, Event::Again(Box::new(wish.clone()), id));
        }
        self.place(&wish, id)
    }

    /// One request to log in.
    pub fn place(&mut self, wish: &Wish, id: SessionId) -> bool {
        let now = self.now;
        if !self.store.up || self.store.stalled_until > now {
            self.ask_again(wish);
            return false;
        }
        self.store.pass(now);
        // The record of a session that ended is kept far longer than anybody asks again.
        // A clock that was set makes it expire early.
        let expired = self.store.was_set && !self.store.world.sessions.contains_key(&id);
        let keep = if expired { 0 } else { self.store.world.limits.keep };
        if self.history.forgotten(id, now, keep) {
            return false;
        }
        let answer = self.store.world.place(wish, id, false, Chosen::Free).expect("a free choice");
        self.trace(|| {
            format!(
                "login {} {:?} as {id}: {} {} {}",
                wish.alias, wish.agent, answer.verdict, answer.node, answer.reason
            )
        });
        if answer.verdict == "not-now" {
            self.ask_again(wish);
        }
        if let Some(old) = answer.moved_from {
            self.moves += 1;
            self.history.logged_out.insert(old);
        }
        if answer.verdict == "placed" {
            self.accepted += 1;
            self.history.asked.insert(id, now);
        }
        self.after_script(true, None);
        self.wake();
        true
    }

    /// There was no answer, or none yet: they try once more, as a new request.
    fn ask_again(&mut self, wish: &Wish) {
        if self.chaos() && self.dice.chance(7_000) {
            let (other, at) = (self.new_session(), self.now + self.dice.span(50, 1_500));
            self.agenda.put(at, Event::Again(Box::new(wish.clone()), other));
        }
    }

    /// Redis was away, and many who are logged in do not trust it: they ask once more, as a new request.
    pub fn callers(&mut self) -> bool {
        if !self.chaos() {
            return false;
        }
        let again = |s: &Session| Wish {
            hold: None,
            alias: s.alias.clone(),
            agent: Some(s.agent.clone()),
            campaign: String::new(),
            remote: s.remote,
            moves: false,
        };
        let wishes: Vec<Wish> = self.store.world.open().map(|(_, s)| again(s)).collect();
        for wish in wishes {
            if self.dice.chance(5_000) {
                let (other, at) = (self.new_session(), self.now + self.dice.upto(1_500));
                self.agenda.put(at, Event::Again(Box::new(wish), other));
            }
        }
        true
    }

    /// Somebody logs somebody out.
    pub fn logout(&mut self) -> bool {
        let wait = self.dice.span(1, self.setup.login_gap * 12);
        if self.chaos() {
            self.agenda.put(self.now + wait, Event::Logout);
        }
        if !self.store.up || self.store.stalled_until > self.now {
            return false;
        }
        self.store.pass(self.now);
        let who = format!("e{}x", self.dice.index(self.setup.phones));
        let (what, whom) = self.store.world.logout(&who);
        self.trace(|| format!("logout {who}: {what} {whom:?}"));
        if let Some((id, _)) = whom {
            self.history.logged_out.insert(id);
        }
        self.after_script(true, None);
        self.wake();
        whom.is_some()
    }

    /// A burst of logins of everybody whose phone is free, all at once.
    pub fn burst(&mut self) {
        for phone in 0..self.setup.phones {
            let wish = Wish {
                hold: None,
                alias: format!("e{phone}x"),
                agent: Some(format!("a{phone}")),
                campaign: String::new(),
                remote: false,
                moves: false,
            };
            let id = self.new_session();
            self.place(&wish, id);
        }
    }
}
