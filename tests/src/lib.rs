//! What the end-to-end tests share: the running program, a client, and the books that it keeps.

mod books;
mod client;
mod fake_clock;
mod program;
mod proxy;
mod shadows;

pub use books::Books;
pub use client::{Answer, Connection, Request};
pub use fake_clock::FakeClock;
pub use program::Program;
pub use proxy::Proxy;
pub use shadows::Shadows;
