//! Webhooks: their stores, the signature and the envelope of deliveries, and the client that sends them.

#[cfg(feature = "memory")]
mod memory;
#[cfg(any(feature = "memory", all(feature = "sqlite", feature = "webhooks")))]
mod process_leases;

#[cfg(feature = "memory")]
pub use memory::InMemoryWebhookStore;
