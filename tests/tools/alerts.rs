//! The alert rules and the dashboard: Prometheus reads them, and each alert fires when it should.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says why")]

#[path = "../monitoring/mod.rs"]
mod monitoring;

use std::fs;
use std::path::Path;

use monitoring::{dashboard, promtool, shipped};

fn rules() -> String {
    fs::read_to_string(shipped("alerts.yml")).unwrap()
}

#[test]
fn prometheus_takes_the_rules_and_every_alert_is_tested() {
    let (fine, said) = promtool(&["check", "rules", shipped("alerts.yml").to_str().unwrap()], "");
    assert!(fine, "{said}");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/monitoring");
    let files = ["alerts.yml", "alerts-slow.yml"].map(|name| folder.join(name));
    let (fine, said) = promtool(&["test", "rules", files[0].to_str().unwrap(), files[1].to_str().unwrap()], "");
    assert!(fine, "{said}");
    let cases = files.map(|file| fs::read_to_string(file).unwrap()).concat();
    for line in rules().lines() {
        if let Some(name) = line.trim().strip_prefix("- alert: ") {
            let fires = format!("alertname: {name}\n        exp_alerts:");
            assert!(cases.contains(&fires), "no case in which {name} fires");
        }
    }
}

#[test]
fn every_alert_says_what_to_do() {
    let rules = rules();
    let alerts: Vec<&str> = rules.split("- alert: ").skip(1).collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    for alert in alerts {
        for word in ["severity: ", "summary: ", "fix: ", "runbook: "] {
            assert!(alert.contains(word), "no {word} in {alert}");
        }
    }
}

/// Each alert leads to its own row of the runbook, and the runbook has no rows of alerts that are gone.
#[test]
fn every_alert_has_its_row_in_the_runbook() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbook.md")).unwrap();
    let rules = rules();
    let alerts: Vec<&str> = rules.split("- alert: ").skip(1).collect();
    for alert in &alerts {
        let name = alert.lines().next().unwrap();
        let anchor = name.to_lowercase();
        assert!(alert.contains(&format!("runbook: \"docs/runbook.md#{anchor}\"\n")), "no runbook in {alert}");
        let start = format!("| <a id=\"{anchor}\"></a>`{name}` | ");
        let row = page.lines().find_map(|line| line.strip_prefix(&start));
        let row = row.unwrap_or_else(|| panic!("docs/runbook.md has no row {start}"));
        assert!(row.matches(" |").count() == 2 && row.contains('`'), "{name}: a cause and a command, not {row}");
    }
    let rows = page.lines().filter(|line| line.starts_with("| <a id=")).count();
    assert_eq!(rows, alerts.len(), "rows of alerts that do not exist");
}

#[test]
fn prometheus_reads_every_panel_of_the_dashboard() {
    let directory = tempfile::tempdir().unwrap();
    let check = |expressions: &[String]| {
        let rules: Vec<_> = expressions
            .iter()
            .enumerate()
            .map(|(n, expr)| serde_json::json!({"record": format!("r{n}"), "expr": expr}))
            .collect();
        let file = directory.path().join("rules.yml");
        let text = serde_json::json!({"groups": [{"name": "panels", "rules": rules}]}).to_string();
        fs::write(&file, text).unwrap();
        promtool(&["check", "rules", file.to_str().unwrap()], "")
    };
    let expressions = dashboard();
    assert!(expressions.len() > 20, "{expressions:?}");
    let (fine, said) = check(&expressions);
    assert!(fine, "{said}");
    let (fine, _) = check(&[expressions, vec!["sum(evenring_channels".into()]].concat());
    assert!(!fine, "this test would not see a broken expression");
}
