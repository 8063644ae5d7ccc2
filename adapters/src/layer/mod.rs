//! Decorators: adapters around a port that no use case ever sees.

mod faulty;

pub use faulty::{Fault, FaultPlan, FaultyShadow, Operation};
