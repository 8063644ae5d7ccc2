//! Rule 1: which locks a principal may access.

use crate::model::{Identity, Lock, OperatorRole, Principal};

/// Decides which locks a principal may access. Every use case that acts for a principal asks it, reads included.
///
/// The default is [`OwnerAccess`]. A service with rules of its own implements this trait, or passes a function, to
/// [`KeyWrites::with_access`](crate::KeyWrites::with_access), and names its callers with [`Identity::Subject`]. The decision is
/// synchronous: what it needs besides the principal and the lock, such as grants, the implementation holds in memory.
pub trait AccessPolicy: Send + Sync {
    /// Whether the principal may read the lock, its writes and its events. The answer for the same lock may change at any time.
    fn may_access(&self, principal: &Principal, lock: &Lock) -> bool;

    /// Whether the principal may write keys to the lock. By default, whoever may read it.
    fn may_write(&self, principal: &Principal, lock: &Lock) -> bool {
        self.may_access(principal, lock)
    }

    /// Whether the principal may withdraw writes of the lock. By default, whoever may write keys to it.
    fn may_withdraw(&self, principal: &Principal, lock: &Lock) -> bool {
        self.may_write(principal, lock)
    }
}

impl<F: Fn(&Principal, &Lock) -> bool + Send + Sync> AccessPolicy for F {
    fn may_access(&self, principal: &Principal, lock: &Lock) -> bool {
        self(principal, lock)
    }
}

/// The rule of the HTTP contract (Credentials): at least one identity has access. An organization must own the lock; a user must
/// own it or hold a key of it. A subject has access to no lock. Operators read every lock, write to none, and withdraw writes if that is
/// their role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnerAccess;

impl AccessPolicy for OwnerAccess {
    fn may_access(&self, principal: &Principal, lock: &Lock) -> bool {
        principal.identities().any(|identity| match identity {
            Identity::Operator(_) => true,
            identity => is_customer_of(identity, lock),
        })
    }

    fn may_write(&self, principal: &Principal, lock: &Lock) -> bool {
        principal
            .identities()
            .any(|identity| is_customer_of(identity, lock))
    }

    fn may_withdraw(&self, principal: &Principal, lock: &Lock) -> bool {
        principal.identities().any(|identity| match identity {
            Identity::Operator(operator) => operator.role == OperatorRole::Operator,
            identity => is_customer_of(identity, lock),
        })
    }
}

fn is_customer_of(identity: &Identity, lock: &Lock) -> bool {
    match identity {
        Identity::EveryOrganization => true,
        Identity::Organization(organization) => lock.organization.as_ref() == Some(organization),
        Identity::User(user) => {
            lock.owner.as_ref() == Some(user)
                || lock.keys.iter().any(|k| k.held.user.as_ref() == Some(user))
        }
        Identity::Subject(_) | Identity::Operator(_) => false,
    }
}
