//! The server with the AWS SDK adapter against `keywright shadow --rest`, and reports posted by an AWS IoT rule.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use keywright_mqtt::mosquitto::Mosquitto;
use keywright_mqtt::{Broker, Handler, Message, Session, SessionOptions, TlsFiles};
use keywright_shadow::mqtt::Topic;
use keywright_tests::{Answer, Program, Request, Shadows};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::harness::{BINARY, LOCK, SHORT_TIMEOUTS, log_with};

/// Settings of the AWS SDK. Our REST service does not check the credentials.
pub(crate) const ENVIRONMENT: [(&str, &str); 4] = [
    ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
    ("AWS_SECRET_ACCESS_KEY", "secret"),
    ("AWS_REGION", "eu-west-1"),
    ("AWS_EC2_METADATA_DISABLED", "true"),
];

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn server(folder: &TempDir, shadows: &Shadows, arguments: &[&str]) -> Program {
    let endpoint = format!("http://{}", shadows.rest.expect("REST is served"));
    let mut all = vec!["--shadow", "aws", "--aws-endpoint", &endpoint];
    all.extend(SHORT_TIMEOUTS);
    all.extend(arguments);
    Program::start_with(BINARY, Path::new("."), folder.path(), &all, &ENVIRONMENT)
}

async fn write(program: &Program, key: &str, wait: u64) -> Answer {
    let body = json!({ "keyUuid": key, "keyIndexNumber": 1 });
    let request = program.write_key(LOCK, &body);
    request
        .header("Prefer", &format!("wait={wait}"))
        .send()
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_over_the_sdk_is_confirmed_by_polling() {
    let folders = [(); 2].map(|()| TempDir::new().expect("a folder"));
    let rest = ["--rest", "127.0.0.1:0", "--behaviour", "all:latency=10ms"];
    let shadows = Shadows::start(BINARY, "sandbox", folders[0].path(), &rest);
    let poll = ["--reports", "poll", "--poll-every", "300ms"];
    let program = server(&folders[1], &shadows, &poll);
    assert_eq!(program.request("GET", "/readyz").send().await.status, 200);
    let answer = write(&program, "my-key", 20).await;
    assert_eq!(answer.body["write"]["state"], "SUCCEEDED", "{answer:?}");
    // When the service is gone, the update was certainly not applied.
    shadows.kill();
    let answer = write(&program, "another-key", 0).await;
    assert_eq!(
        (answer.status, &answer.body["reason"]),
        (502, &json!("Unavailable")),
        "{answer:?}"
    );
}

/// Receives the messages that AWS IoT's rules engine would receive.
struct Rule(UnboundedSender<Value>);

impl Handler for Rule {
    fn connected(&mut self, _: u64) {}

    fn disconnected(&mut self, _: u64, _: &str) {}

    fn message_received(&mut self, message: Message) {
        let topic = Topic::parse(message.topic()).expect("a shadow's topic");
        let mut documents: Value = serde_json::from_slice(message.payload()).expect("JSON");
        // SELECT *, topic(3) AS thing
        documents["thing"] = topic.thing.into();
        let _ = self.0.send(documents);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_posted_by_a_rule_settles_its_write_and_needs_the_secret() {
    let (broker, folders) = (
        Mosquitto::start(),
        [(); 2].map(|()| TempDir::new().expect("a folder")),
    );
    let url = broker.url().to_string();
    let both = [
        "--rest",
        "127.0.0.1:0",
        "--broker",
        &url,
        "--behaviour",
        "all:latency=10ms",
    ];
    let shadows = Shadows::start(BINARY, "sandbox", folders[0].path(), &both);
    let secret = folders[1].path().join("secret");
    std::fs::write(&secret, format!("{SECRET}\n")).expect("written");
    let secret = secret.display().to_string();
    let program = server(
        &folders[1],
        &shadows,
        &["--reports", "http", "--reports-secret", &secret],
    );

    let (tx, mut rx) = unbounded_channel();
    let options = SessionOptions {
        client_id: "rule".into(),
        filters: vec!["$aws/things/+/shadow/name/keys/update/documents".into()],
        persistent_session: false,
        manual_acks: false,
    };
    let at = Broker::new(broker.url(), &TlsFiles::default()).expect("a broker");
    let session = Session::start(at, options, Rule(tx));
    session
        .connection_within(Duration::from_secs(10))
        .await
        .expect("connected");

    let answer = write(&program, "my-key", 0).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let id = answer.write_id();
    let report = loop {
        let documents = rx.recv().await.expect("a message");
        if documents["current"]["state"]["reported"]["writeKeyResult"][&id].is_object() {
            break documents;
        }
    };
    let post = |body: &Value| Request::new(program.address, "POST", "/device-reports").json(body);
    for (request, status) in [
        (post(&report), 401),
        (post(&report).bearer("wrong"), 401),
        (
            post(&report).header("Authorization", &format!("Basic {SECRET}")),
            401,
        ),
        (post(&report).bearer(&program.token), 401),
        (post(&json!({ "thing": "x" })).bearer(SECRET), 400),
        (
            Request::new(program.address, "GET", "/device-reports").bearer(SECRET),
            405,
        ),
    ] {
        let answer = request.send().await;
        assert_eq!(answer.status, status, "{answer:?}");
    }
    let path = format!("/locks/{LOCK}/writes/{id}");
    assert_eq!(program.get(&path).send().await.body["state"], "SENT");
    // A rule may post a message twice.
    for _ in 0..2 {
        let answer = post(&report).bearer(SECRET).send().await;
        assert_eq!(
            (answer.status, &answer.body["success"]),
            (200, &json!(true)),
            "{answer:?}"
        );
    }
    assert_eq!(program.get(&path).send().await.body["state"], "SUCCEEDED");
    let events = program.get(&format!("/locks/{LOCK}/events")).send().await;
    assert_eq!(events.body["totalEvents"], 4, "the report counts once");

    // AWS asks for a confirmation of this destination; the log shows the URL to the operator.
    let enable = "https://iot.eu-west-1.amazonaws.com/confirmdestination/abc";
    let confirm = |url: &str| {
        post(&json!({ "messageType": "DestinationConfirmation", "enableUrl": url }))
            .header("x-amz-rules-engine-message-type", "DestinationConfirmation")
    };
    assert_eq!(confirm(enable).send().await.status, 200);
    assert_eq!(
        confirm(enable).send().await.status,
        503,
        "confirmations are rate-limited"
    );
    assert_eq!(confirm("https://example.com/x").send().await.status, 400);
    let log = log_with(&program, &[enable]).await;
    assert!(!log.contains("example.com"), "{log}");
    assert!(!log.contains(SECRET));
}

#[tokio::test(flavor = "multi_thread")]
async fn device_reports_are_404_without_the_http_adapter() {
    let folder = TempDir::new().expect("a folder");
    let program = Program::start(BINARY, folder.path(), &[]);
    let answer = program
        .request("POST", "/device-reports")
        .bearer(SECRET)
        .json(&json!({}));
    assert_eq!(answer.send().await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_shadow_service_is_a_502_with_a_reason() {
    let folders = [(); 2].map(|()| TempDir::new().expect("a folder"));
    let rest = ["--rest", "127.0.0.1:0", "--requests-a-second", "0"];
    let shadows = Shadows::start(BINARY, "shadow", folders[0].path(), &rest);
    let program = server(&folders[1], &shadows, &[]);
    // The shadow cannot be created, so that no intent is prepared.
    let answer = write(&program, "my-key", 0).await;
    assert_eq!(
        (answer.status, &answer.body["reason"]),
        (502, &json!("Throttled")),
        "{answer:?}"
    );
    let events = program.get(&format!("/locks/{LOCK}/events")).send().await;
    assert_eq!(events.body["totalEvents"], 2);
}

#[test]
fn missing_credentials_or_region_are_named() {
    let folder = TempDir::new().expect("a folder");
    let run = |command: &str, variables: &[(&str, &str)]| {
        let output = Command::new(BINARY)
            .args([command, "--listen", "127.0.0.1:0", "--shadow", "aws"])
            .arg("--data")
            .arg(folder.path())
            .env("HOME", folder.path())
            .envs(variables.iter().copied())
            .output()
            .expect("it runs");
        let printed = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), printed)
    };
    // Credentials may appear later, so that their absence is not an error of the settings.
    let (code, printed) = run("serve", &ENVIRONMENT[2..]);
    assert!(
        printed.contains("no AWS credentials were found"),
        "{printed}"
    );
    assert_eq!(code, Some(1));
    let without_region = [ENVIRONMENT[0], ENVIRONMENT[1], ENVIRONMENT[3]];
    for command in ["serve", "check-config"] {
        let (code, printed) = run(command, &without_region);
        assert_eq!(code, Some(2), "--aws-region is missing: {command}");
        assert!(printed.contains("no AWS region is known"), "{printed}");
        assert!(!printed.contains("panicked"));
    }
    let (code, printed) = run("check-config", &ENVIRONMENT);
    assert_eq!(code, Some(0), "{printed}");
}
