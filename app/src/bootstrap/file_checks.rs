//! Checks of the settings before anything is started.

use super::webhook_wiring;
use super::{auth_stack, data_folder, shadow_access};
use crate::error::UnusableSettings;
use crate::settings::Settings;

/// Reads the files that the settings name, and checks that data can be kept in the data folder. It makes no connections, and leaves
/// nothing behind.
///
/// # Errors
/// A file or the data folder cannot be used; the text names it.
pub(crate) fn check(settings: &Settings) -> Result<(), UnusableSettings> {
    if let Some(tokens) = &settings.tokens {
        auth_stack::check_tokens(tokens).map_err(UnusableSettings::new)?;
    }
    if let Some(webhooks) = &settings.webhooks {
        webhook_wiring::check(webhooks).map_err(UnusableSettings::new)?;
    }
    shadow_access::check(settings).map_err(UnusableSettings::new)?;
    data_folder::check(&settings.data)
}
