//! Several replicas, one store, shadows, and locks that report, in one thread and in time that passes only when all
//! of them wait. A seed decides what happens and what goes wrong: messages that are lost, late or answered in vain,
//! replicas that die, and replicas that stop and wake up much later. Then everything works again, and I1 to I7 must hold.
//!
//! `SEEDS=20000` runs more seeds than the 2,000 of a test run, `SEED=7` replays one of them with all that happens.

mod broken;
mod world;

use std::collections::BTreeMap;

use broken::Broken;
use world::World;

fn seeds() -> u64 {
    let set = std::env::var("SEEDS").ok();
    set.map_or(2000, |n| n.parse().expect("SEEDS is a number"))
}

type Tally = BTreeMap<&'static str, u64>;

/// The world of this seed, lived through and come to rest, and what `read` makes of it.
fn live<T>(seed: u64, broken: Broken, read: impl AsyncFnOnce(World) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut world = World::new(seed, broken).await;
        world.live().await;
        world.come_to_rest().await;
        read(world).await
    })
}

/// How the world of this seed fares: what happened in it how often.
fn run(seed: u64, broken: Broken) -> Result<Tally, String> {
    live(seed, broken, async |world| {
        world.check().await?;
        Ok(world.tally().await)
    })
}

#[test]
fn the_invariants_hold_whatever_happens_to_several_replicas() {
    if let Ok(seed) = std::env::var("SEED") {
        let seed = seed.parse().expect("SEED is a number");
        if let Err(why) = run(seed, Broken::Nothing) {
            panic!("{why}");
        }
        return;
    }
    let mut all = Tally::new();
    for seed in 0..seeds() {
        match run(seed, Broken::Nothing) {
            Ok(tally) => tally
                .into_iter()
                .for_each(|(what, n)| *all.entry(what).or_default() += n),
            Err(why) => panic!("{why}\nreplay it with SEED={seed}"),
        }
    }
    println!("{} seeds: {all:#?}", seeds());
    for what in EVERYTHING {
        assert!(
            all.get(what).is_some_and(|n| *n > 0),
            "no {what} in all of {all:?}"
        );
    }
}

/// What has to happen somewhere, or the simulation says nothing of it.
const EVERYTHING: [&str; 13] = [
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

/// How many seeds may pass before a world that is broken is found out.
const AT_MOST: u64 = 300;

#[test]
fn each_broken_world_is_found_out() {
    for broken in Broken::ALL {
        let found = (0..AT_MOST).find_map(|seed| run(seed, broken).err().map(|why| (seed, why)));
        let (seed, why) = found.unwrap_or_else(|| panic!("{broken:?} was not found out"));
        println!("{broken:?}: seed {seed}: {why}");
        assert!(
            broken.breaks().iter().any(|i| why.contains(i)),
            "{broken:?}: {why}"
        );
    }
}

#[test]
fn a_seed_is_always_the_same_story() {
    for seed in 0..20 {
        let tell = || live(seed, Broken::Nothing, async |world| world.story().await);
        assert!(tell() == tell(), "seed {seed} tells two stories");
    }
}
