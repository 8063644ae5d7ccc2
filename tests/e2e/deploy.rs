//! The files in `deploy/`, each checked by the program that reads it.

use std::collections::BTreeSet;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use keywright_tests::Program;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{BINARY, root};

fn file(name: &str) -> String {
    let path = root().join("deploy").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Runs a program of `scripts/test` on a file of `deploy/`, and expects that it accepts the file.
fn accepts(program: &Path, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .current_dir(root().join("deploy"))
        .args(arguments)
        .output();
    let Output {
        status,
        stdout,
        stderr,
    } = output.unwrap_or_else(|e| panic!("{}: {e}; scripts/test installs it", program.display()));
    let text = [stdout, stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(status.success(), "{}", text.concat());
    text.concat()
}

/// The names of metrics in an expression.
fn metrics(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words
        .filter(|word| word.starts_with("keywright_"))
        .collect()
}

#[test]
fn each_alert_fires_in_a_test_of_the_rules() {
    let promtool = Path::new("promtool");
    accepts(promtool, &["check", "rules", "prometheus/alerts.yml"]);
    accepts(promtool, &["test", "rules", "prometheus/alerts_test.yml"]);
    let (rules, tests) = (
        file("prometheus/alerts.yml"),
        file("prometheus/alerts_test.yml"),
    );
    let alerts = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    let alerts: Vec<&str> = alerts.collect();
    assert!(alerts.len() >= 7, "{alerts:?}");
    for alert in alerts {
        let of_alert = tests
            .split("alertname: ")
            .filter(|test| test.starts_with(alert));
        let fires = of_alert.clone().any(|test| {
            let end = test.find("- eval_time").unwrap_or(test.len());
            test[..end].contains("exp_alerts")
        });
        assert!(fires, "{alert} fires in no test");
    }
    // The documents that alerts lead to.
    for runbook in rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("runbook: "))
    {
        let (path, anchor) = runbook.split_once('#').expect("an anchor");
        let document = std::fs::read_to_string(root().join(path)).expect(path);
        let heading = format!("\n## {}\n", anchor.replace('-', " "));
        assert!(document.to_lowercase().contains(&heading), "{runbook}");
    }
}

/// A test of metrics compares the table of the guide with the server.
#[test]
fn alerts_and_dashboard_name_metrics_that_exist() {
    let guide = std::fs::read_to_string(root().join("docs/operating.md")).expect("a document");
    let rows = guide.lines().filter_map(|row| row.strip_prefix("| `"));
    let known: BTreeSet<&str> = rows
        .filter_map(|row| row.split(['`', '{']).next())
        .collect();
    let dashboard: Value = serde_json::from_str(&file("grafana/dashboard.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().expect("targets"));
    let expressions = targets.map(|target| target["expr"].as_str().expect("an expression"));
    let rules = file("prometheus/alerts.yml");
    let mut names: BTreeSet<&str> = metrics(&rules);
    names.extend(expressions.flat_map(metrics));
    assert!(names.len() > 15, "{names:?}");
    for name in names {
        let histogram = name.strip_suffix("_bucket");
        assert!(known.contains(histogram.unwrap_or(name)), "{name}");
    }
}

#[test]
fn the_unit_is_valid_and_hardened() {
    let folder = TempDir::new().expect("a folder");
    let unit = folder.path().join("keywright.service");
    // The program has to exist.
    let text = file("systemd/keywright.service").replace("/usr/local/bin/keywright", BINARY);
    std::fs::write(&unit, text).expect("written");
    let unit = unit.to_str().expect("a path");
    let systemd_analyze = Path::new("systemd-analyze");
    accepts(systemd_analyze, &["verify", unit]);
    // The exposure is at most 2 of 10.
    accepts(
        systemd_analyze,
        &["security", "--offline=true", "--threshold=20", unit],
    );
}

#[test]
fn the_service_manager_is_told_when_the_server_is_ready_and_when_it_stops() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    let timeout = Some(Duration::from_secs(30));
    socket.set_read_timeout(timeout).expect("a timeout");
    let data = folder.path().join("data");
    let variable = ("NOTIFY_SOCKET", path.to_str().expect("a path"));
    let program = Program::start_with(BINARY, Path::new("."), &data, &[], &[variable]);
    let told = || {
        let mut buffer = [0; 100];
        let count = socket.recv(&mut buffer).expect("a message");
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    };
    assert_eq!(told(), "READY=1");
    program.terminate();
    assert_eq!(told(), "STOPPING=1");
}

#[test]
fn manifests_and_container_file_are_valid() {
    let programs = root().join(".venv/bin");
    let manifests = ["--strict", "kubernetes/keywright.yaml"];
    accepts(&programs.join("kubernetes-validate"), &manifests);
    accepts(&programs.join("hadolint"), &["Containerfile"]);
}

#[test]
fn the_settings_in_the_manifests_are_accepted() {
    let manifest = file("kubernetes/keywright.yaml");
    let (_, settings) = manifest
        .split_once("keywright.toml: |\n")
        .expect("settings");
    let settings = settings.lines().map_while(|line| line.strip_prefix("    "));
    let settings: String = settings.map(|line| format!("{line}\n")).collect();
    let folder = TempDir::new().expect("a folder");
    // Secrets are files of the test.
    let secrets = folder.path().join("secrets");
    std::fs::create_dir(&secrets).expect("a folder");
    let key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n";
    std::fs::write(secrets.join("db-password"), "a password").expect("written");
    std::fs::write(secrets.join("webhook-key"), key).expect("written");
    let generated = rcgen::generate_simple_self_signed(["keywright".to_owned()]).expect("a pair");
    std::fs::write(secrets.join("mqtt.pem"), generated.cert.pem()).expect("written");
    std::fs::write(
        secrets.join("mqtt.key"),
        generated.signing_key.serialize_pem(),
    )
    .expect("written");
    let settings = settings.replace("/etc/keywright-secrets", secrets.to_str().expect("a path"));
    let path = folder.path().join("keywright.toml");
    std::fs::write(&path, settings).expect("written");
    let mut command = Command::new(BINARY);
    let command = command.args(["check-config", "--config"]).arg(&path);
    let output = command
        .env("KEYWRIGHT_MQTT_CLIENT_ID", "keywright-0")
        .output();
    let output = output.expect("the program is there");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn the_example_of_all_settings_is_that_of_the_program() {
    let output = Command::new(BINARY)
        .args(["settings", "--example"])
        .output();
    let example = String::from_utf8(output.expect("the program").stdout).expect("text");
    let is_same = example == file("keywright.toml");
    assert!(
        is_same,
        "run `cargo run -- settings --example > deploy/keywright.toml`"
    );
    // Without the comment signs, the lines with settings are TOML.
    let settings = example.lines().filter_map(|line| line.strip_prefix("# "));
    let settings = settings.filter(|line| line.split(' ').nth(1) == Some("="));
    let settings: Vec<&str> = settings.collect();
    assert!(settings.len() > 50, "{}", settings.len());
    let parsed: Result<toml::Table, _> = settings.join("\n").parse();
    let parsed = parsed.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(parsed.len(), settings.len());
}
