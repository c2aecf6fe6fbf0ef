//! All settings in effect, as the text of a settings file.
//!
//! Owns the form of `evenring config dump`. Must never see more of a secret than whether there is one (P13).

use std::fmt::Display;
use std::time::Duration;

use super::source::span_text;
use super::{AmiUser, Settings};
use crate::ring_policy::RingTarget;

/// A TOML file in the making.
struct Page(String);

impl Page {
    fn section(&mut self, name: &str) {
        let gap = if self.0.is_empty() { "" } else { "\n" };
        self.0.push_str(&format!("{gap}[{name}]\n"));
    }

    fn plain(&mut self, key: &str, value: impl Display) {
        self.0.push_str(&format!("{key} = {value}\n"));
    }

    fn text(&mut self, key: &str, value: impl Display) {
        self.plain(key, quoted(&value.to_string()));
    }

    fn span(&mut self, key: &str, value: Duration) {
        self.text(key, span_text(value));
    }

    fn optional<T: Display>(&mut self, key: &str, value: Option<T>) {
        match value {
            Some(value) => self.text(key, value),
            None => self.absent(key),
        }
    }

    fn secret<T>(&mut self, key: &str, value: Option<T>) {
        self.optional(key, value.map(|_| "***"));
    }

    fn user(&mut self, user: &AmiUser) {
        self.optional("username", user.username.as_ref());
        self.secret("secret", user.secret.as_ref().ok().and_then(|secret| secret.as_ref()));
    }

    fn absent(&mut self, key: &str) {
        self.0.push_str(&format!("# {key} is not set\n"));
    }
}

pub(super) fn dump(settings: &Settings) -> String {
    let mut page = Page(String::new());
    let node = &settings.node;
    page.section("node");
    page.text("name", &node.name);
    page.plain("weight", node.weight);
    match node.max_agents {
        Some(most) => page.plain("max_agents", most),
        None => page.absent("max_agents"),
    }
    let campaigns: Vec<_> = node.campaigns.iter().map(|campaign| quoted(campaign.as_str())).collect();
    page.plain("campaigns", format!("[{}]", campaigns.join(", ")));
    page.optional("sip", node.sip.as_ref());
    page.optional("address", node.address.as_ref());
    page.optional("lock_dir", settings.lock_dir.as_ref().map(|path| path.display()));
    ami(&mut page, settings);
    let redis = &settings.redis;
    page.section("redis");
    page.text("url", &redis.url);
    page.optional("username", redis.username.as_ref());
    page.secret("password", redis.password.as_ref());
    let sentinel = redis.sentinel.as_ref();
    page.optional("sentinel_username", sentinel.and_then(|sentinel| sentinel.username.as_ref()));
    page.secret("sentinel_password", sentinel.and_then(|sentinel| sentinel.password.as_ref()));
    page.optional("ca_file", redis.ca_file.as_ref().map(|path| path.display()));
    page.text("namespace", &redis.namespace);
    page.span("connect_timeout", redis.connect_timeout);
    page.span("response_timeout", redis.response_timeout);
    let placement = &settings.placement;
    page.section("placement");
    page.text("alias_suffix", &placement.alias_suffix);
    page.text("case", placement.case.as_str());
    page.span("lease", placement.lease);
    page.span("heartbeat", placement.heartbeat);
    page.plain("tries", placement.tries);
    page.span("order_expiry", placement.order_expiry);
    page.span("session_keep", placement.session_keep);
    page.span("poll", placement.poll);
    page.text("rejoin", placement.rejoin.as_str());
    ring(&mut page, settings);
    page.section("http");
    page.text("listen", settings.http.text());
    page.section("agent_check");
    page.text("listen", settings.agent_check.text());
    let api = &settings.api;
    page.section("api");
    page.text("listen", api.listen_text());
    page.optional("cert_file", api.cert_file.as_ref().map(|path| path.display()));
    page.optional("key_file", api.key_file.as_ref().map(|path| path.display()));
    page.text("tokens_file", api.tokens_file.display());
    page.plain("insecure", api.insecure);
    page.plain("watchers", api.watchers);
    page.plain("token_rate", api.token_rate);
    page.plain("address_rate", api.address_rate);
    let keepalive = &settings.keepalive;
    page.section("keepalive");
    let words: Vec<_> = keepalive.command.iter().map(|word| quoted(word)).collect();
    page.plain("command", format!("[{}]", words.join(", ")));
    page.span("after", keepalive.after);
    page.span("every", keepalive.every);
    page.span("timeout", keepalive.timeout);
    page.section("log");
    page.text("filter", &settings.log.filter);
    page.text("format", settings.log.format.as_str());
    page.section("doctor");
    let accepted: Vec<_> = settings.doctor.accept.iter().map(|code| quoted(code)).collect();
    page.plain("accept", format!("[{}]", accepted.join(", ")));
    page.0
}

fn ami(page: &mut Page, settings: &Settings) {
    let ami = &settings.ami;
    page.section("ami");
    page.text("address", &ami.address);
    page.user(&ami.user);
    page.optional("ca_file", ami.ca_file.as_ref().map(|path| path.display()));
    page.optional("server_name", ami.server_name.as_ref());
    page.span("connect_timeout", ami.connect_timeout);
    page.span("login_timeout", ami.login_timeout);
    page.span("action_timeout", ami.action_timeout);
    page.span("ping_interval", ami.ping_interval);
    page.span("ping_timeout", ami.ping_timeout);
    page.plain("max_phones", ami.max_phones);
    page.plain("max_devices", ami.max_devices);
    page.section("ami.contacts");
    page.user(&ami.contacts_user);
    page.span("interval", ami.contacts_interval);
}

fn ring(page: &mut Page, settings: &Settings) {
    let ring = &settings.ring;
    page.section("ring");
    page.text("dial", &ring.dial);
    match &ring.target {
        RingTarget::Application { name, data } => {
            page.text("application", name);
            page.text("data", data.as_ref().map(|data| data.as_str()).unwrap_or_default());
        }
        RingTarget::Dialplan { context, exten, priority } => {
            page.text("context", context);
            page.text("exten", exten);
            page.plain("priority", priority);
        }
    }
    page.text("caller_id", &ring.caller_id);
    page.span("timeout", ring.timeout);
    page.plain("rate", ring.rate);
    page.plain("burst", ring.burst);
    page.plain("at_once", ring.at_once);
    page.section("ring.variables");
    for (name, value) in &ring.variables {
        page.text(name, value);
    }
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
