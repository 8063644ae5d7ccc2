use std::time::Duration;

use tokio::sync::Semaphore;

/// How often the tasks run, and how much they do at once. The defaults are those of Keywright's own server. A value out of its bounds is
/// replaced by the nearest bound.
///
/// Start from [`Pacing::default`] and change fields: later versions may add some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pacing {
    /// How often the store is asked for intents whose lease has ended, for writes that are due, and for events to publish. At least 1 ms.
    pub period: Duration,
    /// The longest pause between two attempts to reconcile writes or to publish events. Pauses double up to it. At least 1 ms.
    pub max_pause: Duration,
    /// How many intents are recovered at once: 1 to 1,024.
    pub recoveries: usize,
    /// How many locks are maintained at once. At least 1. The writes of one lock are maintained one after another.
    pub maintained_locks: usize,
    /// The time between the starts of the maintenance of two writes. Each needs one or two requests to the shadow service, which new
    /// writes need, too: AWS IoT accepts 400 requests a second from an account in a small region.
    pub maintenance_interval: Duration,
    /// How many reports of one stream are settled at once. At least 1.
    pub settlements: usize,
    /// How often old records are deleted. At least 1 ms.
    pub purge_period: Duration,
    /// How many writes, events or records one call of the store lists or deletes: 1 to 10,000.
    pub page: usize,
}

impl Default for Pacing {
    fn default() -> Self {
        Self {
            period: Duration::from_secs(1),
            max_pause: Duration::from_secs(30),
            recoveries: 8,
            maintained_locks: 16,
            maintenance_interval: Duration::from_millis(5),
            settlements: 64,
            purge_period: Duration::from_secs(3),
            page: 256,
        }
    }
}

impl Pacing {
    pub(crate) fn within_bounds(self) -> Self {
        let at_once = |n: usize| n.clamp(1, Semaphore::MAX_PERMITS);
        let period = |span: Duration| span.max(Duration::from_millis(1));
        Self {
            period: period(self.period),
            max_pause: period(self.max_pause),
            recoveries: self.recoveries.clamp(1, 1024),
            maintained_locks: at_once(self.maintained_locks),
            maintenance_interval: self.maintenance_interval,
            settlements: at_once(self.settlements),
            purge_period: period(self.purge_period),
            page: self.page.clamp(1, 10_000),
        }
    }
}
