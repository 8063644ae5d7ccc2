//! Options of log lines.

use clap::Args;

use super::layers;
use crate::settings::LogFormat;

/// What is logged, and in which format.
#[derive(Args)]
pub(crate) struct LogArgs {
    /// The format of log lines, which go to standard error.
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) log: LogFormat,
    /// The least severe log lines that are written: error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub(crate) log_level: tracing::Level,
}

/// The format of lines on standard error before all settings are read, or when some of them are invalid.
pub(crate) fn log_format() -> LogFormat {
    let arguments: Vec<String> = std::env::args().collect();
    let separate = arguments.windows(2).filter(|pair| pair[0] == "--log");
    let separate = separate.map(|pair| pair[1].as_str());
    let joined = arguments
        .iter()
        .filter_map(|argument| argument.strip_prefix("--log="));
    let named = separate.chain(joined).last().map(str::to_owned);
    let named = named.or_else(|| layers::lower_value("log").ok().flatten());
    match named.as_deref() {
        Some("json") => LogFormat::Json,
        _ => LogFormat::Text,
    }
}
