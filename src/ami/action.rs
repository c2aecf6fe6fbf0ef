//! Actions to Asterisk, checked when they are built.
//!
//! Owns what may stand in an action. Must never know when it is sent or who wants it. An [`Action`] that exists holds no
//! byte with which a value could become a header or a second action (promise P11), and none that Asterisk would refuse
//! for its length.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use md5::{Digest, Md5};
use secrecy::{ExposeSecret, SecretString};

use crate::ids::{ChannelId, Extension};

/// The longest line Asterisk fetches, in bytes without its line end (measured: 1023 is too long).
pub const LINE_BYTES: usize = 1022;
/// The most header lines of an action, `Action` and `ActionID` included (measured).
pub const HEADER_LINES: usize = 128;
/// The longest ActionID, in bytes: ours have at most 50. Asterisk would take more, but copies it into every item.
pub const ACTION_ID_BYTES: usize = 128;
/// The header lines that [`Action::encode`] adds itself; other headers must not have these names.
const OWN_NAMES: [&str; 2] = ["Action", "ActionID"];

/// Why an action cannot be built. Says which header, never the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    /// A control character: Asterisk would take what follows for another header or action.
    #[error("{header} has the byte 0x{byte:02x} at position {position}; control characters are not allowed")]
    Control {
        /// The header's name, escaped.
        header: String,
        /// The byte.
        byte: u8,
        /// Where it stands in the value, in bytes from 0.
        position: usize,
    },
    /// A name that is empty, has a colon or blank, or is written by this program itself.
    #[error("{header:?} is not a valid header name")]
    Name {
        /// The name, escaped.
        header: String,
    },
    /// A line longer than [`LINE_BYTES`].
    #[error("the line of {header} has {bytes} bytes; Asterisk accepts at most {LINE_BYTES}")]
    LineTooLong {
        /// The header's name.
        header: String,
        /// Bytes of name, colon, blank and value.
        bytes: usize,
    },
    /// More lines than [`HEADER_LINES`].
    #[error("the action has more than {HEADER_LINES} header lines")]
    TooManyLines,
    /// An ActionID that is empty or longer than [`ACTION_ID_BYTES`].
    #[error("an ActionID must have 1 to {ACTION_ID_BYTES} bytes, this one has {bytes}")]
    ActionId {
        /// Its bytes.
        bytes: usize,
    },
    /// A name of a channel variable that is more than a name: `F(x)` would run a function.
    #[error("{name:?} is not a valid name of a channel variable: use letters, digits and '_'")]
    VariableName {
        /// The name, escaped.
        name: String,
    },
    /// A comma begins another variable, and quotes and backslashes are taken away.
    #[error("the channel variable {name} has the character {found:?}, which Asterisk does not keep")]
    VariableValue {
        /// The variable.
        name: String,
        /// The character.
        found: char,
    },
    /// A dialplan priority starts at 1.
    #[error("a dialplan priority must be at least 1")]
    Priority,
}

#[derive(Clone)]
enum Value {
    Plain(String),
    Secret(SecretString),
}

/// An action, complete except for its ActionID.
#[derive(Clone)]
pub struct Action {
    name: Cow<'static, str>,
    lines: Vec<(Cow<'static, str>, Value)>,
    list: bool,
    empty: Option<&'static str>,
}

impl Action {
    /// An action of any name, without headers. For what has no constructor here.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Result<Self, ActionError> {
        let name = name.into();
        check_value("Action", &name)?;
        if name.is_empty() {
            return Err(ActionError::Name { header: String::new() });
        }
        Ok(Self { name, lines: Vec::new(), list: false, empty: None })
    }

    /// An action whose name is known to be valid.
    fn known(name: &'static str) -> Self {
        Self { name: Cow::Borrowed(name), lines: Vec::new(), list: false, empty: None }
    }

    /// Adds a header. The same name may come again.
    pub fn with(self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) -> Result<Self, ActionError> {
        self.with_value(name.into(), Value::Plain(value.into()))
    }

