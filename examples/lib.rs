//! Examples of services and adapters of one's own: `embed.rs`, `custom_shadow_port.rs` and `custom_lock_repo.rs`. Run one with
//! `cargo run --package keywright-examples --example custom_lock_repo`, and the tests of all with `cargo test --package keywright-examples`.

/// The examples of the guide for embedding services, which are tests.
#[cfg(doctest)]
#[doc = include_str!("../docs/embedding.md")]
pub struct EmbeddingGuide;
