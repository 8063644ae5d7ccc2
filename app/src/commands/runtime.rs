//! The tokio runtimes of commands.

use std::num::NonZero;

use tokio::runtime::Builder;

/// Runs a command that does one thing after another, on this thread.
pub(super) fn block_on<T>(task: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(task)
}

/// Runs a command that does many things at once, on one thread for each core that this process may use. The environment variable
/// of tokio for the number of threads has no effect.
pub(super) fn block_on_all_cores<T>(
    task: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    Builder::new_multi_thread()
        .worker_threads(cores)
        .enable_all()
        .build()?
        .block_on(task)
}
