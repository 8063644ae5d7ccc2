//! Leases of intents, counted by the monotonic clock of this process from the moment at which it first saw them.
//!
//! A wall clock may be set, this machine's and a database's alike: by such a clock a lease that is over would run on for
//! an hour, or one would be taken from an owner that is alive. What another process does is seen by looking at the store;
//! a lease then ends later than its owner counts it, by the time that passed before the first look, and never earlier.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keywright_domain::model::{Epoch, Tick, WorkerId, WriteId};
use keywright_domain::ports::Timer;

/// How many open intents are watched at once.
pub(super) const MAX_WATCHED: i64 = 10_000;

/// How long a look at the store serves, so that several recoverers share one.
const OBSERVE_INTERVAL: Duration = Duration::from_millis(250);

/// An intent as it stands in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OpenIntent {
    pub(super) write: WriteId,
    pub(super) worker: WorkerId,
    pub(super) epoch: Epoch,
    pub(super) lease: Duration,
}

/// The open intents of a store, as this process has seen them. Clones share them.
#[derive(Clone)]
pub(super) struct ObservedLeases {
    timer: Arc<dyn Timer>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    last_observed: Option<Tick>,
    intents: HashMap<WriteId, ObservedIntent>,
}

struct ObservedIntent {
    intent: OpenIntent,
    lease_ends: Tick,
    /// When the write was first seen open, whoever its owner was.
    open_since: Tick,
    /// A claim of it was tried since the last look.
    tried: bool,
}

impl ObservedLeases {
    pub(super) fn new(timer: Arc<dyn Timer>) -> Self {
        Self {
            timer,
            seen: Arc::default(),
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in intents whose owners are certainly dead: their leases are over.
    #[cfg(feature = "sqlite")]
    pub(super) fn adopt(&self, left: Vec<OpenIntent>) {
        let now = self.timer.tick();
        let overdue = left.into_iter().map(|intent| {
            let observed = ObservedIntent {
                intent,
                lease_ends: now,
                open_since: now,
                tried: false,
            };
            (intent.write, observed)
        });
        self.seen().intents.extend(overdue);
    }

    /// Whether the store is to be looked at again. The caller that gets `true` looks, and the others need not.
    pub(super) fn should_observe(&self) -> bool {
        let now = self.timer.tick();
        let mut seen = self.seen();
        let due = seen
            .last_observed
            .is_none_or(|last| now >= last.after(OBSERVE_INTERVAL));
        if due {
            seen.last_observed = Some(now);
        }
        due
    }

    /// Takes in what a look at the store found. A lease starts anew where the owner or the epoch is another one.
    pub(super) fn observe(&self, open: Vec<OpenIntent>) {
        // After the look, so that no lease is counted from before its intent was saved.
        let now = self.timer.tick();
        let mut seen = self.seen();
        let mut known = std::mem::take(&mut seen.intents);
        let observed = open.into_iter().map(|intent| {
            let before = known.remove(&intent.write);
            let open_since = before.as_ref().map_or(now, |known| known.open_since);
            let unchanged = before.filter(|known| known.intent == intent);
            let observed = ObservedIntent {
                intent,
                lease_ends: unchanged.map_or(now.after(intent.lease), |known| known.lease_ends),
                open_since,
                tried: false,
            };
            (intent.write, observed)
        });
        seen.intents = observed.collect();
    }

    /// The intent whose lease has been over the longest, among those that nobody here has tried to claim since the last
    /// look.
    pub(super) fn next_overdue(&self) -> Option<OpenIntent> {
        let now = self.timer.tick();
        let mut seen = self.seen();
        let overdue = seen
            .intents
            .values_mut()
            .filter(|known| !known.tried && known.lease_ends <= now);
        let first = overdue.min_by_key(|known| (known.lease_ends, known.intent.write))?;
        first.tried = true;
        Some(first.intent)
    }

    /// The intent was claimed by this process, and its new lease starts.
    pub(super) fn claimed(&self, intent: OpenIntent) {
        let now = self.timer.tick();
        if let Some(known) = self.seen().intents.get_mut(&intent.write) {
            known.intent = intent;
            known.lease_ends = now.after(intent.lease);
        }
    }

    /// For how long the oldest intent has been open, as far as this process has seen.
    pub(super) fn oldest(&self) -> Option<Duration> {
        let now = self.timer.tick();
        let seen = self.seen();
        let first = seen.intents.values().map(|known| known.open_since).min()?;
        Some(now.0.saturating_sub(first.0))
    }
}
