//! `GET /metrics`: values, formats, and a fixed set of time series.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::harness::{Harness, VERY_SHORT_TIMEOUTS, eventually};
use crate::raw_http::raw;

/// The samples in OpenMetrics format, by name and labels.
async fn samples(harness: &Harness) -> BTreeMap<String, f64> {
    let request = harness.program.request("GET", "/metrics");
    let request = request.header(
        "Accept",
        "application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1",
    );
    let answer = request.send().await;
    assert_eq!(answer.status, 200);
    let content_type = answer.header("content-type").expect("a type");
    assert!(
        content_type.starts_with("application/openmetrics-text"),
        "{content_type}"
    );
    assert!(answer.text.ends_with("# EOF\n"), "{}", answer.text);
    let samples = answer.text.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').expect("a sample");
        (name.to_owned(), value.parse().expect("a number"))
    };
    samples.map(sample).collect()
}

fn value_of(samples: &BTreeMap<String, f64>, name: &str) -> f64 {
    samples.get(name).copied().unwrap_or_default()
}

#[tokio::test]
async fn requests_events_and_port_calls_are_counted() {
    let harness = Harness::new(&[]);
    let id = harness.write("k", Some(2)).await.write_id();
    harness.wait_for_state(&id, "SUCCEEDED").await;
    harness
        .program
        .request("GET", "/locks/123/details")
        .send()
        .await;
    harness.program.request("GET", "/no/such/path").send().await;
    let samples = samples(&harness).await;
    for (name, value) in [
        (
            r#"keywright_http_requests_total{route="/locks/{id}/WriteKey",status="200"}"#,
            1.0,
        ),
        (
            r#"keywright_http_requests_total{route="/locks/{id}/details",status="401"}"#,
            1.0,
        ),
        (
            r#"keywright_http_requests_total{route="other",status="404"}"#,
            1.0,
        ),
        ("keywright_accept_seconds_count", 1.0),
        ("keywright_confirm_seconds_count", 1.0),
        (r#"keywright_events_total{event="KeyWriteRequested"}"#, 1.0),
        (r#"keywright_events_total{event="KeyWriteConfirmed"}"#, 1.0),
        (r#"keywright_reports_total{outcome="recorded"}"#, 1.0),
        ("keywright_late_reports_total", 0.0),
        (
            r#"keywright_port_calls_total{port="shadow",call="put",outcome="ok"}"#,
            1.0,
        ),
        (
            r#"keywright_port_call_seconds_count{port="shadow",call="put"}"#,
            1.0,
        ),
    ] {
        assert_eq!(value_of(&samples, name), value, "{name} in {samples:#?}");
    }
    assert!(value_of(&samples, "keywright_accept_seconds_sum") > 0.0);
    let saved = r#"keywright_port_calls_total{port="store",call="save",outcome="ok"}"#;
    assert!(
        value_of(&samples, saved) >= 3.0,
        "prepare, commit and settle"
    );
}

#[tokio::test]
async fn open_writes_and_failed_port_calls_are_counted() {
    let mut arguments = VERY_SHORT_TIMEOUTS.to_vec();
    arguments.extend(["--virtual-locks", "off", "--confirm-within", "1s"]);
    arguments.extend(["--faults", "put@2=drop-answer,put@3=refuse"]);
    let harness = Harness::new(&arguments);
    harness.write("k1", Some(1)).await;
    harness.write("k2", Some(2)).await;
    assert_eq!(harness.write("k3", Some(3)).await.status, 502);
    let samples = eventually("open writes are counted as unconfirmed", || async {
        let samples = samples(&harness).await;
        (value_of(&samples, "keywright_unconfirmed_writes") == 2.0).then_some(samples)
    })
    .await;
    for (name, value) in [
        ("keywright_open_writes", 2.0),
        ("keywright_open_intents", 0.0),
        ("keywright_oldest_intent_age_seconds", 0.0),
        (
            r#"keywright_port_calls_total{port="shadow",call="put",outcome="unknown"}"#,
            1.0,
        ),
        (
            r#"keywright_port_calls_total{port="shadow",call="put",outcome="refused"}"#,
            1.0,
        ),
    ] {
        assert_eq!(value_of(&samples, name), value, "{name} in {samples:#?}");
    }
}

/// All time series of answers exist from the start, with the value 0.
#[tokio::test]
async fn no_answer_creates_a_time_series() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "a-secret-of-thirty-two-characters").expect("written");
    let secret = secret.to_str().expect("text");
    let harness = Harness::new(&[
        "--virtual-locks",
        "off",
        "--reports",
        "http",
        "--reports-secret",
        secret,
    ]);
    let before = samples(&harness).await;
    let request_series = |samples: &BTreeMap<String, f64>| {
        let names = samples.keys();
        let names = names.filter(|name| name.starts_with("keywright_http_requests_total"));
        names.cloned().collect::<BTreeSet<String>>()
    };
    let known = request_series(&before);
    let document = harness.program.get("/openapi.json").send().await.body;
    let paths = document["paths"].as_object().expect("paths");
    assert!(paths.contains_key("/device-reports"), "{paths:?}");
    for (path, operations) in paths {
        let operations = operations.as_object().expect("operations");
        for (method, operation) in operations {
            let is_another_method = method != "get" && operations.contains_key("get");
            let route = match is_another_method {
                true => format!("{} {path}", method.to_uppercase()),
                false => path.clone(),
            };
            let statuses = operation["responses"].as_object().expect("responses");
            // The path of a too large request head is unknown; it counts as `other`.
            for status in statuses.keys().filter(|status| *status != "431") {
                let series = format!(
                    "keywright_http_requests_total{{route=\"{route}\",status=\"{status}\"}}"
                );
                assert!(known.contains(&series), "{series}");
            }
        }
    }
    let paths = [
        "/healthz",
        "/readyz",
        "/metrics",
        "/openapi.json",
        "/docs",
        "/docs/scalar.js",
        "/device-reports",
        "/locks/123/WriteKey",
        "/locks/123/details",
        "/locks/123/events",
        "/locks/123/writes",
        "/locks/123/writes/7",
        "/nowhere",
        "*",
    ];
    for path in paths {
        for method in ["GET", "HEAD", "POST", "DELETE", "OPTIONS", "PATCH"] {
            for headers in [
                "Host: a",
                "Host: a\r\nHost: b",
                "Host: a\r\nTransfer-Encoding: gzip, chunked",
                "Host: a\r\nContent-Encoding: gzip\r\nContent-Length: 0",
                "Host: a\r\nAuthorization: Bearer x",
                "Host: a\r\nContent-Length: 1000000",
                "no colon",
            ] {
                let request =
                    format!("{method} {path} HTTP/1.1\r\n{headers}\r\nConnection: close\r\n\r\n");
                let answer = raw(&harness, request.as_bytes()).await;
                assert!(answer.starts_with("HTTP/1.1 "), "{request}: {answer}");
            }
        }
    }
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(20_000));
    assert!(
        raw(&harness, long.as_bytes())
            .await
            .starts_with("HTTP/1.1 431 ")
    );
    let after = samples(&harness).await;
    let new: Vec<String> = request_series(&after).difference(&known).cloned().collect();
    assert!(new.is_empty(), "{new:?}");
    for (route, status) in [
        ("other", 431),
        ("other", 400),
        ("OPTIONS", 204),
        ("/device-reports", 401),
        ("/openapi.json", 501),
    ] {
        let name =
            format!("keywright_http_requests_total{{route=\"{route}\",status=\"{status}\"}}");
        assert!(value_of(&after, &name) > value_of(&before, &name), "{name}");
    }
    assert!(value_of(&after, "keywright_connections_total") > 500.0);
}

