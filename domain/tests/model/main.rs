//! A model of the write protocol that is searched exhaustively, within bounds.
//!
//! The model has two processes, which can stop and be replaced; a shadow, with messages to it that are lost, delayed, refused or
//! whose answers are lost; leases that end at any time; a lock that executes its entries; expiry; an audit; and foreign updates of
//! the shadow. The domain's policies and its `Attempt` make all decisions. The model only moves messages and time.
//!
//! `STATES=10000000` searches more states than a test run does.

mod maintenance;
mod protocol_model;
mod state;
mod steps;
mod store;
mod variant;

use stateright::{Checker, Model};

use protocol_model::{Bounds, ProtocolModel};
use variant::Variant;

/// The minimum number of different states that a test run searches.
const STATES: usize = 1_000_000;

/// The maximum number of generated states per different state.
const GENERATED_PER_STATE: usize = 4;

fn states() -> usize {
    let set = std::env::var("STATES").ok();
    set.map_or(STATES, |n| n.parse().expect("STATES is a number"))
}

/// What a search covered.
struct Coverage {
    different_states: usize,
    /// Whether all states within the bounds were searched.
    complete: bool,
}

/// Searches all states within the bounds, but generates at most `max_generated`. It panics if an invariant does not hold.
fn search(bounds: Bounds, max_generated: usize) -> Coverage {
    let model = ProtocolModel::new(Variant::Unchanged, bounds);
    let checker = model.checker().threads(2);
    let checker = checker.target_state_count(max_generated).spawn_bfs().join();
    checker.assert_properties();
    let (different_states, depth) = (checker.unique_state_count(), checker.max_depth());
    println!("{bounds:?}: {different_states} different states, {depth} steps deep");
    Coverage {
        different_states,
        complete: checker.state_count() < max_generated,
    }
}

#[test]
fn invariants_hold_in_a_million_states() {
    let coverage = search(Bounds::PROTOCOL, states() * GENERATED_PER_STATE);
    let different = coverage.different_states;
    assert!(different >= states(), "{different}");
}

#[test]
fn invariants_hold_in_every_state_of_one_write() {
    let coverage = search(Bounds::MAINTENANCE, usize::MAX);
    let different = coverage.different_states;
    assert!(coverage.complete && different > 10_000, "{different}");
}

#[test]
fn each_weakened_variant_violates_an_invariant() {
    for variant in Variant::WEAKENED {
        let model = ProtocolModel::new(variant, variant.bounds());
        let checker = model.checker().threads(2).target_state_count(20_000_000);
        let checker = checker.spawn_bfs().join();
        let path = checker.discovery(ProtocolModel::HOLDS);
        let path = path.unwrap_or_else(|| panic!("{variant:?} violates no invariant"));
        let steps = path.into_vec();
        let (last, _) = steps.last().expect("the path has an end");
        let why = last
            .violation()
            .expect("the last state violates an invariant");
        println!("{variant:?}: {why}, after {} steps:", steps.len() - 1);
        for action in steps.iter().filter_map(|(_, action)| action.as_ref()) {
            println!("    {action:?}");
        }
    }
}
