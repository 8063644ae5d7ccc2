//! The wall clock for packages that do not depend on the domain.

use std::sync::Arc;

use keywright_adapters::time::SystemClock;
use keywright_domain::ports::Clock;

/// The time in seconds since the Unix epoch.
pub(crate) fn epoch_seconds() -> Arc<dyn Fn() -> u64 + Send + Sync> {
    Arc::new(|| SystemClock.now().as_secs())
}
