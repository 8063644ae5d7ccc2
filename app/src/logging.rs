//! Log lines, on standard error.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt;

use crate::settings::{LogFormat, Settings};

pub(crate) fn start(settings: &Settings) {
    let lines = fmt()
        .with_writer(std::io::stderr)
        .with_max_level(LevelFilter::from_level(settings.log_level))
        .with_target(false)
        .with_ansi(false);
    match settings.log {
        LogFormat::Text => lines.compact().init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
}
