//! A deterministic simulation of several replicas over one store, with shadows and with locks that report.
//!
//! It runs in one thread and in simulated time, which passes only while all tasks wait. A seed determines the commands and the
//! faults: messages that are lost or delayed or whose answers are lost, replicas that crash, and replicas that stop and continue
//! much later. Then all faults end, and I1 to I7 must hold.
//!
//! `SEEDS=20000` runs more seeds than the 2,000 of a test run. `SEED=7` replays one seed and prints what happens.

mod broken_ports;
mod replica;
mod world;

use std::collections::BTreeMap;

use broken_ports::Broken;
use world::World;

fn seeds() -> u64 {
    let set = std::env::var("SEEDS").ok();
    set.map_or(2000, |n| n.parse().expect("SEEDS is a number"))
}

/// How often each kind of answer and event occurred.
type Counts = BTreeMap<&'static str, u64>;

/// Simulates the world of this seed until it is at rest, and returns what `read` reads from it.
fn simulate<T>(seed: u64, broken: Broken, read: impl AsyncFnOnce(World) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut world = World::new(seed, broken).await;
        world.act().await;
        world.come_to_rest().await;
        read(world).await
    })
}

/// Simulates the world of this seed and checks the invariants.
fn run(seed: u64, broken: Broken) -> Result<Counts, String> {
    simulate(seed, broken, async |world| {
        world.check().await?;
        Ok(world.counts().await)
    })
}

#[test]
fn invariants_hold_over_several_replicas() {
    if let Ok(seed) = std::env::var("SEED") {
        let seed = seed.parse().expect("SEED is a number");
        if let Err(why) = run(seed, Broken::Nothing) {
            panic!("{why}");
        }
        return;
    }
    let mut total = Counts::new();
    for seed in 0..seeds() {
        match run(seed, Broken::Nothing) {
            Ok(counts) => counts
                .into_iter()
                .for_each(|(kind, n)| *total.entry(kind).or_default() += n),
            Err(why) => panic!("{why}\nreplay it with SEED={seed}"),
        }
    }
    println!("{} seeds: {total:#?}", seeds());
    for kind in REQUIRED {
        assert!(
            total.get(kind).is_some_and(|n| *n > 0),
            "no {kind} in {total:?}"
        );
    }
}

/// Answers and events that must occur for some seed. Otherwise the simulation proves nothing about them.
const REQUIRED: [&str; 13] = [
    "200",
    "200 without an event",
    "409",
    "502",
    "504",
    "KeyWriteConfirmed",
    "KeyWriteExpired",
    "KeyWriteFailed",
    "KeyWriteRequested",
    "KeyWriteSuperseded",
    "KeyWriteWithdrawn",
    "late",
    "taken over",
];

/// The number of seeds within which broken ports must violate an invariant.
const MAX_SEEDS: u64 = 300;

#[test]
fn each_broken_port_violates_an_invariant() {
    for broken in Broken::ALL {
        let found = (0..MAX_SEEDS).find_map(|seed| run(seed, broken).err().map(|why| (seed, why)));
        let (seed, why) = found.unwrap_or_else(|| panic!("{broken:?} violates no invariant"));
        println!("{broken:?}: seed {seed}: {why}");
        assert!(
            broken.violates().iter().any(|i| why.contains(i)),
            "{broken:?}: {why}"
        );
    }
}

#[test]
fn a_seed_is_reproducible() {
    for seed in 0..20 {
        let record = || simulate(seed, Broken::Nothing, async |world| world.record().await);
        assert!(record() == record(), "seed {seed} has two outcomes");
    }
}
