//! Arrivals at a rate: each has its moment, whatever became of those before.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

/// How often those that are due are let go.
const TICK: Duration = Duration::from_millis(1);

/// Calls `arrive` at this rate, each second, for this time, with the moment that each arrival was meant for: one that comes
/// late, because this program had something else to do, comes all the same.
pub(crate) async fn arrivals(rate: f64, span: Duration, mut arrive: impl FnMut(Instant)) {
    let (start, mut arrived) = (Instant::now(), 0_u32);
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let passed = start.elapsed().min(span);
        loop {
            let due = Duration::from_secs_f64(f64::from(arrived) / rate);
            if due >= passed {
                break;
            }
            arrived += 1;
            arrive(start + due);
        }
        if passed == span {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_has_its_moment_also_when_this_program_was_held_up() {
        let (start, mut moments) = (Instant::now(), Vec::new());
        arrivals(50.0, Duration::from_secs(2), |meant| {
            moments.push(meant - start);
        })
        .await;
        let due = (0..100).map(|n| Duration::from_millis(20 * n));
        assert_eq!(moments, due.collect::<Vec<_>>());
    }
}
