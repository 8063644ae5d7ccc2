//! The use cases. They load, let the rules decide, and run the write protocol; they spawn nothing.

mod attempt;
mod audit;
mod clock_steps;
mod deadline;
mod drive;
mod maintain;
mod read;
mod settings;
mod settle;
mod turns;
mod write_key;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

pub use attempt::{Attempt, Observed, Step};
pub use audit::{AuditError, Audited};
pub use maintain::{Attended, Maintained, WithdrawError};
pub use read::ReadError;
pub use settings::{InvalidSettings, Settings};
pub use settle::{SettleError, Settlement};
pub use write_key::{Terms, WriteError, Written};

use crate::ports::{Clock, IdGenerator, LockHistory, LockRepo, ShadowPort, Timer};
use crate::values::{ClientToken, Epoch, Tick, WriteId};
use crate::write::Owner;
use clock_steps::ClockSteps;
use turns::Turns;

/// The wiring: one adapter for each port. Replace one and keep the rest.
#[derive(Clone)]
pub struct Ports {
    /// The locks.
    pub locks: Arc<dyn LockRepo>,
    /// Reads over the same store.
    pub history: Arc<dyn LockHistory>,
    /// Their shadows.
    pub shadow: Arc<dyn ShadowPort>,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// The monotonic clock.
    pub timer: Arc<dyn Timer>,
    /// Ids for writes, and the randomness of pauses.
    pub ids: Arc<dyn IdGenerator>,
}

/// Writes keys and follows each write to its end. One for each process; share it by reference.
///
/// Run each future to its end: one that is dropped leaves an open intent, which a recoverer resolves
/// after its lease, as after a crash.
pub struct KeyWrites {
    ports: Ports,
    settings: Settings,
    owner: Owner,
    turns: Turns,
    contradictions: AtomicU64,
    clock_steps: ClockSteps,
}

impl KeyWrites {
    /// # Errors
    /// The settings contradict each other.
    pub fn new(ports: Ports, settings: Settings) -> Result<Self, InvalidSettings> {
        settings.check()?;
        let owner = Owner(ports.ids.next_id());
        let turns = Turns::new(settings.max_waiting);
        let clock_steps = ClockSteps::new(ports.clock.now(), ports.timer.tick());
        Ok(Self {
            ports,
            settings,
            owner,
            turns,
            contradictions: AtomicU64::new(0),
            clock_steps,
        })
    }

    /// The settings in force.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    fn deadline(&self, span: Duration) -> Tick {
        self.ports.timer.tick().after(span)
    }

    /// When a request that has this deadline is answered: within the time that the lease is made for.
    fn request_deadline(&self, asked: Option<Tick>) -> Tick {
        let latest = self.deadline(self.settings.request);
        asked.map_or(latest, |asked| asked.min(latest))
    }

    async fn rest(&self, pause: Duration) {
        let until = self.deadline(pause);
        self.ports.timer.sleep_until(until).await;
    }

    /// Between half of `span` and all of it, so that those who wait for the same thing spread out.
    fn jittered(&self, span: Duration) -> Duration {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the low bits of an id are its random ones"
        )]
        let random = self.ports.ids.next_id() as u32;
        span / 2 + span.mul_f64(f64::from(random) / f64::from(u32::MAX)) / 2
    }

    /// A series of tokens that no other request has.
    fn tokens(&self) -> Tokens {
        Tokens::new(WriteId::from_u128(self.ports.ids.next_id()), Epoch(0))
    }
}

/// Names the requests of one operation, counted from 0.
struct Tokens {
    operation: WriteId,
    epoch: Epoch,
    used: u32,
}

impl Tokens {
    const fn new(operation: WriteId, epoch: Epoch) -> Self {
        Self {
            operation,
            epoch,
            used: 0,
        }
    }

    fn next(&mut self) -> ClientToken {
        let token = ClientToken::new(self.operation, self.epoch, self.used);
        self.used += 1;
        token
    }
}
