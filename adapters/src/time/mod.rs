//! The system's clock, tokio's timers and random ids.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use keywright_domain::model::{Tick, Timestamp};
use keywright_domain::ports::{Clock, IdGenerator, Timer};

/// The system's wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        #[expect(
            clippy::disallowed_methods,
            reason = "the other code gets the time from this adapter"
        )]
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp::from_millis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }
}

/// Tokio's monotonic clock and timers.
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

/// UUIDs of version 7 (RFC 9562): 48 bits of time, which keep new rows close together in an index, and 74 random bits.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemIds;

/// Random bytes of the system that are not used yet. One system call is enough for many ids.
struct RandomPool {
    bytes: [u8; Self::BYTES],
    used: usize,
}

impl RandomPool {
    const BYTES: usize = 64 * Self::BYTES_PER_ID;
    const BYTES_PER_ID: usize = 10;

    const EMPTY: Self = Self {
        bytes: [0; Self::BYTES],
        used: Self::BYTES,
    };

    /// 80 random bits, which are not returned again.
    fn next(&mut self) -> u128 {
        if self.used == Self::BYTES {
            getrandom::fill(&mut self.bytes).expect("the system has a source of randomness");
            self.used = 0;
        }
        let bytes = &self.bytes[self.used..self.used + Self::BYTES_PER_ID];
        self.used += Self::BYTES_PER_ID;
        let more = |bits, byte: &u8| bits << 8 | u128::from(*byte);
        bytes.iter().fold(0, more)
    }
}

thread_local! {
    static POOL: RefCell<RandomPool> = const { RefCell::new(RandomPool::EMPTY) };
}

impl IdGenerator for SystemIds {
    fn next_id(&self) -> u128 {
        let millis = u128::from(SystemClock.now().as_millis());
        let random = POOL.with_borrow_mut(RandomPool::next);
        let (high, low) = (random >> 62 & 0xfff, random & ((1 << 62) - 1));
        millis << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low
    }
}
