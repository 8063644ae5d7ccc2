use std::time::Duration;

use crate::rules::Limits;

/// How long the protocol waits for what. All are settings of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What bounds the writes of one lock.
    pub limits: Limits,
    /// A whole request, from its arrival to its answer.
    pub request: Duration,
    /// A request's wait for the lock's turn.
    pub turn: Duration,
    /// One call of the shadow.
    pub shadow_call: Duration,
    /// The first pause while an outcome is unknown; each further one is twice as long.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
    /// How long an owner may act on its intent.
    pub lease: Duration,
    /// How much longer than a request and one call of the shadow a lease must be, for clocks that run apart and a store
    /// that is slow to answer.
    pub lease_margin: Duration,
    /// How many requests may wait for one lock's turn in this process.
    pub max_waiting: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            request: Duration::from_secs(10),
            turn: Duration::from_secs(3),
            shadow_call: Duration::from_millis(2500),
            first_pause: Duration::from_millis(50),
            longest_pause: Duration::from_millis(800),
            lease: Duration::from_secs(15),
            lease_margin: Duration::from_secs(2),
            max_waiting: 32,
        }
    }
}

/// Settings that contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSettings {
    /// Nothing could ever be done.
    #[error("{0} must be more than zero")]
    Zero(&'static str),
    /// A write could be asked for when it is gone.
    #[error("writes must be kept for at least as long as answers, and as lease + request ({0:?})")]
    WritesGoneTooSoon(Duration),
    /// An owner could act after its lease.
    #[error("the lease ({lease:?}) must be at least request + shadow call + margin ({least:?})")]
    LeaseTooShort {
        /// As set.
        lease: Duration,
        /// The shortest that is safe.
        least: Duration,
    },
}

impl Settings {
    /// # Errors
    /// Nothing could ever be done; or an owner that is still at its request would be taken over.
    pub fn check(&self) -> Result<(), InvalidSettings> {
        let spans = [
            ("request", self.request),
            ("turn", self.turn),
            ("shadow call", self.shadow_call),
            ("time to live", self.limits.time_to_live),
        ];
        if let Some((name, _)) = spans.iter().find(|(_, span)| span.is_zero()) {
            return Err(InvalidSettings::Zero(name));
        }
        if self.limits.max_open_writes == 0 {
            return Err(InvalidSettings::Zero("max open writes"));
        }
        let Limits {
            keep_answers,
            keep_writes,
            ..
        } = self.limits;
        let keep_least = keep_answers.max(self.lease + self.request);
        if keep_writes < keep_least {
            return Err(InvalidSettings::WritesGoneTooSoon(keep_least));
        }
        let least = self.request + self.shadow_call + self.lease_margin;
        if self.lease < least {
            return Err(InvalidSettings::LeaseTooShort {
                lease: self.lease,
                least,
            });
        }
        Ok(())
    }
}
