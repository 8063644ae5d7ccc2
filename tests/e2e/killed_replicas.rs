//! Kills replicas under load, and checks their common store.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use keywright_tests::Program;
use tempfile::TempDir;

use crate::answer_log;
use crate::answer_log::{LoadControl, LoggedAnswer};
use crate::harness::{BINARY, SHORT_TIMEOUTS};
use crate::replica_environment::ReplicaEnvironment;

const LOCKS: RangeInclusive<u64> = 1001..=1020;
const CLIENTS: usize = 6;

/// The longest time that an intent may be open: the lease of [`SHORT_TIMEOUTS`] and five seconds.
const MAX_INTENT_AGE: Duration = Duration::from_secs(13);

/// Each of two replicas is killed twice under load and started again. Clients get only documented statuses, the other
/// replica takes over the open intents, and the invariants hold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_replicas_lose_nothing() {
    let mut arguments = SHORT_TIMEOUTS.to_vec();
    arguments.extend(["--locks", "20"]);
    // Half of the writes are slow, so that a killed replica leaves open intents.
    arguments.extend(["--faults", "put~0.5=delay:400ms"]);
    let folder = TempDir::new().expect("a folder");
    let mut sandbox = arguments.clone();
    sandbox.extend(["--behaviour", "all:latency=0s"]);
    // Half of the locks never report, so that their open intents need a take-over.
    let silent: Vec<String> = (1001..=1010).map(|id| format!("{id}:silent")).collect();
    sandbox.extend(silent.iter().flat_map(|lock| ["--behaviour", lock]));
    let (environment, mut replicas) = ReplicaEnvironment::start(BINARY, folder.path(), &sandbox, 2);
    let (control, target) = (
        Arc::<LoadControl>::default(),
        (environment.nginx.address, replicas[0].api_key.clone()),
    );
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (target, control) = (target.clone(), control.clone());
            tokio::spawn(answer_log::load(
                target,
                format!("c{client}"),
                LOCKS,
                control,
            ))
        })
        .collect();
    let mut log = String::new();
    for number in [0, 1, 0, 1] {
        control.wait_for_more(40).await;
        let address = replicas[number].address;
        replicas[number].kill_only();
        log.push_str(&replicas[number].log());
        control.wait_for_more(20).await;
        replicas[number] =
            environment.replica(BINARY, folder.path(), &arguments, number, Some(address));
    }
    control.stop();
    let mut answers: Vec<LoggedAnswer> = Vec::new();
    for client in clients {
        answers.extend(client.await.expect("a client"));
    }
    let mut counts: BTreeMap<u16, usize> = BTreeMap::new();
    for logged in &answers {
        *counts.entry(logged.answer.status).or_default() += 1;
    }
    println!("{counts:?}");
    assert!(
        counts
            .keys()
            .all(|status| [200, 502, 503, 504].contains(status)),
        "{counts:?}"
    );
    let locks: Vec<u64> = LOCKS.collect();
    let mut last = Ok(());
    for _ in 0..100 {
        let store = environment.store().await;
        last = store.check_when_idle(&locks).await;
        if last.is_ok() {
            answer_log::check(&store, &answers, LOCKS, MAX_INTENT_AGE)
                .await
                .expect("nothing is lost");
            answer_log::check_504s(&store, &answers)
                .await
                .expect("each 504 is decided");
            log.extend(replicas.iter().map(Program::log));
            assert!(
                log.contains("taken over"),
                "a replica took over from the other"
            );
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("{last:?}: {counts:?}");
}
