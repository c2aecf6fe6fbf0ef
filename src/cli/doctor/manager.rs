//! Judges whether an AMI user of Asterisk has exactly the rights that it needs. Owns the judgement of what Asterisk
//! returned. Must never query Asterisk.
//!
//! An AMI user cannot read its own rights (that takes `command`). But `ListCommands` lists exactly the actions that it may
//! use, with their classes; and a read class shows when one of its events arrives.

use std::collections::{BTreeMap, BTreeSet};

use super::finding::Finding;

/// The purpose of an AMI user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// `[ami]`: rings phones, and sees calls and phones.
    Main,
    /// `[ami.contacts]`: reads contact addresses.
    Contacts,
}

impl Role {
    /// The lines of `manager.conf`.
    pub(super) fn reads(self) -> &'static [&'static str] {
        match self {
            Self::Main => &["system", "call", "agent"],
            Self::Contacts => &["system"],
        }
    }

    pub(super) fn writes(self) -> &'static [&'static str] {
        match self {
            Self::Main => &["originate", "call", "reporting", "agent"],
            Self::Contacts => &["system", "reporting"],
        }
    }

    /// Classes of `write` that are required; the rest of [`Role::writes`] may be missing.
    fn needs(self) -> &'static [&'static str] {
        match self {
            Self::Main => &["originate", "call", "reporting"],
            Self::Contacts => &["system", "reporting"],
        }
    }

    /// The line that it should be.
    pub(super) fn write_line(self) -> String {
        format!("write = {}", self.writes().join(","))
    }

    pub(super) fn read_line(self) -> String {
        format!("read = {}", self.reads().join(","))
    }
}

/// What a login returned.
#[derive(Debug, Clone)]
pub(super) struct Heard {
    /// Version of the interface.
    pub(super) version: String,
    /// Asterisk's own version, from CoreSettings; `None`: this user may not ask.
    pub(super) asterisk: Option<String>,
    /// From ListCommands: action to classes; or why it gave no list.
    pub(super) commands: Result<BTreeMap<String, BTreeSet<String>>, String>,
    /// FullyBooted came.
    pub(super) booted: bool,
    /// The OriginateResponse of the probe came. `None`: not tried.
    pub(super) call_events: Option<bool>,
    /// The classes of all events that came.
    pub(super) classes: BTreeSet<String>,
}

/// An action of Asterisk's own that only this class permits (13 to 22).
const WITNESSES: [(&str, &str); 9] = [
    ("originate", "Originate"),
    ("call", "Redirect"),
    ("agent", "QueueAdd"),
    ("system", "ModuleLoad"),
    ("command", "Command"),
    ("config", "UpdateConfig"),
    ("user", "UserEvent"),
    ("message", "MessageSend"),
    ("aoc", "AOCMessage"),
];

/// What is asked of a module that Asterisk may run without, and the classes of which each permits it.
const MODULES: [(Role, &str, &str, &[&str]); 2] = [
    (Role::Main, "DeviceStateList", "res_manager_devicestate", &["call", "reporting"]),
    (Role::Contacts, "PJSIPShowContacts", "res_pjsip", &["system"]),
];

/// Reads a line of ListCommands: `Originate: Originate Call.  (Priv: originate,all)`.
pub(super) fn command(name: &str, value: &str) -> Option<(String, BTreeSet<String>)> {
    let (_, classes) = value.trim_end().strip_suffix(')')?.rsplit_once("(Priv: ")?;
    let classes = classes.split(',').filter(|class| !["all", "<none>"].contains(class));
    Some((name.to_owned(), classes.map(str::to_owned).collect()))
}

/// The write classes that the list of actions proves.
pub(super) fn write_classes(commands: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    let mut granted: BTreeSet<String> = WITNESSES
        .iter()
        .filter(|(_, action)| commands.contains_key(*action))
        .map(|(class, _)| (*class).to_owned())
        .collect();
    // `reporting` has no action of its own everywhere; whatever nothing else explains shows it.
    let unexplained = |classes: &BTreeSet<String>| classes.contains("reporting") && classes.is_disjoint(&granted);
    if commands.values().any(unexplained) || (granted.contains("system") && granted.contains("call")) {
        granted.insert("reporting".to_owned());
    }
    granted
}

