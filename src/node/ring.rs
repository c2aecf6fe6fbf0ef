//! The Originate that rings an agent's phone. Owns how a login becomes an AMI action and how a channel's variables
//! become a login again. Must never know when to ring.

use std::time::Duration;

use crate::ami::action::{Action, ActionError, Originate, Target};
use crate::ids::{Campaign, ChannelId, NodeName, Phone, SessionId};
use crate::node::session::{Class, Login};
use crate::ring_policy::{Placeholder, RingSettings, RingTarget, Template};

/// Channel variables by which a later daemon knows whose channel it is.
pub const VARIABLES: [&str; 6] =
    ["EVENRING_ALIAS", "EVENRING_EXTENSION", "EVENRING_AGENT", "EVENRING_CAMPAIGN", "EVENRING_CLASS", "EVENRING_TRY"];

/// Builds the Originate of one login to the phone as Asterisk spells it.
///
/// # Errors
/// When a value of the configuration, filled in, is not fit for the wire.
pub fn originate(
    login: &Login,
    phone: &Phone,
    node: &NodeName,
    settings: &RingSettings,
) -> Result<Action, ActionError> {
    let session = login.session.to_string();
    let campaign = login.campaign.as_ref().map_or("", Campaign::as_str);
    let fill = |template: &Template| {
        template.render(|placeholder| match placeholder {
            Placeholder::Extension => phone.extension.as_str(),
            Placeholder::Alias => login.alias.as_str(),
            Placeholder::Agent => login.agent.as_str(),
            Placeholder::Campaign => campaign,
            Placeholder::Session => &session,
            Placeholder::Node => node.as_str(),
            Placeholder::Technology => phone.technology.as_str(),
        })
    };
    let target = match &settings.target {
        RingTarget::Application { name, data } => {
            Target::Application { name: name.clone(), data: data.as_ref().map(fill).unwrap_or_default() }
        }
        RingTarget::Dialplan { context, exten, priority } => {
            Target::Exten { context: fill(context), exten: fill(exten), priority: *priority }
        }
    };
    let class = match login.class {
        Class::Local => "local",
        Class::Remote => "remote",
    };
    let attempt = login.attempt.to_string();
    let own = [login.alias.as_str(), login.extension.as_str(), login.agent.as_str(), campaign, class, &attempt];
    let mut variables: Vec<(String, String)> =
        VARIABLES.iter().zip(own).map(|(name, value)| ((*name).to_owned(), value.to_owned())).collect();
    variables.extend(settings.variables.iter().map(|(name, value)| (name.clone(), fill(value))));
    Action::originate(&Originate {
        channel: fill(&settings.dial),
        target,
        caller_id: Some(fill(&settings.caller_id)),
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
