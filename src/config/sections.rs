//! The keys, their defaults and their limits, section by section.
//!
//! Owns what each key means. Must never know where a value came from. Every function reads all of its keys before
//! it gives up, so that all problems are found in one go.

use std::collections::BTreeMap;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use super::net::is_host;
use super::source::{MILLISECOND, MINUTE, Reader, SECOND, absolute, span_text};
use super::{
    AmiSettings, AmiUser, DoctorSettings, Files, LogFormat, LogSettings, NodeSettings, PlacementSettings, Settings,
    Transport, api, keepalive, listen, redis, secret,
};
use crate::ids::{Campaign, Case, NodeName};
use crate::ring_policy::{Placeholder, RingSettings, RingTarget, Template};

const HOUR: Duration = Duration::from_secs(3600);
/// Bytes of a manager user's name.
const USERNAME_BYTES_MAX: usize = 100;
/// Channel variables of one call.
const VARIABLES_MAX: usize = 32;

const AMI_SECRET: secret::Place =
    secret::Place { value_key: "ami.secret", file_key: "ami.secret_file", credential: "ami-secret" };
const CONTACTS_SECRET: secret::Place = secret::Place {
    value_key: "ami.contacts.secret",
    file_key: "ami.contacts.secret_file",
    credential: "ami-contacts-secret",
};
/// All sections. `None` after a problem; there may be problems even if it is not.
pub(super) fn settings(reader: &mut Reader, credentials: &secret::Credentials) -> Option<Settings> {
    let node = node(reader, &gethostname::gethostname().to_string_lossy());
    let lock_dir = absolute(reader, "node.lock_dir");
    let ami = ami(reader, credentials);
    let redis = redis::redis(reader, credentials);
    let placement = placement(reader);
    let ring = ring(reader);
    let http = listen::listen(reader, "http.listen", "127.0.0.1:9816", "your monitoring");
    let agent_check = listen::listen(reader, "agent_check.listen", listen::OFF, "your HAProxy");
    let api = api::api(reader);
    let keepalive = keepalive::keepalive(reader, ami.as_ref().map(|ami| &ami.address));
    let log = log(reader);
    let accept = reader.read::<Vec<String>>("doctor.accept", Vec::<String>::new());
    reader.refuse_the_rest();
    Some(Settings {
        node: node?,
        lock_dir: lock_dir?,
        ami: ami?,
        redis: redis?,
        placement: placement?,
        ring: ring?,
        http: http?,
        agent_check: agent_check?,
        api: api?,
        keepalive: keepalive?,
        log: log?,
        doctor: DoctorSettings { accept: accept? },
        files: Files::default(),
        warnings: Vec::new(),
        notes: Vec::new(),
        hidden: Vec::new(),
        open_files: Vec::new(),
    })
}

fn node(reader: &mut Reader, host: &str) -> Option<NodeSettings> {
    let given = reader.optional::<NodeName>("node.name");
    let weight = reader.number("node.weight", 1, 1..=1000);
    let max_agents = reader.optional("node.max_agents");
    let campaigns = reader.read::<Vec<Campaign>>("node.campaigns", Vec::<String>::new());
    let sip = reader.optional("node.sip");
    let address = reader.optional("node.address");
    let name = match given? {
        Some(name) => Some(name),
        None => {
            let name = name_of_host(host);
            if name.is_none() {
                reader.problems.push(format!(
                    "node.name is not set, and the host name {host:?} is not a valid name: \
                    set node.name"
                ));
            }
            if host.starts_with("localhost") {
                reader
                    .warnings
                    .push("node.name is not set, and the host name is localhost: set a unique node.name".to_owned());
            }
            name
        }
    };
    Some(NodeSettings {
        name: name?,
        weight: weight?,
        max_agents: max_agents?,
        campaigns: campaigns?,
        sip: sip?,
        address: address?,
    })
}

