//! Contract tests for adapters of the domain's ports, and clocks, timers and ids that tests control.
//!
//! Each case of a contract is an async function that panics if the adapter violates the contract. The macros
//! [`lock_repo_cases!`], [`shadow_port_cases!`], [`faulty_transport_cases!`], [`auth_port_cases!`], [`device_reports_cases!`],
//! [`time_and_ids_cases!`] and [`webhook_store_cases!`] generate one test per case.
//! For each case, the tests of this crate have a deliberately broken adapter that fails this case and no other.
//!
//! ```
//! use std::sync::Arc;
//!
//! use keywright_adapters::lock_repo::InMemoryLockRepo;
//! use keywright_testkit::lock_repo::StoreFixture;
//! use keywright_testkit::{ManualTimer, lock_repo_cases};
//!
//! async fn fixture() -> StoreFixture {
//!     let timer = ManualTimer::default();
//!     let repo = InMemoryLockRepo::new(Arc::new(timer.clone()));
//!     StoreFixture::volatile(Arc::new(repo), move |span| timer.advance(span))
//! }
//!
//! lock_repo_cases!(volatile fixture);
//! # fn main() {}
//! ```
#![warn(missing_docs)]

pub mod auth_port;
pub mod device_reports;
pub mod faulty_transport;
#[cfg(feature = "issuer")]
pub mod issuer;
pub mod lock_repo;
mod manual_time;
#[cfg(feature = "postgres-server")]
pub mod postgres_server;
pub mod samples;
pub mod shadow_port;
#[cfg(feature = "tcp-proxy")]
pub mod tcp_proxy;
pub mod time_and_ids;
pub mod webhook_store;

pub use manual_time::{ManualClock, ManualTimer, SequentialIds};
