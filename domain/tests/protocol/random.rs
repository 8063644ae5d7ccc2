//! Any sequence of commands, reports, faults, restarts and passing time keeps the invariants.
//! 256 sequences; `PROPTEST_CASES=20000` runs more.

use std::collections::HashMap;
use std::time::Duration;

use keywright_adapters::layer::{Fault, FaultPlan, Operation};
use keywright_domain::WriteError;
use keywright_domain::values::WriteId;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::world::{World, succeeded};

#[derive(Clone, Debug)]
enum Act {
    Write {
        key: u8,
        index: Option<u64>,
        updates: Vec<Fault>,
        reads: Vec<Fault>,
    },
    /// The caller's process dies so many milliseconds into the write.
    Crash {
        key: u8,
        index: Option<u64>,
        updates: Vec<Fault>,
        after_ms: u64,
    },
    /// The lock reports the n-th write that it has seen, and the report is delivered or missed.
    Report {
        nth: usize,
        result: Value,
        deliver: bool,
    },
    Withdraw {
        nth: usize,
    },
    Release,
    Pass {
        hours: u64,
    },
    Maintain,
}

fn fault() -> impl Strategy<Value = Fault> {
    prop::sample::select(vec![
        Fault::Pass,
        Fault::NotSent,
        Fault::Refuse,
        Fault::DropAnswer,
        Fault::LoseRequest,
        Fault::Withhold,
    ])
}

fn faults() -> impl Strategy<Value = Vec<Fault>> {
    prop::collection::vec(fault(), 0..5)
}

fn act() -> impl Strategy<Value = Act> {
    let result = prop::sample::select(vec![
        succeeded(),
        json!({ "status": "IN_PROGRESS" }),
        json!({ "status": "FAILED", "reason": "NoSpace" }),
    ]);
    let index = || prop::option::of(0..3_u64);
    prop_oneof![
        4 => (0..3_u8, index(), faults(), faults())
            .prop_map(|(key, index, updates, reads)| Act::Write { key, index, updates, reads }),
        2 => (0..3_u8, index(), faults(), 0..400_u64)
            .prop_map(|(key, index, updates, after_ms)| Act::Crash { key, index, updates, after_ms }),
        3 => (0..8_usize, result, any::<bool>())
            .prop_map(|(nth, result, deliver)| Act::Report { nth, result, deliver }),
        1 => (0..8_usize).prop_map(|nth| Act::Withdraw { nth }),
        1 => Just(Act::Release),
        1 => (0..60_u64).prop_map(|hours| Act::Pass { hours }),
        1 => Just(Act::Maintain),
    ]
}

struct Run {
    world: World,
    answers: Vec<(WriteId, Result<keywright_domain::Written, WriteError>)>,
    /// Every write that an entry was ever seen of on the shadow: what the lock may know.
    seen: Vec<WriteId>,
    /// How the lock settled writes: asked again, it answers the same (device contract).
    settled: HashMap<WriteId, Value>,
}

impl Run {
    async fn act(&mut self, act: &Act) {
        match act {
            Act::Write {
                key,
                index,
                updates,
                reads,
            } => {
                let plan = FaultPlan::default().then(Operation::Update, updates.iter().copied());
                self.world
                    .faults
                    .set(plan.then(Operation::Read, reads.iter().copied()));
                let answer = self.world.write(&format!("key-{key}"), *index).await;
                if let Ok(written) = &answer {
                    self.answers.push((written.write, answer.clone()));
                } else if let Err(WriteError::Undecided(id)) = &answer {
                    self.answers.push((*id, answer.clone()));
                }
                self.world.faults.set(FaultPlan::default());
            }
            Act::Crash {
                key,
                index,
                updates,
                after_ms,
            } => {
                let plan = FaultPlan::default().then(Operation::Update, updates.iter().copied());
                let reads = [Fault::LoseRequest, Fault::LoseRequest];
                self.world.faults.set(plan.then(Operation::Read, reads));
                let key = format!("key-{key}");
                let write = self.world.write(&key, *index);
                let _ = tokio::time::timeout(Duration::from_millis(*after_ms), write).await;
                self.world.restart();
                self.world.faults.set(FaultPlan::default());
            }
            Act::Report {
                nth,
                result,
                deliver,
            } => {
                if let Some(id) = self.seen.get(*nth) {
                    let said = self.settled.get(id).unwrap_or(result).clone();
                    if said["status"] != "IN_PROGRESS" {
                        self.settled.insert(*id, said.clone());
                    }
                    let report = self.world.report(*id, said).await;
                    if *deliver {
                        self.world
                            .writes
                            .settle(&report)
                            .await
                            .expect("the store answers");
                    }
                }
            }
            Act::Withdraw { nth } => {
                if let Some(id) = self.seen.get(*nth) {
                    let _ = self.world.writes.withdraw(*id).await;
                }
            }
            Act::Release => {
                self.world.faults.release().await;
            }
            Act::Pass { hours } => self.world.clock.advance(Duration::from_secs(hours * 3600)),
            Act::Maintain => self.world.maintain().await,
        }
        for id in self.world.shadow().map(|s| s.entries).unwrap_or_default() {
            if !self.seen.contains(&id) {
                self.seen.push(id);
            }
        }
        self.world.check(&self.answers).await;
    }
}

fn run(acts: &[Act]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut run = Run {
            world: World::new().await,
            answers: Vec::new(),
            seen: Vec::new(),
            settled: HashMap::new(),
        };
        for act in acts {
            run.act(act).await;
        }
        run.world.recover().await;
        run.world.faults.release().await;
        run.world.maintain().await;
        run.world
            .writes
            .look_at_all(None, 1000)
            .await
            .expect("the store answers");
        run.world.maintain().await;
        run.world.check(&run.answers).await;
        run.world.check_at_rest().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_invariants_hold_whatever_happens(acts in prop::collection::vec(act(), 1..14)) {
        run(&acts);
    }
}
