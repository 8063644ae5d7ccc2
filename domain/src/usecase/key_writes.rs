//! The entry point of the domain: its ports, its settings, and the state that one process keeps between requests.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::clock_steps::ClockSteps;
use super::lock_queue::LockQueues;
use super::settings::{InvalidSettings, Settings};
use crate::model::{ClientToken, Epoch, Tick, WorkerId, WriteId};
use crate::policy::{AccessPolicy, OwnerAccess};
use crate::ports::{Clock, IdGenerator, LockHistory, LockRepo, ShadowPort, Timer};

/// One adapter for each port. To replace one adapter, override its field and keep the others.
#[derive(Clone)]
pub struct Ports {
    /// Loads and saves locks.
    pub locks: Arc<dyn LockRepo>,
    /// Reads over the same store.
    pub history: Arc<dyn LockHistory>,
    /// The device shadows of the locks.
    pub shadow: Arc<dyn ShadowPort>,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// The monotonic clock.
    pub timer: Arc<dyn Timer>,
    /// Ids of writes. Their low bits are also the source of jitter.
    pub ids: Arc<dyn IdGenerator>,
}

/// Writes keys and follows each write until it has ended. Create one per process and share it by reference.
///
/// Run each returned future to completion. A future that is dropped can leave an intent open; a recoverer resolves it
/// after its lease, as it does after a crash.
pub struct KeyWrites {
    pub(super) ports: Ports,
    pub(super) settings: Settings,
    pub(super) access: Arc<dyn AccessPolicy>,
    pub(super) worker: WorkerId,
    pub(super) lock_queues: LockQueues,
    pub(super) contradictions: AtomicU64,
    clock_steps: ClockSteps,
}

impl KeyWrites {
    /// Creates the use cases over `ports`, with the access rules of [`OwnerAccess`].
    ///
    /// # Errors
    /// The settings contradict each other.
    pub fn new(ports: Ports, settings: Settings) -> Result<Self, InvalidSettings> {
        Self::with_access(ports, settings, Arc::new(OwnerAccess))
    }

    /// Creates the use cases over `ports`, with access rules of the service that embeds them.
    ///
    /// # Errors
    /// The settings contradict each other.
    pub fn with_access(
        ports: Ports,
        settings: Settings,
        access: Arc<dyn AccessPolicy>,
    ) -> Result<Self, InvalidSettings> {
        settings.check()?;
        let worker = WorkerId(ports.ids.next_id());
        let lock_queues = LockQueues::new(settings.max_waiting);
        let clock_steps = ClockSteps::new(ports.clock.now(), ports.timer.tick());
        Ok(Self {
            ports,
            settings,
            access,
            worker,
            lock_queues,
            contradictions: AtomicU64::new(0),
            clock_steps,
        })
    }

    /// The settings in force.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The monotonic clock, for deadlines and pauses of the service.
    pub fn timer(&self) -> &dyn Timer {
        &*self.ports.timer
    }

    /// Returns whether the wall clock was set back since the last call, or since the start. Call it every second.
    ///
    /// Maintenance scheduled by the earlier clock would run late. After `true`, maintain all
    /// [`KeyWrites::scheduled_writes`], which schedules their next checks by the new clock.
    pub fn clock_was_set_back(&self) -> bool {
        let (now, tick) = (self.ports.clock.now(), self.ports.timer.tick());
        self.clock_steps.read(now, tick)
    }

    pub(super) fn deadline(&self, span: Duration) -> Tick {
        self.ports.timer.tick().after(span)
    }

    /// The deadline of a request: the requested one, but no later than the request timeout, which the lease is longer than.
    pub(super) fn request_deadline(&self, requested: Option<Tick>) -> Tick {
        let latest = self.deadline(self.settings.request_timeout);
        requested.map_or(latest, |requested| requested.min(latest))
    }

    pub(super) async fn sleep(&self, pause: Duration) {
        let until = self.deadline(pause);
        self.ports.timer.sleep_until(until).await;
    }

    /// A random duration between half of `span` and `span`, so that tasks that wait for the same event spread out.
    pub(super) fn jittered(&self, span: Duration) -> Duration {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the low bits of an id are its random ones"
        )]
        let random = self.ports.ids.next_id() as u32;
        span / 2 + span.mul_f64(f64::from(random) / f64::from(u32::MAX)) / 2
    }

    /// Client tokens of an operation that belongs to no write.
    pub(super) fn tokens(&self) -> ClientTokens {
        ClientTokens::new(WriteId::from_u128(self.ports.ids.next_id()), Epoch(0))
    }
}

/// Client tokens of one operation's shadow requests: unique, and numbered from 0.
pub(super) struct ClientTokens {
    operation: WriteId,
    epoch: Epoch,
    used: u32,
}

impl ClientTokens {
    pub(super) const fn new(operation: WriteId, epoch: Epoch) -> Self {
        Self {
            operation,
            epoch,
            used: 0,
        }
    }

    pub(super) fn next(&mut self) -> ClientToken {
        let token = ClientToken::new(self.operation, self.epoch, self.used);
        self.used += 1;
        token
    }
}