/// Whether the list of actions shows this class.
pub(super) fn can_be_proven(class: &str) -> bool {
    class == "reporting" || WITNESSES.iter().any(|(witnessed, _)| *witnessed == class)
}

/// Why a class is dangerous, if it is.
fn danger(role: Role, class: &str) -> Option<&'static str> {
    match (role, class) {
        (Role::Main, "system") => Some("`originate` and `system` together allow shell commands"),
        (Role::Contacts, "originate") => Some("`system` and `originate` together allow shell commands"),
        (_, "command") => Some("it gives access to Asterisk's whole CLI"),
        (_, "config") => Some("it allows changing Asterisk's configuration"),
        (_, _) => None,
    }
}

/// Judges the write classes of a user, from AMI or from the file.
pub(super) fn judge_write(role: Role, user: &str, granted: &BTreeSet<String>) -> Vec<Finding> {
    let fix = format!(
        "in manager.conf under [{user}]: {}; then `asterisk -rx 'manager reload'` and `systemctl reload evenring`",
        role.write_line()
    );
    let mut findings = Vec::new();
    let missing: Vec<&str> = role.needs().iter().copied().filter(|class| !granted.contains(*class)).collect();
    if !missing.is_empty() {
        let text = format!("manager user {user} lacks write = {}", missing.join(","));
        findings.push(Finding::failure("ami.write", text, fix.clone()));
    }
    let extra: Vec<&str> = granted.iter().map(String::as_str).filter(|class| !role.writes().contains(class)).collect();
    for class in &extra {
        if let Some(why) = danger(role, class) {
            let text = format!("manager user {user} has write = {class}: {why}");
            findings.push(Finding::failure("ami.write", text, fix.clone()));
        }
    }
    let harmless: Vec<&str> = extra.into_iter().filter(|class| danger(role, class).is_none()).collect();
    if !harmless.is_empty() {
        let text = format!("manager user {user} has write = {}, which evenring does not need", harmless.join(","));
        findings.push(Finding::warning("ami.write", text, fix).code("ami.write.excess"));
    }
    if findings.is_empty() {
        let has = granted.iter().cloned().collect::<Vec<_>>().join(",");
        findings.push(Finding::ok("ami.write", format!("manager user {user} has write = {has}")));
    }
    findings
}

/// Judges a login.
pub(super) fn judge(role: Role, user: &str, heard: &Heard) -> Vec<Finding> {
    let mut findings = vec![version(heard)];
    match &heard.commands {
        Ok(commands) => {
            let granted = write_classes(commands);
            findings.extend(judge_write(role, user, &granted));
            findings.extend(judge_modules(role, commands, &granted));
        }
        Err(why) => findings.push(
            Finding::note(
                "ami.write",
                format!("cannot read the rights of manager user {user}: {why}"),
                format!("compare manager.conf, [{user}], with: {}", role.write_line()),
            )
            .code("ami.write.unchecked"),
        ),
    }
    findings.extend(judge_read(role, user, heard));
    findings
}

/// Finds a missing module: an action is missing although the user has its class.
fn judge_modules(
    role: Role,
    commands: &BTreeMap<String, BTreeSet<String>>,
    granted: &BTreeSet<String>,
) -> Option<Finding> {
    let missing = |(of, action, _, classes): &&(Role, &str, &str, &[&str])| {
        *of == role && !commands.contains_key(*action) && classes.iter().any(|class| granted.contains(*class))
    };
    let (_, action, module, _) = MODULES.iter().find(missing)?;
    let text = format!("Asterisk has no action {action}: its module {module} is not loaded");
    let fix = format!("`load = {module}.so` in modules.conf, and `asterisk -rx 'module load {module}.so'`");
    Some(match role {
        Role::Main => Finding::failure("ami.module", text + "; without it this node takes no logins", fix),
        Role::Contacts => Finding::warning(
            "ami.module",
            text + "; contact addresses and round-trip times are unavailable",
            fix + "; with chan_sip only, remove [ami.contacts]",
        ),
    })
}

