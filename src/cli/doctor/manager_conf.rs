//! The settings of an AMI user in `manager.conf` that AMI itself does not show. Owns the grammar of the file and the
//! judgement of its settings. Must never read a file: the caller passes the text.

use std::collections::{BTreeMap, BTreeSet};

use super::finding::Finding;
use super::manager::{Role, judge_write};
use crate::ami::event::EVENTS;

/// Asterisk drops a client that does not read for this long; its default is 100 ms.
const WRITE_TIMEOUT_MS: u32 = 5000;
type Lines = Vec<(String, String)>;

/// The sections of a file, templates filled in.
#[derive(Debug, Default)]
pub(super) struct ManagerConf {
    sections: BTreeMap<String, Lines>,
    /// Files that it includes.
    pub(super) includes: Vec<String>,
}

impl ManagerConf {
    /// Adds a file's text.
    pub(super) fn read(&mut self, text: &str) {
        let mut at = String::new();
        let mut comment = false;
        for line in text.lines() {
            let line = strip_comment(line, &mut comment);
            if let Some((name, bases)) = head(&line) {
                let mut lines: Lines = Vec::new();
                for base in bases {
                    lines.extend(self.sections.get(base).cloned().unwrap_or_default());
                }
                name.clone_into(&mut at);
                self.sections.entry(at.clone()).or_default().extend(lines);
            } else if let Some(file) = line.strip_prefix("#include") {
                self.includes.push(file.trim().trim_matches(['"', '<', '>']).to_owned());
            } else if let Some((key, value)) = line.split_once("=>").or_else(|| setting(&line)) {
                let line = (key.trim().to_ascii_lowercase(), value.trim().to_owned());
                self.sections.entry(at.clone()).or_default().push(line);
            }
        }
    }

    /// Whether a file's text has a secret in it.
    pub(super) fn holds_secret(text: &str) -> bool {
        let mut conf = Self::default();
        conf.read(text);
        conf.sections.values().flatten().any(|(key, _)| key == "secret")
    }

