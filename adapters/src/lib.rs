//! Adapters for the ports of `keywright-domain`: one folder a port, one file a technology.
//!
//! Adapters translate. They decide nothing, mint nothing, and say of each failure whether its effect
//! may have happened.

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