    /// Adds a header whose value is shown nowhere but on the wire.
    pub fn with_secret(self, name: &'static str, value: SecretString) -> Result<Self, ActionError> {
        self.with_value(Cow::Borrowed(name), Value::Secret(value))
    }

    fn with_value(mut self, name: Cow<'static, str>, value: Value) -> Result<Self, ActionError> {
        let own = OWN_NAMES.iter().any(|own| own.eq_ignore_ascii_case(&name));
        if own
            || name.is_empty()
            || name.bytes().any(|byte| byte == b':' || byte.is_ascii_whitespace() || is_control(byte))
        {
            return Err(ActionError::Name { header: name.escape_default().to_string() });
        }
        check_value(&name, value.expose())?;
        if self.lines.len() + OWN_NAMES.len() >= HEADER_LINES {
            return Err(ActionError::TooManyLines);
        }
        self.lines.push((name, value));
        Ok(self)
    }

    /// Says that the answer is a list: items follow, and an event with `EventList: Complete` ends it.
    #[must_use]
    pub fn as_list(mut self) -> Self {
        self.list = true;
        self
    }

    /// The value of `Action`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the answer is a list.
    pub fn is_list(&self) -> bool {
        self.list
    }

    /// Whether it lists devices: of more than are wanted, the first ones will do.
    pub fn lists_devices(&self) -> bool {
        matches!(self.name(), "DeviceStateList" | "SIPpeers" | "IAXpeerlist")
    }

    /// The message of the error with which Asterisk says that a list is empty, where it does that.
    pub fn empty_message(&self) -> Option<&'static str> {
        self.empty
    }

    /// Appends the action with its ActionID to `out`; on an error, nothing is appended.
    pub fn encode(&self, action_id: &str, out: &mut BytesMut) -> Result<(), ActionError> {
        if action_id.is_empty() || action_id.len() > ACTION_ID_BYTES {
            return Err(ActionError::ActionId { bytes: action_id.len() });
        }
        check_value("ActionID", action_id)?;
        put_line(out, "Action", &self.name);
        put_line(out, "ActionID", action_id);
        for (name, value) in &self.lines {
            put_line(out, name, value.expose());
        }
        out.put_slice(b"\r\n");
        Ok(())
    }
}

impl fmt::Debug for Action {
    /// Shows names, not values: they hold numbers, names and keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Action({}:", self.name)?;
        self.lines.iter().try_for_each(|(name, _)| write!(f, " {name}"))?;
        f.write_str(")")
    }
}

impl Value {
    fn expose(&self) -> &str {
        match self {
            Self::Plain(text) => text,
            Self::Secret(text) => text.expose_secret(),
        }
    }
}

fn put_line(out: &mut BytesMut, name: &str, value: &str) {
    for part in [name, ": ", value, "\r\n"] {
        out.put_slice(part.as_bytes());
    }
}

fn is_control(byte: u8) -> bool {
    byte < 0x20 || byte == 0x7f
}

fn check_value(header: &str, value: &str) -> Result<(), ActionError> {
    if let Some(position) = value.bytes().position(is_control) {
        // `position` was found in the value.
        let byte = value.as_bytes().get(position).copied().unwrap_or_default();
        return Err(ActionError::Control { header: header.to_owned(), byte, position });
    }
    let bytes = header.len() + ": ".len() + value.len();
    if bytes > LINE_BYTES {
        return Err(ActionError::LineTooLong { header: header.to_owned(), bytes });
    }
    Ok(())
}

/// Which events a session is sent: `off`, `on`, or classes such as `system,call,agent`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventMask(Cow<'static, str>);

impl EventMask {
    /// No events at all, so no `FullyBooted` either.
    pub const OFF: Self = Self(Cow::Borrowed("off"));
    /// What the daemon needs: `system` for boot, shutdown, contacts; `call` for channels and device states; `agent`.
    pub const DAEMON: Self = Self(Cow::Borrowed("system,call,agent"));
    /// Everything that the user may read.
    pub const ALL: Self = Self(Cow::Borrowed("on"));
    /// Boot, shutdown, reload and contacts only.
    pub const SYSTEM: Self = Self(Cow::Borrowed("system"));

