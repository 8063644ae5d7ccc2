//! What the answer of an endpoint means, and when a delivery is tried again.

use std::time::Duration;

use crate::model::{EndpointAnswer, NoAnswer};

/// Limits of deliveries. The defaults are those of the HTTP contract: take [`WebhookLimits::default`] and change its fields.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WebhookLimits {
    /// How many webhooks an owner has at most.
    pub max_webhooks: usize,
    /// How many deliveries of one webhook are in progress at once, each of another lock. At least 1.
    pub parallel: usize,
    /// How long one attempt may take, from the resolution of the name to the answer.
    pub timeout: Duration,
    /// The pauses before each further attempt. After the last one, the delivery is given up.
    pub retries: Vec<Duration>,
    /// The longest pause between attempts while all deliveries of a webhook fail.
    pub max_probe_pause: Duration,
    /// How long all deliveries of a webhook may fail until it is disabled.
    pub disable_after: Duration,
    /// How long a replaced secret signs beside the new one.
    pub keep_old_secret: Duration,
    /// How many events are read ahead of the cursor. At least 1.
    pub max_read_ahead: usize,
    /// How many locks wait for another attempt at once. The cursor stops there.
    pub max_waiting: usize,
}

impl Default for WebhookLimits {
    fn default() -> Self {
        let (minute, hour) = (60, 3600);
        Self {
            max_webhooks: 20,
            parallel: 8,
            timeout: Duration::from_secs(15),
            retries: [
                5,
                30,
                5 * minute,
                30 * minute,
                2 * hour,
                5 * hour,
                10 * hour,
                10 * hour,
            ]
            .map(Duration::from_secs)
            .to_vec(),
            max_probe_pause: Duration::from_secs(5 * minute),
            disable_after: Duration::from_secs(5 * 24 * hour),
            keep_old_secret: Duration::from_secs(24 * hour),
            max_read_ahead: 256,
            max_waiting: 1000,
        }
    }
}

/// The number of failures in a row from which a webhook counts as failing.
pub(super) const FAILING_AFTER: u32 = 3;

/// The longest time that an endpoint can ask for with `Retry-After`.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(10 * 3600);

/// What the answer of an endpoint means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It accepted the delivery.
    Delivered,
    /// It refused the delivery, and would refuse it again.
    Rejected,
    /// It wants no deliveries any more (410).
    Gone,
    /// It may accept the delivery later, not before this time has passed.
    Failed {
        /// The time that it asked for with `Retry-After`.
        retry_after: Option<Duration>,
    },
}

/// Decides what the answer of an endpoint means. Redirects are not followed, and count as failures. `is_current`: the webhook still has the
/// URL that answered. Otherwise a 410 says nothing about the webhook.
pub fn judge(answer: &Result<EndpointAnswer, NoAnswer>, is_current: bool) -> Verdict {
    let Ok(answer) = answer else {
        return Verdict::Failed { retry_after: None };
    };
    match answer.status {
        200..=299 => Verdict::Delivered,
        410 if is_current => Verdict::Gone,
        408 | 410 | 425 | 429 => Verdict::Failed {
            retry_after: answer.retry_after,
        },
        400..=499 => Verdict::Rejected,
        _ => Verdict::Failed {
            retry_after: answer.retry_after,
        },
    }
}

impl WebhookLimits {
    /// The pause before the attempt that follows `failed` attempts, with jitter by a tenth in both directions. `None`: there is none.
    pub(super) fn pause(&self, failed: u32, random: u32) -> Option<Duration> {
        let index = usize::try_from(failed.checked_sub(1)?).ok()?;
        let pause = self.retries.get(index)?;
        Some(jittered(*pause, random))
    }

    /// The pause while all deliveries fail: that of the schedule, whose last one is repeated, and no longer than `max_probe_pause`.
    pub(super) fn probe_pause(&self, failed: u32, random: u32) -> Duration {
        let last = u32::try_from(self.retries.len()).unwrap_or(u32::MAX);
        let pause = self.pause(failed.min(last), random);
        pause.unwrap_or_default().min(self.max_probe_pause)
    }
}

/// The pause that an endpoint asked for, within bounds.
pub(super) fn at_least(pause: Duration, retry_after: Option<Duration>) -> Duration {
    let asked = retry_after.unwrap_or_default().min(MAX_RETRY_AFTER);
    pause.max(asked)
}

fn jittered(pause: Duration, random: u32) -> Duration {
    let share = f64::from(random) / f64::from(u32::MAX);
    pause.mul_f64(0.9 + 0.2 * share)
}
