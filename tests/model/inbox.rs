//! The shared inbox in both worlds: logins that a foreign client queues, and the answers it gets. Owns what a client
//! writes, the order in which a node serves one, and where it may die on the way. Must never know how a login is placed.

use evenring::registry::session_of_message;
use evenring::registry::view::Placement;

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
            "alias": login.alias, "agent": login.agent, "remote": login.remote,
            "campaign": (!login.campaign.is_empty()).then_some(login.campaign),
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
    })
}

impl World {
    /// Takes a message off the inbox. Only who takes it off sends an answer, and only where one is wanted.
    fn answer_mail(&mut self, id: &str, text: String) {
        let Some(mail) = self.inbox.remove(id) else { return };
        if login_of(&mail.body).is_some() && mail.body.contains(REPLY) {
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

    pub(super) async fn serve(&mut self, until: Until) -> Checked {
        let real = self.cluster.registry.receive_login().await.map_err(|e| e.to_string())?;
        let now = self.world.now;
        let oldest = self.world.inbox.values().map(|mail| mail.visible_at).filter(|at| *at <= now).min();
        same("something in the inbox", real.is_some(), oldest.is_some())?;
        let Some(message) = real else { return Ok(()) };
        let mail = self.world.inbox.get_mut(&message.id).ok_or_else(|| format!("{} is nowhere", message.id))?;
        same("oldest first", Some(mail.visible_at), oldest)?;
        (mail.visible_at, mail.received) = (now + limits::INBOX_VISIBILITY, mail.received + 1);
        let login = login_of(&mail.body);
        same("whether it is a login", message.login.is_ok(), login.is_some())?;
        let placed = match login.filter(|_| until != Until::Received) {
            Some(login) => Some(self.place_mail(&message.id, &login).await?),
            None => None,
        };
        // Nobody knows yet: it comes back.
        let waits = placed.as_ref().is_some_and(|(_, model)| model.verdict == "not-now");
        if until == Until::Answered && !waits {
            let (placement, text) = match &placed {
                Some((placement, model)) => (Ok(placement), self.answer_text(placement, model)),
                None => (Err("no login"), String::new()),
            };
            self.cluster.registry.answer_login(&message, placement).await.map_err(|e| e.to_string())?;
            self.world.answer_mail(&message.id, text);
        }
        self.received.push(message);
        Ok(())
    }

    /// The session's id is made of the message's, so that a message which came back finds its own session.
    async fn place_mail(&mut self, message: &str, login: &Login) -> Result<(Placement, Answer), String> {
        let at = session_of_message(message);
        let real = self.cluster.registry.place(&request(login), at).await.map_err(|e| e.to_string())?;
        self.look().await;
        let model =
            self.world.place(&wish(login), at, false, Chosen::Told(&|id| self.look.node_of(&id.to_string())))?;
        if model.verdict == "placed" {
            self.known.push(at);
            self.history.insert(at, self.world.sessions[&at].clone());
        }
        same("place", answer(&real), comparable(model.clone()))?;
        Ok((real, model))
    }

    /// What the sender is told.
    fn answer_text(&self, asked: &Placement, model: &Answer) -> String {
        let session = model.session.filter(|_| model.verdict != "refused");
        let state = session.map_or("refused", |id| self.world.sessions[&id].state);
        let session = model.session.map(|id| id.to_string()).unwrap_or_default();
        format!(
            r#"{{"alias":"{}","session":"{session}","node":"{}","state":"{state}","reason":"{}"}}"#,
            asked.alias, model.node, model.reason
        )
    }

    pub(super) async fn answer_again(&mut self, which: usize) -> Checked {
        let Some(message) = self.received.get(which % self.received.len().max(1)) else { return Ok(()) };
        // It may be on its way to another node, which then finds it gone; an answer to what was answered is none.
        self.cluster.registry.answer_login(message, Err("said again")).await.map_err(|e| e.to_string())?;
        let alias = message.login.as_ref().map(|login| login.request().alias.to_string()).unwrap_or_default();
        let text = format!(r#"{{"alias":"{alias}","session":"","node":"","state":"refused","reason":"said again"}}"#);
        let id = message.id.clone();
        self.world.answer_mail(&id, text);
        Ok(())
    }
}
