//! Decorators: adapters around a port, and the observers that [`Observed`] notifies. Use cases do not depend on them.

#[cfg(feature = "faults")]
mod faults;
#[cfg(feature = "faults")]
mod faulty_lock_repo;
#[cfg(feature = "faults")]
mod faulty_shadow;
mod observed_ports;
mod observer;
mod timeout;
mod write_broadcast;
mod write_log;

#[cfg(feature = "faults")]
pub use faults::{Fault, FaultInjector, FaultPlan, InvalidFaultRule, Operation};
#[cfg(feature = "faults")]
pub use faulty_lock_repo::FaultyLockRepo;
#[cfg(feature = "faults")]
pub use faulty_shadow::FaultyShadow;
pub use observed_ports::Observed;
pub use observer::{CallOutcome, KnownCalls, Observer, Observers, PortCall};
pub use timeout::Timeout;
pub use write_broadcast::WriteBroadcast;
pub use write_log::WriteLog;
