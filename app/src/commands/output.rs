//! What commands print on standard output.

/// Like `println!`, but ends the program with code 0 when the reader has closed standard output, as `head` does.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write;
        if writeln!(std::io::stdout(), $($text)*).is_err() {
            std::process::exit(0);
        }
    }};
}
pub(crate) use say;

/// Prints the result of a command, as JSON or as text.
pub(crate) fn print(json: bool, value: &serde_json::Value, text: impl FnOnce() -> String) {
    if json {
        say!("{value}");
    } else {
        say!("{}", text());
    }
}
