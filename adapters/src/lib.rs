//! Adapters for the ports of `keywright-domain`, grouped by port: `auth`, `lock_repo`, `reports`, `shadow`, `time`, `webhooks`. `decorator`
//! has wrappers around ports; `json`, `postgres` and `tls` are shared.
//!
//! They contain no rules of the domain. Only [`time::SystemIds`] generates ids. Each error says whether the call may have had
//! an effect.

pub mod auth;
pub mod decorator;
#[cfg(any(
    feature = "jwks-url",
    feature = "postgres",
    feature = "webhook-delivery"
))]
mod error_text;
pub mod json;
pub mod lock_repo;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(any(feature = "auth", feature = "webhooks"))]
mod private_file;
pub mod reports;
pub mod shadow;
pub mod time;
#[cfg(any(
    feature = "jwks-url",
    feature = "postgres",
    feature = "webhook-delivery"
))]
mod tls;
pub mod webhooks;
