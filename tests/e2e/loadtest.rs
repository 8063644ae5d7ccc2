//! `keywright-loadtest run`: its verdict, its report, and faults that it must detect.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use keywright_testkit::postgres_server::PostgresServer;
use keywright_tests::Program;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::api_reference::screenshots;
use crate::harness::BINARY;

const LOADTEST: &str = env!("CARGO_BIN_EXE_keywright-loadtest-under-test");

fn run(folder: &Path, limits: &str, arguments: &[&str]) -> Output {
    let file = folder.join("limits.toml");
    std::fs::write(&file, format!("[default]\n{limits}\n")).expect("written");
    Command::new(LOADTEST)
        .args(["run", "--report", "report.html", "--limits"])
        .arg(&file)
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("it runs")
}

fn run_with_own_server(folder: &Path, limits: &str, binary: &str, more: &[&str]) -> Output {
    let mut arguments = vec!["--spawn", "--binary", binary];
    if !more.contains(&"--shadow") {
        arguments.extend(["--shadow", "memory"]);
    }
    arguments.extend(["--locks", "20", "--organizations", "2", "--owners", "4"]);
    // In the third second, all locks are slow.
    let fleet = "latency=20ms,twice=10%,latency=500ms@2s-3s";
    arguments.extend(["--fleet", fleet, "--users", "6", "--span", "4s"]);
    arguments.extend(more);
    run(folder, limits, &arguments)
}

fn printed(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!(
        "{}{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(err)
    )
}

fn report(folder: &Path) -> Value {
    let text = std::fs::read_to_string(folder.join("report.json")).expect("a report");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn a_run_ends_with_a_verdict_and_a_self_contained_report() {
    let folder = TempDir::new().expect("a folder");
    let folder = folder.path();
    let good = run_with_own_server(folder, "min_writes_per_second = 0.1", BINARY, &[]);
    assert_eq!(good.status.code(), Some(0), "{}", printed(&good));
    assert!(printed(&good).ends_with("report.json\n") && printed(&good).contains("\npassed\n"));
    let summary = report(folder);
    assert!(
        summary["writesChecked"].as_u64().is_some_and(|n| n > 5),
        "{summary}"
    );
    assert!(
        summary["confirmedChecked"].as_u64().is_some_and(|n| n > 0),
        "{summary}"
    );
    assert!(
        summary["slotsChecked"].as_u64().is_some_and(|n| n > 0),
        "{summary}"
    );
    assert!(summary["statuses"]["400"].is_u64() || summary["statuses"]["404"].is_u64());
    let page = std::fs::read_to_string(folder.join("report.html")).expect("a page");
    assert!(page.contains("passed") && page.contains("Time to confirm"));
    assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("src="));

    // Intended refusals of careless clients are counted separately; there are no others.
    assert!(page.contains("intended refusals"));
    let moments = summary["moments"].as_array().expect("seconds");
    for moment in moments {
        let statuses = moment["statuses"].as_object().expect("statuses");
        let refused = statuses
            .iter()
            .filter(|(status, _)| status.starts_with('4') && *status != "429");
        let refused: u64 = refused.filter_map(|(_, n)| n.as_u64()).sum();
        assert_eq!(moment["intendedRefusals"], refused, "{moment}");
    }
    let url = format!("file://{}", folder.join("report.html").display());
    for view in screenshots(&url, folder) {
        let (page, window) = (view["page"].as_u64(), view["window"].as_u64());
        assert!(page.is_some() && page <= window, "{view}");
        assert_eq!(view["overlapping"], json!([]), "no label overlaps another");
        assert_eq!(view["asked"], json!([url]), "the page loads nothing else");
        assert_eq!(view["errors"], json!([]));
        let smallest = view["smallest_text"].as_f64();
        assert!(smallest.is_some_and(|pixels| pixels >= 11.0), "{view}");
    }
    assert_endpoints_add_up(&summary, &page);
    assert_server_was_sampled(&summary, &page);
    assert_charts_have_tooltips(&url, moments.len());

    let mut earlier = summary;
    for (name, writes, millis) in [("slower.json", 0.001, 1e6), ("faster.json", 1e6, 1e6)] {
        earlier["writesPerSecond"] = json!(writes);
        for times in ["accept", "confirm"] {
            for percentile in ["p50", "p90", "p99"] {
                earlier[times][percentile] = json!(millis);
            }
        }
        std::fs::write(folder.join(name), earlier.to_string()).expect("written");
    }
    for (limits, more, code, part) in [
        (
            "accept_p99 = \"1us\"",
            &["--rate", "10"][..],
            1,
            "FAIL  time to accept, p99",
        ),
        (
            "",
            &["--baseline", "slower.json"],
            0,
            "ok    writes in a second, against the baseline",
        ),
        (
            "",
            &["--baseline", "slower.json", "--users", "5"],
            1,
            "FAIL  how the run was made, against the baseline",
        ),
        (
            "",
            &["--baseline", "faster.json"],
            1,
            "FAIL  writes in a second, against the baseline",
        ),
        ("accept_p99 = \"soon\"", &[], 2, "write times as in"),
        ("accept_p98 = \"1s\"", &[], 2, "accept_p98"),
    ] {
        let output = run_with_own_server(folder, limits, BINARY, more);
        let printed = printed(&output);
        assert_eq!(output.status.code(), Some(code), "{printed}");
        assert!(printed.contains(part), "{printed}");
    }
}

