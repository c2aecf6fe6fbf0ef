//! The file format of exported aliases: one alias per line with its phones. Pure: text in, aliases out. Owns the format.
//! Must never read a file or ask Redis.

use std::collections::BTreeMap;

use super::PhoneAt;
use crate::ids::{Alias, Case};

/// Maximum number of errors that are shown for one file.
const FAULTS_MOST: usize = 20;

/// Aliases and their phones, in the order of their names.
pub(super) type Aliases = BTreeMap<Alias, Vec<PhoneAt>>;

/// Reads a whole file: one `ALIAS EXTENSION@NODE...` per line, separated by blanks or tabs; empty lines and lines that
/// begin with `#` are skipped. Names are returned as Redis spells them.
///
/// # Errors
/// The first twenty errors, each with its line number.
pub(super) fn parse(text: &str, case: Case) -> Result<Aliases, Vec<String>> {
    let (mut aliases, mut lines, mut faults) = (Aliases::new(), BTreeMap::new(), Vec::new());
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim_start().starts_with('#') || line.trim().is_empty() {
            continue;
        }
        match alias(line, case) {
            Ok((alias, phones)) => match lines.insert(alias.clone(), number) {
                None => drop(aliases.insert(alias, phones)),
                Some(first) => faults.push(format!("line {number}: {alias} is already in line {first}")),
            },
            Err(fault) => faults.push(format!("line {number}: {fault}")),
        }
    }
    if faults.is_empty() {
        return Ok(aliases);
    }
    let more = faults.len().saturating_sub(FAULTS_MOST);
    faults.truncate(FAULTS_MOST);
    if more > 0 {
        faults.push(format!("and {more} more"));
    }
    Err(faults)
}

fn alias(line: &str, case: Case) -> Result<(Alias, Vec<PhoneAt>), String> {
    let mut words = line.split_whitespace();
    let alias = words.next().unwrap_or_default().parse::<Alias>().map_err(|error| error.to_string())?;
    let phone = |word: &str| {
        let PhoneAt(extension, node) = word.parse().map_err(|error| format!("{word:?}: {error}"))?;
        Ok(PhoneAt(case.extension(&extension), node))
    };
    let phones: Vec<PhoneAt> = words.map(phone).collect::<Result<_, String>>()?;
    if phones.is_empty() {
        return Err(format!("{alias} has no phone: expected ALIAS EXTENSION@NODE..."));
    }
    Ok((case.alias(&alias), phones))
}

/// What an import does to the aliases that are there.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Not there yet.
    pub(super) new: Vec<Alias>,
    /// There, with other phones.
    pub(super) changed: Vec<Alias>,
    /// There, and not in the file.
    pub(super) only_there: Vec<String>,
    /// As they are to be already.
    pub(super) same: usize,
}

impl Changes {
    /// Compares. What is there has its phones written as Redis has them.
    pub(super) fn between(file: &Aliases, there: &BTreeMap<String, Vec<String>>) -> Self {
        let mut changes = Self::default();
        for (alias, phones) in file {
            let phones: Vec<String> = phones.iter().map(ToString::to_string).collect();
            match there.get(alias.as_str()) {
                None => changes.new.push(alias.clone()),
                Some(is) if *is == phones => changes.same += 1,
                Some(_) => changes.changed.push(alias.clone()),
            }
        }
        let is_in_file = |alias: &str| alias.parse::<Alias>().is_ok_and(|alias| file.contains_key(&alias));
        changes.only_there = there.keys().filter(|alias| !is_in_file(alias)).cloned().collect();
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_whole_or_not_at_all() {
        let good = parse("# desks\n\ndesk7 cc100@tel-1\tcc200@tel-2\r\n  desk8 cc101@tel-1 \n", Case::Exact).unwrap();
        let shown: Vec<String> = good
            .iter()
            .map(|(alias, phones)| format!("{alias}: {}", phones.iter().map(ToString::to_string).collect::<String>()))
            .collect();
        assert_eq!(shown, ["desk7: cc100@tel-1cc200@tel-2", "desk8: cc101@tel-1"]);
        let faults = parse("desk7 cc100@tel-1\ndesk8\ndesk9 cc100\nd\u{e9}sk cc1@a\ndesk7 cc200@tel-2", Case::Exact)
            .unwrap_err();
        let words = [
            "line 2: desk8 has no phone",
            "line 3: \"cc100\": write EXTENSION@NODE",
            "line 4: ",
            "line 5: desk7 is already in line 1",
        ];
        assert_eq!(faults.len(), words.len(), "{faults:?}");
        assert!(faults.iter().zip(words).all(|(fault, words)| fault.starts_with(words)), "{faults:?}");
        let folded = parse("Desk7 CC1@a", Case::Fold).unwrap();
        assert_eq!(
            folded.iter().map(|(alias, phones)| format!("{alias} {}", phones[0])).collect::<Vec<_>>(),
            ["desk7 cc1@a"]
        );
        assert_eq!(parse("Desk7 CC1@a\ndesk7 cc1@a", Case::Exact).unwrap().len(), 2);
        assert!(parse("Desk7 CC1@a\ndesk7 cc1@a", Case::Fold).unwrap_err()[0].starts_with(
            "line 2: desk7 is already in \
                line 1"
        ));
        let many = parse(&"desk\n".repeat(50), Case::Exact).unwrap_err();
        assert_eq!((many.len(), many[20].as_str()), (21, "and 30 more"));
    }

    #[test]
    fn what_changes_is_told_apart() {
        let file = parse("a cc1@x\nb cc2@x\nc cc3@x cc3@y", Case::Exact).unwrap();
        let there = BTreeMap::from([
            ("b".to_owned(), vec!["cc9@x".to_owned()]),
            ("c".to_owned(), vec!["cc3@x".to_owned(), "cc3@y".to_owned()]),
            ("d".to_owned(), vec!["cc4@x".to_owned()]),
        ]);
        let changes = Changes::between(&file, &there);
        let names = |list: &[Alias]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!((names(&changes.new), names(&changes.changed)), (vec!["a".to_owned()], vec!["b".to_owned()]));
        assert_eq!((changes.only_there, changes.same), (vec!["d".to_owned()], 1));
    }
}
