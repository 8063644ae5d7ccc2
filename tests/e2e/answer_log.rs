//! What clients were told under load, held against the books.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use keywright_adapters::time::SystemClock;
use keywright_domain::model::{LockEvent, WriteId, WriteState};
use keywright_domain::ports::Clock;
use keywright_tests::{Answer, Connection, Request, StoreInspector};
use serde_json::json;

use crate::harness::eventually;

/// What a client was told of one key, which only it wrote.
pub(crate) struct AnswerLog {
    pub(crate) lock: u64,
    pub(crate) key: String,
    pub(crate) answer: Answer,
}

/// Stops clients, and counts what they achieve.
#[derive(Default)]
pub(crate) struct LoadControl {
    stop: AtomicBool,
    accepted: AtomicUsize,
}

impl LoadControl {
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Waits until so many more writes have been answered with 200, however long that takes on a busy machine.
    pub(crate) async fn wait_for_more(&self, writes: usize) {
        let wanted = self.accepted.load(Ordering::Relaxed) + writes;
        eventually("enough writes are accepted", || async {
            (self.accepted.load(Ordering::Relaxed) >= wanted).then_some(())
        })
        .await;
    }
}

/// Writes one key after the other until the program is gone.
pub(crate) async fn load(
    program: (std::net::SocketAddr, String),
    name: String,
    locks: RangeInclusive<u64>,
    control: Arc<LoadControl>,
) -> Vec<AnswerLog> {
    let (address, api_key) = program;
    let mut told = Vec::new();
    let Ok(mut connection) = Connection::open(address).await else {
        return told;
    };
    for n in 0.. {
        if control.stop.load(Ordering::Relaxed) {
            break;
        }
        let (lock, key) = (fastrand::u64(locks.clone()), format!("{name}-{n}"));
        let body = json!({ "keyUuid": key, "keyIndexNumber": fastrand::u64(0..8) });
        let request = Request::new(address, "POST", &format!("/locks/{lock}/WriteKey"));
        let request = request.header("X-API-Key", &api_key).json(&body);
        match connection.send(request).await {
            Ok(answer) => {
                let accepted = usize::from(answer.status == 200);
                control.accepted.fetch_add(accepted, Ordering::Relaxed);
                told.push(AnswerLog { lock, key, answer });
            }
            Err(_) => break,
        }
    }
    told
}

/// What must hold at any moment, whatever was just killed. Answers how many intents are open.
pub(crate) async fn check(
    books: &StoreInspector,
    told: &[AnswerLog],
    range: RangeInclusive<u64>,
    longest: Duration,
) -> Result<usize, String> {
    let locks: Vec<u64> = range.clone().collect();
    books.check(&locks).await?;
    let mut requested: HashMap<(u64, String), u64> = HashMap::new();
    for lock in range {
        for recorded in books.stream(lock).await {
            if let LockEvent::KeyWriteRequested(slot) = recorded.event {
                requested.insert((lock, slot.key.to_string()), recorded.version.0);
            }
        }
    }
    for AnswerLog { lock, key, answer } in told {
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
            if age > longest {
                return Err(format!("I4: the intent of {id} has been open for {age:?}"));
            }
        }
    }
    Ok(open)
}

/// A 504 has become one or the other.
pub(crate) async fn decided(books: &StoreInspector, told: &[AnswerLog]) -> Result<(), String> {
    // That of a proxy which lost the server names no write.
    let ours = |t: &&AnswerLog| t.answer.status == 504 && t.answer.header("location").is_some();
    for AnswerLog { answer, .. } in told.iter().filter(ours) {
        let id: WriteId = answer.write_id().parse().expect("a write id");
        let write = books.write(id).await;
        let aborted = matches!(write.state, WriteState::Aborted { .. });
        if aborted == write.requested.is_some() {
            return Err(format!("I3: the 504 of {id} is neither: {write:?}"));
        }
    }
    Ok(())
}
