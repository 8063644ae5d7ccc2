//! What the end-to-end tests share: the running program, a client, and the books that it keeps.

mod client;
mod fake_clock;
pub mod markdown;
pub mod module_graph;
mod program;
mod proxy;
mod recipe;
mod shadows;
mod store_inspector;

pub use client::{Answer, Connection, Request};
pub use fake_clock::FakeClock;
pub use program::Program;
pub use proxy::Proxy;
pub use recipe::{recipe, with_lines};
pub use shadows::Shadows;
pub use store_inspector::StoreInspector;
