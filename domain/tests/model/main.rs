//! The write protocol as a model that is searched exhaustively, up to bounds that each search names: two processes (or
//! more lives of them), a shadow, and messages to it that are lost, late, refused or answered in vain; leases that end at
//! any moment; a lock that does what it finds; expiry, an audit, and a stranger who moves the shadow's version. What is
//! decided is decided by the domain's own rules and its own attempt; the model only moves messages and time.
//!
//! `STATES=10000000` searches further than a test run does.

mod maintenance;
mod protocol;
mod state;
mod store;
mod variant;
mod world;

use stateright::{Checker, Model};

use variant::Variant;
use world::{Bounds, World};

/// How many different states a test run looks at, at least.
const STATES: usize = 1_000_000;

/// How many states are found for each that was not found before, at most.
const FOUND_AGAIN: usize = 4;

fn states() -> usize {
    let set = std::env::var("STATES").ok();
    set.map_or(STATES, |n| n.parse().expect("STATES is a number"))
}

/// Searches until there is no state left, or for so many. Answers how many different ones there were.
fn search(bounds: Bounds, found: usize) -> (usize, bool) {
    let checker = World::new(Variant::AsItIs, bounds).checker().threads(2);
    let checker = checker.target_state_count(found).spawn_bfs().join();
    checker.assert_properties();
    let (different, depth) = (checker.unique_state_count(), checker.max_depth());
    println!("{bounds:?}: {different} different states, {depth} steps deep");
    (different, checker.state_count() < found)
}

#[test]
fn the_protocol_holds_in_a_million_states() {
    let (different, _) = search(Bounds::FOR_THE_PROTOCOL, states() * FOUND_AGAIN);
    assert!(different >= states(), "{different}");
}

#[test]
fn the_life_of_one_write_holds_in_every_state() {
    let (different, all) = search(Bounds::FOR_MAINTENANCE, usize::MAX);
    assert!(all && different > 10_000, "{different}");
}

#[test]
fn each_weakened_variant_is_found_out() {
    for variant in Variant::WEAKENED {
        let world = World::new(variant, variant.bounds());
        let checker = world.checker().threads(2).target_state_count(20_000_000);
        let checker = checker.spawn_bfs().join();
        let path = checker.discovery(World::HOLDS);
        let path = path.unwrap_or_else(|| panic!("{variant:?} was not found out"));
        let steps = path.into_vec();
        let (last, _) = steps.last().expect("a path has an end");
        let why = last.violation().expect("it ends in a violation");
        println!("{variant:?}: {why}, after {} steps:", steps.len() - 1);
        for action in steps.iter().filter_map(|(_, action)| action.as_ref()) {
            println!("    {action:?}");
        }
    }
}
