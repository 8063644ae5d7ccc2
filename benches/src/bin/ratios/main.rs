//! Measures all figures with targets in one run on one machine, and prints the table of docs/performance.md. Servers run on core 0,
//! clients on core 1. Each throughput and latency is measured five times alternately with its reference, and the medians are
//! compared; memory and start-up are measured once.

mod concurrent;
mod criterion_results;
mod million;
mod peers;
mod policy;
mod programs;
mod resident_memory;
mod shadow;
mod store;
mod table;
mod whole_server;

use programs::Programs;
use table::Row;

const PARTS: [&str; 8] = [
    "rules", "details", "whole", "peers", "store", "shadow", "million", "memory",
];

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let programs = Programs::of_this_build();
    let selected: Vec<String> = std::env::args().skip(1).collect();
    println!("| figure | measured | beside it | ratio | target | | command |");
    println!("|---|---|---|---|---|---|---|");
    for part in PARTS {
        if selected.is_empty() || selected.iter().any(|selected| selected == part) {
            let rows = rows(part, &programs).await;
            rows.iter().for_each(|row| row.print(part));
        }
    }
}

async fn rows(part: &str, programs: &Programs) -> Vec<Row> {
    match part {
        "rules" => vec![policy::row()],
        "details" => criterion_results::rows(&programs.folder.with_file_name("criterion")),
        "whole" => whole_server::rows(programs).await,
        "peers" => peers::rows(programs).await,
        "store" => vec![
            store::memory::row().await,
            store::sqlite::row().await,
            store::postgres::row().await,
        ],
        "shadow" => vec![shadow::mqtt().await, shadow::aws_sdk().await],
        "million" => million::rows(programs).await,
        _ => resident_memory::rows(programs).await,
    }
}