/// Major and minor version in what Asterisk calls itself: `22.10.1+dfsg`, `certified/18.9-cert1`, `GIT-13-1a2b3c`.
fn release(words: &str) -> Option<(u32, Option<u32>)> {
    let (at, _) = words.char_indices().find(|(_, c)| c.is_ascii_digit())?;
    let mut numbers = words.get(at..)?.split('.');
    let number = |text: &str| text.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u32>().ok();
    let first = numbers.next()?;
    let whole = first.bytes().all(|byte| byte.is_ascii_digit());
    Some((number(first)?, numbers.next().filter(|_| whole).and_then(number)))
}

fn version(heard: &Heard) -> Finding {
    let Heard { version, asterisk, .. } = heard;
    // The interface counts, too: 2 is Asterisk 13, 5 is 16, 11 is 22.
    let counted = || Some((version.split('.').next()?.parse::<u32>().ok()?.checked_add(11)?, None));
    let known = asterisk.as_deref().and_then(release).or_else(counted);
    let name = asterisk.as_deref().map_or_else(String::new, |words| format!(" ({words})"));
    match known {
        Some((major @ 16..=22, _)) => Finding::ok("ami.version", format!("Asterisk {major}{name}, manager {version}")),
        Some((major @ 13..=15, minor)) if major > 13 || minor.is_none_or(|minor| minor >= 9) => {
            let text = format!("Asterisk {major}{name}, manager {version}: supported with chan_sip, from 13.9 on");
            Finding::ok("ami.version", text)
        }
        Some(_) | None => Finding::warning(
            "ami.version",
            format!("this Asterisk{name}, manager {version}, is not a supported version"),
            "use Asterisk 16 to 22, or 13.9 or newer with chan_sip; otherwise test a login on this node before agents \
                use it",
        ),
    }
}

