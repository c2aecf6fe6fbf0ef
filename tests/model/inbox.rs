//! The shared inbox in both worlds: logins that a foreign client queues, and the answers it gets. Owns what a client
//! writes, the order in which a node serves one, and where it may die on the way. Must never know how a login is placed.

use evenring::ids::SessionId;
use evenring::registry::{InboxMessage, Settled, session_of_message};

use super::op::{Login, Until};
use super::rules::Answer;
use super::run::{Checked, Pair, same};
use super::words::{answer, comparable, request, wish};
use super::world::{Chosen, Mail, World, limits};

/// The queue that the clients want their answers in.
pub const REPLY: &str = "web-1";

fn body(login: Option<&Login>, reply: bool) -> String {
    let mut body = match login {
        Some(login) => serde_json::json!({
            "alias": login.alias, "agent": login.agent, "remote": login.remote, "move": login.moves,
            "campaign": (!login.campaign.is_empty()).then_some(login.campaign),
            "ring": login.hold.map(|_| "none"), "ttl": login.hold.map(|(seconds, _)| format!("{seconds}s")),
            "require": login.hold.filter(|(_, known)| *known).map(|_| "known"),
        }),
        None => serde_json::json!({"alias": "no such"}),
    };
    if reply {
        body["reply"] = REPLY.into();
    }
    body.to_string()
}

