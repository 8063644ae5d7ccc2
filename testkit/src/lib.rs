//! Tells whether an adapter keeps the contract of its port, and drives time and ids by hand.
//!
//! Each case is an async function that panics where the adapter breaks the contract; the macros
//! [`lock_repo_cases!`], [`shadow_port_cases!`], [`faulty_transport_cases!`] and [`auth_port_cases!`] stamp one test for each. Every
//! case has a deliberately broken adapter in this crate's tests that it catches.
#![warn(missing_docs)]

pub mod auth_port;
pub mod faulty_transport;
#[cfg(feature = "issuer")]
pub mod issuer;
pub mod lock_repo;
mod manual;
#[cfg(feature = "postgres-server")]
pub mod postgres_server;
pub mod samples;
pub mod shadow_port;
#[cfg(feature = "tcp-proxy")]
pub mod tcp_proxy;

pub use manual::{ManualClock, ManualTimer, SequentialIds};
