//! `GET /metrics`: what is counted is what happened.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::harness::{FAST, World, eventually};

/// Each sample by its name and labels.
async fn samples(world: &World) -> BTreeMap<String, f64> {
    let request = world.program.request("GET", "/metrics");
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

fn of(samples: &BTreeMap<String, f64>, name: &str) -> f64 {
    samples.get(name).copied().unwrap_or_default()
}

#[tokio::test]
async fn what_happens_is_counted() {
    let world = World::new(&[]);
    let id = world.write("k", Some(2)).await.write_id();
    world.until(&id, "SUCCEEDED").await;
    world
        .program
        .request("GET", "/locks/123/details")
        .send()
        .await;
    world.program.request("GET", "/no/such/path").send().await;
    let samples = samples(&world).await;
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
        assert_eq!(of(&samples, name), value, "{name} in {samples:#?}");
    }
    assert!(of(&samples, "keywright_accept_seconds_sum") > 0.0);
    let saved = r#"keywright_port_calls_total{port="store",call="save",outcome="ok"}"#;
    assert!(of(&samples, saved) >= 3.0, "prepare, commit and settle");
}

#[tokio::test]
async fn what_is_unfinished_and_what_goes_wrong_is_shown() {
    let mut arguments = FAST.to_vec();
    arguments.extend(["--virtual-locks", "off", "--confirm-within", "1s"]);
    arguments.extend(["--faults", "put@2=drop-answer,put@3=refuse"]);
    let world = World::new(&arguments);
    world.write("k1", Some(1)).await;
    world.write("k2", Some(2)).await;
    assert_eq!(world.write("k3", Some(3)).await.status, 502);
    let samples = eventually("open writes are counted as unconfirmed", || async {
        let samples = samples(&world).await;
        (of(&samples, "keywright_unconfirmed_writes") == 2.0).then_some(samples)
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
        assert_eq!(of(&samples, name), value, "{name} in {samples:#?}");
    }
}

#[tokio::test]
async fn promtool_finds_nothing_in_the_text_format_and_known_series_start_at_zero() {
    let world = World::silent();
    let answer = world.program.request("GET", "/metrics").send().await;
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
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("promtool is installed: scripts/test does that");
    let mut stdin = promtool.stdin.take().expect("piped");
    stdin.write_all(answer.text.as_bytes()).expect("written");
    drop(stdin);
    let output = promtool.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.is_empty(), "{said}");
}
