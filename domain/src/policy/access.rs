//! Rule 1: which locks a principal may access.

use crate::model::{Identity, Lock, Principal};

/// Decides which locks a principal may access. Every use case that acts for a principal asks it, reads included.
///
/// The default is [`OwnerAccess`]. A service with rules of its own implements this trait, or passes a function, to
/// [`KeyWrites::with_access`](crate::KeyWrites::with_access), and names its callers with [`Identity::Subject`]. The decision is
/// synchronous: what it needs besides the principal and the lock, such as grants, the implementation holds in memory.
pub trait AccessPolicy: Send + Sync {
    /// Whether the principal may read the lock's writes and events, write keys to it, and withdraw its writes. The answer
    /// for the same lock may change at any time.
    fn may_access(&self, principal: &Principal, lock: &Lock) -> bool;
}

impl<F: Fn(&Principal, &Lock) -> bool + Send + Sync> AccessPolicy for F {
    fn may_access(&self, principal: &Principal, lock: &Lock) -> bool {
        self(principal, lock)
    }
}

/// The rule of the HTTP contract (Credentials): at least one identity has access. An organization must own the lock; a user must
/// own it or hold a key of it. A subject has access to no lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnerAccess;

impl AccessPolicy for OwnerAccess {
    fn may_access(&self, principal: &Principal, lock: &Lock) -> bool {
        principal.identities().any(|identity| match identity {
            Identity::EveryOrganization => true,
            Identity::Organization(organization) => {
                lock.organization.as_ref() == Some(organization)
            }
            Identity::User(user) => {
                lock.owner.as_ref() == Some(user)
                    || lock.keys.iter().any(|k| k.held.user.as_ref() == Some(user))
            }
            Identity::Subject(_) => false,
        })
    }
}
