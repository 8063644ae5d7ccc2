//! Lists of the locks that a principal may access, and of their writes.

use std::time::Duration;

use super::key_writes::KeyWrites;
use super::page_scan::{LocksOfPage, MAX_READS, READ_AT_ONCE};
use crate::model::{KeyUuid, Lock, LockId, OrganizationId, Principal, Timestamp, Write, WriteId};
use crate::ports::RepoError;

/// Which locks a list has. The default is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LockFilter {
    /// Only locks of this organization.
    pub organization: Option<OrganizationId>,
    /// Only locks that hold this key.
    pub key: Option<KeyUuid>,
}

impl LockFilter {
    /// Whether the list has this lock.
    pub fn matches(&self, lock: &Lock) -> bool {
        let holds = |key: &KeyUuid| lock.keys.iter().any(|held| held.held.key == *key);
        belongs_to(lock, self.organization.as_ref()) && self.key.as_ref().is_none_or(holds)
    }
}

/// Which writes a list has. The default is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WriteFilter {
    /// Only writes of this lock.
    pub lock: Option<LockId>,
    /// Only writes in the state with this name, see [`WriteState::name`](crate::model::WriteState::name).
    pub state: Option<String>,
    /// Only writes with the failure reason of this name, see [`FailureReason::name`](crate::model::FailureReason::name).
    pub reason: Option<String>,
    /// Only writes that were prepared then or later.
    pub since: Option<Timestamp>,
    /// Only writes that are unconfirmed, or only those that are not, see [`Write::is_unconfirmed`].
    pub unconfirmed: Option<bool>,
    /// Only writes of this key.
    pub key: Option<KeyUuid>,
    /// Only writes that a principal of this name requested, see [`Cause::is_requested_by`](crate::model::Cause::is_requested_by).
    pub requested_by: Option<String>,
    /// Only writes of locks that belong to this organization now.
    pub organization: Option<OrganizationId>,
}

impl WriteFilter {
    /// Whether the list has this write, if the write's lock belongs to the organization. `confirm_within` is that of
    /// [`Limits`](crate::policy::Limits).
    pub fn matches(&self, write: &Write, now: Timestamp, confirm_within: Duration) -> bool {
        let is_state = |name: &String| name == write.state.name();
        let is_reason = |name: &String| write.reason().is_some_and(|reason| reason.name() == name);
        let is_requested_by = |name: &String| write.cause.is_requested_by(name);
        let is_unconfirmed = |wanted| write.is_unconfirmed(now, confirm_within) == wanted;
        self.lock.is_none_or(|lock| lock == write.lock)
            && self.state.as_ref().is_none_or(is_state)
            && self.reason.as_ref().is_none_or(is_reason)
            && self.since.is_none_or(|since| write.prepared_at >= since)
            && self.unconfirmed.is_none_or(is_unconfirmed)
            && self.key.as_ref().is_none_or(|key| *key == write.slot.key)
            && self.requested_by.as_ref().is_none_or(is_requested_by)
    }
}

fn belongs_to(lock: &Lock, organization: Option<&OrganizationId>) -> bool {
    organization.is_none() || lock.organization.as_ref() == organization
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListPage<T, C> {
    /// The elements.
    pub items: Vec<T>,
    /// Where to continue. `None`: the page reaches the end of the list.
    pub next: Option<C>,
}

impl KeyWrites {
    /// At most `limit` locks that match the filter, of those that the principal may access, in the order of their ids, after `after`. The
    /// page looks at no more than 10,000 locks of the store, so it may have fewer locks, or none, before the end of the list.
    ///
    /// # Errors
    /// The store failed.
    pub async fn list_locks(
        &self,
        principal: &Principal,
        filter: &LockFilter,
        after: Option<LockId>,
        limit: usize,
    ) -> Result<ListPage<Lock, LockId>, RepoError> {
        let (mut items, mut next) = (Vec::new(), after);
        for _ in 0..MAX_READS {
            let locks = self.ports.history.locks(next, READ_AT_ONCE).await?;
            let is_end = locks.len() < READ_AT_ONCE;
            for lock in locks {
                if items.len() == limit {
                    return Ok(ListPage { items, next });
                }
                next = Some(lock.id);
                if filter.matches(&lock) && self.access.may_access(principal, &lock) {
                    items.push(lock);
                }
            }
            if is_end {
                next = None;
                break;
            }
        }
        Ok(ListPage { items, next })
    }

    /// At most `limit` writes that match the filter, of locks that the principal may access, in descending order of their ids, below
    /// `before`: the newest first, if ids grow with time. The page looks at no more than 10,000 writes and 500 locks of the store, so it may
    /// have fewer writes, or none, before the end of the list.
    ///
    /// # Errors
    /// The store failed.
    pub async fn list_writes(
        &self,
        principal: &Principal,
        filter: &WriteFilter,
        before: Option<WriteId>,
        limit: usize,
    ) -> Result<ListPage<Write, WriteId>, RepoError> {
        let (mut items, mut next) = (Vec::new(), before);
        let (now, confirm_within) = (self.ports.clock.now(), self.settings.limits.confirm_within);
        let mut locks = LocksOfPage::default();
        for _ in 0..MAX_READS {
            let writes = self.ports.history.writes(next, READ_AT_ONCE).await?;
            let is_end = writes.len() < READ_AT_ONCE;
            for write in writes {
                if items.len() == limit {
                    return Ok(ListPage { items, next });
                }
                if filter.matches(&write, now, confirm_within) {
                    if locks.is_full(write.lock) {
                        return Ok(ListPage { items, next });
                    }
                    let is_shown = |lock: &Lock| {
                        let organization = filter.organization.as_ref();
                        belongs_to(lock, organization) && self.access.may_access(principal, lock)
                    };
                    let lock = locks.get(self, write.lock, is_shown).await?;
                    next = Some(write.id);
                    items.extend(lock.map(|_| write));
                } else {
                    next = Some(write.id);
                }
            }
            if is_end {
                next = None;
                break;
            }
        }
        Ok(ListPage { items, next })
    }
}
