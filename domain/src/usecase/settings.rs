//! Settings of the write protocol.

use std::time::Duration;

use crate::policy::Limits;

/// Time limits and bounds of the write protocol. The defaults are those of the Keywright service: take [`Settings::default`] and
/// change its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// Limits of the writes of one lock.
    pub limits: Limits,
    /// Timeout of a whole request, from its arrival to its answer. More than zero.
    pub request_timeout: Duration,
    /// How long a request may wait in its lock's queue. More than zero.
    pub queue_timeout: Duration,
    /// Timeout of one call of the shadow port. More than zero.
    pub shadow_timeout: Duration,
    /// The first pause while an outcome is unknown. Each further pause is twice as long. Pauses are jittered: each takes a random
    /// time between half of it and all of it.
    pub first_backoff: Duration,
    /// The longest pause.
    pub max_backoff: Duration,
    /// How long a process may act on an intent before another process takes it over. At least `request_timeout`,
    /// `shadow_timeout` and `lease_margin` together.
    pub lease: Duration,
    /// The safety margin of a lease. It covers monotonic clocks that run at different speeds, and a store that answers slowly.
    pub lease_margin: Duration,
    /// The maximum number of requests that wait in one lock's queue in this process, besides the one at the front.
    pub max_waiting: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            request_timeout: Duration::from_secs(10),
            queue_timeout: Duration::from_secs(3),
            shadow_timeout: Duration::from_millis(2500),
            first_backoff: Duration::from_millis(50),
            max_backoff: Duration::from_millis(800),
            lease: Duration::from_secs(15),
            lease_margin: Duration::from_secs(2),
            max_waiting: 32,
        }
    }
}

/// Settings that contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSettings {
    /// The named setting is zero.
    #[error("{0} must be more than zero")]
    Zero(&'static str),
    /// Writes would be deleted while an idempotency record or a running request still needs them. The duration is the shortest
    /// retention that is safe.
    #[error("writes must be kept for at least as long as answers, and as lease + request ({0:?})")]
    WriteRetentionTooShort(Duration),
    /// A process could act on an intent after its lease.
    #[error("the lease ({lease:?}) must be at least request + shadow call + margin ({least:?})")]
    LeaseTooShort {
        /// The lease as set.
        lease: Duration,
        /// The shortest safe lease.
        least: Duration,
    },
}

impl Settings {
    /// Checks the settings against each other.
    ///
    /// # Errors
    /// See [`InvalidSettings`].
    pub fn check(&self) -> Result<(), InvalidSettings> {
        let spans = [
            ("request", self.request_timeout),
            ("queue", self.queue_timeout),
            ("shadow call", self.shadow_timeout),
            ("time to live", self.limits.time_to_live),
        ];
        if let Some((name, _)) = spans.iter().find(|(_, span)| span.is_zero()) {
            return Err(InvalidSettings::Zero(name));
        }
        if self.limits.max_open_writes == 0 {
            return Err(InvalidSettings::Zero("max open writes"));
        }
        let Limits {
            idempotency_retention,
            write_retention,
            ..
        } = self.limits;
        let least = idempotency_retention.max(self.lease + self.request_timeout);
        if write_retention < least {
            return Err(InvalidSettings::WriteRetentionTooShort(least));
        }
        let least = self.request_timeout + self.shadow_timeout + self.lease_margin;
        if self.lease < least {
            return Err(InvalidSettings::LeaseTooShort {
                lease: self.lease,
                least,
            });
        }
        Ok(())
    }
}
