//! What observers of the ports are notified of: calls that have ended, and saves that were applied.

use std::sync::Arc;
use std::time::Duration;

use keywright_domain::model::{ClientToken, LockId, Save, ShadowVersion, ThingName, Write};
use keywright_domain::ports::{RepoError, ShadowError};

/// Is notified of the calls of ports. Methods run on the caller's task, so they must not block. By default they do
/// nothing.
pub trait Observer: Send + Sync {
    /// A call has ended, or its caller no longer waits for it. `took` is the time since its start.
    fn call_ended(&self, _call: &PortCall<'_>, _outcome: &CallOutcome<'_>, _took: Duration) {}

    /// The store has applied a save. `folded` and `idempotency` are left out, because they are not copied for observers.
    fn saved(&self, _save: &Save) {}
}

/// A closure is notified of saves.
impl<F: Fn(&Save) + Send + Sync> Observer for F {
    fn saved(&self, save: &Save) {
        self(save);
    }
}

/// Observers in the order in which they are notified.
pub type Observers = Arc<[Arc<dyn Observer>]>;

/// A call of a port.
#[derive(Clone, Copy, Debug)]
pub enum PortCall<'a> {
    /// [`ShadowPort::update`](keywright_domain::ports::ShadowPort::update).
    ShadowUpdate {
        /// The thing.
        thing: &'a ThingName,
        /// `put` (an update with an entry), `fence` (one that changes nothing) or `update` (any other).
        kind: &'static str,
        /// The token of the request.
        token: &'a ClientToken,
        /// The version that the shadow must have.
        expected: Option<ShadowVersion>,
    },
    /// [`ShadowPort::read`](keywright_domain::ports::ShadowPort::read).
    ShadowRead {
        /// The thing.
        thing: &'a ThingName,
    },
    /// [`LockRepo::load`](keywright_domain::ports::LockRepo::load).
    Load {
        /// The lock.
        lock: LockId,
    },
    /// [`LockRepo::save`](keywright_domain::ports::LockRepo::save).
    Save {
        /// The lock.
        lock: LockId,
    },
    /// [`LockRepo::claim`](keywright_domain::ports::LockRepo::claim).
    Claim,
    /// A call of [`LockHistory`](keywright_domain::ports::LockHistory), by its name.
    History(&'static str),
}

/// How a call ended.
#[derive(Clone, Copy, Debug)]
pub enum CallOutcome<'a> {
    /// It succeeded.
    Done,
    /// The shadow was updated to this version, or read at it; `None`: there is no shadow.
    ShadowVersion(Option<ShadowVersion>),
    /// A claim took over this write.
    Claimed(&'a Write),
    /// A call of the shadow failed.
    ShadowFailed(&'a ShadowError),
    /// A call of the store failed.
    StoreFailed(&'a RepoError),
    /// The store refused events that do not continue the stream of their lock.
    ImportRefused,
    /// The caller no longer waits for the call.
    GivenUp,
}

/// Calls of one port, and the outcomes that each of them may have.
#[derive(Clone, Copy, Debug)]
pub struct KnownCalls {
    /// See [`PortCall::port`].
    pub port: &'static str,
    /// See [`PortCall::name`].
    pub calls: &'static [&'static str],
    /// See [`CallOutcome::name`].
    pub outcomes: &'static [&'static str],
}

impl PortCall<'_> {
    /// The calls that a server makes.
    pub const KNOWN: [KnownCalls; 3] = [
        KnownCalls {
            port: "shadow",
            calls: &["put", "fence", "update", "read"],
            outcomes: &[
                "ok",
                "not_applied",
                "refused",
                "conflict",
                "unknown",
                "given_up",
            ],
        },
        KnownCalls {
            port: "store",
            calls: &["load", "save", "claim"],
            outcomes: &[
                "ok",
                "stale",
                "unavailable",
                "unknown",
                "corrupt",
                "given_up",
            ],
        },
        KnownCalls {
            port: "store",
            calls: &[
                "find_write",
                "writes",
                "events",
                "events_after",
                "last_position",
                "due",
                "backlog",
                "idempotency_record",
                "purge",
                "locks",
            ],
            outcomes: &["ok", "unavailable", "unknown", "corrupt", "given_up"],
        },
    ];

    /// `shadow` or `store`.
    pub const fn port(&self) -> &'static str {
        match self {
            Self::ShadowUpdate { .. } | Self::ShadowRead { .. } => "shadow",
            Self::Load { .. } | Self::Save { .. } | Self::Claim | Self::History(_) => "store",
        }
    }

    /// The name of the call among those of its port.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::ShadowUpdate { kind: name, .. } | Self::History(name) => name,
            Self::ShadowRead { .. } => "read",
            Self::Load { .. } => "load",
            Self::Save { .. } => "save",
            Self::Claim => "claim",
        }
    }
}

impl CallOutcome<'_> {
    /// `ok`, the class of the error (`conflict`, `not_applied`, `refused`, `unknown`, `stale`, `unavailable`, `corrupt`), or
    /// `given_up` for a call whose future was dropped.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Done | Self::ShadowVersion(_) | Self::Claimed(_) => "ok",
            Self::ShadowFailed(ShadowError::NotApplied { .. }) => "not_applied",
            Self::ShadowFailed(ShadowError::Refused { .. }) | Self::ImportRefused => "refused",
            Self::ShadowFailed(ShadowError::Conflict) => "conflict",
            Self::ShadowFailed(ShadowError::Unknown(_))
            | Self::StoreFailed(RepoError::Unknown(_)) => "unknown",
            Self::StoreFailed(RepoError::Stale) => "stale",
            Self::StoreFailed(RepoError::Unavailable(_)) => "unavailable",
            Self::StoreFailed(RepoError::Corrupt { .. }) => "corrupt",
            Self::GivenUp => "given_up",
        }
    }
}
