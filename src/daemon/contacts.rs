//! The optional second AMI user: addresses, round-trip times and expiry of contacts, which only class `system` may
//! read. Owns its own AMI connection and how often it asks. Must never decide who is registered: the main
//! connection does, and everything works without this one.

use std::time::Duration;

use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tracing::{debug, warn};

use crate::ami::action::Action;
use crate::ami::item::Contact;
use crate::ami::link::LinkSettings;
use crate::ami::outcome::{Answer, Tag};
use crate::ami_client::{Ami, FromAmi, Renewed, ToAmi};
use crate::config::Settings;
use crate::ids::{Generation, NodeName};
use crate::registry::{Registry, RegistryError};
use crate::runtime::clock::Clock;
use crate::runtime::log_throttle::LogThrottle;

/// Keeps the two connections' ActionIDs apart.
const CONNECTIONS_FROM: u32 = 1 << 31;

/// One contact, as stored in Redis.
#[derive(Debug, Serialize)]
struct Details<'a> {
    uri: &'a str,
    user_agent: &'a str,
    status: &'a str,
    roundtrip_us: Option<u64>,
    /// Seconds since 1970 on the node's clock.
    expires_at: Option<u64>,
}

/// The task.
#[derive(Debug)]
pub(super) struct Contacts {
    ami: Ami,
    registry: Registry,
    node: NodeName,
    generation: Generation,
    interval: Duration,
    clock: Clock,
}

impl Contacts {
    pub(super) fn new(
        settings: &Settings,
        registry: Registry,
        mut link: LinkSettings,
        renewed: Renewed,
        generation: Generation,
        clock: Clock,
    ) -> Self {
        link.connection = CONNECTIONS_FROM;
        let node = settings.node.name.clone();
        let mut ami = Ami::new(node.clone(), settings.ami.clone(), link, clock, "contacts");
        ami.renewed = Some(renewed);
        Self { ami, registry, node, generation, interval: settings.ami.contacts_interval, clock }
    }

    /// Asks at every interval, until the daemon ends. `open` says whether this node has been registered.
    pub(super) async fn run(self, open: watch::Receiver<bool>) {
        let Self { ami, mut registry, node, generation, interval, clock } = self;
        let (to_ami, orders) = mpsc::channel(4);
        let (told, mut from_ami) = mpsc::channel(64);
        let ask = async move {
            let mut throttle = LogThrottle::default();
            let mut tick = clock.every(interval);
            loop {
                tokio::select! {
                    _ = tick.tick() => {
                        // Full or not connected: the next tick asks again.
                        let _ = to_ami.try_send(ToAmi::Send(Tag(0), None, Action::pjsip_show_contacts()));
                    }
                    message = from_ami.recv() => match message {
                        None => return,
                        Some(FromAmi::Answer(_, Answer::List { items })) if *open.borrow() => {
                            let details = items.iter().filter_map(read).collect::<Vec<_>>();
                            match registry.contacts(&node, generation, &details).await {
                                Ok(()) => debug!(%node, contacts = details.len(), "contact details"),
                                // The main connection registers the node; Redis's state is logged there.
                                Err(RegistryError::Forgotten | RegistryError::Fenced) => {}
                                Err(error) => debug!(%node, reason = %error, "contact details not written"),
                            }
                        }
                        Some(FromAmi::Answer(_, Answer::Error { message, .. })) => {
                            if let Some(suppressed) = throttle.allow(&message, clock.now()) {
                                warn!(%node, reason = message, suppressed, "no contact details: the second AMI user \
                                    needs read = system and write = system,reporting");
                            }
                        }
                        // A boot, or a connection anew: do not wait for the next tick.
                        Some(FromAmi::Event(message)) if message.event_name() == Some(b"FullyBooted") => {
                            tick.reset_immediately();
                        }
                        Some(
                            FromAmi::LoggedIn(_)
                            | FromAmi::ShuttingDown(_)
                            | FromAmi::Event(_)
                            | FromAmi::Answer(_, _)
                            | FromAmi::Closed { .. },
                        ) => {}
                    },
                }
            }
        };
        tokio::join!(ami.run(orders, told), ask);
    }
}

fn read(message: &crate::ami::frame::Message) -> Option<(String, String)> {
    let contact = Contact::parse(message).ok()??;
    let text =
        |bytes: &[u8]| String::from_utf8_lossy(bytes).chars().filter(|c| !c.is_control()).take(200).collect::<String>();
    let (uri, user_agent) = (text(contact.uri), text(contact.user_agent));
    let details = Details {
        uri: &uri,
        user_agent: &user_agent,
        status: contact.status.as_str(),
        roundtrip_us: contact.roundtrip.and_then(|rtt| u64::try_from(rtt.as_micros()).ok()),
        expires_at: contact.expires_at_s,
    };
    let extension = contact.phone?.extension.to_string();
    Some((extension, serde_json::to_string(&details).ok()?))
}
