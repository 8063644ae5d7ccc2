//! Webhooks: their stores, the signature and the envelope of deliveries, and the client that sends them.

#[cfg(feature = "webhook-delivery")]
mod connection;
#[cfg(feature = "webhooks")]
mod envelope;
#[cfg(feature = "webhook-delivery")]
mod http_sender;
#[cfg(feature = "memory")]
mod memory;
#[cfg(all(feature = "postgres", feature = "webhooks"))]
mod postgres;
#[cfg(any(feature = "memory", all(feature = "sqlite", feature = "webhooks")))]
mod process_leases;
#[cfg(feature = "webhook-delivery")]
mod resolver;
#[cfg(all(any(feature = "postgres", feature = "sqlite"), feature = "webhooks"))]
mod row;
#[cfg(feature = "webhooks")]
mod secret_cipher;
#[cfg(feature = "webhooks")]
mod signature;
#[cfg(all(feature = "sqlite", feature = "webhooks"))]
mod sqlite;

#[cfg(feature = "webhooks")]
pub use envelope::{EnvelopeEvent, EnvelopeSettings};
#[cfg(feature = "webhook-delivery")]
pub use http_sender::HttpWebhookSender;
#[cfg(feature = "memory")]
pub use memory::InMemoryWebhookStore;
#[cfg(all(feature = "postgres", feature = "webhooks"))]
pub use postgres::PostgresWebhookStore;
#[cfg(feature = "webhook-delivery")]
pub use resolver::{Resolver, SystemResolver};
#[cfg(feature = "webhooks")]
pub use secret_cipher::{InvalidKeyFile, SecretCipher};
#[cfg(feature = "webhooks")]
pub use signature::{
    ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, generate_secret, read_secret, secret_text, sign,
};
#[cfg(all(feature = "sqlite", feature = "webhooks"))]
pub use sqlite::SqliteWebhookStore;
