//! Waiting with an end, on the `Timer` port instead of a runtime's clock.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use crate::ports::Timer;
use crate::values::Tick;

/// The future's output, or `None` when `deadline` comes first; the future is then to be dropped. It is pinned where its
/// caller has it, since a future that is handed on by value has its size twice.
pub(super) async fn bounded<T>(
    timer: &dyn Timer,
    deadline: Tick,
    mut work: Pin<&mut impl Future<Output = T>>,
) -> Option<T> {
    // What does not have to wait needs no timer.
    let mut end = None;
    poll_fn(|cx| {
        if let Poll::Ready(output) = work.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        let end = end.get_or_insert_with(|| timer.sleep_until(deadline));
        end.as_mut().poll(cx).map(|()| None)
    })
    .await
}
