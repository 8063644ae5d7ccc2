//! Contract test cases for [`Timer`] and [`IdGenerator`].

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use keywright_domain::ports::{IdGenerator, Timer};

/// A timer and a generator of ids under test.
pub struct TimeAndIds {
    /// The timer under test.
    pub timer: Arc<dyn Timer>,
    /// The generator under test, started anew by each call as by another process.
    pub start_ids: Arc<dyn Fn() -> Arc<dyn IdGenerator> + Send + Sync>,
}

/// Ticks of several tasks do not decrease.
pub async fn ticks_do_not_decrease(ports: &TimeAndIds) {
    let mut last = ports.timer.tick();
    for _ in 0..1000 {
        let timer = ports.timer.clone();
        let tick = tokio::spawn(async move { timer.tick() });
        let tick = tick.await.expect("the task does not panic");
        assert!(tick >= last, "{tick:?} after {last:?}");
        last = tick;
    }
}

/// A sleep does not end before its moment, and ends at once if the moment has passed.
pub async fn sleep_ends_at_its_moment(ports: &TimeAndIds) {
    let start = ports.timer.tick();
    let moment = start.after(Duration::from_millis(30));
    ports.timer.sleep_until(moment).await;
    assert!(ports.timer.tick() >= moment);
    let past = ports.timer.sleep_until(start);
    assert!(past.now_or_never().is_some(), "the moment has passed");
}

/// Ids of several starts, each used by two tasks, differ.
pub async fn ids_are_unique(ports: &TimeAndIds) {
    const STARTS: usize = 8;
    const IDS: usize = 2000;
    let tasks: Vec<_> = (0..STARTS)
        .flat_map(|_| {
            let ids = (ports.start_ids)();
            [ids.clone(), ids]
        })
        .map(|ids| tokio::spawn(async move { (0..IDS).map(|_| ids.next_id()).collect::<Vec<_>>() }))
        .collect();
    let mut found = HashSet::new();
    for task in tasks {
        found.extend(task.await.expect("the task does not panic"));
    }
    assert_eq!(found.len(), 2 * STARTS * IDS);
}

/// Each of the low 32 bits of ids is set in about half of them, and hardly any two ids share all of them.
pub async fn low_bits_of_ids_differ(ports: &TimeAndIds) {
    const IDS: usize = 4000;
    let ids = (ports.start_ids)();
    let ids: Vec<u128> = (0..IDS).map(|_| ids.next_id()).collect();
    let distinct: HashSet<u32> = ids
        .iter()
        .map(|id| (id & u128::from(u32::MAX)) as u32)
        .collect();
    assert!(distinct.len() > IDS - 10, "{} of {IDS}", distinct.len());
    for bit in 0..32 {
        let set = ids.iter().filter(|id| *id >> bit & 1 == 1).count();
        // Six standard deviations: random bits fail this about once in 10⁷ runs.
        assert!(
            set.abs_diff(IDS / 2) < 190,
            "bit {bit} is set in {set} of {IDS} ids"
        );
    }
}

/// Generates a test for each case of the contracts of `Timer` and `IdGenerator`, on tokio's multi-threaded runtime.
///
/// In `time_and_ids_cases!(fixture)`, `fixture()` returns a [`TimeAndIds`](crate::time_and_ids::TimeAndIds).
#[macro_export]
macro_rules! time_and_ids_cases {
    ($fixture:path) => {
        $crate::time_and_ids_cases! { $fixture:
            ticks_do_not_decrease, sleep_ends_at_its_moment, ids_are_unique, low_bits_of_ids_differ
        }
    };
    ($fixture:path: $($case:ident),+) => {
        /// The names of the cases.
        pub const TIME_AND_IDS_CASES: &[&str] = &[$(stringify!($case)),+];

        /// Runs one case by its name; the testkit's own tests run every case against broken adapters.
        pub async fn run_time_and_ids_case(case: &str, ports: &$crate::time_and_ids::TimeAndIds) {
            match case {
                $(stringify!($case) => $crate::time_and_ids::$case(ports).await,)+
                other => panic!("no such case: {other}"),
            }
        }

        $(#[tokio::test(flavor = "multi_thread")]
        async fn $case() {
            $crate::time_and_ids::$case(&$fixture()).await;
        })+
    };
}
