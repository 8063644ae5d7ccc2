//! The settings: options with their defaults and help texts, the layers below the command line, and the checked settings of the server.

#[cfg(feature = "aws")]
pub(crate) mod aws_options;
pub(crate) mod layers;
pub(crate) mod log_options;
pub(crate) mod option_help;
pub(crate) mod serve_options;
pub(crate) mod shadow_options;
pub(crate) mod store_location;
pub(crate) mod values;

mod credential_options;
mod limit_options;
#[cfg(feature = "sandbox")]
mod sandbox_options;
mod server_settings;
mod store_options;
mod webhook_options;

pub(crate) use server_settings::*;
