//! The sources of settings: one TOML file, overridden by the environment.
//!
//! Owns layers, key paths, unknown keys and the texts of problems. Must never know what a key means, or put a value into a
//! message unless its reader did so: a value may be a secret (P13).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::{FileFormat, Source, ValueKind};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub(super) const MILLISECOND: Duration = Duration::from_millis(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);

/// The prefix of environment variables with settings. `EVENRING_LOG` is not one of them.
const ENV_PREFIX: &str = "EVENRING__";
/// Keys below this one are the operator's own names, so the environment keeps their letters' case.
const VARIABLES: &str = "ring.variables";
/// Bytes of a settings file.
const FILE_BYTES_MAX: usize = 256 * 1024;

/// Which layer a value stands in; a later one wins.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Layer {
    /// The file.
    File,
    /// The environment variable of this name.
    Env(String),
}

/// A value that was given, and where.
pub(super) struct Entry {
    pub(super) value: Value,
    pub(super) layer: Layer,
}

/// Hands out values by key, remembers which keys exist, and collects what is wrong.
pub(super) struct Reader {
    file_name: String,
    file: BTreeMap<String, Value>,
    env: BTreeMap<String, (String, String)>,
    /// Every key that was asked for, and where its value came from.
    known: BTreeMap<String, Option<Layer>>,
    pub(super) problems: Vec<String>,
    pub(super) warnings: Vec<String>,
    /// What is worth knowing, and no reason to change anything.
    pub(super) notes: Vec<String>,
    /// Why secrets that the daemon has cannot be read here.
    pub(super) hidden: Vec<String>,
    /// Keys of secrets that stand in the file itself.
    pub(super) inline_secrets: Vec<&'static str>,
    /// Files that hold a secret each.
    pub(super) secret_files: Vec<PathBuf>,
    /// Files that everybody can read, and must not.
    pub(super) open_files: Vec<String>,
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Span(Duration);

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        span(&text).map(Self)
    }
}

impl Reader {
    /// Splits the file's text (empty for none) and the environment into key paths.
    pub(super) fn new(file: &Path, text: &str, env: impl Iterator<Item = (String, String)>) -> Self {
        let mut reader = Self {
            file_name: file.display().to_string(),
            file: BTreeMap::new(),
            env: BTreeMap::new(),
            known: BTreeMap::new(),
            problems: Vec::new(),
            warnings: Vec::new(),
            notes: Vec::new(),
            hidden: Vec::new(),
            inline_secrets: Vec::new(),
            secret_files: Vec::new(),
            open_files: Vec::new(),
        };
        reader.add_file(text);
        for (name, value) in env {
            reader.add_env(name, value);
        }
        reader
    }

    fn add_file(&mut self, text: &str) {
        if text.len() > FILE_BYTES_MAX {
            self.problems.push(format!(
                "{} is larger than {FILE_BYTES_MAX} bytes: check that it is the right file",
                self.file_name
            ));
            return;
        }
        match config::File::from_str(text, FileFormat::Toml).collect() {
            Ok(table) => {
                for (key, value) in table {
                    flatten(quoted(&key), value.kind, &mut self.file);
                }
            }
            Err(error) => {
                // The parser quotes the line it stumbled over, and that may hold a secret: keep only where and what.
                let error = error.to_string();
                let lines = error.lines().filter(|line| !line.contains('|')).map(|line| line.trim_end_matches(" in "));
                let what = lines.filter(|line| !line.trim().is_empty()).collect::<Vec<_>>().join(": ");
                self.problems.push(format!("{} is not TOML: {what}", self.file_name));
            }
        }
    }

    fn add_env(&mut self, name: String, value: String) {
        let Some(rest) = name.strip_prefix(ENV_PREFIX) else { return };
        if value.is_empty() {
            return; // set to nothing counts as not set
        }
        if value.contains('\u{fffd}') {
            self.problems.push(format!("the environment variable {name} is not UTF-8"));
            return;
        }
        let parts: Vec<&str> = rest.splitn(3, "__").collect();
        let key = match parts[..] {
            [a, b, own] if format!("{a}.{b}").to_lowercase() == VARIABLES => format!("{VARIABLES}.{}", quoted(own)),
            _ => parts.join(".").to_lowercase(),
        };
        if let Some((other, _)) = self.env.insert(key, (name.clone(), value)) {
            self.problems.push(format!("the environment variables {other} and {name} set the same key: remove one"));
        }
    }

