//! Clients that write under load and log each answer, and checks of the logged answers against the store.

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

/// The answer to one write. Each key is written once.
pub(crate) struct LoggedAnswer {
    pub(crate) lock: u64,
    pub(crate) key: String,
    pub(crate) answer: Answer,
}

/// Stops the clients, and counts the writes that were accepted.
#[derive(Default)]
pub(crate) struct LoadControl {
    stop: AtomicBool,
    accepted: AtomicUsize,
}

impl LoadControl {
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Waits until this many more writes have been answered with 200.
    pub(crate) async fn wait_for_more(&self, writes: usize) {
        let wanted = self.accepted.load(Ordering::Relaxed) + writes;
        eventually("enough writes are accepted", || async {
            (self.accepted.load(Ordering::Relaxed) >= wanted).then_some(())
        })
        .await;
    }
}

/// Writes one key after the other until it is stopped or its connection breaks.
pub(crate) async fn load(
    program: (std::net::SocketAddr, String),
    name: String,
    locks: RangeInclusive<u64>,
    control: Arc<LoadControl>,
) -> Vec<LoggedAnswer> {
    let (address, api_key) = program;
    let mut answers = Vec::new();
    let Ok(mut connection) = Connection::open(address).await else {
        return answers;
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
                answers.push(LoggedAnswer { lock, key, answer });
            }
            Err(_) => break,
        }
    }
    answers
}

/// Checks the invariants that hold at any moment. Returns the number of open intents.
pub(crate) async fn check(
    store: &StoreInspector,
    answers: &[LoggedAnswer],
    range: RangeInclusive<u64>,
    max_age: Duration,
) -> Result<usize, String> {
    let locks: Vec<u64> = range.clone().collect();
    store.check(&locks).await?;
    let mut requested: HashMap<(u64, String), u64> = HashMap::new();
    for lock in range {
        for recorded in store.events(lock).await {
            if let LockEvent::KeyWriteRequested(slot) = recorded.event {
                requested.insert((lock, slot.key.to_string()), recorded.version.0);
            }
        }
    }
    for LoggedAnswer { lock, key, answer } in answers {
        let version = requested.get(&(*lock, key.clone()));
        match answer.status {
            200 if version != answer.body["version"].as_u64().as_ref() => {
                return Err(format!(
                    "I1: the 200 of {key} is lost: {version:?} instead of {answer:?}"
                ));
            }
            502 | 503 if version.is_some() => {
                return Err(format!("I2: the refused {key} has an event: {answer:?}"));
            }
            200 | 502 | 503 | 504 | 429 => {}
            _ => return Err(format!("unexpected answer: {answer:?}")),
        }
    }
    let mut open = 0;
    for id in store.write_ids() {
        let write = store.write(id).await;
        if matches!(write.state, WriteState::Prepared(_)) {
            open += 1;
            let age = SystemClock.now().since(write.prepared_at);
            if age > max_age {
                return Err(format!("I4: the intent of {id} has been open for {age:?}"));
            }
        }
    }
    Ok(open)
}

/// Checks I3: the write of each 504 is either requested or aborted.
pub(crate) async fn check_504s(
    store: &StoreInspector,
    answers: &[LoggedAnswer],
) -> Result<(), String> {
    // A 504 without Location is nginx's own.
    let names_write = |logged: &&LoggedAnswer| {
        logged.answer.status == 504 && logged.answer.header("location").is_some()
    };
    for LoggedAnswer { answer, .. } in answers.iter().filter(names_write) {
        let id: WriteId = answer.write_id().parse().expect("a write id");
        let write = store.write(id).await;
        let aborted = matches!(write.state, WriteState::Aborted { .. });
        if aborted == write.requested.is_some() {
            return Err(format!(
                "I3: the write {id} of a 504 is neither requested nor aborted: {write:?}"
            ));
        }
    }
    Ok(())
}