    fn values<'a>(&'a self, user: &str, key: &'a str) -> impl Iterator<Item = &'a str> {
        let lines = self.sections.get(user).map_or(&[][..], Vec::as_slice);
        lines.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The value of a key; the last line counts.
    fn value<'a>(&'a self, user: &str, key: &'a str) -> Option<&'a str> {
        self.values(user, key).last()
    }

    /// Judges a user; `proven` are the write classes that Asterisk itself has shown.
    pub(super) fn judge(&self, role: Role, user: &str, proven: Option<&BTreeSet<String>>) -> Vec<Finding> {
        if !self.sections.contains_key(user) {
            return vec![
                Finding::note(
                    "ami.manager-conf",
                    format!("this manager.conf has no section [{user}]"),
                    "pass the file that Asterisk reads with --manager-conf",
                )
                .code("ami.manager-conf.unchecked"),
            ];
        }
        let classes = |key| {
            let list =
                self.value(user, key).unwrap_or_default().split(',').map(|class| class.trim().to_ascii_lowercase());
            list.filter(|class| !class.is_empty()).collect::<BTreeSet<String>>()
        };
        let mut findings = judge_read(role, user, &classes("read"));
        findings.extend(judge_lines(role, user, &expand(classes("write")), proven));
        findings.push(self.judge_timeout(user));
        if role == Role::Main {
            findings.push(self.judge_filters(user));
        }
        let guarded = ["deny", "acl"].iter().any(|key| self.value(user, key).is_some());
        if !guarded {
            findings.push(Finding::warning(
                "ami.permit",
                format!("[{user}] may log in from any address"),
                format!(
                    "in manager.conf under [{user}]: deny = 0.0.0.0/0.0.0.0 and permit = 127.0.0.1/255.255.255.255"
                ),
            ));
        }
        findings
    }

    fn judge_timeout(&self, user: &str) -> Finding {
        let fix = format!("in manager.conf under [{user}]: writetimeout = {WRITE_TIMEOUT_MS}; then `manager reload`");
        match self.value(user, "writetimeout").map(str::parse::<u32>) {
            Some(Ok(ms)) if ms >= WRITE_TIMEOUT_MS => Finding::ok("ami.writetimeout", format!("{ms} ms for [{user}]")),
            Some(Ok(ms)) => Finding::warning(
                "ami.writetimeout",
                format!("Asterisk drops [{user}] if it does not read for {ms} ms"),
                fix,
            ),
            Some(Err(_)) | None => Finding::warning(
                "ami.writetimeout",
                format!("[{user}] has no writetimeout: Asterisk drops it if it does not read for 100 ms"),
                fix,
            ),
        }
    }

    fn judge_filters(&self, user: &str) -> Finding {
        let lines = self.sections.get(user).map_or(&[][..], Vec::as_slice);
        let filters: Vec<(&str, &str)> = lines
            .iter()
            .filter(|(key, _)| key.starts_with("eventfilter"))
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        if filters.is_empty() {
            return Finding::note(
                "ami.eventfilter",
                format!("[{user}] has no eventfilter: Asterisk sends about twice as much as evenring needs"),
                "optional: add the line `eventfilter = ...` from docs/SECURITY.md to reduce the load",
            );
        }
        let hidden: Vec<String> =
            EVENTS.into_iter().filter(|name| is_hidden(&filters, name)).map(str::to_owned).collect();
        if hidden.is_empty() {
            return Finding::ok("ami.eventfilter", format!("[{user}] receives all events that evenring needs"));
        }
        Finding::failure(
            "ami.eventfilter",
            format!("the eventfilter of [{user}] hides {}", hidden.join(", ")),
            "use the line `eventfilter = ...` from docs/SECURITY.md, on one line, or none; then `manager reload`",
        )
    }
}

/// What Asterisk does with filters: who is let in by one (if there is any of that kind) and kept out by none. Exact for
/// names of events, which is all that one should filter by; of other patterns only the names in them are seen.
fn is_hidden(filters: &[(&str, &str)], name: &str) -> bool {
    // A name at the end stands for all that begin with it.
    let begins = |text: &str| {
        let word = text.rsplit_once("Event: ").map_or("", |(_, word)| word.trim_end());
        !word.is_empty() && name.starts_with(word)
    };
    let names = |text: &str| text.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == name) || begins(text);
    let excludes = |(key, value): &(&str, &str)| key.contains("action(exclude)") || value.starts_with('!');
    let has =
        |(key, value): &(&str, &str)| names(value) || key.contains(&format!("name({})", name.to_ascii_lowercase()));
    let (out, into): (Vec<_>, Vec<_>) = filters.iter().partition(|filter| excludes(filter));
    // `Event: Hangup$` matches nothing: the line ends with a CR.
    let useless = |(_, value): &(&str, &str)| value.ends_with(&format!("{name}$"));
    let let_in = into.is_empty() || into.iter().any(|filter| has(filter) && !useless(filter));
    !let_in || out.iter().any(has)
}

/// `all` is every class.
fn expand(classes: BTreeSet<String>) -> BTreeSet<String> {
    if !classes.contains("all") {
        return classes;
    }
    ["originate", "call", "reporting", "agent", "system", "command", "config", "user"].map(str::to_owned).into()
}

fn judge_read(role: Role, user: &str, classes: &BTreeSet<String>) -> Vec<Finding> {
    let fix = format!(
        "in manager.conf under [{user}]: {}; then `asterisk -rx 'manager reload'` and `systemctl reload evenring`",
        role.read_line()
    );
    // Nothing of class `agent` is read yet.
    let needs: Vec<&str> = role.reads().iter().copied().filter(|class| *class != "agent").collect();
    let missing: Vec<&str> =
        needs.into_iter().filter(|class| !classes.contains(*class) && !classes.contains("all")).collect();
    let extra: Vec<&str> = classes.iter().map(String::as_str).filter(|class| !role.reads().contains(class)).collect();
    let mut findings = Vec::new();
    if !missing.is_empty() {
        let text = format!("[{user}] lacks read = {}", missing.join(","));
        findings.push(Finding::failure("ami.read", text, fix.clone()));
    }
    if !extra.is_empty() {
        let text = format!("[{user}] has read = {}, which evenring does not need", extra.join(","));
        findings.push(Finding::warning("ami.read", text, fix).code("ami.read.excess"));
    }
    findings
}