    /// A key's value from the highest layer that has one.
    pub(super) fn take(&mut self, key: &str) -> Option<Entry> {
        let file = self.file.remove(key).map(|value| Entry { value, layer: Layer::File });
        let env = self.env.remove(key).map(|(name, text)| Entry { value: text.into(), layer: Layer::Env(name) });
        let entry = env.or(file);
        self.known.insert(key.to_owned(), entry.as_ref().map(|entry| entry.layer.clone()));
        entry
    }

    /// A key's value, or its default, which goes through the same parser. `None` after a problem.
    pub(super) fn read<T: DeserializeOwned>(&mut self, key: &str, default: impl Into<Value>) -> Option<T> {
        let entry = self.take(key).unwrap_or_else(|| Entry { value: default.into(), layer: Layer::File });
        self.convert(key, entry)
    }

    /// A key that may be absent. The outer `None` means a problem.
    pub(super) fn optional<T: DeserializeOwned>(&mut self, key: &str) -> Option<Option<T>> {
        match self.take(key) {
            Some(entry) => self.convert(key, entry).map(Some),
            None => Some(None),
        }
    }

    /// A number within its bounds.
    pub(super) fn number(&mut self, key: &str, default: u32, bounds: RangeInclusive<u32>) -> Option<u32> {
        let value: u32 = self.read(key, default)?;
        let (from, to) = bounds.clone().into_inner();
        self.bounded(key, value, bounds.contains(&value), &format!("{value} is not between {from} and {to}"))
    }

    /// A duration such as `2s 500ms` within its bounds, which are texts of the same kind for the message.
    pub(super) fn span(&mut self, key: &str, default: &str, bounds: RangeInclusive<Duration>) -> Option<Duration> {
        let Span(value) = self.read(key, default)?;
        let (from, to) = bounds.clone().into_inner();
        let why = format!("{} is not between {} and {}", span_text(value), span_text(from), span_text(to));
        self.bounded(key, value, bounds.contains(&value), &why)
    }

    fn bounded<T>(&mut self, key: &str, value: T, inside: bool, why: &str) -> Option<T> {
        if inside {
            return Some(value);
        }
        self.fail(key, why);
        None
    }

    /// All keys below `prefix`, with the operator's own names.
    pub(super) fn take_below(&mut self, prefix: &str) -> BTreeMap<String, Entry> {
        let dotted = format!("{prefix}.");
        let keys: BTreeSet<String> = self.file.keys().chain(self.env.keys()).cloned().collect();
        let own = keys.into_iter().filter(|key| key.starts_with(&dotted));
        let taken: Vec<_> =
            own.filter_map(|key| self.take(&key).map(|entry| (key[dotted.len()..].to_owned(), entry))).collect();
        taken.into_iter().collect()
    }

    /// Reads an entry by its type. Only for values that may be shown.
    pub(super) fn convert<T: DeserializeOwned>(&mut self, key: &str, entry: Entry) -> Option<T> {
        let Entry { value, layer } = entry;
        let result = match (&layer, value) {
            (Layer::Env(_), Value::String(text)) => from_env_text(&text),
            (Layer::File | Layer::Env(_), value) => serde_json::from_value(value).map_err(|error| error.to_string()),
        };
        result.map_err(|why| self.fail(key, why)).ok()
    }

    /// Notes that the value of `key` is wrong, and where it stands.
    pub(super) fn fail(&mut self, key: &str, why: impl Display) {
        let place = self.known.get(key).and_then(Option::as_ref).map(|layer| format!(" in {}", self.place(layer)));
        self.problems.push(format!("{key}{}: {why}", place.unwrap_or_default()));
    }

    /// A layer in words.
    pub(super) fn place(&self, layer: &Layer) -> String {
        match layer {
            Layer::File => self.file_name.clone(),
            Layer::Env(name) => format!("the environment variable {}", name.escape_debug()),
        }
    }

