//! The device shadows of things.

pub mod document;
mod memory;

pub use memory::InMemoryShadow;
