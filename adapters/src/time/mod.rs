//! `Clock`, `Timer` and `IdGenerator` of the real world.

use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use keywright_domain::ports::{Clock, IdGenerator, Timer};
use keywright_domain::values::{Tick, Timestamp};

/// The system's wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        #[expect(
            clippy::disallowed_methods,
            reason = "this adapter is the one place that reads the clock"
        )]
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp::from_millis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }
}

/// The monotonic clock and the timers of tokio.
#[derive(Clone, Copy, Debug)]
pub struct TokioTimer {
    start: tokio::time::Instant,
}

impl Default for TokioTimer {
    fn default() -> Self {
        Self {
            start: tokio::time::Instant::now(),
        }
    }
}

#[async_trait]
impl Timer for TokioTimer {
    fn tick(&self) -> Tick {
        Tick(self.start.elapsed())
    }

    async fn sleep_until(&self, moment: Tick) {
        tokio::time::sleep_until(self.start + moment.0).await;
    }
}

/// UUIDs of version 7 (RFC 9562): 48 bits of the clock, which keeps new rows together in an index, and 74
/// random ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemIds;

impl IdGenerator for SystemIds {
    fn next_id(&self) -> u128 {
        let millis = u128::from(SystemClock.now().as_millis());
        let mut random = [0; 10];
        getrandom::fill(&mut random).expect("the system has a source of randomness");
        let random = random
            .iter()
            .fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
        let (high, low) = (random >> 62 & 0xfff, random & ((1 << 62) - 1));
        millis << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low
    }
}