/// The Python library prometheus_client parses the OpenMetrics output and finds as many families and samples as it contains.
#[tokio::test]
async fn prometheus_client_parses_the_openmetrics_format() {
    let harness = Harness::new(&[]);
    let id = harness.write("k", Some(2)).await.write_id();
    harness.wait_for_state(&id, "SUCCEEDED").await;
    let accept = "application/openmetrics-text";
    let request = harness.program.get("/metrics").header("Accept", accept);
    let answer = request.send().await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut python = Command::new(root.join("../.venv/bin/python"));
    python.arg(root.join("check_openmetrics.py"));
    let output = run_with_stdin(python, &answer.text);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let printed = String::from_utf8_lossy(&output.stdout);
    let (families, found) = printed.trim().split_once(' ').expect("two numbers");
    let family_count = answer.text.matches("# HELP ").count();
    assert_eq!(families.parse(), Ok(family_count), "{printed}");
    assert_eq!(
        found.parse(),
        Ok(samples(&harness).await.len()),
        "{printed}"
    );
    // Without `# EOF`, the parser fails.
    let mut python = Command::new(root.join("../.venv/bin/python"));
    python.arg(root.join("check_openmetrics.py"));
    let unfinished = answer.text.trim_end_matches("# EOF\n");
    assert!(!run_with_stdin(python, unfinished).status.success());
}

/// Runs a tool with this text on standard input.
fn run_with_stdin(mut tool: Command, text: &str) -> Output {
    let tool = tool
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut tool = tool.expect("the tool is installed: scripts/test does that");
    let mut stdin = tool.stdin.take().expect("piped");
    stdin.write_all(text.as_bytes()).expect("written");
    drop(stdin);
    tool.wait_with_output().expect("the tool ends")
}

#[tokio::test]
async fn promtool_accepts_the_text_format_and_known_series_start_at_zero() {
    let harness = Harness::silent();
    let answer = harness.program.request("GET", "/metrics").send().await;
    assert_eq!(
        answer.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    for series in [
        r#"keywright_http_requests_total{route="/locks/{id}/WriteKey",status="502"} 0"#,
        r#"keywright_events_total{event="KeyWriteFailed"} 0"#,
        r#"keywright_reports_total{outcome="contradiction"} 0"#,
        r#"keywright_shed_requests_total{why="in_flight"} 0"#,
        r#"keywright_port_calls_total{port="store",call="save",outcome="unavailable"} 0"#,
        "keywright_contradictions_total 0",
        "keywright_dropped_log_lines_total 0",
        "keywright_omitted_reports_total 0",
    ] {
        assert!(answer.text.lines().any(|line| line == series), "{series}");
    }
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]);
    let output = run_with_stdin(promtool, &answer.text);
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed);
    assert!(output.status.success() && printed.is_empty(), "{printed}");
}

#[tokio::test]
async fn the_operating_guide_describes_every_metric() {
    let harness = Harness::silent();
    let answer = harness.program.request("GET", "/metrics").send().await;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operating.md");
    let guide = std::fs::read_to_string(path).expect("docs/operating.md");
    let types = answer.text.lines();
    let types = types.filter_map(|line| line.strip_prefix("# TYPE "));
    let names: Vec<&str> = types.filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains(&"keywright_open_writes"), "{}", answer.text);
    for name in names {
        // A row of the table: the name, maybe with labels.
        let is_described = ["`", "{"].map(|end| guide.contains(&format!("\n| `{name}{end}")));
        assert!(is_described.contains(&true), "{name} is not described");
    }
}
