//! The adapters of time and ids fulfil their contracts, and for each case a broken adapter fails this case and no other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use keywright_adapters::time::{SystemIds, TokioTimer};
use keywright_domain::model::Tick;
use keywright_domain::ports::{IdGenerator, Timer};
use keywright_testkit::time_and_ids::TimeAndIds;
use keywright_testkit::time_and_ids_cases;

fn fixture() -> TimeAndIds {
    TimeAndIds {
        timer: Arc::new(TokioTimer::default()),
        start_ids: Arc::new(|| Arc::new(SystemIds)),
    }
}

time_and_ids_cases!(fixture);

/// A timer and a generator that violate their contracts only in what the named case checks.
struct Broken {
    case: &'static str,
    timer: TokioTimer,
    calls: AtomicU64,
}

#[async_trait]
impl Timer for Broken {
    fn tick(&self) -> Tick {
        let tick = self.timer.tick();
        let is_hundredth = self.calls.fetch_add(1, Ordering::Relaxed) % 100 == 99;
        match self.case == "ticks_do_not_decrease" && is_hundredth {
            true => Tick(Duration::ZERO),
            false => tick,
        }
    }

    async fn sleep_until(&self, moment: Tick) {
        match self.case == "sleep_ends_at_its_moment" {
            true => tokio::time::sleep(Duration::from_millis(1)).await,
            false => self.timer.sleep_until(moment).await,
        }
    }
}

struct BrokenIds {
    case: &'static str,
    calls: AtomicU64,
}

impl IdGenerator for BrokenIds {
    fn next_id(&self) -> u128 {
        let id = SystemIds.next_id();
        let is_first = self.calls.fetch_add(1, Ordering::Relaxed) == 0;
        match self.case {
            // After each start, the first id is the same.
            "ids_are_unique" if is_first => 7,
            "low_bits_of_ids_differ" => id & !(1 << 31),
            _ => id,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_broken_adapter_fails_its_own_case_and_no_other() {
    for broken in TIME_AND_IDS_CASES {
        for case in TIME_AND_IDS_CASES {
            let ports = TimeAndIds {
                timer: Arc::new(Broken {
                    case: broken,
                    timer: TokioTimer::default(),
                    calls: AtomicU64::new(0),
                }),
                start_ids: Arc::new(|| {
                    Arc::new(BrokenIds {
                        case: broken,
                        calls: AtomicU64::new(0),
                    })
                }),
            };
            let outcome = tokio::spawn(async move { run_time_and_ids_case(case, &ports).await });
            assert_eq!(
                outcome.await.is_err(),
                broken == case,
                "adapters broken for {broken}, case {case}"
            );
        }
    }
}
