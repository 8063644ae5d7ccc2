//! SIGKILL under concurrent load, again and again, and the books after each.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use keywright_adapters::time::SystemClock;
use keywright_domain::event::LockEvent;
use keywright_domain::ports::Clock;
use keywright_domain::values::WriteId;
use keywright_domain::write::WriteState;
use keywright_tests::{Answer, Books, Connection, Program, Request};
use serde_json::json;
use tempfile::TempDir;

use crate::world::BINARY;

const CYCLES: u64 = 20;
const LOCKS: RangeInclusive<u64> = 1001..=1040;
const CLIENTS: u64 = 8;

const LEASE: Duration = Duration::from_secs(4);
/// How much longer than its lease an intent may stay open.
const MARGIN: Duration = Duration::from_secs(5);

/// What a client was told of one key, which only it wrote.
struct Told {
    lock: u64,
    key: String,
    answer: Answer,
}

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

/// Writes one key after the other until the program is gone.
async fn load(
    program: (std::net::SocketAddr, String),
    name: String,
    stop: Arc<AtomicBool>,
) -> Vec<Told> {
    let (address, api_key) = program;
    let mut told = Vec::new();
    let Ok(mut connection) = Connection::open(address).await else {
        return told;
    };
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (lock, key) = (fastrand::u64(LOCKS), format!("{name}-{n}"));
        let body = json!({ "keyUuid": key, "keyIndexNumber": fastrand::u64(0..8) });
        let request = Request::new(address, "POST", &format!("/locks/{lock}/WriteKey"));
        let request = request.header("X-API-Key", &api_key).json(&body);
        match connection.send(request).await {
            Ok(answer) => told.push(Told { lock, key, answer }),
            Err(_) => break,
        }
    }
    told
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
    let mut told: Vec<Told> = Vec::new();
    for cycle in 0..cycles {
        let program = start(binary, folder.path(), cycle);
        assert!(
            program
                .banner
                .contains("journal_mode=wal, synchronous=FULL"),
            "{}",
            program.banner
        );
        let stop = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let target = (program.address, program.api_key.clone());
                tokio::spawn(load(target, format!("c{cycle}-{client}"), stop.clone()))
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(fastrand::u64(150..400))).await;
        program.kill();
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            told.extend(client.await.expect("a client"));
        }
        let books = Books::read(folder.path()).await;
        let open = check(&books, &told).await?;
        report.open_intents += open;
        report.cycles_with_open_intents += u64::from(open > 0);
    }
    for told in &told {
        *report.answered.entry(told.answer.status).or_default() += 1;
    }
    come_to_rest(binary, folder.path(), &told).await?;
    Ok(report)
}

/// What must hold at any moment, whatever was just killed. Answers how many intents are open.
async fn check(books: &Books, told: &[Told]) -> Result<usize, String> {
    let locks: Vec<u64> = LOCKS.collect();
    books.check(&locks).await?;
    let mut requested: HashMap<(u64, String), u64> = HashMap::new();
    for lock in LOCKS {
        for recorded in books.stream(lock).await {
            if let LockEvent::KeyWriteRequested(slot) = recorded.event {
                requested.insert((lock, slot.key.to_string()), recorded.version.0);
            }
        }
    }
    for Told { lock, key, answer } in told {
        let version = requested.get(&(*lock, key.clone()));
        match answer.status {
            200 if version != answer.body["version"].as_u64().as_ref() => {
                return Err(format!(
                    "I1: the 200 of {key} is lost: {version:?} instead of {answer:?}"
                ));
            }
            502 | 503 if version.is_some() => {
                return Err(format!(
                    "I2: {key} was refused and has an event: {answer:?}"
                ));
            }
            200 | 502 | 503 | 504 | 429 => {}
            _ => return Err(format!("an answer that was not expected: {answer:?}")),
        }
    }
    let mut open = 0;
    for id in books.writes() {
        let write = books.write(id).await;
        if matches!(write.state, WriteState::Prepared(_)) {
            open += 1;
            let age = SystemClock.now().since(write.prepared_at);
            if age > LEASE + MARGIN {
                return Err(format!("I4: the intent of {id} has been open for {age:?}"));
            }
        }
    }
    Ok(open)
}

/// All intents close within their lease and the margin, and everything balances.
async fn come_to_rest(binary: &str, folder: &Path, told: &[Told]) -> Result<(), String> {
    let _program = start(binary, folder, 0);
    tokio::time::sleep(LEASE).await;
    let locks: Vec<u64> = LOCKS.collect();
    let pause = Duration::from_millis(100);
    let tries = (MARGIN.as_millis() / pause.as_millis()) as u32;
    let mut last = Ok(());
    for _ in 0..tries {
        let books = Books::read(folder).await;
        last = books.check_at_rest(&locks).await;
        if last.is_ok() {
            check(&books, told).await?;
            return decided(&books, told).await;
        }
        tokio::time::sleep(pause).await;
    }
    last
}

/// A 504 has become one or the other.
async fn decided(books: &Books, told: &[Told]) -> Result<(), String> {
    for Told { answer, .. } in told.iter().filter(|t| t.answer.status == 504) {
        let id: WriteId = answer.write_id().parse().expect("a write id");
        let write = books.write(id).await;
        let aborted = matches!(write.state, WriteState::Aborted { .. });
        if aborted == write.requested.is_some() {
            return Err(format!("I3: the 504 of {id} is neither: {write:?}"));
        }
    }
    Ok(())
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
