//! Where commands find the server's store.

use std::path::PathBuf;

use clap::Args;

use super::layers;
use super::serve_options::DATA;
use super::store_options::StoreArgs;
use super::values::help_with_default;
use crate::error::UnusableSettings;
use crate::settings::StoreChoice;

/// Options of the commands that work on the store beside a running server.
#[derive(Args, Clone, Debug)]
pub(crate) struct StoreLocation {
    #[arg(long, value_name = "DIR", help = data_help())]
    data: Option<PathBuf>,
    #[command(flatten)]
    store: StoreArgs,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

fn data_help() -> String {
    let default = format!("as in keywright.toml, or {DATA}");
    help_with_default("The data folder of the server", default)
}

impl StoreLocation {
    /// # Errors
    /// The settings file cannot be read.
    pub(crate) fn data(&self) -> Result<PathBuf, UnusableSettings> {
        if let Some(data) = &self.data {
            return Ok(data.clone());
        }
        let lower = layers::lower_value("data").map_err(UnusableSettings::new)?;
        Ok(PathBuf::from(lower.as_deref().unwrap_or(DATA)))
    }

    /// # Errors
    /// The settings file cannot be read, or the settings of the store are invalid.
    pub(crate) fn store(&self) -> Result<StoreChoice, UnusableSettings> {
        let store = self.store.clone().with_lower_layers();
        let chosen = store.and_then(|store| store.choose());
        chosen.map_err(UnusableSettings::new)
    }
}
