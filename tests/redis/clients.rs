//! The programs of docs/api.md, in Python, PHP and JavaScript, as they stand there: each logs an agent in, waits until the agent
//! is on the phone, and logs the agent out.
//!
//! Owns the way from the page to a program that runs. Must never repair a sample.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says why")]

#[path = "../api_client/mod.rs"]
mod api_client;
#[path = "../api_client/house.rs"]
mod house;
#[path = "../lab/mod.rs"]
mod lab;
#[path = "../load_nodes/mod.rs"]
mod load_nodes;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use house::House;
use serde_json::json;

/// As the code blocks of the page are marked: a language, its program, and the end of its files' names.
const LANGUAGES: [(&str, &str, &str); 3] = [("python", "python3", "py"), ("php", "php", "php"), ("js", "node", "js")];
const LONG: Duration = Duration::from_secs(15);
/// A sample that is longer than this is no sample.
const LINES_MOST: usize = 30;

/// The one code block of the page in this language.
fn sample(language: &str) -> String {
    let page = include_str!("../../docs/api.md");
    let blocks: Vec<&str> = page.split(&format!("```{language}\n")).skip(1).collect();
    let [block] = blocks[..] else { panic!("{} blocks in {language}", blocks.len()) };
    block.split("```").next().unwrap().to_owned()
}

fn written(dir: &Path, language: &str, end: &str) -> PathBuf {
    let (file, text) = (dir.join(format!("client.{end}")), sample(language));
    assert!(text.lines().count() < LINES_MOST, "{language}: {} lines", text.lines().count());
    std::fs::write(&file, text).unwrap();
    file
}

fn run(house: &House, program: &str, file: &Path, token: &str, words: [&str; 2]) -> Output {
    let mut command = Command::new(program);
    command.arg(file).args(words).env("EVENRING_API", format!("http://{}", house.address));
    command.env("EVENRING_TOKEN", token).output().unwrap_or_else(|error| panic!("{program}: {error}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clients_of_the_page_log_an_agent_in_and_out() {
    let (house, dir) = (House::start("").await, tempfile::tempdir().unwrap());
    for (number, (language, program, end)) in LANGUAGES.into_iter().enumerate() {
        let file = written(dir.path(), language, end);
        let (alias, agent) = (format!("cc10{number}x"), format!("7{number}"));
        let begin = lab::now();
        let output = run(&house, program, &file, &house.tokens["crm"], [&alias, &agent]);
        // Waiting for what has happened already would take 20 s.
        assert!(begin.elapsed() < LONG, "{language} took {:?}", begin.elapsed());
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{language}: {output:?}");
        assert_eq!(said.trim(), "tel-1 live", "{language}");
        let path = format!("/v1/sessions?state=ended&agent={agent}");
        let rows = || house.client("reader").get(&path).json()["sessions"].clone();
        lab::wait_for(house::SOON, || {
            let rows = rows();
            if rows[0]["reason"] == json!("logged-out") { Ok(()) } else { Err(format!("{language}: {rows}")) }
        });
        // What is wrong is said in the words of the problem.
        for (token, words, why) in [
            (&house.tokens["crm"], ["nobodyx", "9"], "no node knows nobodyx"),
            (&house.tokens["reader"], [&*alias, "9"], "needs the scope"),
        ] {
            let output = run(&house, program, &file, token, words);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{language}: {output:?}");
            assert!(said.contains(why) && said.lines().count() == 1, "{language}: {said}");
        }
    }
}
