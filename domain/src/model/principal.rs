//! Who asks, and which locks they may touch.

use std::fmt;

use crate::model::{Lock, OrganizationId, UserId};

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

/// A credential that was found good: the identity that it proves, and what tells it from other credentials of the same
/// identity. Rules look at the identity only; the rest is for logs and audits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// What it proves.
    pub identity: Identity,
    /// Which credential it was, where the adapter knows it.
    pub credential: Option<CredentialName>,
}

/// The name of a credential. It holds no part that lets anybody in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialName {
    /// The subject (`sub`) of a token.
    Subject(UserId),
    /// The characters of an API key that may be shown: the first 8 and the last 4.
    ApiKey(String),
}

impl From<Identity> for Proof {
    /// By a credential without a name.
    fn from(identity: Identity) -> Self {
        Self {
            identity,
            credential: None,
        }
    }
}

impl fmt::Display for Proof {
    /// The identity, then `,sub:…` or `,key:…`. The subject of a user's token is the user.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.identity.fmt(f)?;
        match (&self.credential, &self.identity) {
            (None, _) | (Some(CredentialName::Subject(_)), Identity::User(_)) => Ok(()),
            (Some(CredentialName::Subject(subject)), _) => write!(f, ",sub:{subject}"),
            (Some(CredentialName::ApiKey(shown)), _) => write!(f, ",key:{shown}"),
        }
    }
}

/// Who asks: what their credentials prove, one identity for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    first: Proof,
    second: Option<Proof>,
}

impl Principal {
    /// Someone with one credential.
    pub fn of(proof: impl Into<Proof>) -> Self {
        Self {
            first: proof.into(),
            second: None,
        }
    }

    /// Someone with a token and an API key, both valid.
    pub fn of_both(token: impl Into<Proof>, api_key: impl Into<Proof>) -> Self {
        Self {
            first: token.into(),
            second: Some(api_key.into()),
        }
    }

    /// The identities, one or two.
    pub fn identities(&self) -> impl Iterator<Item = &Identity> {
        let proofs = std::iter::once(&self.first).chain(&self.second);
        proofs.map(|proof| &proof.identity)
    }

    /// The identities, joined by `+`: the same text for all credentials of the same identities.
    pub fn scope(&self) -> String {
        let identities: Vec<String> = self.identities().map(Identity::to_string).collect();
        identities.join("+")
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
    /// For logs and audits: its credentials' proofs, joined by `+`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.first.fmt(f)?;
        match &self.second {
            Some(second) => write!(f, "+{second}"),
            None => Ok(()),
        }
    }
}
