use std::time::Duration;

/// How often the tasks run, and how much they do at once. The defaults are those of Keywright's own server.
///
/// Start from [`Pacing::default`] and change fields: later versions may add some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pacing {
    /// How often the store is asked for intents whose lease has ended and for writes that are due, and the first pause after a failure.
    pub period: Duration,
    /// The longest pause between two attempts at the same thing. Pauses double up to it.
    pub max_pause: Duration,
    /// How many intents are recovered at once. At least 1.
    pub recoveries: usize,
    /// How many locks are maintained at once. At least 1. The writes of one lock are maintained one after another.
    pub maintained_locks: usize,
    /// The time between the starts of the maintenance of two writes. Each needs one or two requests to the shadow service, which new
    /// writes need, too: AWS IoT accepts 400 requests a second from an account in a small region.
    pub maintenance_interval: Duration,
    /// How many reports of one stream are settled at once. At least 1.
    pub settlements: usize,
    /// How often old records are deleted.
    pub purge_period: Duration,
    /// How many writes or records one call of the store lists or deletes. At least 1.
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
