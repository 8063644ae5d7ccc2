//! `keywright audit`, beside a running server and on the store of a stopped one.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::broker_harness::BrokerHarness;
use crate::harness::{BINARY, Harness, LOCK, eventually, import, log_with};

/// Runs an audit. Returns the exit code, the JSON lines of standard output, and standard error.
fn audit(data: &Path, arguments: &[&str]) -> (Option<i32>, Vec<Value>, String) {
    let output = Command::new(BINARY)
        .args(["audit", "--json", "--data"])
        .arg(data)
        .args(arguments)
        .output()
        .expect("the program is there");
    let printed = String::from_utf8_lossy(&output.stdout);
    let printed = printed
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), printed.collect(), errors)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn differences_are_found_and_repaired_beside_a_running_server() {
    let harness = BrokerHarness::start(&["--behaviour", "all:silent"], &[]).await;
    let id = harness.write(LOCK, "k", 2, 0).await.write_id();
    let url = harness.broker.url().to_string();
    let path = ["--shadow", "mqtt", "--mqtt-broker", &url];
    let folder = harness.folder.path();
    let (code, printed, errors) = audit(folder, &path);
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(
        printed,
        [json!({ "locks": 2, "findings": 0, "repaired": 0, "failed": 0 })]
    );

    // Another client removes the entry and adds one for an unknown write.
    let unknown = "00000000-0000-0000-0000-000000000194";
    let entry = json!({ "keyUuid": "evil", "seq": 1, "expiresAt": 4_000_000_000_u64 });
    let tampered =
        json!({ "state": { "desired": { "writeKey": { &*id: null, unknown: entry } } } });
    let topic = format!("$aws/things/demo-lock-{LOCK}/shadow/name/keys/update");
    harness.broker.publish(&topic, &tampered.to_string(), false);
    let finding = |name, write: &str, repaired| json!({ "lockId": LOCK, "finding": name, "write": write, "repaired": repaired });
    let found = eventually("the differences are found", || async {
        let (code, printed, errors) = audit(folder, &path);
        (printed.len() == 3).then_some((code, printed, errors))
    })
    .await;
    assert_eq!(found.0, Some(1), "the differences remain");
    assert!(found.2.contains("--repair"), "{}", found.2);
    assert_eq!(found.1[0], finding("UnknownEntry", unknown, false));
    assert_eq!(found.1[1], finding("LostEntry", &id, false));

    let mut repair = path.to_vec();
    repair.push("--repair");
    let (code, printed, errors) = audit(folder, &repair);
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(printed[0], finding("UnknownEntry", unknown, true));
    assert_eq!(printed[1], finding("LostEntry", &id, true));
    let (code, printed, _) = audit(folder, &path);
    assert_eq!((code, printed.len()), (Some(0), 1), "{printed:?}");
    let checked = harness.store().await.check_when_idle(&[LOCK]).await;
    checked.expect("the invariants hold");
    // The server's own connections are not disturbed.
    assert_eq!(harness.write(LOCK, "another", 3, 0).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_periodic_audit_counts_findings_without_repairing_them() {
    let harness =
        BrokerHarness::start(&["--behaviour", "all:silent"], &["--audit-every", "300ms"]).await;
    let unknown = "00000000-0000-0000-0000-000000000194";
    let entry = json!({ "keyUuid": "evil", "seq": 1, "expiresAt": 4_000_000_000_u64 });
    let tampered = json!({ "state": { "desired": { "writeKey": { unknown: entry } } } });
    let topic = format!("$aws/things/demo-lock-{LOCK}/shadow/name/keys/update");
    harness.write(LOCK, "k", 2, 0).await;
    let metrics = || async { harness.program.request("GET", "/metrics").send().await.text };
    let counted = r#"keywright_audit_findings_total{finding="UnknownEntry"}"#;
    let none = format!("{counted} 0");
    assert!(metrics().await.contains(&none));
    harness.broker.publish(&topic, &tampered.to_string(), false);
    eventually("the finding is counted", || async {
        (!metrics().await.contains(&none)).then_some(())
    })
    .await;
    log_with(&harness.program, &["a shadow differs from its writes"]).await;
    let shadow = harness.store().await.shadow(LOCK).expect("a shadow");
    assert_eq!(shadow.entries.len(), 2, "the shadow is unchanged");
}

#[tokio::test]
async fn shadows_of_a_server_are_audited_only_after_it_has_ended() {
    let harness = Harness::silent();
    harness.write("k", Some(2)).await;
    let (code, _, errors) = audit(harness.folder.path(), &[]);
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("another process is using it"), "{errors}");
    let Harness {
        folder, program, ..
    } = harness;
    program.stop();
    let (code, printed, errors) = audit(folder.path(), &[]);
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(printed[0]["locks"], 2);
}

#[tokio::test]
async fn an_audit_of_an_empty_folder_fails() {
    let folder = tempfile::tempdir().expect("a folder");
    let (code, _, errors) = audit(folder.path(), &[]);
    assert_eq!(code, Some(1));
    assert!(errors.contains("there are no locks in"), "{errors}");
    let broker = ["--shadow", "mqtt", "--mqtt-broker", "mqtt://127.0.0.1:1"];
    let (code, ..) = audit(folder.path(), &broker);
    assert_eq!(code, Some(1));
}

/// Creates a store with locks 1 to `locks`. Every second lock belongs to the organization acme.
async fn folder_of_locks(locks: u64) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let time = "2026-05-29T12:00:00.000Z";
    let mut events = Vec::new();
    for id in 1..=locks {
        let uuid = format!("u-{id}");
        let created = json!({
            "lockId": id, "uuid": uuid, "timestamp": time, "thingName": format!("door-{id}")
        });
        events.push(("LockCreated", created));
        if id % 2 == 0 {
            let owned = json!({ "lockId": id, "uuid": uuid, "timestamp": time, "orgId": "acme" });
            events.push(("OrganizationSet", owned));
        }
    }
    import(folder.path(), &events).await;
    folder
}