    /// Notes a file that holds a secret, which `what` names.
    pub(super) fn note_file(&mut self, what: &str, path: &Path) {
        self.secret_files.push(path.to_owned());
        if std::fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o004 != 0) {
            let shown = path.display();
            self.open_files.push(format!("{what}: {shown} is world-readable: chmod 0600 {shown}"));
        }
    }

    /// Reports every key that was not read as unknown. Call it when all keys have been read.
    pub(super) fn refuse_the_rest(&mut self) {
        let file = std::mem::take(&mut self.file).into_iter().map(|(key, value)| (key, value.is_object(), Layer::File));
        let env = std::mem::take(&mut self.env).into_iter().map(|(key, (name, _))| (key, false, Layer::Env(name)));
        for (key, is_table, layer) in file.chain(env).collect::<Vec<_>>() {
            let below = format!("{key}.");
            let is_section = key == VARIABLES || self.known.keys().any(|known| known.starts_with(&below));
            let place = self.place(&layer);
            if is_section && is_table {
                continue; // an empty section
            }
            if is_section {
                self.problems.push(format!("{key} in {place} is a section, not a value: write [{key}]"));
                continue;
            }
            let hint = self.nearest(&key).map(|near| match &layer {
                Layer::File => format!(": did you mean {near}?"),
                Layer::Env(_) => format!(": did you mean {ENV_PREFIX}{}?", near.to_uppercase().replace('.', "__")),
            });
            let hint = hint.unwrap_or_else(|| ": `evenring config dump` lists all keys".to_owned());
            self.problems.push(format!("unknown key {key} in {place}{hint}"));
        }
    }

    fn nearest(&self, key: &str) -> Option<&str> {
        let name = |key: &str| key.rsplit('.').next().map(str::to_owned);
        let scored = self.known.keys().map(|known| {
            let distance = strsim::osa_distance(&key.to_lowercase(), known);
            (if name(known) == name(key) { distance.min(2) } else { distance }, distance, known)
        });
        let (score, _, known) = scored.min()?;
        (score <= 2.max(key.len() / 3)).then_some(known.as_str())
    }
}

/// Reads a duration as an operator writes it, e.g. `90s` or `30m`.
///
/// # Errors
/// What is wrong with it.
pub fn span(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| error.to_string())
}

/// A duration as an operator writes it.
pub fn span_text(span: Duration) -> String {
    humantime::format_duration(span).to_string()
}

/// The environment has texts only: a text, a number or a list with commas, whichever the type fetches.
fn from_env_text<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let mut tries = vec![Value::from(text)];
    tries.extend(text.trim().parse::<i64>().ok().map(Value::from));
    tries.push(text.split(',').map(|part| Value::from(part.trim())).collect());
    let mut first = None;
    for value in tries {
        match serde_json::from_value(value) {
            Ok(value) => return Ok(value),
            Err(error) => {
                let error = error.to_string();
                // A wrong type is no news if another form is still to be tried; a wrong value is.
                let is_news = !error.starts_with("invalid type");
                let had_news = first.as_ref().is_some_and(|first: &String| !first.starts_with("invalid type"));
                if first.is_none() || (is_news && !had_news) {
                    first = Some(error);
                }
            }
        }
    }
    Err(first.unwrap_or_default())
}

/// One part of a key path. What could be mistaken for a path keeps its quotes; control bytes are escaped.
fn quoted(part: &str) -> String {
    let plain = part.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-');
    if plain { part.to_owned() } else { format!("{part:?}") }
}

fn flatten(path: String, value: ValueKind, out: &mut BTreeMap<String, Value>) {
    match value {
        ValueKind::Table(table) if !table.is_empty() => {
            for (key, value) in table {
                flatten(format!("{path}.{}", quoted(&key)), value.kind, out);
            }
        }
        ValueKind::Table(_) => drop(out.insert(path, Value::Object(serde_json::Map::new()))),
        ValueKind::Nil
        | ValueKind::Boolean(_)
        | ValueKind::I64(_)
        | ValueKind::I128(_)
        | ValueKind::U64(_)
        | ValueKind::U128(_)
        | ValueKind::Float(_)
        | ValueKind::String(_)
        | ValueKind::Array(_) => drop(out.insert(path, plain(value))),
    }
}

fn plain(value: ValueKind) -> Value {
    match value {
        ValueKind::Nil | ValueKind::I128(_) | ValueKind::U128(_) => Value::Null, // TOML has none of these
        ValueKind::Boolean(value) => value.into(),
        ValueKind::I64(value) => value.into(),
        ValueKind::U64(value) => value.into(),
        ValueKind::Float(value) => value.into(),
        ValueKind::String(value) => value.into(),
        ValueKind::Table(table) => table.into_iter().map(|(key, value)| (key, plain(value.kind))).collect(),
        ValueKind::Array(array) => array.into_iter().map(|value| plain(value.kind)).collect(),
    }
}

pub(super) fn absolute(reader: &mut Reader, key: &str) -> Option<Option<PathBuf>> {
    let path: Option<PathBuf> = reader.optional(key)?;
    let Some(path) = path else { return Some(None) };
    if !path.is_absolute() {
        reader.fail(key, format!("{path:?} is not an absolute path"));
        return None;
    }
    if let Err(error) = std::fs::File::open(&path) {
        reader.warnings.push(format!("{key}: cannot read {}: {error}", path.display()));
    }
    Some(Some(path))
}