/// The page and the summary have a row for each endpoint, and the counts of the rows add up to those of all answers.
fn assert_endpoints_add_up(summary: &Value, page: &str) {
    let rows = summary["endpoints"].as_array().expect("rows");
    let names: Vec<String> = rows
        .iter()
        .map(|row| {
            [&row["method"], &row["route"]]
                .map(|part| part.as_str().expect("text"))
                .join(" ")
        })
        .collect();
    assert_eq!(
        names,
        [
            "GET /locks/{id}/writes/{writeId}",
            "POST /locks/{id}/WriteKey"
        ]
    );
    for (row, name) in rows.iter().zip(&names) {
        assert!(page.contains(&format!("<td>{name}<td")), "{name}");
        let times = ["p50", "p95", "p99", "max"].map(|name| row[name].as_f64().expect("a time"));
        assert!(times[0] > 0.0 && times.is_sorted(), "{row}");
        assert!(
            row["perSecond"].as_f64().is_some_and(|rate| rate > 0.0),
            "{row}"
        );
    }
    let sum = |member: &str| -> u64 { rows.iter().filter_map(|row| row[member].as_u64()).sum() };
    let statuses = summary["statuses"].as_object().expect("statuses");
    let count_of = |wanted: &dyn Fn(&str) -> bool| -> u64 {
        let found = statuses.iter().filter(|(status, _)| wanted(status));
        found.filter_map(|(_, n)| n.as_u64()).sum()
    };
    assert_eq!(sum("count"), count_of(&|_| true), "{summary}");
    let refused = count_of(&|status| status.starts_with('4') && status != "429");
    assert!(refused > 0, "there are careless clients: {summary}");
    assert_eq!(sum("intendedRefusals"), refused, "{summary}");
    assert_eq!(
        sum("failures"),
        count_of(&|_| true) - count_of(&|status| status == "200") - refused
    );
}

/// The page and the summary have the server's CPU and memory for each second.
fn assert_server_was_sampled(summary: &Value, page: &str) {
    let usage = &summary["serverUsage"];
    let samples = usage["samples"].as_array().expect("samples");
    assert!(!samples.is_empty(), "{usage}");
    let seconds: Vec<u64> = samples
        .iter()
        .filter_map(|sample| sample["second"].as_u64())
        .collect();
    assert!(
        seconds.len() == samples.len() && seconds.is_sorted(),
        "{usage}"
    );
    let max_resident = usage["maxResidentBytes"].as_u64().expect("memory");
    for sample in samples {
        let resident = sample["residentBytes"].as_u64().expect("memory");
        assert!((1_000_000..=max_resident).contains(&resident), "{usage}");
        assert!(
            sample["cpuCores"]
                .as_f64()
                .is_some_and(|cores| cores >= 0.0),
            "{usage}"
        );
    }
    assert!(
        usage["cpuSeconds"].as_f64().is_some_and(|used| used > 0.0),
        "{usage}"
    );
    assert!(page.contains("Server CPU, in cores that were busy") && !page.contains("Not sampled"));
}

