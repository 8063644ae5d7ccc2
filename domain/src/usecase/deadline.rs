//! A timeout over the [`Timer`] port, so that the domain needs no runtime.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use crate::model::Tick;
use crate::ports::Timer;

/// Returns the output of `work`, or `None` if `deadline` comes first; the caller then drops the future. The caller pins the
/// future, because passing it by value would double the size of the caller's own future.
pub(super) async fn bounded<T>(
    timer: &dyn Timer,
    deadline: Tick,
    mut work: Pin<&mut impl Future<Output = T>>,
) -> Option<T> {
    // A future that is ready at its first poll needs no timer.
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
