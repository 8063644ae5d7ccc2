//! The domain in a service of one's own: its ports, its background loops, one write, and an orderly shutdown.
//!
//! `cargo run --package keywright-examples --example embed`. Stores and shadows are in memory here; a real service chooses other adapters and
//! changes nothing else.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use keywright_adapters::lock_repo::InMemoryLockRepo;
use keywright_adapters::shadow::{DEFAULT_NAME, InMemoryShadow};
use keywright_adapters::time::{SystemClock, SystemIds, TokioTimer};
use keywright_domain::model::{
    Identity, KeyIndex, KeySlot, KeyUuid, LockEvent, LockId, LockUuid, LockVersion, NewLock,
    Principal, RecordedEvent, ThingName, Tick, UserId, Write,
};
use keywright_domain::policy::WriteKey;
use keywright_domain::ports::{Clock, DeviceReports, LockHistory, ReportStreamItem, Timer};
use keywright_domain::{KeyWrites, Ports, RequestOptions, Settings};
use keywright_shadow::ShadowName;
use tokio::task::JoinSet;

const PERIOD: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let write = run().await?;
    println!("write {} has state {}", write.id, write.state.name());
    Ok(())
}

async fn run() -> Result<Write, Box<dyn Error>> {
    let timer: Arc<dyn Timer> = Arc::new(TokioTimer::default());
    let store = Arc::new(InMemoryLockRepo::new(timer.clone()));
    let shadow = Arc::new(InMemoryShadow::of_this_process());
    let ports = Ports {
        locks: store.clone(),
        history: store.clone(),
        shadow: shadow.clone(),
        clock: Arc::new(SystemClock),
        timer: timer.clone(),
        ids: Arc::new(SystemIds),
    };
    let writes = Arc::new(KeyWrites::new(ports, Settings::default())?);

    let (lock, alice) = (LockId::new(123)?, UserId::new("alice")?);
    store.import(vec![lock_of(lock, &alice)?]).await?;
    let loops = start_loops(&writes, Arc::new(shadow.reports()));

    // A request: the service has authenticated its caller, and the domain authorizes.
    let slot = KeySlot {
        key: KeyUuid::new("9b2e8f4a")?,
        index: Some(KeyIndex::new(2)?),
    };
    let principal = Principal::of(Identity::User(alice));
    let command = WriteKey { lock, slot };
    let written = writes.write_key(&command, &principal, RequestOptions::default());
    let id = written.await?.write;

    // The lock: it reports that it has the key.
    let result = format!(r#"{{"{id}":{{"status":"SUCCEEDED","keyIndexNumber":2}}}}"#);
    let report = format!(r#"{{"state":{{"reported":{{"writeKeyResult":{result}}}}}}}"#);
    let name = ShadowName::Named(DEFAULT_NAME.into());
    let service = shadow.service();
    service
        .update("front-door", &name, report.as_bytes())
        .await
        .map_err(|rejected| format!("{rejected:?}"))?;

    // A service of several tasks would pass a future that completes when the write was saved.
    let deadline = Tick(timer.tick().0 + Duration::from_secs(10));
    let changed = || std::future::pending();
    let write = writes.wait_for_write(lock, id, &principal, deadline, changed);
    let write = write.await?;
    stop(loops).await;
    Ok(write)
}

fn lock_of(lock: LockId, owner: &UserId) -> Result<RecordedEvent, Box<dyn Error>> {
    let created = NewLock {
        owner: Some(owner.clone()),
        thing: Some(ThingName::new("front-door")?),
        ..NewLock::default()
    };
    Ok(RecordedEvent {
        lock,
        uuid: LockUuid::new("6f0c2a9e-0d5e-4e0b-9a55-0f6f3c0c7a11")?,
        version: LockVersion(1),
        time: SystemClock.now(),
        write: None,
        event: LockEvent::LockCreated(Box::new(created)),
    })
}

/// Starts what a service runs beside its requests.
fn start_loops(writes: &Arc<KeyWrites>, reports: Arc<dyn DeviceReports>) -> JoinSet<()> {
    let mut loops = JoinSet::new();
    loops.spawn(recover(writes.clone()));
    loops.spawn(maintain(writes.clone()));
    loops.spawn(settle_reports(writes.clone(), reports));
    loops
}

/// Takes over and resolves intents whose lease has ended: of requests that ended without an outcome, and of processes that have died.
async fn recover(writes: Arc<KeyWrites>) {
    loop {
        // The store is asked again at once as long as it returns intents; an error is retried in the next round.
        while let Ok(Some(write)) = writes.recover_next().await {
            println!("write {write} was recovered");
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Reconciles all open writes at start-up and after a step of the clock, and those that are due every second.
async fn maintain(writes: Arc<KeyWrites>) {
    reconcile_all(&writes).await;
    loop {
        let mut after = None;
        while let Ok(round) = writes.maintain(after, 100).await {
            after = round.next;
            if after.is_none() {
                break;
            }
        }
        let _ = writes.purge(100).await;
        tokio::time::sleep(PERIOD).await;
        if writes.clock_was_set_back() {
            reconcile_all(&writes).await;
        }
    }
}

/// Reads the shadows of all unfinished writes, page by page. A page is repeated while the store fails.
async fn reconcile_all(writes: &KeyWrites) {
    let mut after = None;
    loop {
        match writes.reconcile_all(after, 100).await {
            Ok(round) if round.next.is_none() => return,
            Ok(round) => after = round.next,
            Err(_) => tokio::time::sleep(PERIOD).await,
        }
    }
}

/// Settles what locks report, and acknowledges it afterwards.
async fn settle_reports(writes: Arc<KeyWrites>, reports: Arc<dyn DeviceReports>) {
    while let Ok(item) = reports.next().await {
        match item {
            ReportStreamItem::Report(report, acknowledge) => {
                while writes.settle(&report).await.is_err() {
                    tokio::time::sleep(PERIOD).await;
                }
                acknowledge();
            }
            ReportStreamItem::Resumed => reconcile_all(&writes).await,
        }
    }
}

/// Ends the loops. Requests in progress would be awaited before; what a loop leaves unfinished is done after the next start.
async fn stop(mut loops: JoinSet<()>) {
    loops.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn writes_a_key_and_follows_it_to_its_end() {
        let write = run().await.expect("the example runs");
        assert_eq!(write.state.name(), "SUCCEEDED");
    }
}
