//! SIGKILL under concurrent load, again and again, and the books after each.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use keywright_tests::{Program, StoreInspector};
use tempfile::TempDir;

use crate::answer_log;
use crate::answer_log::{AnswerLog, LoadControl};
use crate::harness::BINARY;

const CYCLES: u64 = 20;
const LOCKS: RangeInclusive<u64> = 1001..=1040;
const CLIENTS: u64 = 8;

const LEASE: Duration = Duration::from_secs(4);

/// The longest that an intent may be open while processes are killed. It is closed by the next process that lives for long
/// enough, and on a busy machine several may not.
const LONGEST_OPEN: Duration = Duration::from_secs(60);

fn start(binary: &str, folder: &Path, cycle: u64) -> Program {
    // Slow updates widen the moment in which an intent is open.
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

/// Kills the program in the middle of its work, `cycles` times, and looks at its books after each.
async fn campaign(binary: &str, cycles: u64) -> Result<Report, String> {
    let folder = TempDir::new().expect("a folder");
    let mut report = Report::default();
    let mut told: Vec<AnswerLog> = Vec::new();
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
            told.extend(client.await.expect("a client"));
        }
        let books = StoreInspector::read(folder.path()).await;
        let open = answer_log::check(&books, &told, LOCKS, LONGEST_OPEN).await?;
        report.open_intents += open;
        report.cycles_with_open_intents += u64::from(open > 0);
    }
    for told in &told {
        *report.answered.entry(told.answer.status).or_default() += 1;
    }
    come_to_rest(binary, folder.path(), &told).await?;
    Ok(report)
}

/// All intents close by themselves, and everything balances.
async fn come_to_rest(binary: &str, folder: &Path, told: &[AnswerLog]) -> Result<(), String> {
    let _program = start(binary, folder, 0);
    tokio::time::sleep(LEASE).await;
    let locks: Vec<u64> = LOCKS.collect();
    let pause = Duration::from_millis(100);
    let mut last = Ok(());
    // A minute, which only a test that fails waits for.
    for _ in 0..600 {
        let books = StoreInspector::read(folder).await;
        last = books.check_at_rest(&locks).await;
        if last.is_ok() {
            answer_log::check(&books, told, LOCKS, LONGEST_OPEN).await?;
            return answer_log::decided(&books, told).await;
        }
        tokio::time::sleep(pause).await;
    }
    last
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_it_is_killed_under_load() {
    let report = campaign(BINARY, CYCLES).await.expect("the books balance");
    println!("{report:?}");
    let answered = report.answered.get(&200).copied().unwrap_or_default();
    assert!(answered > 500, "there was load: {report:?}");
    assert!(report.cycles_with_open_intents >= 10, "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_that_answers_before_the_commit_is_caught() {
    let hasty = env!("CARGO_BIN_EXE_keywright-hasty");
    let error = campaign(hasty, CYCLES)
        .await
        .expect_err("a lost 200 is found");
    assert!(error.contains("I1"), "{error}");
}
