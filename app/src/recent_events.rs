//! The newest events of the feed, in memory for the streams and webhooks that follow it.
//!
//! One task reads new events from the store for all of them. A follower that is behind what is kept here reads the store itself.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use keywright_domain::model::{Lock, LockId, Position, RecordedEvent, Write};
use keywright_domain::ports::RepoError;
use keywright_domain::{FeedEvent, KeyWrites};
use tokio::sync::{Notify, Semaphore, SemaphorePermit, broadcast, watch};
use tracing::warn;

use crate::mutex::lock_mutex;

/// How many events are kept.
const CAPACITY: usize = 4096;

/// How many events are read from the store, or given to a stream, at a time.
pub(crate) const BATCH: usize = 256;

/// How often the store is asked for events of other processes. Those of this one are read at once.
const POLL: Duration = Duration::from_millis(50);

/// The pause after the store has failed.
const PAUSE: Duration = Duration::from_secs(1);

/// How many streams that are behind read the store at once.
const CATCHING_UP: usize = 8;

/// An event with the bytes that streams send.
pub(crate) struct RecentEvent {
    pub(crate) position: Position,
    pub(crate) event: RecordedEvent,
    pub(crate) frame: Bytes,
}

/// The newest events. They are kept while at least one stream or webhook follows them.
pub(crate) struct RecentEvents {
    kept: Mutex<Kept>,
    /// The number of streams.
    followers: AtomicUsize,
    first_follower: Notify,
    /// Changes whenever events are added.
    added: watch::Sender<()>,
    catching_up: Semaphore,
}

#[derive(Default)]
struct Kept {
    /// Every event after this position and up to the last one of `events` is in `events`. `None`: nothing is kept.
    after: Option<Position>,
    events: VecDeque<Arc<RecentEvent>>,
    /// The locks of these events, as they were when the newest event of each was read.
    locks: HashMap<LockId, Arc<Lock>>,
    /// The end of what was read. There may be no event that is shown at this position.
    read_to: Option<Position>,
}

/// A stream that follows the newest events, until this is dropped.
pub(crate) struct Follower {
    recent: Arc<RecentEvents>,
    added: watch::Receiver<()>,
}

impl Default for RecentEvents {
    fn default() -> Self {
        Self {
            kept: Mutex::default(),
            followers: AtomicUsize::new(0),
            first_follower: Notify::new(),
            added: watch::Sender::default(),
            catching_up: Semaphore::new(CATCHING_UP),
        }
    }
}

impl RecentEvents {
    /// Held by a stream while it reads the store itself. `None` does not occur: the semaphore is never closed.
    pub(crate) async fn catch_up(&self) -> Option<SemaphorePermit<'_>> {
        self.catching_up.acquire().await.ok()
    }

    pub(crate) fn follow(self: &Arc<Self>) -> Follower {
        if self.followers.fetch_add(1, Ordering::SeqCst) == 0 {
            self.first_follower.notify_one();
        }
        Follower {
            recent: self.clone(),
            added: self.added.subscribe(),
        }
    }

    /// Reads new events while streams follow them. `saved` announces the writes that this process saves.
    pub(crate) async fn fill(
        self: Arc<Self>,
        writes: Arc<KeyWrites>,
        saved: broadcast::Sender<Arc<Write>>,
        render: fn(&FeedEvent) -> Bytes,
    ) {
        loop {
            self.first_follower.notified().await;
            let mut saved = saved.subscribe();
            while self.followers.load(Ordering::SeqCst) > 0 {
                match self.add_new(&writes, render).await {
                    Ok(true) => {}
                    Ok(false) => {
                        // Also if more writes were saved than the channel keeps.
                        let _ = tokio::time::timeout(POLL, saved.recv()).await;
                        while saved.try_recv().is_ok() {}
                    }
                    Err(error) => {
                        warn!(%error, "the feed cannot be followed");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
            *lock_mutex(&self.kept) = Kept::default();
        }
    }

    /// Returns whether there may be more events.
    async fn add_new(
        &self,
        writes: &KeyWrites,
        render: fn(&FeedEvent) -> Bytes,
    ) -> Result<bool, RepoError> {
        let end = lock_mutex(&self.kept).read_to;
        let end = match end {
            Some(end) => end,
            None => {
                let end = writes.feed_end().await?;
                let mut kept = lock_mutex(&self.kept);
                (kept.after, kept.read_to) = (Some(end), Some(end));
                drop(kept);
                // Streams may have read the store before this end.
                self.added.send_replace(());
                end
            }
        };
        let page = writes.follow_feed(end, BATCH).await?;
        if page.next > end {
            let frames: Vec<Bytes> = page.events.iter().map(render).collect();
            lock_mutex(&self.kept).add(page.events, frames, page.next);
            self.added.send_replace(());
        }
        Ok(!page.is_end)
    }
}

impl Kept {
    fn add(&mut self, events: Vec<FeedEvent>, frames: Vec<Bytes>, read_to: Position) {
        for (event, frame) in events.into_iter().zip(frames) {
            let FeedEvent { logged, lock, .. } = event;
            self.locks.insert(lock.id, lock);
            self.events.push_back(Arc::new(RecentEvent {
                position: logged.position,
                event: logged.event,
                frame,
            }));
        }
        self.read_to = Some(read_to);
        while self.events.len() > CAPACITY {
            let oldest = self.events.pop_front();
            self.after = oldest.map(|recent| recent.position);
        }
        if self.locks.len() > CAPACITY {
            let kept: HashSet<LockId> =
                self.events.iter().map(|recent| recent.event.lock).collect();
            self.locks.retain(|id, _| kept.contains(id));
        }
    }
}

impl Follower {
    /// Events after `after` with their locks, at most [`BATCH`]. `None`: older events are not kept, and the store has to be read.
    pub(crate) fn events_after(
        &mut self,
        after: Position,
    ) -> Option<Vec<(Arc<RecentEvent>, Arc<Lock>)>> {
        // Before the reading, so that `added` completes for every later event.
        self.added.mark_unchanged();
        let kept = lock_mutex(&self.recent.kept);
        kept.after.filter(|first| *first <= after)?;
        let first = kept
            .events
            .partition_point(|recent| recent.position <= after);
        let events = kept.events.iter().skip(first).take(BATCH);
        let with_lock = |recent: &Arc<RecentEvent>| {
            let lock = kept.locks.get(&recent.event.lock)?;
            Some((recent.clone(), lock.clone()))
        };
        Some(events.filter_map(with_lock).collect())
    }

    /// The shared events that this follows.
    pub(crate) fn recent(&self) -> Arc<RecentEvents> {
        self.recent.clone()
    }

    /// Waits until there are events that the last reading did not return.
    pub(crate) async fn added(&mut self) {
        // The sender is in `recent`.
        let _ = self.added.changed().await;
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.recent.followers.fetch_sub(1, Ordering::SeqCst);
    }
}
