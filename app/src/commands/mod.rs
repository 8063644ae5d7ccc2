//! The commands of the program, one file each: the options of the command, and what it does.

pub(crate) mod api_key;
pub(crate) mod audit;
pub(crate) mod check_config;
pub(crate) mod events;
#[cfg(feature = "sandbox")]
pub(crate) mod held_keys;
pub(crate) mod listen;
pub(crate) mod lock;
pub(crate) mod operator;
#[cfg(all(feature = "mqtt", feature = "sandbox"))]
pub(crate) mod sandbox;
pub(crate) mod serve;
pub(crate) mod settings;
#[cfg(feature = "mqtt")]
pub(crate) mod shadow;
#[cfg(feature = "sandbox")]
pub(crate) mod token;
pub(crate) mod webhook;
pub(crate) mod write;
pub(crate) mod writes;

mod api_list;
mod event_follower;
mod import;
mod lock_list;
mod output;
mod runtime;
mod server_access;
