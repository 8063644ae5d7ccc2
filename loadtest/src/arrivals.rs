//! Arrivals at a constant rate, independent of how long earlier requests take.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

/// The interval at which due arrivals are started.
const TICK: Duration = Duration::from_millis(1);

/// Calls `arrive` for this time, `rate` times a second, with the intended time of each arrival. An arrival that is late, because
/// this program was busy, is not skipped.
pub(crate) async fn arrivals(rate: f64, span: Duration, mut arrive: impl FnMut(Instant)) {
    let (start, mut arrived) = (Instant::now(), 0_u32);
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let elapsed = start.elapsed().min(span);
        loop {
            let due = Duration::from_secs_f64(f64::from(arrived) / rate);
            if due >= elapsed {
                break;
            }
            arrived += 1;
            arrive(start + due);
        }
        if elapsed == span {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_arrival_has_its_intended_time() {
        let (start, mut times) = (Instant::now(), Vec::new());
        arrivals(50.0, Duration::from_secs(2), |intended_at| {
            times.push(intended_at - start);
        })
        .await;
        let due = (0..100).map(|n| Duration::from_millis(20 * n));
        assert_eq!(times, due.collect::<Vec<_>>());
    }
}
