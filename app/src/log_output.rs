//! Log lines on standard error.
//!
//! A slow reader does not slow the service: lines for a pipe or a terminal go through a bounded queue, and are dropped and counted
//! while it is full. Lines for a file are written directly.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::fs::File;
use std::os::fd::AsFd;
use std::panic;
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber, error};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_serde::fields::AsMap;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormattedFields, layer};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, registry};

use crate::settings::LogFormat;

/// The AWS SDK logs long warnings about failures that it also returns as errors, which the service logs.
const AWS_SDK: [&str; 2] = ["aws_config", "aws_runtime"];

/// The target of log events about the progress of a command.
pub(crate) const COMMAND: &str = "keywright::command";

/// How many lines may wait for a slow reader.
const MAX_WAITING_LINES: usize = 8192;

/// How long the last line of the program may take.
const PRINT_TIMEOUT: Duration = Duration::from_secs(1);

static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// How many lines have been dropped since the start because their reader was slow.
pub(crate) fn dropped_lines() -> u64 {
    let dropped = DROPPED.get().map_or(0, ErrorCounter::dropped_lines);
    u64::try_from(dropped).unwrap_or(u64::MAX)
}

/// Keeps the log open. Dropping it writes the waiting lines, for a second at most.
#[must_use = "lines for a pipe are written only until this is dropped"]
pub(crate) struct Logging {
    _worker: Option<WorkerGuard>,
}

/// Starts the log. Panics become log lines, too.
pub(crate) fn start(format: LogFormat, level: tracing::Level) -> Logging {
    start_filtered(format, Targets::new().with_default(level))
}

/// Starts the log of a command that ends by itself: its own progress, and errors of all other code.
pub(crate) fn start_for_command(format: LogFormat) -> Logging {
    let filter = Targets::new().with_default(LevelFilter::ERROR);
    start_filtered(format, filter.with_target(COMMAND, LevelFilter::INFO))
}

fn start_filtered(format: LogFormat, filter: Targets) -> Logging {
    let filter = filter.with_targets(AWS_SDK.map(|target| (target, LevelFilter::ERROR)));
    let (writer, worker) = match is_file() {
        true => (BoxMakeWriter::new(std::io::stderr), None),
        false => {
            let (queue, worker) = NonBlockingBuilder::default()
                .lossy(true)
                .buffered_lines_limit(MAX_WAITING_LINES)
                .thread_name("log")
                .finish(std::io::stderr());
            let _ = DROPPED.set(queue.error_counter());
            (BoxMakeWriter::new(queue), Some(worker))
        }
    };
    let lines = layer()
        .with_writer(writer)
        .with_target(false)
        .with_ansi(false);
    let lines = match format {
        LogFormat::Text => lines.compact().boxed(),
        LogFormat::Json => lines
            .fmt_fields(JsonFields::new())
            .event_format(FlatJson)
            .boxed(),
    };
    registry().with(lines.with_filter(filter)).init();
    panic::set_hook(Box::new(log_panic));
    Logging { _worker: worker }
}

/// Whether standard error is a file. A file has no slow reader.
fn is_file() -> bool {
    let stderr = std::io::stderr().as_fd().try_clone_to_owned();
    let metadata = stderr.and_then(|stderr| File::from(stderr).metadata());
    metadata.is_ok_and(|metadata| metadata.is_file())
}

fn log_panic(info: &panic::PanicHookInfo<'_>) {
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let message = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let message = message.unwrap_or("no message");
    let location = info.location().map(ToString::to_string);
    let backtrace = Backtrace::capture();
    let backtrace =
        (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    error!(panic = message, location, backtrace, "a thread panicked");
}

/// Prints why the program ends, before the log has started or after it has ended. It gives up if the reader of standard error is
/// too slow.
pub(crate) fn print_fatal(format: LogFormat, message: &str) {
    let text = match format {
        LogFormat::Text => format!("keywright: {message}"),
        LogFormat::Json => json_line("ERROR", Some(message.into()), Map::new()),
    };
    let (sender, printed) = mpsc::channel();
    thread::spawn(move || {
        eprintln!("{text}");
        let _ = sender.send(());
    });
    let _ = printed.recv_timeout(PRINT_TIMEOUT);
}

/// Formats each line as one flat JSON object: the fields of the event, and those fields of its spans that the event does not have.
struct FlatJson;

impl<S> FormatEvent<S, JsonFields> for FlatJson
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Ok(Value::Object(mut fields)) = serde_json::to_value(event.field_map()) else {
            return Err(fmt::Error);
        };
        for span in context.event_scope().into_iter().flatten() {
            let extensions = span.extensions();
            let of_span = extensions.get::<FormattedFields<JsonFields>>();
            let of_span = of_span.and_then(|text| serde_json::from_str::<Map<_, _>>(text).ok());
            for (name, value) in of_span.into_iter().flatten() {
                fields.entry(name).or_insert(value);
            }
        }
        // The line has members of these names itself.
        fields.retain(|name, _| name != "timestamp" && name != "level");
        let (level, message) = (event.metadata().level(), fields.remove("message"));
        writeln!(writer, "{}", json_line(level.as_str(), message, fields))
    }
}

#[derive(Serialize)]
struct Line<'a> {
    timestamp: String,
    level: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Value>,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

fn json_line(level: &str, message: Option<Value>, fields: Map<String, Value>) -> String {
    let mut timestamp = String::new();
    // Writing to a string cannot fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut timestamp));
    let line = Line {
        timestamp,
        level,
        message,
        fields,
    };
    // All keys are text, so this cannot fail either.
    serde_json::to_string(&line).unwrap_or_default()
}
