//! Adapters for the ports of `keywright-domain`: one folder for each port, one file for each technology.
//!
//! Adapters translate between the domain and a technology. They make no decisions, generate no ids except in
//! [`time::SystemIds`], and report for each failure whether its effect may have happened.

pub mod auth;
pub mod decorator;
pub mod json;
pub mod lock_repo;
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod reports;
pub mod shadow;
pub mod time;
#[cfg(any(feature = "jwks-url", feature = "postgres"))]
mod tls;
