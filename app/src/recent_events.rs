//! The newest events of the feed, in memory for the streams that follow it.
//!
//! One task reads new events from the store for all streams. A stream that is behind what is kept here reads the store itself.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use keywright_domain::model::{Position, Write};
use keywright_domain::ports::RepoError;
use keywright_domain::{FeedEvent, KeyWrites};
use tokio::sync::{Notify, broadcast, watch};
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

/// An event with the bytes that streams send.
pub(crate) struct RecentEvent {
    pub(crate) event: FeedEvent,
    pub(crate) frame: Bytes,
}

/// The newest events. They are kept while at least one stream follows them.
#[derive(Default)]
pub(crate) struct RecentEvents {
    kept: Mutex<Kept>,
    /// The number of streams.
    followers: AtomicUsize,
    first_follower: Notify,
    /// Changes whenever events are added.
    added: watch::Sender<()>,
}

#[derive(Default)]
struct Kept {
    /// Every event behind this position and up to the last one of `events` is in `events`. `None`: nothing is kept.
    after: Option<Position>,
    events: VecDeque<Arc<RecentEvent>>,
}

/// A stream that follows the newest events, until this is dropped.
pub(crate) struct Follower {
    recent: Arc<RecentEvents>,
    added: watch::Receiver<()>,
}

impl RecentEvents {
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
                    Ok(BATCH) => {}
                    Ok(_) => {
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

    /// Returns how many events were added.
    async fn add_new(
        &self,
        writes: &KeyWrites,
        render: fn(&FeedEvent) -> Bytes,
    ) -> Result<usize, RepoError> {
        let end = lock_mutex(&self.kept).end();
        let end = match end {
            Some(end) => end,
            None => {
                let end = writes.feed_end().await?;
                lock_mutex(&self.kept).after = Some(end);
                // Streams may have read the store before this end.
                self.added.send_replace(());
                end
            }
        };
        let events = writes.follow_feed(end, BATCH).await?;
        let added = events.len();
        if added > 0 {
            let events = events.into_iter().map(|event| {
                let frame = render(&event);
                Arc::new(RecentEvent { event, frame })
            });
            lock_mutex(&self.kept).add(events);
            self.added.send_replace(());
        }
        Ok(added)
    }
}

impl Kept {
    fn end(&self) -> Option<Position> {
        let last = self.events.back();
        last.map(|recent| recent.event.logged.position)
            .or(self.after)
    }

    fn add(&mut self, events: impl Iterator<Item = Arc<RecentEvent>>) {
        self.events.extend(events);
        while self.events.len() > CAPACITY {
            let oldest = self.events.pop_front();
            self.after = oldest.map(|recent| recent.event.logged.position);
        }
    }
}

impl Follower {
    /// Events behind `after`, at most [`BATCH`]. `None`: older events are not kept, and the store has to be read.
    pub(crate) fn events_after(&mut self, after: Position) -> Option<Vec<Arc<RecentEvent>>> {
        // Before the reading, so that `added` completes for every later event.
        self.added.mark_unchanged();
        let kept = lock_mutex(&self.recent.kept);
        kept.after.filter(|first| *first <= after)?;
        let first = kept
            .events
            .partition_point(|recent| recent.event.logged.position <= after);
        Some(
            kept.events
                .iter()
                .skip(first)
                .take(BATCH)
                .cloned()
                .collect(),
        )
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
