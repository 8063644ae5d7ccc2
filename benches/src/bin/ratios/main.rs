//! Each figure beside its limit, in one run on one machine: the table of README.md. Servers run on core 0 and what asks them on
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
    fn print(&self) {
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
            "| {} | {} | {} | {:.2} | {target} | {word} |",
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
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    println!("| figure | measured | beside it | ratio | target | |");
    println!("|---|---|---|---|---|---|");
    if is_wanted("rules") {
        rules::row().print();
    }
    if is_wanted("details") {
        let criterion = programs.folder.with_file_name("criterion");
        details::rows(&criterion).iter().for_each(Row::print);
    }
    if is_wanted("whole") {
        whole::rows(&programs).await.iter().for_each(Row::print);
    }
    if is_wanted("store") {
        store::memory().await.print();
        store::sqlite().await.print();
        store::postgres().await.print();
    }
    if is_wanted("shadow") {
        shadow::mqtt().await.print();
        shadow::aws_sdk().await.print();
    }
    if is_wanted("million") {
        million::rows(&programs).await.iter().for_each(Row::print);
    }
    if is_wanted("memory") {
        memory::rows(&programs).await.iter().for_each(Row::print);
    }
}
