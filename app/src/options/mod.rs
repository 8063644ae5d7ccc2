//! Options that several commands share, and the layers of settings below the command line.

#[cfg(feature = "aws")]
pub(crate) mod aws;
pub(crate) mod layers;
pub(crate) mod log;
pub(crate) mod option_help;
pub(crate) mod serve;
pub(crate) mod store_location;
pub(crate) mod values;

mod credentials;
mod limits;
#[cfg(feature = "sandbox")]
mod sandbox;
pub(crate) mod shadow_access;
mod store;
