//! A webhook: where events are delivered, which events, and with which secrets they are signed.

use std::collections::BTreeSet;
use std::fmt;

use super::progress::WebhookProgress;
use super::state::WebhookState;
use super::url::WebhookUrl;
use crate::model::{
    Identity, InvalidValue, LockEvent, OrganizationId, Principal, Revision, Timestamp,
    WebhookDescription, WebhookId,
};

/// Whose webhook it is. The owner's access decides which locks a webhook sees.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WebhookOwner {
    /// An organization.
    Organization(OrganizationId),
    /// The operator, with a super key: it sees the locks of every organization.
    EveryOrganization,
}

impl WebhookOwner {
    /// The owner as a principal, for decisions about access to locks.
    pub fn principal(&self) -> Principal {
        Principal::of(match self {
            Self::Organization(organization) => Identity::Organization(organization.clone()),
            Self::EveryOrganization => Identity::EveryOrganization,
        })
    }
}

impl fmt::Display for WebhookOwner {
    /// The organization, or `*`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Organization(organization) => organization.fmt(f),
            Self::EveryOrganization => f.write_str("*"),
        }
    }
}

/// Which events a webhook receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventSelection {
    /// All events, also of types that later versions add.
    All,
    /// Events of the types with these names, at least one. See [`LockEvent::name`].
    Types(BTreeSet<&'static str>),
}

impl EventSelection {
    /// The name that stands for all events.
    pub const ALL: &'static str = "*";

    /// The selection of these names. [`EventSelection::ALL`] selects all events.
    ///
    /// # Errors
    /// There is no name, or one that no event type has.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, InvalidValue> {
        let invalid = InvalidValue {
            what: "events",
            rule: "must be a list of event types such as KeyWriteConfirmed, or [\"*\"] for all",
        };
        let (mut types, mut all) = (BTreeSet::new(), false);
        for name in names {
            if name == Self::ALL {
                all = true;
                continue;
            }
            let known = LockEvent::NAMES.into_iter().find(|known| *known == name);
            types.insert(known.ok_or(invalid)?);
        }
        match (all, types.is_empty()) {
            (true, _) => Ok(Self::All),
            (false, true) => Err(invalid),
            (false, false) => Ok(Self::Types(types)),
        }
    }

    /// The names, as [`EventSelection::new`] reads them.
    pub fn names(&self) -> Vec<&'static str> {
        match self {
            Self::All => vec![Self::ALL],
            Self::Types(types) => types.iter().copied().collect(),
        }
    }

    /// Whether it selects events of this type.
    pub fn has(&self, event_type: &str) -> bool {
        match self {
            Self::All => true,
            Self::Types(types) => types.contains(event_type),
        }
    }
}

/// A key that signs deliveries. Its `Debug` output does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningSecret(Vec<u8>);

impl SigningSecret {
    /// The length of a generated secret, in bytes.
    pub const BYTES: usize = 32;

    /// Any 24 to 64 bytes (Standard Webhooks, "Signature scheme").
    ///
    /// # Errors
    /// There are fewer or more bytes.
    pub fn new(bytes: Vec<u8>) -> Result<Self, InvalidValue> {
        match bytes.len() {
            24..=64 => Ok(Self(bytes)),
            _ => Err(InvalidValue {
                what: "secret",
                rule: "must have 24 to 64 bytes",
            }),
        }
    }

    /// The key itself. Only the adapters that sign, encrypt it, and show it to its owner once may call this.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret(…)")
    }
}

/// The secrets of a webhook. While a secret is rotated, the old and the new one sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningSecrets {
    /// The newest secret.
    pub current: SigningSecret,
    /// The secret before, and until when it signs, too.
    pub previous: Option<(SigningSecret, Timestamp)>,
}

impl SigningSecrets {
    /// One secret.
    pub const fn of(current: SigningSecret) -> Self {
        Self {
            current,
            previous: None,
        }
    }

    /// The secrets that sign at this time, the newest first.
    pub fn valid_at(&self, now: Timestamp) -> impl Iterator<Item = &SigningSecret> {
        let previous = self.previous.iter().filter(move |(_, until)| now < *until);
        std::iter::once(&self.current).chain(previous.map(|(secret, _)| secret))
    }
}

/// A webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Identifies it.
    pub id: WebhookId,
    /// Whose it is.
    pub owner: WebhookOwner,
    /// Where events are delivered.
    pub url: WebhookUrl,
    /// Which events.
    pub events: EventSelection,
    /// What it is for.
    pub description: Option<WebhookDescription>,
    /// The secrets that sign its deliveries.
    pub secrets: SigningSecrets,
    /// When it was registered.
    pub created_at: Timestamp,
    /// Whether events are delivered.
    pub state: WebhookState,
    /// Incremented by every change, but not by progress.
    pub revision: Revision,
    /// How far its deliveries are.
    pub progress: WebhookProgress,
}

impl Webhook {
    /// Whether events are delivered.
    pub fn is_enabled(&self) -> bool {
        self.state == WebhookState::Enabled
    }
}