/// Without `--rate`, an audit does not wait between locks.
#[tokio::test]
async fn an_audit_without_a_rate_does_not_wait() {
    let folder = folder_of_locks(20_000).await;
    let start = Instant::now();
    let (code, printed, errors) = audit(folder.path(), &[]);
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(printed[0]["locks"], 20_000);
    // At the rate of 200 locks a second that earlier versions had, it would take 100 s on any machine.
    let took = start.elapsed();
    assert!(took < Duration::from_secs(95), "{took:?}");
}

#[tokio::test]
async fn an_audit_keeps_to_its_rate_and_reports_its_progress() {
    let folder = folder_of_locks(51).await;
    let start = Instant::now();
    let (code, printed, errors) = audit(folder.path(), &["--rate", "20", "--log", "json"]);
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(printed[0]["locks"], 51);
    // The last lock starts after 50 intervals of 50 ms.
    assert!(start.elapsed() >= Duration::from_millis(2500));
    let lines: Vec<Value> = errors
        .lines()
        .map(|line| serde_json::from_str(line).expect("one JSON object a line"))
        .collect();
    let progress = |line: &Value| line["message"] == "audit in progress" && line["locks"].is_u64();
    assert!(lines.iter().any(progress), "{errors}");
    let (code, _, errors) = audit(folder.path(), &["--rate=0"]);
    assert_eq!(code, Some(2), "{errors}");
    assert!(errors.contains("--rate"), "{errors}");
}

#[tokio::test]
async fn an_audit_can_select_locks_or_an_organization() {
    let folder = folder_of_locks(600).await;
    for (arguments, locks) in [
        (vec!["--lock", "7"], 1),
        (vec!["--lock=7", "--lock", "8", "--repair"], 2),
        (vec!["--organization", "acme"], 300),
        (vec!["--organization=nobody"], 0),
        (vec![], 600),
    ] {
        let (code, printed, errors) = audit(folder.path(), &arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {errors}");
        assert_eq!(printed[0]["locks"], locks, "{arguments:?}");
    }
    let (code, _, errors) = audit(folder.path(), &["--lock", "601"]);
    assert_eq!(code, Some(1));
    assert!(errors.contains("there is no lock 601"), "{errors}");
    let both = ["--lock", "7", "--organization", "acme"];
    let (code, _, errors) = audit(folder.path(), &both);
    assert_eq!(code, Some(2), "{errors}");
}
