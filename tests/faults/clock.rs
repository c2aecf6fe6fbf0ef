//! A clock that is wrong, by libfaketime: all nodes are one machine here and have one clock, and Linux has no namespace
//! for the time of day. Only the daemon is told wrong; evenring never looks at Asterisk's time.
//!
//! Owns how a daemon is told. Must never touch the real clock.

use super::setup::Setup;

/// Where Debian has the library.
fn library() -> String {
    let below = std::fs::read_dir("/usr/lib").expect("there is a /usr/lib");
    let paths = below.filter_map(|entry| Some(entry.ok()?.path().join("faketime/libfaketimeMT.so.1")));
    let found = paths.filter(|path| path.is_file()).max();
    found.unwrap_or_else(|| panic!("no libfaketime: run ./dev setup")).display().to_string()
}

pub(super) fn prepare(stage: &mut Setup, name: &str) {
    set(stage, name, "+0");
    let (library, file) = (library(), stage.file(name).display().to_string());
    let environment = [
        ("LD_PRELOAD", library.as_str()),
        ("FAKETIME_TIMESTAMP_FILE", &file),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
    ];
    stage.restart_daemon(name, &environment);
    stage.wait_whole();
}

pub(super) fn set(stage: &mut Setup, name: &str, offset: &str) {
    std::fs::write(stage.file(name), offset).expect("write the offset");
}

/// The clock is right again; and was it wrong?
pub(super) fn repair(stage: &mut Setup, name: &str) -> Vec<String> {
    set(stage, name, "+0");
    let log = stage.daemon(name).log();
    let number = |text: Option<&str>| text?.parse::<i32>().ok();
    let minute = |line: &str| Some(number(line.get(11..13))? * 60 + number(line.get(14..16))?);
    let minutes: Vec<i32> = log.lines().filter_map(minute).collect();
    let jumped = minutes.windows(2).any(|pair| (55..65).contains(&(pair[1] - pair[0]).rem_euclid(24 * 60)));
    stage.restart_daemon(name, &[]);
    if jumped { Vec::new() } else { vec![format!("the clock of {name} was never wrong")] }
}
