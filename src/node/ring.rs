//! The Originate that rings an agent's phone. Owns how a login becomes an AMI action and how a channel's variables
//! become a login again. Must never know when to ring.

use std::time::Duration;

use crate::ami::{Action, ActionError, Originate, Target};
use crate::config::{Placeholder, RingSettings, Template};
use crate::ids::{ChannelId, NodeName, SessionId, Technology};
use crate::node::session::{Class, Login};

/// Channel variables by which a later daemon knows whose channel it is.
pub const VARIABLES: [&str; 6] = [
    "EVENRING_ALIAS",
    "EVENRING_EXTENSION",
    "EVENRING_AGENT",
    "EVENRING_CAMPAIGN",
    "EVENRING_CLASS",
    "EVENRING_TRY",
];

/// Builds the Originate of one login.
///
/// # Errors
/// When a value of the configuration, filled in, is not fit for the wire.
pub fn originate(
    login: &Login,
    technology: Technology,
    node: &NodeName,
    settings: &RingSettings,
) -> Result<Action, ActionError> {
    let fill = |template: &Template| {
        template.render(|placeholder| match placeholder {
            Placeholder::Extension => login.extension.to_string(),
            Placeholder::Alias => login.alias.to_string(),
            Placeholder::Agent => login.agent.to_string(),
            Placeholder::Campaign => login.campaign.as_ref().map(ToString::to_string).unwrap_or_default(),
            Placeholder::Session => login.session.to_string(),
            Placeholder::Node => node.to_string(),
            Placeholder::Technology => technology.to_string(),
        })
    };
    let target = match &settings.target {
        crate::config::RingTarget::Application { name, data } => {
            Target::Application { name: fill(name), data: fill(data) }
        }
        crate::config::RingTarget::Exten { context, exten, priority } => {
            Target::Exten { context: fill(context), exten: fill(exten), priority: *priority }
        }
    };
    let campaign = login.campaign.as_ref().map(ToString::to_string).unwrap_or_default();
    let class = match login.class {
        Class::Local => "local",
        Class::Remote => "remote",
    };
    let own = [
        login.alias.to_string(),
        login.extension.to_string(),
        login.agent.to_string(),
        campaign,
        class.to_string(),
        login.attempt.to_string(),
    ];
    let mut variables: Vec<(String, String)> =
        VARIABLES.iter().map(ToString::to_string).zip(own).collect();
    variables.extend(settings.variables.iter().map(|(name, value)| (name.clone(), fill(value))));
    Action::originate(&Originate {
        channel: fill(&settings.dial),
        target,
        caller_id: fill(&settings.caller_id),
        timeout: settings.timeout,
        variables,
        channel_id: ChannelId(login.session),
    })
}

/// Reads a login back from the variables of a channel of ours; `None` if it does not carry them all.
pub fn login_of<'a>(session: SessionId, variable: impl Fn(&str) -> Option<&'a str>) -> Option<Login> {
    let campaign = match variable("EVENRING_CAMPAIGN") {
        None | Some("") => None,
        Some(text) => Some(text.parse().ok()?),
    };
    Some(Login {
        session,
        attempt: variable("EVENRING_TRY")?.parse().ok()?,
        alias: variable("EVENRING_ALIAS")?.parse().ok()?,
        extension: variable("EVENRING_EXTENSION")?.parse().ok()?,
        agent: variable("EVENRING_AGENT")?.parse().ok()?,
        campaign,
        class: match variable("EVENRING_CLASS")? {
            "local" => Class::Local,
            "remote" => Class::Remote,
            _ => return None,
        },
    })
}

/// How long an order stays hidden in its queue after it was taken: longer than it can ring.
pub fn visibility(ring_timeout: Duration) -> Duration {
    ring_timeout + Duration::from_secs(10)
}
