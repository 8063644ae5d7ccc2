//! Log lines, on standard error.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, registry};

use crate::settings::LogFormat;

/// The AWS SDK warns at length of what it then answers as an error, which is said in a line of ours.
const AWS_SDK: [&str; 2] = ["aws_config", "aws_runtime"];

pub(crate) fn start(format: LogFormat, level: tracing::Level) {
    let filter = Targets::new()
        .with_default(LevelFilter::from_level(level))
        .with_targets(AWS_SDK.map(|target| (target, LevelFilter::ERROR)));
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(false);
    let lines = match format {
        LogFormat::Text => lines.compact().boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    registry().with(lines.with_filter(filter)).init();
}
