//! Who asks, and which locks they may touch.

use std::fmt;

use crate::lock::Lock;
use crate::values::{OrganizationId, UserId};

/// What one credential proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// A person.
    User(UserId),
    /// A service of one organization.
    Organization(OrganizationId),
    /// A service of every organization (a super key).
    EveryOrganization,
}

impl fmt::Display for Identity {
    /// `user:…`, `org:…`, `org:*`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user) => write!(f, "user:{user}"),
            Self::Organization(organization) => write!(f, "org:{organization}"),
            Self::EveryOrganization => f.write_str("org:*"),
        }
    }
}

/// Who asks: what their credentials prove, one identity for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    first: Identity,
    second: Option<Identity>,
}

impl Principal {
    /// Someone with one credential.
    pub const fn of(identity: Identity) -> Self {
        Self {
            first: identity,
            second: None,
        }
    }

    /// Someone with a token and an API key, both valid.
    pub const fn of_both(token: Identity, api_key: Identity) -> Self {
        Self {
            first: token,
            second: Some(api_key),
        }
    }

    /// The identities, one or two.
    pub fn identities(&self) -> impl Iterator<Item = &Identity> {
        std::iter::once(&self.first).chain(&self.second)
    }

    /// Whether any one identity alone may touch the lock (HTTP contract, Credentials): an
    /// organization must own it; a user must own it or hold a key on it.
    pub fn may_touch(&self, lock: &Lock) -> bool {
        self.identities().any(|identity| match identity {
            Identity::EveryOrganization => true,
            Identity::Organization(organization) => {
                lock.organization.as_ref() == Some(organization)
            }
            Identity::User(user) => {
                lock.owner.as_ref() == Some(user)
                    || lock.keys.iter().any(|k| k.held.user.as_ref() == Some(user))
            }
        })
    }
}

impl fmt::Display for Principal {
    /// For audits: its identities, joined by `+`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.first.fmt(f)?;
        match &self.second {
            Some(second) => write!(f, "+{second}"),
            None => Ok(()),
        }
    }
}
