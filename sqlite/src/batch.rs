use std::thread;

use tokio::sync::mpsc;

/// Blocks until the queue has something, and takes up to `max` elements of it. `None`: the queue is closed and empty.
///
/// The thread yields before it takes more, as long as that brings more: a woken thread may run before the producers that it
/// shares a processor with, and one large batch costs less than many small ones.
pub fn drain_batch<T>(queue: &mut mpsc::Receiver<T>, max: usize) -> Option<Vec<T>> {
    let mut batch = vec![queue.blocking_recv()?];
    let mut previous_len = 0;
    while previous_len < batch.len() {
        previous_len = batch.len();
        thread::yield_now();
        while batch.len() < max
            && let Ok(next) = queue.try_recv()
        {
            batch.push(next);
        }
    }
    Some(batch)
}
