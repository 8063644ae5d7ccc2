//! Each figure beside its limit, in one run on one machine: the table of docs/performance.md. Servers run on core 0 and what asks them on
//! core 1. What is fast is measured in turn with what is beside it, five times, and the medians count; memory and the start
//! are measured once.

mod details;
mod many;
mod memory;
mod million;
mod rules;
mod shadow;
mod store;
mod whole;

use std::path::{Path, PathBuf};
use std::process::Command;

/// One line of the table.
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) measured: String,
    pub(crate) beside: String,
    /// What is held against the target.
    pub(crate) figure: f64,
    pub(crate) target: Target,
}

#[derive(Clone, Copy)]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
    None,
}

impl Row {
    /// With the command that measures it again.
    fn print(&self, part: &str) {
        let (target, holds) = match self.target {
            Target::AtLeast(least) => (format!("≥ {least}"), self.figure >= least),
            Target::AtMost(most) => (format!("≤ {most}"), self.figure <= most),
            Target::None => (String::new(), true),
        };
        let word = match (self.target, holds) {
            (Target::None, _) => "",
            (_, true) => "reached",
            (_, false) => "not reached",
        };
        println!(
            "| {} | {} | {} | {:.2} | {target} | {word} | `scripts/bench {part}` |",
            self.what, self.measured, self.beside, self.figure
        );
    }
}

/// The programs, all of one build.
pub(crate) struct Programs {
    folder: PathBuf,
}

impl Programs {
    pub(crate) fn keywright(&self) -> PathBuf {
        self.folder.join("keywright")
    }

    pub(crate) fn bare_hyper(&self) -> PathBuf {
        self.folder.join("bare-hyper")
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Moves a process to the core of servers.
pub(crate) fn server_core(process: Option<u32>) {
    let process = process.expect("it runs").to_string();
    let moved = Command::new("taskset")
        .args(["-acp", "0", &process])
        .output();
    assert!(moved.is_ok_and(|m| m.status.success()), "taskset is there");
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let this = std::env::current_exe().expect("a path");
    let programs = Programs {
        folder: this.parent().map(Path::to_owned).expect("a folder"),
    };
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    println!("| figure | measured | beside it | ratio | target | | command |");
    println!("|---|---|---|---|---|---|---|");
    for part in PARTS {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == part) {
            let rows = rows(part, &programs).await;
            rows.iter().for_each(|row| row.print(part));
        }
    }
}

const PARTS: [&str; 7] = [
    "rules", "details", "whole", "store", "shadow", "million", "memory",
];

async fn rows(part: &str, programs: &Programs) -> Vec<Row> {
    match part {
        "rules" => vec![rules::row()],
        "details" => details::rows(&programs.folder.with_file_name("criterion")),
        "whole" => whole::rows(programs).await,
        "store" => vec![
            store::memory().await,
            store::sqlite().await,
            store::postgres().await,
        ],
        "shadow" => vec![shadow::mqtt().await, shadow::aws_sdk().await],
        "million" => million::rows(programs).await,
        _ => memory::rows(programs).await,
    }
}
