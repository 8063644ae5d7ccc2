//! Kills a server on SQLite under load, and checks its store after each kill.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use keywright_tests::{Program, StoreInspector};
use tempfile::TempDir;

use crate::answer_log;
use crate::answer_log::{LoadControl, LoggedAnswer};
use crate::harness::BINARY;

const CYCLES: u64 = 20;
const LOCKS: RangeInclusive<u64> = 1001..=1040;
const CLIENTS: u64 = 8;

const LEASE: Duration = Duration::from_secs(4);

/// The longest that an intent may be open while processes are killed. The next process that lives for long enough closes it,
/// and on a busy machine several may not.
const MAX_OPEN: Duration = Duration::from_secs(60);

fn start(binary: &str, folder: &Path, cycle: u64) -> Program {
    // Slow updates make it likely that a kill leaves open intents.
    let faults = format!("update~0.3=delay:25ms,seed={cycle}");
    let arguments = [
        "--locks",
        "40",
        "--behaviour",
        "all:latency=0s",
        "--log-level",
        "warn",
        "--faults",
        &faults,
        "--request",
        "1500ms",
        "--shadow-call",
        "500ms",
        "--turn",
        "1s",
        "--lease",
        "4s",
    ];
    Program::start(binary, folder, &arguments)
}

#[derive(Debug, Default)]
struct Report {
    answered: HashMap<u16, usize>,
    cycles_with_open_intents: u64,
    open_intents: usize,
}

/// Kills the server under load `cycles` times, and checks its store after each kill.
async fn kill_repeatedly(binary: &str, cycles: u64) -> Result<Report, String> {
    let folder = TempDir::new().expect("a folder");
    let mut report = Report::default();
    let mut answers: Vec<LoggedAnswer> = Vec::new();
    for cycle in 0..cycles {
        let program = start(binary, folder.path(), cycle);
        assert!(
            program
                .banner
                .contains("journal_mode=wal, synchronous=FULL"),
            "{}",
            program.banner
        );
        let control = Arc::<LoadControl>::default();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let target = (program.address, program.api_key.clone());
                tokio::spawn(answer_log::load(
                    target,
                    format!("c{cycle}-{client}"),
                    LOCKS,
                    control.clone(),
                ))
            })
            .collect();
        control.wait_for_more(30).await;
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..250))).await;
        program.kill();
        control.stop();
        for client in clients {
            answers.extend(client.await.expect("a client"));
        }
        let store = StoreInspector::open(folder.path()).await;
        let open = answer_log::check(&store, &answers, LOCKS, MAX_OPEN).await?;
        report.open_intents += open;
        report.cycles_with_open_intents += u64::from(open > 0);
    }
    for logged in &answers {
        *report.answered.entry(logged.answer.status).or_default() += 1;
    }
    check_recovery(binary, folder.path(), &answers).await?;
    Ok(report)
}

/// Restarts the server, and waits until all invariants hold and nothing is in progress.
async fn check_recovery(
    binary: &str,
    folder: &Path,
    answers: &[LoggedAnswer],
) -> Result<(), String> {
    let _program = start(binary, folder, 0);
    tokio::time::sleep(LEASE).await;
    let locks: Vec<u64> = LOCKS.collect();
    let pause = Duration::from_millis(100);
    let mut last = Ok(());
    // Only a failing test waits for a minute.
    for _ in 0..600 {
        let store = StoreInspector::open(folder).await;
        last = store.check_when_idle(&locks).await;
        if last.is_ok() {
            answer_log::check(&store, answers, LOCKS, MAX_OPEN).await?;
            return answer_log::check_504s(&store, answers).await;
        }
        tokio::time::sleep(pause).await;
    }
    last
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_under_load_lose_nothing() {
    let report = kill_repeatedly(BINARY, CYCLES)
        .await
        .expect("the invariants hold");
    println!("{report:?}");
    let answered = report.answered.get(&200).copied().unwrap_or_default();
    assert!(answered > 500, "there was load: {report:?}");
    assert!(report.cycles_with_open_intents >= 10, "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_that_answers_before_the_commit_is_detected() {
    let faulty = env!("CARGO_BIN_EXE_keywright-answers-before-commit");
    let error = kill_repeatedly(faulty, CYCLES)
        .await
        .expect_err("a lost 200 is found");
    assert!(error.contains("I1"), "{error}");
}
