//! The composition root: it builds adapters as the settings choose them, and connects them to the domain.

pub(crate) mod api_key_store;
pub(crate) mod audit;
pub(crate) mod clock;
pub(crate) mod data_folder;
pub(crate) mod file_checks;
pub(crate) mod lock_store;
pub(crate) mod open_stores;
#[cfg(feature = "sandbox")]
pub(crate) mod sandbox;
pub(crate) mod shadow_access;
pub(crate) mod urls;
pub(crate) mod webhook_place;
pub(crate) mod wiring;

mod auth_stack;
#[cfg(feature = "jwks-url")]
mod published_key_copy;
mod single_server;
mod webhook_wiring;