fn login_of(body: &str) -> Option<Login> {
    use super::op::ALIASES;
    let body: serde_json::Value = serde_json::from_str(body).expect("the body is ours");
    let word = |name: &str| body[name].as_str();
    let known = |text: &str, all: &[&'static str]| all.iter().copied().find(|known| *known == text);
    Some(Login {
        alias: known(word("alias")?, &ALIASES)?,
        agent: word("agent").and_then(|agent| known(agent, &super::op::AGENTS)),
        campaign: known(word("campaign").unwrap_or_default(), &super::op::CAMPAIGNS)?,
        remote: body["remote"] == true,
        moves: body["move"] == true,
        hold: word("ttl").map(|ttl| (ttl.trim_end_matches('s').parse().expect("seconds"), word("require").is_some())),
    })
}

fn refusal(alias: &str, reason: &str) -> String {
    let reason = serde_json::Value::from(reason);
    let start = format!(r#"{{"alias":"{alias}","session":"","node":"","state":"refused","reason":{reason},"#);
    format!(r#"{start}"outcome":"refused","session_alias":"","extension":"","agent":"","moved_from":""}}"#)
}

impl World {
    /// Takes a message off the inbox. Only the one who takes it off sends an answer, and only if one is wanted.
    fn answer_mail(&mut self, id: &str, text: String) {
        let Some(mail) = self.inbox.remove(id) else { return };
        if mail.body.contains(REPLY) {
            self.answers.push(text);
            self.answers.sort_unstable();
        }
    }
}

impl Pair<'_> {
    pub(super) async fn submit(&mut self, login: Option<&Login>, reply: bool) -> Checked {
        let (id, body) = (format!("{:032}", self.number()), body(login, reply));
        let clock = (self.look.clock).to_string();
        let _: u64 = self.cluster.run(&["ZADD", "NS:logins", &clock, &id]).await;
        let _: u64 = self.cluster.run(&["HSET", "NS:logins:Q", &id, &body]).await;
        self.world.inbox.insert(id, Mail { body, visible_at: self.world.now, received: 0 });
        Ok(())
    }

    pub(super) async fn serve(&mut self, most: usize, until: Until) -> Checked {
        let received = self.cluster.registry.receive_logins(most, None).await.map_err(|e| e.to_string())?;
        same("nobody asked for a seat", received.listens, false)?;
        let now = self.world.now;
        let mut visible: Vec<_> =
            self.world.inbox.values().map(|mail| mail.visible_at).filter(|at| *at <= now).collect();
        visible.sort_unstable();
        visible.truncate(most);
        let messages = received.messages;
        same("how many were received", messages.len(), visible.len())?;
        for (message, oldest) in messages.iter().zip(visible) {
            let mail = self.world.inbox.get_mut(&message.id).ok_or_else(|| format!("{} is nowhere", message.id))?;
            same("oldest first", mail.visible_at, oldest)?;
            (mail.visible_at, mail.received) = (now + limits::INBOX_VISIBILITY, mail.received + 1);
            same("whether it is a login", message.login.is_ok(), login_of(&mail.body).is_some())?;
        }
        match until {
            Until::Received => {}
            // As a daemon did it that placed and answered in two steps, and died in between.
            Until::Placed => self.place_only(&messages).await?,
            Until::Answered => self.settle(&messages).await?,
        }
        self.received.extend(messages);
        Ok(())
    }

    async fn place_only(&mut self, messages: &[InboxMessage]) -> Checked {
        for message in messages {
            let Some(login) = login_of(&self.world.inbox[&message.id].body) else { continue };
            let at = session_of_message(&message.id);
            let real = self.cluster.registry.place(&request(&login), at).await.map_err(|e| e.to_string())?;
            self.look().await;
            let model = self.place_mail(&message.id, &login)?;
            same("place", answer(&real), comparable(model))?;
        }
        Ok(())
    }

    /// All of them, a part at a time: one look at nodes is enough for a script.
    async fn settle(&mut self, messages: &[InboxMessage]) -> Checked {
        let mut rest = messages;
        while !rest.is_empty() {
            let settled = self.in_parts.settle_logins(rest).await.map_err(|e| e.to_string())?;
            same("something was settled", settled.is_empty(), false)?;
            self.look().await;
            for (message, settled) in rest.iter().zip(&settled) {
                self.settled(message, settled)?;
            }
            rest = &rest[settled.len()..];
        }
        Ok(())
    }

    fn settled(&mut self, message: &InboxMessage, settled: &Settled) -> Checked {
        let login = self.world.inbox.get(&message.id).map(|mail| login_of(&mail.body));
        match (settled, login) {
            (Settled::Gone, None) => Ok(()),
            (Settled::NoLogin, Some(None)) => {
                let reason = message.login.as_ref().err().cloned().unwrap_or_default();
                self.world.dead.push(self.world.inbox[&message.id].body.clone());
                self.world.dead.sort_unstable();
                self.world.answer_mail(&message.id, refusal("no such", &reason));
                Ok(())
            }
            (Settled::Placed(real), Some(Some(login))) => {
                let model = self.place_mail(&message.id, &login)?;
                // Nobody knows yet: it comes back.
                if model.verdict != "not-now" {
                    let text = self.answer_text(login.alias, &model);
                    self.world.answer_mail(&message.id, text);
                }
                // The rows stay in Redis.
                let (mut real, mut model) = (answer(real), comparable(model));
                (real.rows, model.rows) = (Vec::new(), Vec::new());
                same("settle", real, model)
            }
            (settled, login) => Err(format!("{} was {settled:?}, and is {login:?}", message.id)),
        }
    }

    /// The session's id is made of the message's, so that a message which came back finds its own session.
    fn place_mail(&mut self, message: &str, login: &Login) -> Result<Answer, String> {
        let at = session_of_message(message);
        let model = self.world.place(&wish(login), at, false, Chosen::By(&|id| self.look.node_of(&id.to_string())))?;
        if model.verdict == "placed" {
            self.known.push(at);
            self.history.insert(at, self.world.sessions[&at].clone());
        }
        Ok(model)
    }

    /// What the sender is told.
    fn answer_text(&self, alias: &str, model: &Answer) -> String {
        let session = model.session.filter(|_| model.verdict != "refused");
        let state = session.map_or("refused", |id| self.world.sessions[&id].state);
        let of = model.session.map(|id| &self.world.sessions[&id]);
        let (its_alias, phone, agent) = of.map(|s| (&*s.alias, &*s.extension, &*s.agent)).unwrap_or_default();
        let text = |id: Option<SessionId>| id.map(|id| id.to_string()).unwrap_or_default();
        let (session, was) = (text(model.session), text(model.moved_from));
        let Answer { verdict, node, reason, .. } = model;
        let start = format!(r#"{{"alias":"{alias}","session":"{session}","node":"{node}","state":"{state}","#);
        let middle = format!(r#""reason":"{reason}","outcome":"{verdict}","session_alias":"{its_alias}","#);
        format!(r#"{start}{middle}"extension":"{phone}","agent":"{agent}","moved_from":"{was}"}}"#)
    }

    pub(super) async fn answer_again(&mut self, which: usize) -> Checked {
        let Some(message) = self.received.get(which % self.received.len().max(1)) else { return Ok(()) };
        // It may be on its way to another node, which then finds it gone; an answer to what was answered is none.
        let message = message.clone();
        self.settle(&[message]).await
    }
}