/// The first label of a host name, with what a node name cannot hold turned into `-`.
pub(super) fn name_of_host(host: &str) -> Option<NodeName> {
    let label = host.split('.').next()?;
    let valid = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    let name: String = label.chars().map(valid).skip_while(|c| *c == '-').take(40).collect();
    name.trim_end_matches('-').parse().ok()
}

fn ami(reader: &mut Reader, credentials: &secret::Credentials) -> Option<AmiSettings> {
    let address = reader.read("ami.address", "127.0.0.1:5038");
    let user = ami_user(reader, "ami.username", &AMI_SECRET, credentials);
    let contacts_user = ami_user(reader, "ami.contacts.username", &CONTACTS_SECRET, credentials);
    let ca_file = absolute(reader, "ami.ca_file");
    let server_name: Option<Option<String>> = reader.optional("ami.server_name");
    let connect_timeout = reader.span("ami.connect_timeout", "2s", MILLISECOND * 100..=MINUTE);
    let login_timeout = reader.span("ami.login_timeout", "5s", MILLISECOND * 100..=MINUTE);
    let action_timeout = reader.span("ami.action_timeout", "5s", MILLISECOND * 100..=MINUTE);
    let ping_interval = reader.span("ami.ping_interval", "2500ms", MILLISECOND * 100..=MINUTE);
    let ping_timeout = reader.span("ami.ping_timeout", "2500ms", MILLISECOND * 100..=MINUTE);
    let max_phones = reader.number("ami.max_phones", 20_000, 1..=100_000);
    let max_devices = reader.number("ami.max_devices", 100_000, 1..=1_000_000);
    let contacts_interval = reader.span("ami.contacts.interval", "30s", SECOND..=HOUR);
    let ami = AmiSettings {
        address: address?,
        ca_file: ca_file?,
        server_name: server_name?,
        connect_timeout: connect_timeout?,
        login_timeout: login_timeout?,
        action_timeout: action_timeout?,
        ping_interval: ping_interval?,
        ping_timeout: ping_timeout?,
        max_phones: max_phones?,
        max_devices: max_devices?,
        contacts_interval: contacts_interval?,
        user: user?,
        contacts_user: contacts_user?,
    };
    check_ami(reader, &ami);
    Some(ami)
}

fn check_ami(reader: &mut Reader, ami: &AmiSettings) {
    if let Some(name) =
        ami.server_name.as_ref().filter(|name| !is_host(name) && name.parse::<std::net::IpAddr>().is_err())
    {
        reader.fail("ami.server_name", format!("{name:?} is neither a host name nor an IP address"));
    }
    let warnings = &mut reader.warnings;
    if ami.address.transport == Transport::Plain {
        if !ami.address.is_loopback() {
            warnings.push(format!(
                "ami.address: AMI traffic with {} is unencrypted: use tls://, or an Asterisk on this host",
                ami.address
            ));
        }
        for (key, given) in [("ca_file", ami.ca_file.is_some()), ("server_name", ami.server_name.is_some())] {
            if given {
                warnings.push(format!("ami.{key} has no effect without tls:// in ami.address"));
            }
        }
    }
    if ami.user.username.is_some() && ami.user.username == ami.contacts_user.username {
        let why = "one AMI user with both \"originate\" and \"system\" can run shell commands: use two users";
        warnings.push(format!("ami.contacts.username is the same as ami.username: {why}"));
    }
}

fn ami_user(
    reader: &mut Reader,
    key: &str,
    place: &secret::Place,
    credentials: &secret::Credentials,
) -> Option<AmiUser> {
    let username: Option<Option<String>> = reader.optional(key);
    let secret = secret::find(reader, place, credentials);
    let username = username?;
    let valid =
        |name: &String| !name.is_empty() && name.len() <= USERNAME_BYTES_MAX && !name.chars().any(char::is_control);
    if username.as_ref().is_some_and(|name| !valid(name)) {
        reader.fail(key, format!("must have 1 to {USERNAME_BYTES_MAX} bytes and no control character"));
        return None;
    }
    Some(AmiUser { username, secret })
}

