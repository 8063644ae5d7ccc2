//! Authenticated principals.

use std::fmt;

use crate::model::{OrganizationId, SubjectId, UserId};

/// The identity that a credential proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// A user.
    User(UserId),
    /// A service of one organization.
    Organization(OrganizationId),
    /// A service of every organization (a super key).
    EveryOrganization,
    /// A caller of a service that embeds this domain and has access rules of its own. By default it may access no lock.
    Subject(SubjectId),
    /// A person who runs the service.
    Operator(Operator),
}

/// A person who runs the service, and sees all locks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// The person.
    pub name: SubjectId,
    /// What the person may do.
    pub role: OperatorRole,
}

/// What an operator may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperatorRole {
    /// Read.
    Viewer,
    /// Read, and change what there is: withdraw writes. Neither role writes keys.
    Operator,
}

impl OperatorRole {
    /// `viewer` or `operator`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
        }
    }

    /// The role with this name.
    pub fn by_name(name: &str) -> Option<Self> {
        let mut roles = [Self::Viewer, Self::Operator].into_iter();
        roles.find(|role| role.name() == name)
    }
}

impl fmt::Display for Identity {
    /// `user:ID`, `org:ID`, `org:*`, `subject:ID` or `operator:NAME`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user) => write!(f, "user:{user}"),
            Self::Organization(organization) => write!(f, "org:{organization}"),
            Self::EveryOrganization => f.write_str("org:*"),
            Self::Subject(subject) => write!(f, "subject:{subject}"),
            Self::Operator(operator) => write!(f, "operator:{}", operator.name),
        }
    }
}

/// A valid credential: the identity that it proves, and its name. Rules use only the identity; the name is for logs and audit
/// trails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The identity that the credential proves.
    pub identity: Identity,
    /// The name of the credential, if the adapter knows it.
    pub credential: Option<CredentialName>,
}

/// The name of a credential. It is not secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialName {
    /// The subject (`sub`) of a token.
    Subject(UserId),
    /// The first 8 and the last 4 characters of an API key, which may be shown.
    ApiKey(String),
}

impl From<Identity> for Proof {
    /// A proof by a credential without a name.
    fn from(identity: Identity) -> Self {
        Self {
            identity,
            credential: None,
        }
    }
}

impl fmt::Display for Proof {
    /// The identity, followed by `,sub:NAME` or `,key:NAME`. The subject of a user's token is the user, so it is not repeated.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.identity.fmt(f)?;
        match (&self.credential, &self.identity) {
            (None, _) | (Some(CredentialName::Subject(_)), Identity::User(_)) => Ok(()),
            (Some(CredentialName::Subject(subject)), _) => write!(f, ",sub:{subject}"),
            (Some(CredentialName::ApiKey(shown)), _) => write!(f, ",key:{shown}"),
        }
    }
}

/// The caller of a use case, after authentication: one proof for each credential of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    first: Proof,
    second: Option<Proof>,
}

impl Principal {
    /// A principal with one credential.
    pub fn of(proof: impl Into<Proof>) -> Self {
        Self {
            first: proof.into(),
            second: None,
        }
    }

    /// A principal with a token and an API key, both valid.
    pub fn of_both(token: impl Into<Proof>, api_key: impl Into<Proof>) -> Self {
        Self {
            first: token.into(),
            second: Some(api_key.into()),
        }
    }

    /// The one or two identities.
    pub fn identities(&self) -> impl Iterator<Item = &Identity> {
        let proofs = std::iter::once(&self.first).chain(&self.second);
        proofs.map(|proof| &proof.identity)
    }

    /// The identities, joined by `+`. All credentials of the same identities have the same scope.
    pub fn scope(&self) -> String {
        let identities: Vec<String> = self.identities().map(Identity::to_string).collect();
        identities.join("+")
    }
}

impl fmt::Display for Principal {
    /// The proofs, joined by `+`, for logs and audit trails.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.first.fmt(f)?;
        match &self.second {
            Some(second) => write!(f, "+{second}"),
            None => Ok(()),
        }
    }
}