/// Each chart shows its values by pointer, by keyboard, and without scripts.
fn assert_charts_have_tooltips(url: &str, seconds: usize) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let output = Command::new(root.join(".venv/bin/python"))
        .arg(root.join("tests/chart_tooltips.py"))
        .arg(url)
        .output()
        .expect("Python runs: scripts/test installs it");
    let errors = String::from_utf8_lossy(&output.stderr);
    let seen: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{errors}"));
    assert_eq!(seen["errors"], json!([]));
    let charts = seen["charts"].as_array().expect("charts");
    assert_eq!(
        charts.len(),
        2 * 7,
        "five line charts and two histograms, on two pages: {seen}"
    );
    for chart in charts {
        assert_eq!(
            (&chart["inside"], &chart["hidden"]),
            (&json!(true), &json!(true)),
            "{chart}"
        );
        for shown in [&chart["pointer"], &chart["focused"], &chart["keys"]["End"]] {
            assert!(
                shown.as_str().is_some_and(|text| text.contains('\n')),
                "{chart}"
            );
        }
        assert_eq!(chart["keys"]["Home"], chart["focused"], "{chart}");
    }
    let first = &charts[0]["keys"];
    for (key, second) in [("Home", 0), ("ArrowRight", 1), ("End", seconds - 1)] {
        let begin = format!("{second} s\nwrites accepted: ");
        let shown = first[key].as_str().expect("a tooltip");
        assert!(shown.starts_with(&begin), "{key}: {shown}");
    }
    let titles = seen["titles_without_scripts"].as_u64().expect("a number");
    assert!(
        titles >= 5 * u64::try_from(seconds).expect("few"),
        "{titles}"
    );
}

#[test]
fn a_server_that_loses_one_event_is_detected() {
    let folder = TempDir::new().expect("a folder");
    let faulty = env!("CARGO_BIN_EXE_keywright-loses-an-event");
    let output = run_with_own_server(folder.path(), "", faulty, &[]);
    assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
    let summary = report(folder.path());
    assert!(
        summary["missing"].as_u64().is_some_and(|n| n > 0),
        "{summary}"
    );
}

/// Starts a server, and writes its population to a folder. Returns the folders of the population and of the server.
fn running_server() -> (Program, [TempDir; 2]) {
    let folders = [(); 2].map(|()| TempDir::new().expect("a folder"));
    let program = Program::start(BINARY, folders[1].path(), &["--locks", "40"]);
    let population = json!({
        "firstLock": 1001, "locks": 40, "apiKeys": [program.api_key], "tokens": [program.token],
        "forgedToken": "not.a.token",
    });
    let file = folders[0].path().join("population.json");
    std::fs::write(file, population.to_string()).expect("written");
    (program, folders)
}

fn run_on(host: &str, folder: &Path, limits: &str, more: &[&str]) -> Output {
    let host = ["--host", host, "--population", "population.json"];
    run(folder, limits, &[&host, more].concat())
}

