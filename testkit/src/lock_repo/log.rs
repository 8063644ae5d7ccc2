//! Cases for the log of all events.

use std::collections::BTreeMap;

use keywright_domain::model::{LockEvent, LockId, LockVersion, LoggedEvent, Position};
use keywright_domain::ports::RepoError;
use tokio::task::JoinSet;

use super::fixture::{Ending, StoreFixture};
use crate::samples::{created, lock_id, owner, prepared, slot};

/// The number of locks that are written to while the log is read.
const LOCKS: u64 = 16;

/// The number of writes to each of these locks while the log is read.
const WRITES: u128 = 8;

/// Reading the log page by page returns each recorded event exactly once, equal to the event in its lock's stream, in the order of
/// positions. Events of stale saves and of refused imports are not in the log.
pub async fn log_has_every_event_once(store: &StoreFixture) {
    let start = read_from(store, Position::START).await;
    assert_eq!(start, []);
    store.with_lock(1).await;
    let sent = store.send(1, 10).await;
    let stale = store.load(1).await;
    store.fail(1, &sent).await;
    let (_, mut save) = prepared(&stale, 12, slot("key", Some(3)));
    save.events.clone_from(&store.events(1).await);
    let saved = store.locks().save(save).await;
    assert_eq!(saved, Err(RepoError::Stale));
    let mut second = created(lock_id(3));
    second.version = LockVersion(2);
    second.event = LockEvent::OwnerSet { user: owner() };
    let several = vec![created(lock_id(2)), created(lock_id(3)), second];
    store.history().import(several).await.expect("imported");
    let refused = vec![created(lock_id(4)), created(lock_id(2))];
    assert!(store.history().import(refused).await.is_err());
    store.send(2, 11).await;
    let log = read_from(store, Position::START).await;
    assert!(log.is_sorted_by(|a, b| a.position < b.position), "{log:?}");
    assert!(log[0].position > Position::START);
    let mut expected = Vec::new();
    for lock in 1..=4 {
        expected.extend(store.events(lock).await);
    }
    let mut logged: Vec<_> = log.iter().map(|logged| logged.event.clone()).collect();
    logged.sort_by_key(|event| (event.lock, event.version));
    assert_eq!(logged, expected);
    let last = log.last().expect("events").position;
    assert_eq!(read_from(store, last).await, []);
}

/// Events of two locks, recorded in turn: those of each lock are in the order of their versions.
pub async fn log_keeps_the_order_of_each_lock(store: &StoreFixture) {
    store.with_lock(2).await;
    store.with_lock(1).await;
    for write in 0..4 {
        store.send(1, 10 + write).await;
        store.send(2, 20 + write).await;
    }
    let log = read_from(store, Position::START).await;
    for lock in [1, 2] {
        let of_lock = log
            .iter()
            .filter(|logged| logged.event.lock == lock_id(lock));
        let versions: Vec<u64> = of_lock.map(|logged| logged.event.version.0).collect();
        let recorded = store.events(lock).await.len() as u64;
        let ascending: Vec<u64> = (1..=recorded).collect();
        assert_eq!(versions, ascending, "lock {lock}");
    }
}

/// A reader that follows the log while many tasks write finds every event once.
pub async fn no_event_appears_behind_a_reader(store: &StoreFixture) {
    for lock in 1..=LOCKS {
        store.with_lock(lock).await;
        store.send(lock, u128::from(lock)).await;
    }
    let mut writing: JoinSet<()> = (1..=LOCKS)
        .map(|lock| {
            let store = store.clone();
            async move {
                for n in 1..=WRITES {
                    store.send(lock, n * 1000 + u128::from(lock)).await;
                }
            }
        })
        .collect();
    let (mut seen, mut last) = (BTreeMap::new(), Position::START);
    loop {
        let is_last = writing.is_empty();
        for logged in read_from(store, last).await {
            assert!(logged.position > last, "positions grow");
            last = logged.position;
            let of_lock: &mut Vec<_> = seen.entry(logged.event.lock).or_default();
            of_lock.push(logged.event.version);
        }
        if is_last {
            break;
        }
        // Without this yield, a store that never suspends would starve the writers.
        tokio::task::yield_now().await;
        while let Some(written) = writing.try_join_next() {
            written.expect("no panic");
        }
    }
    for lock in 1..=LOCKS {
        let events = store.events(lock).await;
        let recorded: Vec<_> = events.iter().map(|event| event.version).collect();
        let mut logged = seen.remove(&lock_id(lock)).unwrap_or_default();
        logged.sort_unstable();
        assert_eq!(logged, recorded, "lock {lock}");
    }
}

/// After a crash, each event has the position that was read before, and events that are imported then have greater positions.
pub async fn positions_survive_a_crash(store: &mut StoreFixture) {
    store.with_lock(2).await;
    store.send(2, 10).await;
    let before = read_from(store, Position::START).await;
    store.end_process(Ending::Crash).await;
    assert_eq!(read_from(store, Position::START).await, before);
    // The id of this lock is lower than that of the other.
    let imported = store.history().import(vec![created(lock_id(1))]).await;
    imported.expect("imported");
    let last = before.last().expect("events").position;
    let later = read_from(store, last).await;
    let later: Vec<_> = later.iter().map(lock_and_version).collect();
    assert_eq!(later, [(lock_id(1), LockVersion(1))]);
}

/// The last position is that of the last event in the log, and grows with each event.
pub async fn last_position_is_the_end_of_the_log(store: &StoreFixture) {
    let last = async || store.history().last_position().await;
    assert_eq!(last().await, Ok(Position::START));
    store.with_lock(1).await;
    for write in 10..13 {
        store.send(1, write).await;
        let log = read_from(store, Position::START).await;
        let end = log.last().expect("events").position;
        assert_eq!(last().await, Ok(end));
        store.send(1, 10 * write).await;
        let later = last().await.expect("the store answers");
        assert!(later > end, "{later:?} is not after {end:?}");
    }
}

fn lock_and_version(logged: &LoggedEvent) -> (LockId, LockVersion) {
    (logged.event.lock, logged.event.version)
}

/// All events after this position, read in pages of three.
async fn read_from(store: &StoreFixture, mut after: Position) -> Vec<LoggedEvent> {
    let mut log = Vec::new();
    loop {
        let page = store.history().events_after(after, 3).await;
        let page = page.expect("the store answers");
        assert!(page.len() <= 3, "a page is longer than its limit");
        let Some(last) = page.last() else {
            return log;
        };
        after = last.position;
        log.extend(page);
    }
}
