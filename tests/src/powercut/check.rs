//! Checks of an image with the real store and the real program.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;

use keywright_domain::model::{LockEvent, RecordedEvent};
use serde_json::json;
use tempfile::TempDir;

use super::scenario::{ARGUMENTS, LOCKS};
use super::trace::LoggedAnswer;
use crate::program::Program;
use crate::store_inspector::{MAX_LOG, StoreInspector};

/// Opens the stores in the folder, and checks what they hold.
///
/// # Errors
/// The first violation.
///
/// # Panics
/// A store cannot be opened or read.
pub(super) async fn check_stores(folder: TempDir, answers: &[LoggedAnswer]) -> Result<(), String> {
    let store = StoreInspector::of_folder(folder).await;
    check(&store, answers).await
}

/// Starts the program on the folder, waits until nothing is in progress, and checks what its stores hold. It must accept a write.
///
/// # Errors
/// The first violation.
///
/// # Panics
/// The program does not start, or a store cannot be read.
pub(super) async fn check_start(
    program: &str,
    folder: &Path,
    answers: &[LoggedAnswer],
) -> Result<(), String> {
    let program = Program::start(program, folder, &ARGUMENTS);
    let locks: Vec<u64> = LOCKS.collect();
    let mut last = Ok(());
    // Only a failing image waits for a minute.
    for _ in 0..600 {
        let store = StoreInspector::open(folder).await;
        last = store.check_when_idle(&locks).await;
        if last.is_ok() {
            check(&store, answers).await?;
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    last?;
    let body = json!({ "keyUuid": "after-the-power-cut", "keyIndexNumber": 0 });
    let answer = program.write_key(*LOCKS.start(), &body).send().await;
    match answer.status {
        200 => Ok(()),
        _ => Err(format!("a write after the start: {answer:?}")),
    }
}

async fn check(store: &StoreInspector, answers: &[LoggedAnswer]) -> Result<(), String> {
    let log = store.log().await;
    if log.len() >= MAX_LOG {
        return Err(format!("only {MAX_LOG} events are read"));
    }
    if let Some(pair) = log
        .windows(2)
        .find(|pair| pair[0].position >= pair[1].position)
    {
        return Err(format!("positions do not ascend: {pair:?}"));
    }
    let mut streams: BTreeMap<u64, Vec<RecordedEvent>> = BTreeMap::new();
    for logged in log {
        let stream = streams.entry(logged.event.lock.get()).or_default();
        stream.push(logged.event);
    }
    let mut requested: HashMap<(u64, String), u64> = HashMap::new();
    for (lock, stream) in &streams {
        if *stream != store.events(*lock).await {
            return Err(format!(
                "the log has other events of lock {lock} than its stream"
            ));
        }
        for recorded in stream {
            if let LockEvent::KeyWriteRequested(slot) = &recorded.event {
                requested.insert((*lock, slot.key.to_string()), recorded.version.0);
            }
        }
    }
    // Among others that the versions of each lock are 1, 2, 3 and so on.
    let locks: Vec<u64> = streams.into_keys().collect();
    store.check(&locks).await?;
    for answer in answers {
        let version = requested.get(&(answer.lock, answer.key.clone())).copied();
        match answer.status {
            200 if version != answer.version => {
                return Err(format!(
                    "I1: a 200 is lost: {version:?} instead of {answer:?}"
                ));
            }
            502 | 503 if version.is_some() => {
                return Err(format!("I2: a refused write has an event: {answer:?}"));
            }
            200 | 502 | 503 | 504 => {}
            _ => return Err(format!("unexpected answer: {answer:?}")),
        }
    }
    Ok(())
}