/// Judges what AMI could not show, and whether Asterisk has read the file.
fn judge_lines(role: Role, user: &str, written: &BTreeSet<String>, proven: Option<&BTreeSet<String>>) -> Vec<Finding> {
    let Some(proven) = proven else { return judge_write(role, user, written) };
    // Classes that no action proves stand in the file alone.
    let shown = |class: &&String| proven.contains(*class) || super::manager::can_be_proven(class);
    let stated: BTreeSet<String> = written.iter().filter(shown).cloned().collect();
    if stated == *proven {
        return Vec::new();
    }
    let list = |classes: &BTreeSet<String>| classes.iter().cloned().collect::<Vec<_>>().join(",");
    vec![Finding::warning(
        "ami.manager-conf",
        format!("[{user}] has write = {}, but Asterisk allows {}", list(written), list(proven)),
        "`asterisk -rx 'manager reload'`, or pass the file that Asterisk reads with --manager-conf",
    )]
}

/// `key = value`, and not a line of something else.
fn setting(line: &str) -> Option<(&str, &str)> {
    // eventfilter(action(include),header(X)) = text
    line.split_once('=')
}

/// `[name]`, `[name](!)`, `[name](base,base)`.
fn head(line: &str) -> Option<(&str, Vec<&str>)> {
    let (name, rest) = line.strip_prefix('[')?.split_once(']')?;
    let bases = rest.trim().strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).unwrap_or_default();
    Some((name.trim(), bases.split(',').map(str::trim).filter(|base| !["", "!", "+"].contains(base)).collect()))
}