fn judge_read(role: Role, user: &str, heard: &Heard) -> Vec<Finding> {
    let fix = format!(
        "in manager.conf under [{user}]: {}, and the eventfilter from docs/SECURITY.md or none; then `asterisk -rx \
            'manager reload'`",
        role.read_line()
    );
    let mut findings = Vec::new();
    if !heard.booted {
        let text = format!(
            "no FullyBooted event for manager user {user}: it lacks read = system, an eventfilter hides it, or \
                Asterisk is still loading"
        );
        findings.push(Finding::failure("ami.read", text, fix.clone()));
    }
    if heard.call_events == Some(false) {
        let text = format!(
            "no OriginateResponse event for manager user {user}: it lacks read = call, or an eventfilter hides it"
        );
        findings.push(Finding::failure("ami.read", text, fix.clone()));
    }
    let known = |class: &&String| role.reads().contains(&class.as_str()) || class.as_str() == "all";
    let extra: Vec<String> = heard.classes.iter().filter(|class| !known(class)).cloned().collect();
    if !extra.is_empty() {
        let text = format!("manager user {user} receives events of {}, which evenring does not need", extra.join(", "));
        findings.push(Finding::warning("ami.read", text, fix).code("ami.read.excess"));
    }
    if findings.is_empty() {
        let shown = if heard.call_events == Some(true) { "FullyBooted and OriginateResponse" } else { "FullyBooted" };
        findings.push(Finding::ok("ami.read", format!("manager user {user} receives {shown}")));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::finding::check;
    use super::*;

    /// Of real lists (Asterisk 16 and 22), the actions that tell classes apart.
    const LIST: &str = "\
        Originate: Originate a call.  (Priv: originate,all)\n\
        QueueAdd: Add interface to queue.  (Priv: agent,all)\n\
        Hangup: Hangup channel.  (Priv: system,call,all)\n\
        Redirect: Redirect (transfer) a call.  (Priv: call,all)\n\
        DeviceStateList: List the current known device states.  (Priv: call,reporting,all)\n\
        Status: List channel status.  (Priv: system,call,reporting,all)\n\
        CoreStatus: Show PBX core status variables.  (Priv: system,reporting,all)\n\
        PJSIPShowContacts: Lists PJSIP Contacts.  (Priv: system,all)\n\
        ConfbridgeList: List participants in a conference.  (Priv: reporting,all)\n\
        ModuleLoad: Module management.  (Priv: system,all)\n\
        Command: Execute Asterisk CLI Command.  (Priv: command,all)\n\
        UpdateConfig: Update basic configuration.  (Priv: config,all)\n\
        GetConfig: Retrieve configuration.  (Priv: system,config,all)\n\
        UserEvent: Send an arbitrary event.  (Priv: user,all)\n\
        Ping: Keepalive command.  (Priv: <none>)\n";

    /// What ListCommands gives a user with these classes.
    fn list(granted: &str, without: &str) -> BTreeMap<String, BTreeSet<String>> {
        let granted: BTreeSet<String> = granted.split(',').map(str::to_owned).collect();
        let all = LIST.lines().filter_map(|line| command(line.split_once(": ")?.0, line.split_once(": ")?.1));
        let may = |classes: &BTreeSet<String>| classes.is_empty() || !classes.is_disjoint(&granted);
        all.filter(|(name, classes)| may(classes) && name != without).collect()
    }

    #[test]
    fn the_classes_are_read_off_the_actions() {
        for granted in [
            "originate,call,reporting,agent",
            "system,reporting",
            "originate",
            "call",
            "reporting",
            "system",
            "agent,originate,user",
            "command,config,reporting",
        ] {
            let expected: BTreeSet<String> = granted.split(',').map(str::to_owned).collect();
            assert_eq!(write_classes(&list(granted, "")), expected, "{granted}");
            // Asterisk may be without conferences.
            assert_eq!(write_classes(&list(granted, "ConfbridgeList")), expected, "{granted}");
        }
        assert_eq!(command("X", "no classes"), None);
    }

    fn heard(granted: &str) -> Heard {
        Heard {
            version: "11.0.0".into(),
            asterisk: Some("22.10.1+dfsg".into()),
            commands: Ok(list(granted, "")),
            booted: true,
            call_events: Some(true),
            classes: ["system", "call", "all"].map(str::to_owned).into(),
        }
    }

    #[test]
    fn a_user_has_what_it_needs_and_no_more() {
        let version = ("ami.version", "ok", "Asterisk 22 (22.10.1+dfsg), manager 11.0.0", "");
        let read = ("ami.read", "ok", "FullyBooted and OriginateResponse", "");
        let main = |granted| judge(Role::Main, "ev", &heard(granted));
        let good = ("ami.write", "ok", "ev has write = agent,call,originate,reporting", "");
        check(&main("originate,call,reporting,agent"), &[version, good, read]);
        check(&main("originate,call,reporting"), &[version, ("ami.write", "ok", "", ""), read]);
        let fix = "in manager.conf under [ev]: write = originate,call,reporting,agent; then";
        check(
            &main("call,agent"),
            &[version, ("ami.write", "failure", "lacks write = originate,reporting", fix), read],
        );
        check(
            &main("originate,call,reporting,system,command,user"),
            &[
                version,
                ("ami.write", "failure", "write = command: it gives access to Asterisk's whole CLI", fix),
                ("ami.write", "failure", "write = system: `originate`", fix),
                ("ami.write", "warning", "write = user, which evenring does not need", fix),
                read,
            ],
        );
        let contacts = |granted| judge(Role::Contacts, "snap", &Heard { call_events: None, ..heard(granted) });
        let booted = ("ami.read", "warning", "events of call", "read = system,");
        check(&contacts("system,reporting"), &[version, ("ami.write", "ok", "", ""), booted]);
        check(
            &contacts("system,reporting,originate"),
            &[version, ("ami.write", "failure", "write = originate: `system`", "write = system,reporting"), booted],
        );
    }

    #[test]
    fn the_versions_that_are_supported() {
        let chan_sip = "supported with chan_sip, from 13.9 on";
        for (asterisk, manager, level, text) in [
            ("22.10.1+dfsg+~cs6.17.60671434-1", "11.0.0", "ok", "Asterisk 22 ("),
            ("16.28.0~dfsg-0+deb11u4", "5.0.4", "ok", "Asterisk 16 (16.28.0~dfsg-0+deb11u4), manager 5.0.4"),
            ("certified/18.9-cert1", "7.0.3", "ok", "Asterisk 18 ("),
            ("GIT-13-src", "2.10.6", "ok", chan_sip),
            ("13.38.3-vici", "2.10.6", "ok", chan_sip),
            ("13.9.0", "2.8.0", "ok", chan_sip),
            ("15.7.4", "4.0.3", "ok", chan_sip),
            ("13.8.2", "2.8.0", "warning", "this Asterisk (13.8.2), manager 2.8.0, is not a supported version"),
            ("11.25.3", "1.3", "warning", "is not a supported version"),
            ("23.0.0", "12.0.0", "warning", "is not a supported version"),
            // Asterisk's own version is unknown.
            ("", "2.10.6", "ok", "Asterisk 13, manager 2.10.6: supported with chan_sip"),
            ("", "5.0.4", "ok", "Asterisk 16, manager 5.0.4"),
            ("", "1.3", "warning", "manager 1.3, is not a supported version"),
            ("", "12.0.0", "warning", "is not a supported version"),
        ] {
            let asterisk = Some(asterisk.to_owned()).filter(|words| !words.is_empty());
            let heard = Heard { version: manager.to_owned(), asterisk, ..heard("originate") };
            let fix = if level == "ok" { "" } else { "16 to 22, or 13.9 or newer with chan_sip" };
            check(&[version(&heard)], &[("ami.version", level, text, fix)]);
        }
    }

    #[test]
    fn a_module_that_is_missing_is_no_right_that_is_missing() {
        let modules = |role, granted, without: &str| {
            let commands = list(granted, without);
            Vec::from_iter(judge_modules(role, &commands, &write_classes(&commands)))
        };
        let fix = "`load = res_manager_devicestate.so` in modules.conf";
        let no_list = ("ami.module", "failure", "its module res_manager_devicestate is not loaded", fix);
        check(&modules(Role::Main, "originate,call,reporting", "DeviceStateList"), &[no_list]);
        check(&modules(Role::Main, "originate,call", "DeviceStateList"), &[no_list]);
        check(&modules(Role::Main, "originate,call,reporting", ""), &[]);
        // Who may not ask for it does not see it.
        check(&modules(Role::Main, "originate", "DeviceStateList"), &[]);
        let no_pjsip = ("ami.module", "warning", "its module res_pjsip is not loaded", "remove [ami.contacts]");
        check(&modules(Role::Contacts, "system,reporting", "PJSIPShowContacts"), &[no_pjsip]);
        check(&modules(Role::Contacts, "reporting", "PJSIPShowContacts"), &[]);
    }

    #[test]
    fn what_is_not_heard_is_said() {
        let deaf = Heard {
            booted: false,
            call_events: Some(false),
            classes: BTreeSet::new(),
            ..heard("originate,call,reporting")
        };
        let read = "in manager.conf under [ev]: read = system,call,agent, and the eventfilter";
        check(
            &judge(Role::Main, "ev", &deaf),
            &[
                ("ami.version", "ok", "", ""),
                ("ami.write", "ok", "", ""),
                ("ami.read", "failure", "no FullyBooted event", read),
                ("ami.read", "failure", "no OriginateResponse event", read),
            ],
        );
        let loud = Heard {
            classes: ["security", "call"].map(str::to_owned).into(),
            commands: Err("denied".into()),
            ..heard("")
        };
        check(
            &judge(Role::Main, "ev", &loud),
            &[
                ("ami.version", "ok", "", ""),
                (
                    "ami.write",
                    "note",
                    "cannot read the rights of manager user ev: denied",
                    "compare manager.conf, [ev]",
                ),
                ("ami.read", "warning", "events of security", "read = system,call,agent"),
            ],
        );
    }
}
