//! The feed: the events of all locks that a principal may access, in the order of their positions.

use std::sync::Arc;

use super::key_writes::KeyWrites;
use super::page_scan::{LocksOfPage, MAX_READS, READ_AT_ONCE};
use crate::model::{Lock, LockId, LoggedEvent, Position, Principal, RecordedEvent};
use crate::ports::RepoError;

/// Which events a reader of the feed wants. The default is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FeedFilter {
    /// Only events of this lock.
    pub lock: Option<LockId>,
    /// Only events of the type with this name, see [`LockEvent::name`](crate::model::LockEvent::name).
    pub event_type: Option<String>,
}

impl FeedFilter {
    /// Whether the reader wants this event.
    pub fn matches(&self, event: &RecordedEvent) -> bool {
        let type_matches = |name: &String| name == event.event.name();
        self.lock.is_none_or(|lock| lock == event.lock)
            && self.event_type.as_ref().is_none_or(type_matches)
    }
}

/// An event with its position, and its lock as it was when the page was read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FeedEvent {
    /// The event.
    pub logged: LoggedEvent,
    /// The lock.
    pub lock: Arc<Lock>,
}

/// A part of the feed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FeedPage {
    /// The events, in the order of their positions.
    pub events: Vec<FeedEvent>,
    /// Where to continue. No position in the page is greater, and events that the principal may not read are skipped.
    pub next: Position,
    /// Whether the page reaches the end of the feed.
    pub is_end: bool,
}

impl KeyWrites {
    /// At most `limit` events after `after` that match the filter, of locks that the principal may access now. The page looks at no more
    /// than 10,000 events and 500 locks of the store, so it may have fewer events, or none, before the end of the feed. A lock whose
    /// stored data is corrupt is accessible to nobody.
    ///
    /// # Errors
    /// The store failed.
    pub async fn read_feed(
        &self,
        principal: &Principal,
        filter: &FeedFilter,
        after: Position,
        limit: usize,
    ) -> Result<FeedPage, RepoError> {
        let mut page = FeedPage {
            events: Vec::new(),
            next: after,
            is_end: false,
        };
        let mut locks = LocksOfPage::default();
        for _ in 0..MAX_READS {
            let events = self.events_after(page.next, READ_AT_ONCE).await?;
            let is_end = events.len() < READ_AT_ONCE;
            for logged in events {
                if page.events.len() == limit {
                    return Ok(page);
                }
                let position = logged.position;
                if filter.matches(&logged.event) {
                    if locks.is_full(logged.event.lock) {
                        return Ok(page);
                    }
                    let may_access = |lock: &Lock| self.access.may_access(principal, lock);
                    let lock = locks.get(self, logged.event.lock, may_access).await?;
                    page.events
                        .extend(lock.map(|lock| FeedEvent { logged, lock }));
                }
                page.next = position;
            }
            if is_end {
                page.is_end = true;
                break;
            }
        }
        Ok(page)
    }

    /// At most `limit` events after `after`, of all locks but those whose stored data is corrupt, and the position of the last event. It
    /// acts for no principal: [`KeyWrites::shows`] decides who may read an event.
    ///
    /// # Errors
    /// The store failed.
    pub async fn follow_feed(&self, after: Position, limit: usize) -> Result<FeedPage, RepoError> {
        let mut locks = LocksOfPage::default();
        let logged = self.events_after(after, limit).await?;
        let mut page = FeedPage {
            events: Vec::with_capacity(logged.len()),
            next: logged.last().map_or(after, |last| last.position),
            is_end: logged.len() < limit,
        };
        for logged in logged {
            let lock = locks.get(self, logged.event.lock, |_| true).await?;
            page.events
                .extend(lock.map(|lock| FeedEvent { logged, lock }));
        }
        Ok(page)
    }

    /// Whether an event of [`KeyWrites::follow_feed`] matches the filter, and the principal may access its lock. `lock` is the lock of the
    /// newest event that was read.
    pub fn shows(
        &self,
        event: &RecordedEvent,
        lock: &Lock,
        principal: &Principal,
        filter: &FeedFilter,
    ) -> bool {
        filter.matches(event) && self.access.may_access(principal, lock)
    }

    /// The end of the feed now.
    ///
    /// # Errors
    /// The store failed.
    pub async fn feed_end(&self) -> Result<Position, RepoError> {
        self.ports.history.last_position().await
    }

    /// Whether an event has this position, or it is [`Position::START`].
    ///
    /// # Errors
    /// The store failed.
    pub async fn has_position(&self, position: Position) -> Result<bool, RepoError> {
        let Some(before) = position.0.checked_sub(1) else {
            return Ok(true);
        };
        let found = self.events_after(Position(before), 1).await?;
        Ok(found
            .first()
            .is_some_and(|logged| logged.position == position))
    }
}