fn placement(reader: &mut Reader) -> Option<PlacementSettings> {
    let alias_suffix: Option<String> = reader.read("placement.alias_suffix", "x");
    let case = reader.read::<Case>("placement.case", "exact");
    let lease = reader.span("placement.lease", "3s", MILLISECOND * 200..=10 * MINUTE);
    let heartbeat = reader.span("placement.heartbeat", "1s", MILLISECOND * 100..=2 * SECOND);
    let tries = reader.number("placement.tries", 3, 1..=10);
    let order_expiry = reader.span("placement.order_expiry", "10s", SECOND..=10 * MINUTE);
    let session_keep = reader.span("placement.session_keep", "10m", SECOND..=24 * HOUR);
    let poll = reader.span("placement.poll", "1s", MILLISECOND * 100..=MINUTE);
    let rejoin = reader.read("placement.rejoin", "manual");
    if let (Some(lease), Some(heartbeat)) = (lease, heartbeat)
        && lease < heartbeat * 3
    {
        let (lease, heartbeat) = (span_text(lease), span_text(heartbeat));
        let why = "one late heartbeat would take the node out of the rotation: set the lease to at least three \
            heartbeats";
        reader.problems.push(format!("placement.lease is {lease} with a placement.heartbeat of {heartbeat}: {why}"));
    }
    let suffix = alias_suffix?;
    // A suffix never stands first, so it may start with what an id may not start with.
    let is_id = (1..=8).contains(&suffix.len()) && format!("a{suffix}").parse::<crate::ids::Alias>().is_ok();
    if !is_id {
        reader.fail("placement.alias_suffix", format!("{suffix:?} is not 1 to 8 letters, digits, '_', '.' or '-'"));
    }
    let case = case?;
    Some(PlacementSettings {
        alias_suffix: case.one_spelling(&suffix).into_owned(),
        case,
        lease: lease?,
        heartbeat: heartbeat?,
        tries: tries?,
        order_expiry: order_expiry?,
        session_keep: session_keep?,
        poll: poll?,
        rejoin: rejoin?,
    })
}

fn ring(reader: &mut Reader) -> Option<RingSettings> {
    let dial =
        template(reader, "ring.dial", "{technology}/{extension}", Some(('&', "a login rings one phone at a time")));
    let target = target(reader);
    let caller_id = template(reader, "ring.caller_id", "\"evenring\" <{extension}>", None);
    let timeout = reader.span("ring.timeout", "20s", SECOND..=2 * MINUTE);
    let variables = variables(reader);
    let rate = reader.number("ring.rate", 50, 1..=10_000);
    let burst = reader.number("ring.burst", 100, 1..=10_000);
    let at_once = reader.number("ring.at_once", 300, 1..=100_000);
    let dial = dial?;
    if ![Placeholder::Extension, Placeholder::Alias, Placeholder::Agent].into_iter().any(|own| dial.uses(own)) {
        reader.warnings.push(format!("ring.dial: {:?} rings the same phone for every agent", dial.as_str()));
    }
    Some(RingSettings {
        dial,
        target: target?,
        caller_id: caller_id?,
        timeout: timeout?,
        variables: variables?,
        rate: rate?,
        burst: burst?,
        at_once: at_once?,
    })
}