    /// The text as it stands in the header.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What an answered call is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A dialplan application.
    Application {
        /// Its name, e.g. `ConfBridge`.
        name: String,
        /// Its arguments.
        data: String,
    },
    /// A place in the dialplan. Asterisk refuses one that does not exist at once.
    Exten {
        /// The context.
        context: String,
        /// The extension.
        exten: String,
        /// The priority, from 1.
        priority: u32,
    },
}

/// A phone to be rung.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Originate {
    /// The dial string, e.g. `PJSIP/cc105`.
    pub channel: String,
    /// What the call is connected to once it is answered.
    pub target: Target,
    /// What the phone shows, e.g. `"Sales" <100>`. Asterisk keeps 256 bytes of the name.
    pub caller_id: Option<String>,
    /// How long it rings. Whole milliseconds.
    pub timeout: Duration,
    /// Channel variables, set before it rings. Asterisk keeps 511 bytes of a value.
    pub variables: Vec<(String, String)>,
    /// What the channel is called ever after. Asterisk refuses a second one with the same id.
    pub channel_id: ChannelId,
}

/// The actions this program uses.
impl Action {
    /// Adds a header whose value is an id or a name of this program's own: its characters are known to be safe.
    fn with_id(mut self, name: &'static str, value: String) -> Self {
        self.lines.push((Cow::Borrowed(name), Value::Plain(value)));
        self
    }

    /// Asks for the number that [`Action::login`] mixes with the secret.
    pub fn challenge() -> Self {
        let mut action = Self::known("Challenge");
        action.lines.push((Cow::Borrowed("AuthType"), Value::Plain("MD5".into())));
        action
    }

    /// Logs in without showing the secret: the key is the MD5 of challenge and secret, in hexadecimal digits.
    pub fn login(
        username: &str,
        secret: &SecretString,
        challenge: &[u8],
        mask: &EventMask,
    ) -> Result<Self, ActionError> {
        let digest = Md5::new().chain_update(challenge).chain_update(secret.expose_secret()).finalize();
        let key: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Self::known("Login")
            .with("AuthType", "MD5")?
            .with("Username", username)?
            .with_secret("Key", key.into())?
            .with("Events", mask.as_str())
    }

    /// Asks whether the peer lives. Allowed even without any permission.
    pub fn ping() -> Self {
        Self::known("Ping")
    }

    /// Says goodbye.
    pub fn logoff() -> Self {
        Self::known("Logoff")
    }

    /// Rings a phone without waiting for it (`Async: true`): the answer only says that Asterisk will try, how it ended
    /// comes as `OriginateResponse`. Needs write class `originate`.
    pub fn originate(call: &Originate) -> Result<Self, ActionError> {
        let mut action = Self::known("Originate")
            .with("Channel", call.channel.as_str())?
            .with("ChannelId", call.channel_id.to_string())?
            .with("Timeout", call.timeout.as_millis().to_string())?
            .with("Async", "true")?;
        action = match &call.target {
            Target::Application { name, data } => {
                action.with("Application", name.as_str())?.with("Data", data.as_str())?
            }
            Target::Exten { priority: 0, .. } => return Err(ActionError::Priority),
            Target::Exten { context, exten, priority } => action
                .with("Context", context.as_str())?
                .with("Exten", exten.as_str())?
                .with("Priority", priority.to_string())?,
        };
        if let Some(caller_id) = &call.caller_id {
            action = action.with("CallerID", caller_id.as_str())?;
        }
        for (name, value) in &call.variables {
            check_variable_name(name)?;
            if let Some(found) = value.chars().find(|c| matches!(c, ',' | '"' | '\\')) {
                return Err(ActionError::VariableValue { name: name.clone(), found });
            }
            action = action.with("Variable", format!("{name}={value}"))?;
        }
        Ok(action)
    }

