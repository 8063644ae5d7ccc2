//! Decorators: adapters around a port. Use cases never see them.

#[cfg(feature = "faults")]
mod faults;
#[cfg(feature = "faults")]
mod faulty_lock_repo;
#[cfg(feature = "faults")]
mod faulty_shadow;
mod observed;
mod timeout;
mod traced;
mod watched;

#[cfg(feature = "faults")]
pub use faults::{Fault, FaultPlan, Faults, InvalidFault, Operation};
#[cfg(feature = "faults")]
pub use faulty_lock_repo::FaultyLockRepo;
#[cfg(feature = "faults")]
pub use faulty_shadow::FaultyShadow;
pub use observed::{Call, Observed, Observer, Recorded, Settled};
pub use timeout::Timeout;
pub use traced::{TracedLockRepo, TracedShadow};
pub use watched::Watched;