fn template(reader: &mut Reader, key: &str, default: &str, without: Option<(char, &'static str)>) -> Option<Template> {
    let text: String = reader.read(key, default)?;
    parse_template(reader, key, text, without)
}

fn parse_template(
    reader: &mut Reader,
    key: &str,
    text: String,
    without: Option<(char, &'static str)>,
) -> Option<Template> {
    let parsed = Template::try_from(text).and_then(|template| match without {
        Some((found, why)) => template.without(found, why),
        None => Ok(template),
    });
    parsed.map_err(|why| reader.fail(key, why)).ok()
}

fn target(reader: &mut Reader) -> Option<RingTarget> {
    let name: Option<Option<String>> = reader.optional("ring.application");
    let data: Option<Option<String>> = reader.optional("ring.data");
    let context: Option<Option<String>> = reader.optional("ring.context");
    let exten: Option<Option<String>> = reader.optional("ring.exten");
    let priority: Option<Option<u32>> = reader.optional("ring.priority");
    let (name, data, context, exten, priority) = (name?, data?, context?, exten?, priority?);
    let application_is_set = name.is_some() || data.is_some();
    match (context, exten) {
        (Some(_), Some(_)) if application_is_set => {
            let why = "ring.application (or data) and ring.context with ring.exten are both set: remove one of them";
            reader.problems.push(why.to_owned());
            None
        }
        (Some(context), Some(exten)) => {
            let priority = priority.unwrap_or(1);
            if priority == 0 {
                reader.fail("ring.priority", "priorities start at 1");
            }
            let context = parse_template(reader, "ring.context", context, None);
            let exten = parse_template(reader, "ring.exten", exten, None);
            Some(RingTarget::Dialplan { context: context?, exten: exten?, priority })
        }
        (None, None) if priority.is_none() => {
            let name = name.unwrap_or_else(|| "ConfBridge".to_owned());
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                reader.fail("ring.application", format!("{name:?} is not the name of a dialplan application"));
            }
            let data = match data.as_deref() {
                Some("") => None,
                Some(data) => Some(parse_template(reader, "ring.data", data.to_owned(), None)?),
                None => Some(parse_template(reader, "ring.data", "evenring-{agent}".to_owned(), None)?),
            };
            Some(RingTarget::Application { name, data })
        }
        (Some(_), None) | (None, Some(_)) | (None, None) => {
            reader
                .problems
                .push("ring.context, ring.exten and ring.priority belong together: set context and exten".to_owned());
            None
        }
    }
}

fn variables(reader: &mut Reader) -> Option<BTreeMap<String, Template>> {
    let mut variables = BTreeMap::new();
    let entries = reader.take_below("ring.variables");
    let count = entries.len();
    for (name, entry) in entries {
        let key = format!("ring.variables.{name}");
        let mut letters = name.chars();
        let valid = letters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && letters.all(|c| c.is_ascii_alphanumeric() || c == '_')
            && name.len() <= 80;
        if !valid {
            reader
                .fail(&key, "the name of a variable must be 1 to 80 letters, digits and '_'; functions cannot be set");
        }
        let Some(text) = reader.convert::<String>(&key, entry) else { continue };
        let comma = Some((',', "it would start another variable"));
        variables.extend(parse_template(reader, &key, text, comma).map(|template| (name, template)));
    }
    if count > VARIABLES_MAX {
        reader.fail("ring.variables", format!("{count} variables; at most {VARIABLES_MAX} are allowed"));
    }
    (variables.len() == count).then_some(variables)
}

fn log(reader: &mut Reader) -> Option<LogSettings> {
    let filter: Option<String> = reader.read("log.filter", "info");
    let format: Option<LogFormat> = reader.read("log.format", "auto");
    let filter = filter?;
    if let Err(why) = check_filter(&filter) {
        reader.fail("log.filter", why);
    }
    Some(LogSettings { filter, format: format? })
}

/// Whether a text is a filter that means what it seems to mean: a lone word such as `inof` would be taken for the
/// name of a module, and silence everything else.
///
/// # Errors
/// What is wrong with it.
pub fn check_filter(filter: &str) -> Result<(), String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let is_word = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric());
    let lone = |part: &&str| is_word(part) && !LEVELS.contains(&part.to_lowercase().as_str());
    if let Some(part) = filter.split(',').map(str::trim).find(lone) {
        return Err(format!("{part:?} is not a level: use {}, or \"{part}=debug\" for a module", LEVELS.join(", ")));
    }
    if filter.trim().is_empty() {
        return Err("the filter is empty: use \"info\"".to_owned());
    }
    EnvFilter::builder().parse(filter).map(|_| ()).map_err(|error| format!("{filter:?} is not a valid filter: {error}"))
}