    /// Ends the channel of a ring. It must exist: before its `Newchannel`, the answer is `No such channel`, and it rings
    /// all the same. Needs `call`.
    pub fn hangup(channel: ChannelId) -> Self {
        Self::known("Hangup").with_id("Channel", channel.to_string())
    }

    /// Asks which Asterisk it is: the answer has the date and time of its start. Needs `reporting`.
    pub fn core_status() -> Self {
        Self::known("CoreStatus")
    }

    /// Lists the state of all devices, phones and others. Needs `call` or `reporting`.
    pub fn device_state_list() -> Self {
        Self::known("DeviceStateList").as_list()
    }

    /// Lists all channels with these variables of each. Needs `call` or `reporting`.
    pub fn status(variables: &[&'static str]) -> Self {
        let action = Self::known("Status").as_list();
        if variables.is_empty() { action } else { action.with_id("Variables", variables.join(",")) }
    }

    /// Lists all channels. Needs `reporting`.
    pub fn core_show_channels() -> Self {
        Self::known("CoreShowChannels").as_list()
    }

    /// Lists all peers of chan_sip. Needs `reporting`. Unknown where that module is not loaded.
    pub fn sip_peers() -> Self {
        Self::known("SIPpeers").as_list()
    }

    /// Lists all peers of chan_iax2; `IAXpeers` writes items without an ActionID. Needs `reporting`. Unknown where that
    /// module is not loaded.
    pub fn iax_peers() -> Self {
        Self::known("IAXpeerlist").as_list()
    }

    /// Asks which contacts of a PJSIP endpoint an Originate would dial: those that are not known to be dead. The answer has
    /// them in `Value`. Needs `call` or `reporting`.
    pub fn pjsip_dial_contacts(endpoint: &Extension) -> Self {
        Self::known("Getvar").with_id("Variable", format!("PJSIP_DIAL_CONTACTS({endpoint})"))
    }

    /// Asks which contacts the AOR of this name has, dead ones too. The answer has them in `Value`; it is empty, too, where
    /// Asterisk knows no such AOR or has not loaded func_pjsip_aor. Needs `call` or `reporting`.
    pub fn pjsip_contacts(endpoint: &Extension) -> Self {
        Self::known("Getvar").with_id("Variable", format!("PJSIP_AOR({endpoint},contact)"))
    }

    /// Has Asterisk ask all contacts of a PJSIP endpoint whether they answer. What is news comes as `ContactStatus`. Needs
    /// `reporting`.
    pub fn pjsip_qualify(endpoint: &Extension) -> Self {
        Self::known("PJSIPQualify").with_id("Endpoint", endpoint.to_string())
    }

    /// Lists all contacts of PJSIP endpoints. Needs `system`. Where there are none, Asterisk answers with an error.
    pub fn pjsip_show_contacts() -> Self {
        Self { empty: Some("No Contacts found"), ..Self::known("PJSIPShowContacts").as_list() }
    }
}

fn check_variable_name(name: &str) -> Result<(), ActionError> {
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Err(ActionError::VariableName { name: name.escape_default().to_string() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SessionId;

    fn text(action: &Action) -> String {
        let mut out = BytesMut::new();
        action.encode("er-1-1", &mut out).expect("a good id");
        String::from_utf8(out.to_vec()).expect("text")
    }

    fn call() -> Originate {
        Originate {
            channel: "PJSIP/cc105".into(),
            target: Target::Application { name: "ConfBridge".into(), data: "8600051".into() },
            caller_id: Some("\"Jürgen\" <100>".into()),
            timeout: Duration::from_secs(20),
            variables: vec![("__AGENT".into(), "6001".into()), ("B".into(), String::new())],
            channel_id: ChannelId(SessionId::from_bits(0xab)),
        }
    }

    #[test]
    fn an_originate_stands_on_the_wire_as_asterisk_takes_it() {
        let expected = "Action: Originate\r\nActionID: er-1-1\r\nChannel: PJSIP/cc105\r\nChannelId: \
            evenring-00000000000000ab\r\n\
             Timeout: 20000\r\nAsync: true\r\nApplication: ConfBridge\r\nData: 8600051\r\nCallerID: \"Jürgen\" \
             <100>\r\n\
             Variable: __AGENT=6001\r\nVariable: B=\r\n\r\n";
        assert_eq!(text(&Action::originate(&call()).unwrap()), expected);
        let exten = Target::Exten { context: "agents".into(), exten: "6001".into(), priority: 1 };
        let wire = text(&Action::originate(&Originate { target: exten, ..call() }).unwrap());
        assert!(wire.contains("\r\nContext: agents\r\nExten: 6001\r\nPriority: 1\r\n"), "{wire}");
    }

    #[test]
    fn nothing_can_be_slipped_in() {
        for bad in ["\n", "\r", "\r\nAction: Command", "\0", "\t", "\x7f", "\x1b"] {
            let with = |change: &dyn Fn(&mut Originate, String)| {
                let mut call = call();
                change(&mut call, format!("x{bad}y"));
                Action::originate(&call).expect_err("refused").to_string()
            };
            assert!(with(&|call, text| call.channel = text).starts_with("Channel has the byte 0x"));
            assert!(with(&|call, text| call.caller_id = Some(text)).starts_with("CallerID has"));
            assert!(with(&|call, text| call.variables[0].1 = text).starts_with("Variable has"));
            assert!(with(&|call, text| call.variables[0].0 = text).contains("name of a channel variable"));
            assert!(
                with(&|call, text| call.target = Target::Application { name: text, data: String::new() })
                    .starts_with("Application")
            );
            assert!(Action::ping().with(format!("K{bad}"), "v").is_err());
            assert!(Action::new(format!("Ping{bad}")).is_err());
            assert!(Action::ping().encode(&format!("a{bad}"), &mut BytesMut::new()).is_err());
        }
        for name in ["Action", "ACTIONID", "", "a:b", "a b"] {
            assert!(matches!(Action::ping().with(name, "v"), Err(ActionError::Name { .. })), "{name}");
        }
    }

    #[test]
    fn variables_stay_one_variable() {
        for (name, value) in
            [("A", "1,B=2"), ("A", "\"x\""), ("A", "a\\b"), ("SHELL(id)", "x"), ("", "x"), ("A,B", "x"), ("A=B", "x")]
        {
            let call = Originate { variables: vec![(name.into(), value.into())], ..call() };
            assert!(Action::originate(&call).is_err(), "{name}={value}");
        }
        assert!(text(&Action::status(&["A", "B"])).contains("\r\nVariables: A,B\r\n"));
    }

    #[test]
    fn asterisk_limits_are_kept() {
        let longest = LINE_BYTES - "X: ".len();
        assert!(Action::ping().with("X", "v".repeat(longest)).is_ok());
        let error = Action::ping().with("X", "v".repeat(longest + 1)).unwrap_err();
        assert_eq!(error, ActionError::LineTooLong { header: "X".into(), bytes: 1023 });
        let mut action = Action::ping();
        for _ in 0..HEADER_LINES - 2 {
            action = action.with("X", "v").unwrap();
        }
        assert_eq!(text(&action).lines().count(), HEADER_LINES + 1);
        assert_eq!(action.with("X", "v").unwrap_err(), ActionError::TooManyLines);
        assert!(Action::ping().encode("", &mut BytesMut::new()).is_err());
        assert!(Action::ping().encode(&"a".repeat(129), &mut BytesMut::new()).is_err());
        let exten = Target::Exten { context: "a".into(), exten: "b".into(), priority: 0 };
        assert_eq!(Action::originate(&Originate { target: exten, ..call() }).unwrap_err(), ActionError::Priority);
    }

    #[test]
    fn no_value_is_shown() {
        let action = Action::login("lab", &"labsecret".into(), b"385620988", &EventMask::DAEMON).unwrap();
        assert_eq!(format!("{action:?}"), "Action(Login: AuthType Username Key Events)");
        assert!(text(&action).ends_with("Events: system,call,agent\r\n\r\n"));
    }
}
