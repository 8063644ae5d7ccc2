//! Helpers of the end-to-end tests: the program and its surroundings as processes, an HTTP client, and a reader of stores.

mod client;
mod fake_clock;
pub mod markdown;
pub mod module_graph;
pub mod powercut;
mod process_log;
mod program;
mod proxy;
mod proxy_recipe;
mod shadow_service;
mod store_inspector;
mod webhook_receiver;

pub use client::{Answer, ClientError, Connection, Request};
pub use fake_clock::FakeClock;
pub use program::Program;
pub use proxy::Proxy;
pub use proxy_recipe::{recipe, with_lines};
pub use shadow_service::Shadows;
pub use store_inspector::StoreInspector;
pub use webhook_receiver::{Delivery, Reaction, WebhookReceiver};
