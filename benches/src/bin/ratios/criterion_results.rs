//! Results of criterion, which `scripts/bench` runs first: verification of tokens by algorithm, and JSON bodies.

use std::path::Path;

use serde_json::Value;

use crate::table::{Row, Target};

const ALGORITHMS: [&str; 12] = [
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256",
    "ES384", "EdDSA",
];

/// The median of a benchmark in microseconds.
fn median_micros(folder: &Path, group: &str, bench: &str) -> f64 {
    let path = folder.join(group).join(bench).join("new/estimates.json");
    let estimates = std::fs::read(&path).unwrap_or_else(|e| {
        panic!(
            "{}: {e}; scripts/bench runs criterion first",
            path.display()
        )
    });
    let estimates: Value = serde_json::from_slice(&estimates).expect("JSON");
    let nanos = &estimates["median"]["point_estimate"];
    nanos.as_f64().expect("a median") / 1000.0
}

fn token(folder: &Path, algorithm: &str) -> Row {
    let micros = |bench| median_micros(folder, algorithm, bench);
    let (cold, known) = (micros("never seen"), micros("remembered"));
    let alone = micros("the signature alone");
    Row {
        what: format!("a token by {algorithm}, never seen before"),
        measured: format!("{cold:.2} µs; remembered {known:.2} µs"),
        reference: format!("its signature alone {alone:.2} µs"),
        figure: cold / alone,
        target: Target::None,
    }
}

fn body(folder: &Path, what: &str, group: &str, bench: &str) -> Row {
    let ours = median_micros(folder, group, bench);
    let alone = median_micros(folder, group, "serde_json alone");
    Row {
        what: what.into(),
        measured: format!("{ours:.2} µs"),
        reference: format!("serde_json alone {alone:.2} µs"),
        figure: ours / alone,
        target: Target::None,
    }
}

/// The rows from criterion's output folder.
pub(crate) fn rows(folder: &Path) -> Vec<Row> {
    let tokens = ALGORITHMS.iter().map(|name| token(folder, name));
    let read = "the body of a request, read";
    let built = "the body of a 200, built";
    let bodies = [
        body(folder, read, "the body of a request", "its key and slot"),
        body(folder, built, "the body of a 200", "from what was written"),
    ];
    tokens.chain(bodies).collect()
}
