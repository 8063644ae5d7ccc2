//! Unmodified clients of AWS IoT: boto3 against the REST service, and the AWS IoT Device SDK as a lock.

use std::path::Path;
use std::process::{Command, Stdio};

use keywright_mqtt::mosquitto::{Certificates, Mosquitto};
use keywright_tests::Shadows;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::broker_harness::BrokerHarness;
use crate::harness::{BINARY, LOCK};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn python(script: &str) -> Command {
    let program = Path::new(ROOT).join(".venv/bin/python");
    assert!(
        program.exists(),
        "the Python packages are not installed: scripts/test does that"
    );
    let mut command = Command::new(program);
    command.arg(Path::new(ROOT).join(script));
    command
}

#[test]
fn boto3_works_with_the_rest_service() {
    let folders = [(); 2].map(|()| TempDir::new().expect("a folder"));
    let rest = ["--rest", "127.0.0.1:0"];
    let shadows = Shadows::start(BINARY, "shadow", folders[0].path(), &rest);
    let busy = [&rest[..], &["--requests-a-second", "1"]].concat();
    let busy = Shadows::start(BINARY, "shadow", folders[1].path(), &busy);
    let url = |shadows: &Shadows| format!("http://{}", shadows.rest.expect("REST is served"));
    let refusing: Vec<_> = ["401", "403", "405", "429", "500", "503"]
        .into_iter()
        .map(|status| {
            let folder = TempDir::new().expect("a folder");
            let options = [&rest[..], &["--refuse-all", status]].concat();
            let shadows = Shadows::start(BINARY, "shadow", folder.path(), &options);
            (format!("{status}={}", url(&shadows)), shadows, folder)
        })
        .collect();
    let output = python("tests/boto3_shadows.py")
        .args([url(&shadows), url(&busy)])
        .args(refusing.iter().map(|(argument, ..)| argument))
        .output();
    let output = output.expect("Python runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains("all boto3 checks passed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_aws_iot_device_sdk_as_a_lock_gets_its_writes_confirmed() {
    let certificates = Certificates::new();
    let broker = Mosquitto::start_tls(&certificates);
    let port = broker.port().to_string();
    let files = ["ca.pem", "client.pem", "client.key"].map(|name| certificates.path(name));
    let harness = BrokerHarness::start_on(broker, Some(certificates), "shadow", &[], &[]).await;
    // The lock is offline during the first write and online during the second.
    let early = harness.write(LOCK, "early-key", 1, 0).await;
    assert_eq!(early.status, 200, "{early:?}");
    let memory = harness.folder.path().join("lock.json");
    let thing = format!("demo-lock-{LOCK}");
    let mut lock = python("examples/lock/lock.py")
        .args([
            "--endpoint",
            "localhost",
            "--port",
            &port,
            "--thing",
            &thing,
        ])
        .arg("--ca")
        .arg(&files[0])
        .arg("--certificate")
        .arg(&files[1])
        .arg("--key")
        .arg(&files[2])
        .arg("--memory")
        .arg(&memory)
        .stdout(Stdio::null())
        .spawn()
        .expect("Python runs");
    harness.wait_for_state(&early.write_id(), "SUCCEEDED").await;
    let answer = harness.write(LOCK, "my-key", 2, 20).await;
    assert_eq!(answer.body["write"]["state"], "SUCCEEDED", "{answer:?}");
    // Without a key index, a key that the lock already has keeps its slot.
    let again = harness
        .program
        .write_key(LOCK, &json!({ "keyUuid": "my-key" }));
    let again = again.header("Prefer", "wait=20").send().await;
    assert_eq!(again.body["write"]["state"], "SUCCEEDED", "{again:?}");
    lock.kill().expect("it was running");
    lock.wait().expect("it has ended");
    let held = std::fs::read_to_string(memory).expect("the lock's memory");
    let held: Value = serde_json::from_str(&held).expect("JSON");
    assert_eq!(held["keys"], json!({ "1": "early-key", "2": "my-key" }));
}
