//! Decorators: adapters around a port. Use cases never see them.

mod faults;
mod faulty_lock_repo;
mod faulty_shadow;
mod metered;
mod timeout;
mod traced;
mod watched;

pub use faults::{Fault, FaultPlan, Faults, InvalidFault, Operation};
pub use faulty_lock_repo::FaultyLockRepo;
pub use faulty_shadow::FaultyShadow;
pub use metered::{Call, Metered, Observer, Recorded, Settled};
pub use timeout::Timeout;
pub use traced::{TracedLockRepo, TracedShadow};
pub use watched::Watched;
