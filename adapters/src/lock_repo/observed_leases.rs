//! Leases of intents, measured by the monotonic clock of this process from the moment at which it first reads them.
//!
//! Wall clocks can be set, on this machine and on a database server. By such a clock an expired lease could appear to run for
//! another hour, or the lease of a live process could appear to have expired. Intents of other processes are read from the
//! store, so their leases end here later than in the process that holds them, by the time before the first read, and never
//! earlier.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keywright_domain::model::{Intent, Tick, WriteId};
use keywright_domain::ports::Timer;

/// The maximum number of open intents that are observed at the same time.
pub(super) const MAX_OBSERVED: i64 = 10_000;

/// The minimum time between two reads of the store, so that several recoverers share one.
const OBSERVE_INTERVAL: Duration = Duration::from_millis(250);

/// The open intents of a store, as this process has read them. Clones share them.
#[derive(Clone)]
pub(super) struct ObservedLeases {
    timer: Arc<dyn Timer>,
    observations: Arc<Mutex<Observations>>,
}

#[derive(Default)]
struct Observations {
    last_read: Option<Tick>,
    intents: HashMap<WriteId, ObservedIntent>,
}

struct ObservedIntent {
    intent: Intent,
    lease_ends: Tick,
    /// When an intent of the write was first read, of any worker.
    open_since: Tick,
    /// A claim was tried since the last read.
    tried: bool,
}

impl ObservedLeases {
    pub(super) fn new(timer: Arc<dyn Timer>) -> Self {
        Self {
            timer,
            observations: Arc::default(),
        }
    }

    fn observations(&self) -> MutexGuard<'_, Observations> {
        let observations = self.observations.lock();
        observations.unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds intents whose workers have certainly ended. Their leases have expired.
    #[cfg(feature = "sqlite")]
    pub(super) fn add_expired(&self, intents: Vec<(WriteId, Intent)>) {
        let now = self.timer.tick();
        let expired = intents.into_iter().map(|(write, intent)| {
            let observed = ObservedIntent {
                intent,
                lease_ends: now,
                open_since: now,
                tried: false,
            };
            (write, observed)
        });
        self.observations().intents.extend(expired);
    }

    /// Whether the open intents have to be read again. The caller that gets `true` reads them.
    pub(super) fn should_read(&self) -> bool {
        let now = self.timer.tick();
        let mut observations = self.observations();
        let due = observations
            .last_read
            .is_none_or(|last| now >= last.after(OBSERVE_INTERVAL));
        if due {
            observations.last_read = Some(now);
        }
        due
    }

    /// Replaces the intents by those that were read. A lease starts anew if the worker or the epoch has changed.
    pub(super) fn observe(&self, open: Vec<(WriteId, Intent)>) {
        // Taken after the read, so that no lease starts before its intent was saved.
        let now = self.timer.tick();
        let mut observations = self.observations();
        let mut known = std::mem::take(&mut observations.intents);
        let observed = open.into_iter().map(|(write, intent)| {
            let before = known.remove(&write);
            let open_since = before.as_ref().map_or(now, |known| known.open_since);
            let unchanged = before.filter(|known| known.intent == intent);
            let observed = ObservedIntent {
                intent,
                lease_ends: unchanged.map_or(now.after(intent.lease), |known| known.lease_ends),
                open_since,
                tried: false,
            };
            (write, observed)
        });
        observations.intents = observed.collect();
    }

    /// The intent whose lease expired first, among those that this process has not tried to claim since the last read.
    pub(super) fn next_expired(&self) -> Option<(WriteId, Intent)> {
        let now = self.timer.tick();
        let mut observations = self.observations();
        let expired = observations
            .intents
            .iter_mut()
            .filter(|(_, known)| !known.tried && known.lease_ends <= now);
        let (id, first) = expired.min_by_key(|(id, known)| (known.lease_ends, **id))?;
        first.tried = true;
        Some((*id, first.intent))
    }

    /// This process has claimed the intent. Its new lease starts.
    pub(super) fn claimed(&self, write: WriteId, intent: Intent) {
        let now = self.timer.tick();
        if let Some(known) = self.observations().intents.get_mut(&write) {
            known.intent = intent;
            known.lease_ends = now.after(intent.lease);
        }
    }

    /// The time since this process first read the oldest intent.
    pub(super) fn oldest(&self) -> Option<Duration> {
        let now = self.timer.tick();
        let observations = self.observations();
        let first = observations
            .intents
            .values()
            .map(|known| known.open_since)
            .min()?;
        Some(now.0.saturating_sub(first.0))
    }
}
