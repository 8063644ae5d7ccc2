//! Power cuts: images of the files of a recorded server, and builds that such a check must detect.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::harness::BINARY;

/// Checks images of a server until the first finding.
fn check(program: &str, images: u64) -> (Option<i32>, String) {
    let seed = fastrand::u64(..1_000_000).to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_keywright-powercut"))
        .args(["--program", program, "--seed", &seed])
        .args(["--images", &images.to_string()])
        .output();
    let Output {
        status,
        stdout,
        stderr,
    } = output.expect("the checking program runs");
    let text = [stdout, stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    (status.code(), text.concat())
}

/// Checks images of a faulty server, and returns the finding, which can be repeated.
fn finding(program: &str) -> String {
    let (code, output) = check(program, 200);
    assert_eq!(code, Some(1), "{output}");
    let line = |start: &str| {
        let found = output.lines().find_map(|line| line.strip_prefix(start));
        found.unwrap_or_else(|| panic!("no {start:?}: {output}"))
    };
    let repeat: Vec<&str> = line("scripts/powercut ").split(' ').collect();
    let again = Command::new(env!("CARGO_BIN_EXE_keywright-powercut"))
        .args(&repeat)
        .args(["--program", program])
        .output();
    let again = again.expect("the checking program runs");
    let found = line("finding: ");
    let repeated = String::from_utf8_lossy(&again.stdout).into_owned();
    assert!(repeated.contains(found), "{repeated} instead of {found}");
    let kept = repeated.lines().chain(output.lines());
    for folder in kept.filter_map(|line| line.strip_prefix("the files are in ")) {
        let folder = folder.split("/image;").next().expect("a folder");
        std::fs::remove_dir_all(folder).expect("removed");
    }
    output
}

/// Makes a copy of the program whose stores do not sync each commit.
fn without_synced_commits(program: &Path) {
    let mut bytes = std::fs::read(BINARY).expect("the program");
    let (full, normal) = (b"synchronous = FULL;", b"synchronous=NORMAL;");
    let mut replaced = 0;
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(full.len()).position(|w| w == full) {
        at += found;
        bytes[at..at + full.len()].copy_from_slice(normal);
        replaced += 1;
    }
    assert_eq!(replaced, 1, "the statement is in one place");
    std::fs::write(program, bytes).expect("written");
    let executable = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(program, executable).expect("made executable");
}

#[test]
fn power_cuts_lose_nothing() {
    let (code, output) = check(BINARY, 200);
    println!("{output}");
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("no finding in 200 images"), "{output}");
}

#[test]
fn a_build_that_does_not_sync_each_commit_is_detected() {
    let folder = TempDir::new().expect("a folder");
    let program = folder.path().join("keywright-normal");
    without_synced_commits(&program);
    let output = finding(program.to_str().expect("a path"));
    // SQLite's number for NORMAL.
    assert!(output.contains("synchronous=1"), "{output}");
    assert!(output.contains("I1: a 200 is lost"), "{output}");
}

#[test]
fn a_build_that_answers_before_the_sync_is_detected() {
    let output = finding(env!("CARGO_BIN_EXE_keywright-answers-before-commit"));
    assert!(output.contains("I1: a 200 is lost"), "{output}");
}
