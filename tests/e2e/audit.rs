//! `keywright audit`, beside a server that runs and of the books of one that does not.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::harness::{BINARY, LOCK, World, eventually, import};
use crate::on_broker::OnBroker;

/// The exit code, what was said as JSON lines, and what on standard error.
fn audit(data: &Path, arguments: &[&str]) -> (Option<i32>, Vec<Value>, String) {
    let output = Command::new(BINARY)
        .args(["audit", "--json", "--data"])
        .arg(data)
        .args(arguments)
        .output()
        .expect("the program is there");
    let said = String::from_utf8_lossy(&output.stdout);
    let said = said
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said.collect(), errors)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_differs_is_found_and_put_right_beside_a_running_server() {
    let world = OnBroker::start(&["--behaviour", "all:silent"], &[]).await;
    let id = world.write(LOCK, "k", 2, 0).await.write_id();
    let url = world.broker.url().to_string();
    let path = ["--shadow", "mqtt", "--mqtt-broker", &url];
    let folder = world.folder.path();
    let (code, said, errors) = audit(folder, &path);
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(
        said,
        [json!({ "locks": 2, "findings": 0, "repaired": 0, "failed": 0 })]
    );

    // Somebody takes the entry off, and puts one there that nobody gave out.
    let stranger = "00000000-0000-0000-0000-000000000194";
    let entry = json!({ "keyUuid": "evil", "seq": 1, "expiresAt": 4_000_000_000_u64 });
    let tampered =
        json!({ "state": { "desired": { "writeKey": { &*id: null, stranger: entry } } } });
    let topic = format!("$aws/things/demo-lock-{LOCK}/shadow/name/keys/update");
    world.broker.publish(&topic, &tampered.to_string(), false);
    let finding = |name, write: &str, repaired| json!({ "lockId": LOCK, "finding": name, "write": write, "repaired": repaired });
    let found = eventually("it is found", || async {
        let (code, said, errors) = audit(folder, &path);
        (said.len() == 3).then_some((code, said, errors))
    })
    .await;
    assert_eq!(found.0, Some(1), "something is left that differs");
    assert!(found.2.contains("--repair"), "{}", found.2);
    assert_eq!(found.1[0], finding("UnknownEntry", stranger, false));
    assert_eq!(found.1[1], finding("LostEntry", &id, false));

    let mut repair = path.to_vec();
    repair.push("--repair");
    let (code, said, errors) = audit(folder, &repair);
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(said[0], finding("UnknownEntry", stranger, true));
    assert_eq!(said[1], finding("LostEntry", &id, true));
    let (code, said, _) = audit(folder, &path);
    assert_eq!((code, said.len()), (Some(0), 1), "{said:?}");
    let checked = world.books().await.check_at_rest(&[LOCK]).await;
    checked.expect("the books balance");
    // The server's own connections were left alone.
    assert_eq!(world.write(LOCK, "another", 3, 0).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_audits_by_itself_counts_what_it_finds_and_leaves_it() {
    let world = OnBroker::start(&["--behaviour", "all:silent"], &["--audit-every", "300ms"]).await;
    let stranger = "00000000-0000-0000-0000-000000000194";
    let entry = json!({ "keyUuid": "evil", "seq": 1, "expiresAt": 4_000_000_000_u64 });
    let tampered = json!({ "state": { "desired": { "writeKey": { stranger: entry } } } });
    let topic = format!("$aws/things/demo-lock-{LOCK}/shadow/name/keys/update");
    world.write(LOCK, "k", 2, 0).await;
    let metrics = || async { world.program.request("GET", "/metrics").send().await.text };
    let counted = r#"keywright_audit_findings_total{finding="UnknownEntry"}"#;
    let none = format!("{counted} 0");
    assert!(metrics().await.contains(&none));
    world.broker.publish(&topic, &tampered.to_string(), false);
    eventually("it is counted", || async {
        (!metrics().await.contains(&none)).then_some(())
    })
    .await;
    assert!(
        world
            .program
            .log()
            .contains("a shadow differs from its writes")
    );
    let shadow = world.books().await.shadow(LOCK).expect("a shadow");
    assert_eq!(shadow.entries.len(), 2, "it is left as it is");
}

#[tokio::test]
async fn shadows_in_a_process_are_audited_when_it_has_ended() {
    let world = World::silent();
    world.write("k", Some(2)).await;
    let (code, _, errors) = audit(world.folder.path(), &[]);
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("another process is using it"), "{errors}");
    let World {
        folder, program, ..
    } = world;
    program.stop();
    let (code, said, errors) = audit(folder.path(), &[]);
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(said[0]["locks"], 2);
}

#[tokio::test]
async fn an_audit_of_nothing_says_what_is_missing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (code, _, errors) = audit(folder.path(), &[]);
    assert_eq!(code, Some(1));
    assert!(errors.contains("there are no locks in"), "{errors}");
    let broker = ["--shadow", "mqtt", "--mqtt-broker", "mqtt://127.0.0.1:1"];
    let (code, ..) = audit(folder.path(), &broker);
    assert_eq!(code, Some(1));
}

/// A folder with so many locks on shadows in this process, every other one acme's.
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

/// At 5 ms a lock it would take 20 s.
#[tokio::test]
async fn an_audit_of_thousands_of_locks_is_as_fast_as_the_store_and_the_shadows() {
    let folder = folder_of_locks(4000).await;
    let start = Instant::now();
    let (code, said, errors) = audit(folder.path(), &[]);
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(said[0]["locks"], 4000);
    // At a pace, the last lock begins after all others, however fast the machine is: 200 s, at 50 ms a lock.
    let took = start.elapsed();
    assert!(took < Duration::from_secs(190), "{took:?}");
}

#[tokio::test]
async fn an_audit_keeps_to_its_rate_and_reports_its_progress() {
    let folder = folder_of_locks(51).await;
    let start = Instant::now();
    let (code, said, errors) = audit(folder.path(), &["--rate", "20", "--log", "json"]);
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(said[0]["locks"], 51);
    // The last of them begins after fifty times 50 ms.
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
async fn an_audit_may_be_about_some_locks_or_an_organization() {
    let folder = folder_of_locks(600).await;
    for (arguments, locks) in [
        (vec!["--lock", "7"], 1),
        (vec!["--lock=7", "--lock", "8", "--repair"], 2),
        (vec!["--organization", "acme"], 300),
        (vec!["--organization=nobody"], 0),
        (vec![], 600),
    ] {
        let (code, said, errors) = audit(folder.path(), &arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {errors}");
        assert_eq!(said[0]["locks"], locks, "{arguments:?}");
    }
    let (code, _, errors) = audit(folder.path(), &["--lock", "601"]);
    assert_eq!(code, Some(1));
    assert!(errors.contains("there is no lock 601"), "{errors}");
    let both = ["--lock", "7", "--organization", "acme"];
    let (code, _, errors) = audit(folder.path(), &both);
    assert_eq!(code, Some(2), "{errors}");
}
