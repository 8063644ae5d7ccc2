//! Writing keys to smart locks, and proving what became of each: rules, events, ports and use cases.
//!
//! Pure: no runtime, no I/O, no serialization, no wall clock. Every decision is a synchronous function
//! in [`rules`]; [`KeyWrites`] runs the write protocol over the [`ports`] that you give it.
#![warn(missing_docs)]

pub mod event;
pub mod invariants;
pub mod lock;
pub mod ports;
pub mod principal;
mod protocol;
pub mod reason;
pub mod rules;
pub mod values;
pub mod write;

pub use protocol::{
    Attempt, InvalidSettings, KeyWrites, Maintained, Observed, Ports, Settings, SettleError,
    Settlement, Step, WithdrawError, WriteError, Written,
};