#[test]
fn a_server_that_dies_under_load_fails_the_run_with_a_report() {
    let (program, [folder, _data]) = running_server();
    let host = format!("http://{}", program.address);
    let pid = program.id().to_string();
    let killing = std::thread::spawn(|| {
        // Kill it once some writes have been answered, long before the end of the run.
        for _ in 0..6000 {
            if program.log().matches("SENT").count() >= 10 {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        program.kill();
    });
    let more = ["--rate", "10", "--span", "6s", "--server-pid", &pid];
    let output = run_on(&host, folder.path(), "", &more);
    killing.join().expect("killed");
    let printed = printed(&output);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert!(
        printed.contains("FAIL  the service answers after the load"),
        "{printed}"
    );
    let summary = report(folder.path());
    assert_eq!(summary["passed"], false);
    let last = summary["moments"].as_array().and_then(|all| all.last());
    assert!(
        last.is_some_and(|last| last["statuses"]["0"].is_u64()),
        "{summary}"
    );
    let write = &summary["endpoints"][1];
    assert_eq!(write["route"], "/locks/{id}/WriteKey");
    assert!(write["failures"].as_u64().is_some_and(|n| n > 0), "{write}");
    // Sampling ends with the process, and the report names the process id.
    let usage = &summary["serverUsage"];
    assert_eq!(usage["pid"].to_string(), pid);
    let samples = usage["samples"].as_array().expect("samples").len();
    let moments = summary["moments"].as_array().expect("seconds").len();
    assert!(samples < moments, "{samples} of {moments}");
}

#[test]
fn a_server_of_others_is_sampled_by_its_process_id() {
    let (program, [folder, _data]) = running_server();
    let host = format!("http://{}", program.address);
    let short = ["--users", "2", "--span", "2s"];
    let page = || std::fs::read_to_string(folder.path().join("report.html")).expect("a page");
    run_on(&host, folder.path(), "", &short);
    assert_eq!(report(folder.path())["serverUsage"], Value::Null);
    assert!(page().contains("Not sampled") && page().contains("--server-pid"));

    let pid = program.id().to_string();
    let output = run_on(
        &host,
        folder.path(),
        "",
        &[&short[..], &["--server-pid", &pid]].concat(),
    );
    let summary = report(folder.path());
    assert_eq!(
        summary["serverUsage"]["pid"].to_string(),
        pid,
        "{}",
        printed(&output)
    );
    assert_server_was_sampled(&summary, &page());

    // On Linux, process ids are at most 2^22.
    let missing = run_on(&host, folder.path(), "", &["--server-pid", "4294967295"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(
        printed(&missing).contains("/proc/4294967295/stat"),
        "{}",
        printed(&missing)
    );
}

#[test]
fn each_combination_of_adapters_can_be_tested() {
    let server = PostgresServer::shared();
    let database = server.database();
    for adapters in [
        &["--store", "memory", "--shadow", "volatile"][..],
        &["--shadow", "rest"],
        &["--shadow", "mqtt"],
        &["--store", "postgres", "--postgres", &database],
    ] {
        let folder = TempDir::new().expect("a folder");
        let output = run_with_own_server(folder.path(), "", BINARY, adapters);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{adapters:?}: {}",
            printed(&output)
        );
        let summary = report(folder.path());
        let slots = summary["slotsChecked"].as_u64();
        assert!(slots.is_some_and(|slots| slots > 0), "{adapters:?}");
        let slow = &summary["setting"]["faults"][2];
        assert_eq!((&slow["from"], &slow["until"]), (&json!(2.0), &json!(3.0)));
        let longest = summary["confirm"]["max"].as_f64();
        assert!(
            longest.is_some_and(|ms| ms >= 500.0),
            "{adapters:?}: {longest:?}"
        );
    }
}

#[test]
fn the_open_loop_detects_a_server_that_stalls() {
    let (program, [folder, _data]) = running_server();
    let host = format!("http://{}", program.address);
    // The limits of a release.
    let limits = include_str!("../../loadtest/limits.toml");
    let limits = limits.split("[default]").nth(1).expect("a table");
    let limits = limits.split('[').next().expect("its lines");
    let over = AtomicBool::new(false);
    let output = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                program.signal("STOP");
                std::thread::sleep(Duration::from_millis(200));
                program.signal("CONT");
                std::thread::sleep(Duration::from_millis(4800));
            }
        });
        let more = ["--rate", "20", "--span", "16s"];
        let output = run_on(&host, folder.path(), limits, &more);
        over.store(true, Ordering::Relaxed);
        output
    });
    let printed = printed(&output);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert!(printed.contains("FAIL  time to accept, p99"), "{printed}");
    // The stalls are the cause: in at least two seconds, the p99 is at least 80 ms above the median p99.
    let summary = report(folder.path());
    let moments = summary["moments"].as_array().expect("seconds");
    let p99s = moments.iter().map(|second| &second["accept"]["p99"]);
    let mut p99s: Vec<f64> = p99s
        .filter_map(Value::as_f64)
        .filter(|p99| *p99 > 0.0)
        .collect();
    p99s.sort_by(f64::total_cmp);
    let usual = p99s[p99s.len() / 2];
    let stalled = p99s.iter().filter(|p99| **p99 >= usual + 80.0).count();
    assert!(stalled >= 2, "{p99s:?}");
    // A remote server needs --allow-remote.
    let refused = run_on("http://192.0.2.1:80", folder.path(), "", &[]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--allow-remote"));
}