/// A `;` begins a comment unless a backslash stands before it; `;--` begins one that `--;` ends.
fn strip_comment(line: &str, inside: &mut bool) -> String {
    let mut kept = String::new();
    let mut rest = line;
    loop {
        if *inside {
            let Some((_, after)) = rest.split_once("--;") else { break };
            (*inside, rest) = (false, after);
        }
        let Some((before, after)) = rest.split_once(';') else {
            kept.push_str(rest);
            break;
        };
        if let Some(before) = before.strip_suffix('\\') {
            kept.push_str(before);
            kept.push(';');
            rest = after;
            continue;
        }
        kept.push_str(before);
        if !after.starts_with("--") || after.starts_with("---") {
            break;
        }
        (*inside, rest) = (true, after.get(2..).unwrap_or_default());
    }
    kept.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::finding::check;
    use super::*;

    #[test]
    fn a_file_of_comments_holds_no_secret() {
        assert!(!ManagerConf::holds_secret("; secret = x\n;[me]\n"));
        assert!(ManagerConf::holds_secret("[me]\nsecret = x\n"));
    }

    const PAGE: &str = include_str!("../../../docs/SECURITY.md");

    fn conf(text: &str) -> ManagerConf {
        let mut conf = ManagerConf::default();
        conf.read(text);
        conf
    }

    fn set(classes: &str) -> BTreeSet<String> {
        classes.split(',').map(str::to_owned).collect()
    }

    #[test]
    fn the_lines_of_the_security_page_are_all_right() {
        let conf = conf(PAGE);
        let good: [(&str, &str, &str, &str); 2] = [
            ("ami.writetimeout", "ok", "5000 ms", ""),
            ("ami.eventfilter", "ok", "all events that evenring needs", ""),
        ];
        check(&conf.judge(Role::Main, "evenring", Some(&set("originate,call,reporting,agent"))), &good);
        let write = ("ami.write", "ok", "agent,call,originate,reporting", "");
        check(&conf.judge(Role::Main, "evenring", None), &[&[write][..], &good].concat());
    }

    #[test]
    fn what_is_missing_or_too_much_is_said_with_the_line_to_write() {
        let bad = conf(
            "[ev]\nsecret=x\nread = all\nwrite = call,command\nwritetimeout = 100\neventfilter = Event: Hangup$\n",
        );
        check(
            &bad.judge(Role::Main, "ev", None),
            &[
                (
                    "ami.read",
                    "warning",
                    "read = all, which evenring does not need",
                    "in manager.conf under [ev]: read = system,call,agent",
                ),
                ("ami.write", "failure", "lacks write = originate,reporting", "write = originate,call,reporting,agent"),
                ("ami.write", "failure", "write = command: it gives access to Asterisk's whole CLI", ""),
                ("ami.writetimeout", "warning", "not read for 100 ms", "writetimeout = 5000"),
                ("ami.eventfilter", "failure", "hides FullyBooted, Shutdown,", "from docs/SECURITY.md"),
                ("ami.permit", "warning", "from any address", "permit = 127.0.0.1"),
            ],
        );
        let bare = conf("[ev]\nread = system\nwrite = originate,call,reporting\nacl = here");
        check(
            &bare.judge(Role::Main, "ev", Some(&set("originate,call,reporting,agent"))),
            &[
                ("ami.read", "failure", "lacks read = call", ""),
                ("ami.manager-conf", "warning", "but Asterisk allows agent,call", "manager reload"),
                ("ami.writetimeout", "warning", "not read for 100 ms", "writetimeout = 5000"),
                ("ami.eventfilter", "note", "no eventfilter", "docs/SECURITY.md"),
            ],
        );
        check(
            &bare.judge(Role::Main, "nobody", None),
            &[("ami.manager-conf", "note", "no section [nobody]", "--manager-conf")],
        );
    }

    #[test]
    fn templates_comments_and_both_signs_are_understood() {
        let text = "\
            ;-- a block\n[evenring]\nwrite = command\n--; \n[general]\nenabled = yes\n\
            [base](!) ; a template\nread => system,call,agent\nwritetimeout = 6000\ndeny=0.0.0.0/0\n\
            [evenring](base)\nsecret = a\\;b\nwrite = originate , Call,reporting ;,command\n\
            eventfilter(action(include),name(Hangup)) =\n#include \"manager.d/*.conf\"\n";
        let conf = conf(text);
        assert_eq!(conf.value("evenring", "secret"), Some("a;b"));
        assert_eq!(conf.includes, ["manager.d/*.conf"]);
        check(
            &conf.judge(Role::Main, "evenring", None),
            &[
                ("ami.write", "ok", "call,originate,reporting", ""),
                ("ami.writetimeout", "ok", "6000", ""),
                ("ami.eventfilter", "failure", "hides FullyBooted", "docs/SECURITY.md"),
            ],
        );
    }

    #[test]
    fn filters_hide_what_they_do_not_name_or_name_with_a_mark() {
        let hidden = |filters: &[(&str, &str)]| EVENTS.iter().filter(|name| is_hidden(filters, name)).count();
        let plain = |value| ("eventfilter", value);
        assert_eq!(hidden(&[plain("!Event: NewCallerid"), plain("!Event: Bridge")]), 0);
        assert_eq!(hidden(&[plain("!Event: Hangup")]), 2);
        assert_eq!(hidden(&[plain("Event: Hangup"), plain("Event: FullyBooted")]), EVENTS.len() - 3);
        assert_eq!(hidden(&[("eventfilter(action(exclude),name(hangup))", "")]), 1);
        assert_eq!(hidden(&[("eventfilter(action(include),name(hangup))", "")]), EVENTS.len() - 1);
        assert_eq!(hidden(&[plain("^Event: (FullyBooted|Hangup)[[:space:]]")]), EVENTS.len() - 2);
        for name in EVENTS {
            assert!(crate::ami::event::is_wanted(name.as_bytes()), "{name}");
        }
    }
}
