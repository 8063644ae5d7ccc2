//! Log lines, on standard error.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt;

use crate::settings::LogFormat;

pub(crate) fn start(format: LogFormat, level: tracing::Level) {
    let lines = fmt()
        .with_writer(std::io::stderr)
        .with_max_level(LevelFilter::from_level(level))
        .with_target(false)
        .with_ansi(false);
    match format {
        LogFormat::Text => lines.compact().init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
}
