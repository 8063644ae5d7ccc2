//! The error that ends the program with exit code 2.

use std::fmt;

/// A setting, or a file that a setting names, cannot be used. Starting the program again changes nothing, so it ends with exit
/// code 2. All other errors end it with code 1.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UnusableSettings(String);

impl UnusableSettings {
    /// The text of `why`, with its causes, names the setting or the file.
    pub(crate) fn new(why: impl fmt::Display) -> Self {
        Self(format!("{why:#}"))
    }
}
