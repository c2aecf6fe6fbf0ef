//! README.md, docs/ and the sources as tests read them. Owns what of a page is code. Must never know what must stand there.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a helper that fails ends the test")]

use std::fs;
use std::path::Path;

/// The page with verbs, settings, reasons and log lines.
pub const REFERENCE: &str = "docs/reference.md";

/// The text of a file of the repository.
pub fn file(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect(path)
}

/// All texts between `quote`s in these lines.
pub fn quoted(lines: &str, quote: char) -> impl Iterator<Item = &str> {
    lines.lines().flat_map(move |line| line.split(quote).skip(1).step_by(2))
}

/// README.md and all of docs/: path and text.
pub fn pages() -> Vec<(String, String)> {
    let names = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")).unwrap();
    let names = names.map(|entry| format!("docs/{}", entry.unwrap().file_name().to_str().unwrap()));
    let mut pages: Vec<_> = names.chain(["README.md".to_owned()]).map(|name| (name.clone(), file(&name))).collect();
    pages.sort();
    pages
}

/// The code of a page: what stands in fences for a shell, line by line, and what stands in a line between backquotes.
pub fn code(page: &str) -> (Vec<&str>, Vec<&str>) {
    let (mut fenced, mut inline, mut inside) = (Vec::new(), Vec::new(), None);
    for line in page.lines() {
        match (inside, line.trim_start().strip_prefix("```")) {
            (None, Some(language)) => inside = Some(language),
            (Some(_), Some(_)) => inside = None,
            (Some("sh"), None) => fenced.push(line.trim()),
            (Some(_), None) => {}
            (None, None) => inline.extend(quoted(line, '`')),
        }
    }
    (fenced, inline)
}
