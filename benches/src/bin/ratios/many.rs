//! Many at once, each beginning as soon as one before it has ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::task::JoinSet;

use crate::median;

/// How many are under way at any time.
pub(crate) const AT_ONCE: u64 = 64;

#[expect(clippy::disallowed_methods, reason = "it is what is measured")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// How often each pair of figures is measured, one after the other.
pub(crate) const RUNS: usize = 5;

/// The medians of both figures of a pair.
pub(crate) async fn medians(pair: impl AsyncFn() -> (f64, f64)) -> (f64, f64) {
    let (mut own, mut alone) = (vec![], vec![]);
    for _ in 0..RUNS {
        let (one, other) = pair().await;
        own.push(one);
        alone.push(other);
    }
    (median(own), median(alone))
}

/// How many a second, if there were so many since then.
pub(crate) fn rate(count: u64, start: Instant) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let count = count as f64;
    count / start.elapsed().as_secs_f64()
}

/// Does it for each number below `count`, 64 at a time; how many a second.
pub(crate) async fn a_second<F, W>(count: u64, work: F) -> f64
where
    F: Fn(u64) -> W + Clone + Send + 'static,
    W: Future<Output = ()> + Send,
{
    let next = Arc::new(AtomicU64::new(0));
    let mut workers = JoinSet::new();
    let start = now();
    for _ in 0..AT_ONCE {
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
