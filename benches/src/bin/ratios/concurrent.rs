//! Runs operations with a fixed concurrency, and measures their rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::task::JoinSet;

use crate::table::median;

/// Concurrent operations.
pub(crate) const CONCURRENT: u64 = 64;

#[expect(clippy::disallowed_methods, reason = "benches measure time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The number of times that each pair of figures is measured, alternately.
pub(crate) const RUNS: usize = 5;

/// Measures a pair of figures several times, and returns both medians.
pub(crate) async fn medians(pair: impl AsyncFn() -> (f64, f64)) -> (f64, f64) {
    let (mut first, mut second) = (vec![], vec![]);
    for _ in 0..RUNS {
        let (one, other) = pair().await;
        first.push(one);
        second.push(other);
    }
    (median(first), median(second))
}

/// The rate for each second of `count` operations since `start`.
pub(crate) fn rate(count: u64, start: Instant) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let count = count as f64;
    count / start.elapsed().as_secs_f64()
}

/// Calls `work` for each number below `count`, 64 at a time. Returns the rate for each second.
pub(crate) async fn per_second<F, W>(count: u64, work: F) -> f64
where
    F: Fn(u64) -> W + Clone + Send + 'static,
    W: Future<Output = ()> + Send,
{
    let next = Arc::new(AtomicU64::new(0));
    let mut workers = JoinSet::new();
    let start = now();
    for _ in 0..CONCURRENT {
        let (next, work) = (next.clone(), work.clone());
        workers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return;
                }
                work(number).await;
            }
        });
    }
    while let Some(ended) = workers.join_next().await {
        ended.expect("no panic");
    }
    rate(count, start)
}
