//! What the program does besides serving.

pub(crate) mod api_key;
pub(crate) mod audit;
pub(crate) mod check_config;
#[cfg(feature = "sandbox")]
pub(crate) mod held_keys;
pub(crate) mod lock;
#[cfg(all(feature = "mqtt", feature = "sandbox"))]
pub(crate) mod sandbox;
#[cfg(feature = "mqtt")]
pub(crate) mod shadow;
#[cfg(feature = "sandbox")]
pub(crate) mod token;
pub(crate) mod write;

use crate::bootstrap::Error;

/// As `println!`. Whoever has closed standard output has read enough.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write;
        if writeln!(std::io::stdout(), $($text)*).is_err() {
            std::process::exit(0);
        }
    }};
}
pub(crate) use say;

/// What a command has to say, in one of two forms.
pub(crate) fn print(json: bool, value: &serde_json::Value, text: impl FnOnce() -> String) {
    if json {
        say!("{value}");
    } else {
        say!("{}", text());
    }
}

/// Runs what waits for files and the network.
pub(crate) fn block_on<T>(task: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(task)
}
