//! Decorators: adapters around a port. Use cases do not depend on them.

mod call_log;
#[cfg(feature = "faults")]
mod faults;
#[cfg(feature = "faults")]
mod faulty_lock_repo;
#[cfg(feature = "faults")]
mod faulty_shadow;
mod observed;
mod observer;
mod timeout;
mod write_broadcast;

pub use call_log::CallLog;
#[cfg(feature = "faults")]
pub use faults::{Fault, FaultPlan, Faults, InvalidFault, Operation};
#[cfg(feature = "faults")]
pub use faulty_lock_repo::FaultyLockRepo;
#[cfg(feature = "faults")]
pub use faulty_shadow::FaultyShadow;
pub use observed::Observed;
pub use observer::{
    AppliedEvent, AppliedResult, AppliedSave, CallOutcome, KnownCalls, Observer, Observers,
    PortCall,
};
pub use timeout::Timeout;
pub use write_broadcast::WriteBroadcast;
