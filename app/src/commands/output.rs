//! Printing on standard output, as text or JSON.

use std::fmt;
use std::io::{ErrorKind, Write};

use crate::log_output;
use crate::settings::log_options::log_format;

/// Like `println!`, but ends the program if the line cannot be written; see [`write_line`].
macro_rules! print_line {
    ($($text:tt)*) => {
        $crate::commands::output::write_line(format_args!($($text)*))
    };
}
pub(crate) use print_line;

/// Prints a line. If the reader has closed standard output, as `head` does, the program ends with code 0. After any other
/// error, such as a full disk, it ends with code 1 and a message.
pub(crate) fn write_line(line: fmt::Arguments<'_>) {
    let Err(error) = writeln!(std::io::stdout(), "{line}") else {
        return;
    };
    if error.kind() == ErrorKind::BrokenPipe {
        std::process::exit(0);
    }
    log_output::print_fatal(
        log_format(),
        &format!("standard output cannot be written: {error}"),
    );
    std::process::exit(1);
}

/// Prints the result of a command, as JSON or as text.
pub(crate) fn print_result(
    as_json: bool,
    value: &serde_json::Value,
    text: impl FnOnce() -> String,
) {
    if as_json {
        print_line!("{value}");
    } else {
        print_line!("{}", text());
    }
}
