//! Webhooks: registration, deliveries, retries, secrets, refused addresses, and what is delivered when servers are killed.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use keywright_adapters::webhooks::{read_secret, sign};
use keywright_tests::{Answer, Delivery, FakeClock, Program, Reaction, Request, WebhookReceiver};
use serde_json::{Value, json};

use crate::harness::{BINARY, Harness, LOCK, eventually, log_with};
use crate::replica_environment::ReplicaEnvironment;

/// Short pauses, so that tests need not wait for the schedule of the contract.
const FAST: [&str; 6] = [
    "--virtual-locks",
    "off",
    "--webhook-retries",
    "100ms,100ms,200ms,200ms,200ms,200ms,200ms,200ms,200ms,200ms",
    "--webhook-timeout",
    "1s",
];

/// A request with the API key of the demo organization.
fn request(program: &Program, method: &str, path: &str) -> Request {
    program
        .request(method, path)
        .header("X-API-Key", &program.api_key)
}

async fn register(program: &Program, body: &Value) -> Value {
    let registered = request(program, "POST", "/webhooks")
        .json(body)
        .send()
        .await;
    assert_eq!(registered.status, 201, "{registered:?}");
    let id = registered.body["id"].as_str().expect("an id");
    assert_eq!(
        registered.header("location"),
        Some(&*format!("/webhooks/{id}"))
    );
    registered.body
}

fn id(webhook: &Value) -> &str {
    webhook["id"].as_str().expect("an id")
}

async fn read(program: &Program, webhook: &Value) -> Value {
    let answer = request(program, "GET", &format!("/webhooks/{}", id(webhook)))
        .send()
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

async fn post(program: &Program, webhook: &Value, action: &str, body: Option<Value>) -> Answer {
    let path = format!("/webhooks/{}/{action}", id(webhook));
    let request = request(program, "POST", &path);
    match body {
        Some(body) => request.json(&body).send().await,
        None => request.send().await,
    }
}

async fn patch(program: &Program, webhook: &Value, body: &Value) -> Answer {
    let path = format!("/webhooks/{}", id(webhook));
    request(program, "PATCH", &path).json(body).send().await
}

async fn deliveries(program: &Program, webhook: &Value, query: &str) -> Vec<Value> {
    let path = format!("/webhooks/{}/deliveries{query}", id(webhook));
    let answer = request(program, "GET", &path).send().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body["deliveries"]
        .as_array()
        .expect("a list")
        .clone()
}

/// Waits until the receiver has what `is_enough` wants, and returns it.
async fn received(
    receiver: &WebhookReceiver,
    what: &str,
    is_enough: impl Fn(&[Delivery]) -> bool,
) -> Vec<Delivery> {
    eventually(what, || async {
        let received = receiver.received();
        is_enough(&received).then_some(received)
    })
    .await
}

/// Whether the delivery is signed by this secret.
fn is_signed_by(delivery: &Delivery, secret: &str) -> bool {
    let secret = read_secret(secret).expect("a secret");
    let timestamp = delivery
        .header("webhook-timestamp")
        .parse()
        .expect("seconds");
    let expected = sign([&secret], delivery.id(), timestamp, &delivery.body);
    let signatures = delivery.header("webhook-signature");
    signatures.split(' ').any(|signature| signature == expected)
}

fn secret(webhook: &Value) -> &str {
    webhook["secret"].as_str().expect("a secret")
}

fn types(received: &[Delivery]) -> Vec<&str> {
    let names = received.iter().map(|d| d.envelope["detail-type"].as_str());
    names.map(|name| name.expect("a type")).collect()
}

#[tokio::test]
async fn events_are_delivered_signed_in_the_envelope_of_the_vendor() {
    let harness = Harness::new(&FAST);
    let receiver = WebhookReceiver::start().await;
    let arguments = json!({ "url": receiver.url(), "description": "the app" });
    let webhook = register(&harness.program, &arguments).await;
    assert!(secret(&webhook).starts_with("whsec_"));
    harness.write("k1", Some(2)).await;
    harness.write("k2", Some(2)).await;
    let got = received(&receiver, "three events", |got| got.len() == 3).await;
    let expected = [
        "KeyWriteRequested",
        "KeyWriteSuperseded",
        "KeyWriteRequested",
    ];
    assert_eq!(types(&got), expected);
    let document = harness
        .program
        .request("GET", "/openapi.json")
        .send()
        .await
        .body;
    for delivery in &got {
        assert!(is_signed_by(delivery, secret(&webhook)), "{delivery:?}");
        assert_eq!(delivery.header("content-type"), "application/json");
        let envelope = &delivery.envelope;
        assert_eq!(envelope["id"], delivery.id());
        let name = envelope["detail-type"].as_str().expect("a type");
        let schema = &document["components"]["schemas"][format!("{name}Delivery")];
        assert_conforms(envelope, schema, name);
    }
    let feed = harness.program.get("/events?after=end").send().await;
    let first = &got[0].envelope;
    assert_eq!(first["id"], format!("{LOCK}-3"), "as in the feed: {feed:?}");
    assert_eq!(first["detail"]["data"]["keyUuid"], "k1");
    let shown = read(&harness.program, &webhook).await;
    assert_eq!(
        (&shown["status"], &shown["events"]),
        (&json!("enabled"), &json!(["*"]))
    );
    assert_eq!(
        (&shown["description"], &shown["orgId"]),
        (&json!("the app"), &json!("demo-org"))
    );
    assert_eq!(shown.get("secret"), None);
    eventually("the cursor is at the end", || async {
        (read(&harness.program, &webhook).await["lag"] == 0).then_some(())
    })
    .await;
    let recorded = deliveries(&harness.program, &webhook, "").await;
    assert_eq!(recorded.len(), 3);
    assert_eq!(
        (&recorded[0]["state"], &recorded[0]["httpStatus"]),
        (&json!("delivered"), &json!(200))
    );
    assert_eq!(recorded[0]["answer"], "done");
    let log = harness.program.log();
    assert!(!log.contains("whsec_"), "{log}");
    let metrics = harness.program.get("/metrics").send().await.text;
    let line = "keywright_webhook_deliveries_total{outcome=\"delivered\"} 3";
    assert!(metrics.contains(line), "{metrics}");
}

/// Checks types, constants, required and unknown members: what the schemas of deliveries use.
fn assert_conforms(value: &Value, schema: &Value, place: &str) {
    let is_type = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_u64(),
        Some("boolean") => value.is_boolean(),
        _ => true,
    };
    assert!(is_type, "{place}: {value} is not {}", schema["type"]);
    if let Some(constant) = schema.get("const") {
        assert_eq!(value, constant, "{place}");
    }
    for required in schema["required"].as_array().into_iter().flatten() {
        let name = required.as_str().expect("a name");
        assert!(value.get(name).is_some(), "{place} has no {name}: {value}");
    }
    for (name, member) in value.as_object().into_iter().flatten() {
        let known = schema["properties"].get(name);
        let known = known.unwrap_or_else(|| panic!("{place} has an unknown member {name}"));
        assert_conforms(member, known, &format!("{place}.{name}"));
    }
}

#[tokio::test]
async fn only_the_chosen_events_of_the_own_locks_are_delivered() {
    let harness = Harness::new(&FAST);
    let receiver = WebhookReceiver::start().await;
    let chosen =
        json!({ "url": receiver.url(), "events": ["KeyWriteSuperseded", "KeyWriteWithdrawn"] });
    let webhook = register(&harness.program, &chosen).await;
    harness.write("k1", Some(2)).await;
    harness.write("k2", Some(2)).await;
    let got = received(&receiver, "an event", |got| !got.is_empty()).await;
    assert_eq!(types(&got), ["KeyWriteSuperseded"]);
    // Lock 124 belongs to another organization. Its events come before that of lock 123.
    let owner = harness.token_of("another-user");
    for key in ["f1", "f2"] {
        let foreign = harness.program.request("POST", "/locks/124/WriteKey");
        let body = json!({ "keyUuid": key, "keyIndexNumber": 2 });
        let written = foreign.bearer(&owner).json(&body).send().await;
        assert_eq!(written.status, 200, "{written:?}");
    }
    harness.write("k3", Some(2)).await;
    let got = received(&receiver, "the next event", |got| got.len() == 2).await;
    assert!(
        got.iter()
            .all(|d| d.envelope["detail"]["data"]["lockId"] == LOCK)
    );
    let changed = patch(&harness.program, &webhook, &json!({ "events": ["*"] })).await;
    assert_eq!(changed.status, 200, "{changed:?}");
    harness.write("k4", Some(3)).await;
    let got = received(&receiver, "all events", |got| got.len() == 3).await;
    assert_eq!(types(&got)[2], "KeyWriteRequested");
}

#[tokio::test]
async fn webhooks_belong_to_organizations() {
    let harness = Harness::new(&FAST);
    let program = &harness.program;
    let receiver = WebhookReceiver::start().await;
    let body = json!({ "url": receiver.url() });
    let webhook = register(program, &body).await;
    let path = format!("/webhooks/{}", id(&webhook));
    let as_user = |method: &str, path: &str| program.request(method, path).bearer(&program.token);
    for (method, path) in [
        ("GET", "/webhooks".to_owned()),
        ("POST", "/webhooks".to_owned()),
        ("GET", path.clone()),
        ("DELETE", path.clone()),
        ("POST", format!("{path}/test")),
        ("GET", format!("{path}/deliveries")),
    ] {
        let refused = as_user(method, &path).json(&body).send().await;
        assert_eq!(refused.status, 403, "{method} {path}: {refused:?}");
        let nobody = program.request(method, &path).json(&body).send().await;
        assert_eq!(nobody.status, 401, "{method} {path}");
    }
    let other = issue_key(&harness, &["stranger"]).await;
    let as_other =
        |method: &str, path: &str| program.request(method, path).header("X-API-Key", &other);
    assert_eq!(as_other("GET", &path).send().await.status, 403);
    let none = as_other("GET", "/webhooks").send().await;
    assert_eq!((none.status, &none.body["webhooks"]), (200, &json!([])));
    assert_eq!(as_other("DELETE", "/webhooks/x").send().await.status, 404);
    let unknown = "/webhooks/00000000-0000-4000-8000-000000000000";
    assert_eq!(as_other("GET", unknown).send().await.status, 404);
    let super_key = issue_key(&harness, &["--super"]).await;
    let all = program
        .request("GET", "/webhooks")
        .header("X-API-Key", &super_key)
        .send()
        .await;
    assert_eq!(
        all.body["webhooks"].as_array().map(Vec::len),
        Some(1),
        "{all:?}"
    );
    let listed = request(program, "GET", "/webhooks").send().await;
    assert_eq!(listed.body["webhooks"][0]["id"], webhook["id"]);
    for _ in 1..20 {
        register(program, &body).await;
    }
    let refused = request(program, "POST", "/webhooks")
        .json(&body)
        .send()
        .await;
    assert_eq!(
        (refused.status, &refused.body["reason"]),
        (409, &json!("TooManyWebhooks"))
    );
    let removed = request(program, "DELETE", &path).send().await;
    assert_eq!(removed.status, 200, "{removed:?}");
    assert_eq!(request(program, "GET", &path).send().await.status, 404);
    register(program, &body).await;
}

/// Issues an API key, and waits until the server knows it.
async fn issue_key(harness: &Harness, holder: &[&str]) -> String {
    let mut command = Command::new(BINARY);
    command.args(["api-key", "issue"]).args(holder);
    command.arg("--data").arg(harness.folder.path());
    let output = command.output().expect("the program is there");
    assert!(output.status.success(), "{output:?}");
    let key = String::from_utf8(output.stdout)
        .expect("text")
        .trim()
        .to_owned();
    eventually("the key is valid", || async {
        let request = harness.program.request("GET", "/webhooks");
        let answer = request.header("X-API-Key", &key).send().await;
        (answer.status == 200).then_some(())
    })
    .await;
    key
}

#[tokio::test]
async fn urls_that_lead_to_forbidden_addresses_are_refused() {
    let harness = Harness::new(&FAST);
    for (url, part) in [
        ("http://app.example/", "https://"),
        ("ftp://app.example/", "https://"),
        ("https://me:secret@app.example/", "user name"),
        ("https://10.0.0.1/", "private"),
        ("https://192.168.1.1/", "private"),
        ("https://169.254.169.254/latest/meta-data", "link-local"),
        ("https://[::ffff:169.254.169.254]/", "link-local"),
        ("https://[fd00:ec2::254]/", "private"),
        ("https://100.100.100.200/", "carrier"),
        ("https://[64:ff9b::a9fe:a9fe]/", "link-local"),
        ("https://0.0.0.0/", "unspecified"),
        ("https://[::]/", "unspecified"),
        ("https://224.0.0.1/", "multicast"),
        ("https://2130706433/", "host"),
        ("https://nowhere.invalid/", "resolved"),
        ("nonsense", "form"),
    ] {
        let body = json!({ "url": url });
        let refused = request(&harness.program, "POST", "/webhooks")
            .json(&body)
            .send()
            .await;
        let text = refused.body["message"].as_str().unwrap_or_default();
        assert_eq!(refused.status, 400, "{url}: {refused:?}");
        assert!(
            text.contains(part) && !text.contains("secret"),
            "{url}: {text}"
        );
    }
    // Loopback is allowed in the sandbox, unless other networks are named.
    let strict = Harness::new(&["--virtual-locks", "off", "--webhook-allow", "10.0.0.0/8"]);
    for (url, status) in [
        ("https://10.1.2.3/", 201),
        ("https://127.0.0.1/", 400),
        ("http://localhost/", 400),
        ("https://localhost/", 400),
    ] {
        let body = json!({ "url": url });
        let answer = request(&strict.program, "POST", "/webhooks")
            .json(&body)
            .send()
            .await;
        assert_eq!(answer.status, status, "{url}: {answer:?}");
    }
}

/// The setting can forbid what was allowed at the registration, as a changed name would.
#[tokio::test]
async fn a_forbidden_address_and_a_redirect_are_shown_in_the_deliveries() {
    let harness = Harness::new(&FAST);
    let receiver = WebhookReceiver::start().await;
    receiver.react(|_| Reaction::Status(302));
    let webhook = register(&harness.program, &json!({ "url": receiver.url() })).await;
    harness.write("k1", Some(1)).await;
    let failed = eventually("a redirect is recorded", || async {
        deliveries(&harness.program, &webhook, "?state=failed")
            .await
            .pop()
    })
    .await;
    assert_eq!(
        (&failed["httpStatus"], &failed["state"]),
        (&json!(302), &json!("failed"))
    );
    assert!(failed["nextAttemptAt"].is_string(), "{failed}");
    let mut strict = FAST.to_vec();
    strict.extend(["--webhook-allow", "10.0.0.0/8"]);
    let harness = harness.restart(&strict);
    let refused = eventually("a refusal is recorded", || async {
        let failed = deliveries(&harness.program, &webhook, "?state=failed&limit=1").await;
        failed
            .into_iter()
            .find(|delivery| delivery["error"].is_string())
    })
    .await;
    let error = refused["error"].as_str().expect("a text");
    assert!(
        error.contains("127.0.0.1") && error.contains("loopback"),
        "{error}"
    );
}

#[tokio::test]
async fn failed_deliveries_are_tried_again_and_other_locks_do_not_wait() {
    let mut arguments = FAST.to_vec();
    arguments.extend(["--locks", "1"]);
    let harness = Harness::new(&arguments);
    let receiver = WebhookReceiver::start().await;
    let fails = |delivery: &Delivery| delivery.envelope["detail"]["data"]["lockId"] == LOCK;
    receiver.react(move |delivery| match fails(delivery) {
        true => Reaction::Status(500),
        false => Reaction::Status(204),
    });
    let webhook = register(&harness.program, &json!({ "url": receiver.url() })).await;
    harness.write("k1", Some(1)).await;
    harness.write("k2", Some(2)).await;
    received(&receiver, "two attempts", |got| got.len() >= 2).await;
    let other = harness
        .program
        .write_key(1001, &json!({ "keyUuid": "k" }))
        .send()
        .await;
    assert_eq!(other.status, 200, "{other:?}");
    received(&receiver, "the event of the other lock", |got| {
        got.iter().any(|delivery| !fails(delivery))
    })
    .await;
    for reaction in [
        Reaction::Hang,
        Reaction::Reset,
        Reaction::RetryAfter(429, 1),
    ] {
        let before = receiver.received().len();
        receiver.react(move |_| reaction);
        received(&receiver, "another attempt", |got| got.len() > before).await;
    }
    receiver.react(|_| Reaction::Status(200));
    let last = format!("{LOCK}-4");
    let got = received(&receiver, "the last event", |got| {
        got.iter().any(|d| d.id() == last && d.is_accepted())
    })
    .await;
    assert_in_order(&got);
    let failed = deliveries(&harness.program, &webhook, "?state=failed").await;
    assert!(
        failed.iter().any(|d| d["error"] == "no answer in time"),
        "{failed:?}"
    );
    assert!(failed.iter().any(|d| d["httpStatus"] == 429), "{failed:?}");
}

/// The deliveries that were accepted are in the order of the versions of each lock, and each further delivery of an event follows one
/// that was not accepted, unless `may_repeat`.
fn assert_in_order(received: &[Delivery]) {
    let mut versions: BTreeMap<u64, u64> = BTreeMap::new();
    for delivery in received.iter().filter(|d| d.is_accepted()) {
        let detail = &delivery.envelope["detail"];
        let lock = detail["data"]["lockId"].as_u64().expect("a lock");
        let version = detail["version"].as_u64().expect("a version");
        let last = versions.entry(lock).or_default();
        assert!(
            *last < version,
            "{}: {last} comes before {version}",
            delivery.id()
        );
        *last = version;
    }
}

#[tokio::test]
async fn refused_deliveries_are_final_and_410_disables() {
    let harness = Harness::new(&FAST);
    let receiver = WebhookReceiver::start().await;
    receiver.react(|_| Reaction::Status(404));
    let webhook = register(&harness.program, &json!({ "url": receiver.url() })).await;
    harness.write("k1", Some(1)).await;
    let rejected = eventually("it is recorded", || async {
        deliveries(&harness.program, &webhook, "?state=rejected")
            .await
            .pop()
    })
    .await;
    assert_eq!(rejected["httpStatus"], 404);
    receiver.react(|_| Reaction::Status(410));
    harness.write("k2", Some(2)).await;
    let disabled = eventually("it is disabled", || async {
        let webhook = read(&harness.program, &webhook).await;
        (webhook["status"] == "disabled").then_some(webhook)
    })
    .await;
    assert_eq!(disabled["disabledReason"], "gone");
    receiver.react(|_| Reaction::Status(200));
    harness.write("k3", Some(3)).await;
    let enabled = patch(&harness.program, &webhook, &json!({ "status": "enabled" })).await;
    assert_eq!(enabled.body["status"], "enabled", "{enabled:?}");
    let got = received(&receiver, "what it missed", |got| got.len() >= 4).await;
    let ids: Vec<&str> = got.iter().map(Delivery::id).collect();
    assert_eq!(
        ids,
        ["123-3", "123-4", "123-4", "123-5"],
        "404 is final, and 410 loses nothing"
    );
    let off = patch(&harness.program, &webhook, &json!({ "status": "disabled" })).await;
    assert_eq!(off.body["disabledReason"], "requested", "{off:?}");
}

#[tokio::test]
async fn both_secrets_sign_while_one_is_replaced() {
    let harness = Harness::new(&FAST);
    let receiver = WebhookReceiver::start().await;
    let webhook = register(&harness.program, &json!({ "url": receiver.url() })).await;
    let rotated = post(&harness.program, &webhook, "rotate-secret", None).await;
    assert_eq!(rotated.status, 200, "{rotated:?}");
    let again = post(&harness.program, &webhook, "rotate-secret", None).await;
    assert_eq!(
        (again.status, &again.body["reason"]),
        (409, &json!("RotatedRecently"))
    );
    harness.write("k1", Some(1)).await;
    let got = received(&receiver, "an event", |got| !got.is_empty()).await;
    for secret in [secret(&webhook), secret(&rotated.body)] {
        assert!(is_signed_by(&got[0], secret), "{:?}", got[0]);
    }
    let tested = post(&harness.program, &webhook, "test", None).await;
    assert_eq!(
        (tested.status, &tested.body["state"]),
        (200, &json!("delivered")),
        "{tested:?}"
    );
    assert_eq!(
        (&tested.body["type"], &tested.body["httpStatus"]),
        (&json!("WebhookTest"), &json!(200))
    );
    let got = receiver.received();
    assert_eq!(got[1].envelope["detail-type"], "WebhookTest");
    assert!(is_signed_by(&got[1], secret(&rotated.body)));
    receiver.react(|_| Reaction::Status(500));
    let tested = post(&harness.program, &webhook, "test", None).await;
    assert_eq!(
        (&tested.body["state"], &tested.body["httpStatus"]),
        (&json!("failed"), &json!(500))
    );
}

#[tokio::test]
async fn events_are_delivered_again_on_request_with_the_same_ids() {
    let harness = Harness::new(&FAST);
    let program = &harness.program;
    let receiver = WebhookReceiver::start().await;
    let before = program.get("/events?after=end").send().await.body["next"].clone();
    let webhook = register(program, &json!({ "url": receiver.url() })).await;
    for n in 0..3 {
        harness.write(&format!("k{n}"), Some(n)).await;
    }
    let ids = |got: &[Delivery]| -> Vec<String> { got.iter().map(|d| d.id().to_owned()).collect() };
    let got = received(&receiver, "three events", |got| got.len() == 3).await;
    let expected = ["123-3", "123-4", "123-5"];
    assert_eq!(ids(&got), expected);
    let replayed = post(
        program,
        &webhook,
        "replay",
        Some(json!({ "after": before })),
    )
    .await;
    assert_eq!(replayed.status, 200, "{replayed:?}");
    let got = received(&receiver, "three events again", |got| got.len() == 6).await;
    assert_eq!(ids(&got)[3..], expected);
    // The demo locks are older. The time is that of the first write.
    let since = got[0].envelope["detail"]["data"]["timestamp"].clone();
    let replayed = post(program, &webhook, "replay", Some(json!({ "since": since }))).await;
    assert_eq!(replayed.status, 200, "{replayed:?}");
    let again = |got: &[Delivery]| got.len() >= 9 && got.last().is_some_and(|d| d.id() == "123-5");
    let got = received(&receiver, "three events once more", again).await;
    assert!(
        ids(&got)[6..].ends_with(&expected.map(str::to_owned)),
        "{:?}",
        ids(&got)
    );
    let count = receiver.received().len();
    let one = post(
        program,
        &webhook,
        "replay",
        Some(json!({ "event": "123-4" })),
    )
    .await;
    assert_eq!(
        (one.status, &one.body["state"]),
        (200, &json!("delivered")),
        "{one:?}"
    );
    assert_eq!(ids(&receiver.received())[count..], ["123-4"]);
    for (body, status) in [
        (json!({ "event": "123-99" }), 404),
        (json!({ "event": "124-1" }), 404),
        (json!({ "after": "00000000000fffff" }), 400),
        (json!({}), 400),
    ] {
        let refused = post(program, &webhook, "replay", Some(body.clone())).await;
        assert_eq!(refused.status, status, "{body}: {refused:?}");
    }
}

#[tokio::test]
async fn a_webhook_whose_deliveries_all_fail_is_shown_as_failing_and_recovers() {
    let mut arguments = FAST.to_vec();
    arguments.extend(["--locks", "30"]);
    let harness = Harness::new(&arguments);
    let program = &harness.program;
    let receiver = WebhookReceiver::start().await;
    receiver.react(|_| Reaction::Status(503));
    let webhook = register(program, &json!({ "url": receiver.url() })).await;
    for lock in 1001..=1030 {
        let written = program
            .write_key(lock, &json!({ "keyUuid": "k" }))
            .send()
            .await;
        assert_eq!(written.status, 200);
    }
    eventually("it is shown as failing", || async {
        read(program, &webhook).await["failingSince"]
            .is_string()
            .then_some(())
    })
    .await;
    log_with(program, &["the deliveries of a webhook fail"]).await;
    // More attempts than the schedule has: nothing is given up, because all of them fail.
    received(&receiver, "many attempts", |got| got.len() > 150).await;
    let locks: BTreeSet<u64> = receiver
        .received()
        .iter()
        .map(|d| {
            d.envelope["detail"]["data"]["lockId"]
                .as_u64()
                .expect("a lock")
        })
        .collect();
    // A few locks whose deliveries fail do not keep others from being tried.
    assert!(locks.len() > 16, "{locks:?}");
    assert_eq!(
        deliveries(program, &webhook, "?state=given-up").await,
        [] as [Value; 0]
    );
    eventually("the metrics show it", || async {
        let metrics = program.get("/metrics").send().await.text;
        let fails = metrics.contains("keywright_failing_webhooks 1");
        let lags = metrics.contains("keywright_webhook_lag_events{organization=\"demo-org\"} ");
        (fails && lags).then_some(())
    })
    .await;
    receiver.react(|_| Reaction::Status(200));
    let got = received(&receiver, "all events", |got| {
        got.iter().filter(|d| d.is_accepted()).count() == 30
    })
    .await;
    assert_in_order(&got);
    eventually("it is no longer failing", || async {
        let webhook = read(program, &webhook).await;
        (webhook.get("failingSince").is_none() && webhook["lag"] == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_webhook_that_hangs_does_not_slow_others() {
    let harness = Harness::new(&["--virtual-locks", "off", "--locks", "20"]);
    let program = &harness.program;
    let (slow, fast) = (
        WebhookReceiver::start().await,
        WebhookReceiver::start().await,
    );
    slow.react(|_| Reaction::Hang);
    for receiver in [&slow, &fast] {
        register(program, &json!({ "url": receiver.url() })).await;
    }
    for lock in 1001..=1020 {
        let written = program
            .write_key(lock, &json!({ "keyUuid": "k" }))
            .send()
            .await;
        assert_eq!(written.status, 200);
    }
    // The other one needs 15 s for its first timeout.
    let begin = tokio::time::Instant::now();
    received(&fast, "all events", |got| got.len() == 20).await;
    assert!(
        begin.elapsed() < Duration::from_secs(10),
        "{:?}",
        begin.elapsed()
    );
    assert!(slow.received().len() <= 8, "at most eight at once");
}

/// The server is killed under load again and again, while the receiver fails in every way: each event arrives, in order, with its own id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_servers_lose_no_delivery() {
    let mut arguments = FAST.to_vec();
    arguments.extend(["--locks", "12"]);
    let mut harness = Harness::new(&arguments);
    let receiver = WebhookReceiver::start().await;
    let webhook = register(&harness.program, &json!({ "url": receiver.url() })).await;
    for round in 0..8 {
        // One of six deliveries fails, in one of three ways.
        receiver.react(|_| match fastrand::u32(0..18) {
            0 => Reaction::Status(500),
            1 => Reaction::Hang,
            2 => Reaction::Reset,
            _ => Reaction::Status(200),
        });
        for n in 0..36 {
            let body = json!({ "keyUuid": format!("k{round}-{n}"), "keyIndexNumber": round });
            let written = harness.program.write_key(1001 + n % 12, &body).send().await;
            assert_eq!(written.status, 200, "{written:?}");
        }
        if round == 4 {
            // It is down for a while.
            receiver.react(|_| Reaction::Status(503));
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..300))).await;
        harness = harness.restart(&arguments);
    }
    receiver.react(|_| Reaction::Status(200));
    let program = &harness.program;
    let expected = recorded_events(program, &webhook).await;
    eventually("all events are delivered", || async {
        let accepted = accepted_ids(&receiver.received());
        expected.is_subset(&accepted).then_some(())
    })
    .await;
    let got = receiver.received();
    assert_eq!(accepted_ids(&got), expected, "nothing else is delivered");
    assert_complete_and_in_order(&got, &webhook);
}

/// Each accepted delivery is signed, and comes after all earlier events of its lock since the registration, of which version 3 is the
/// first. Deliveries may be repeated.
fn assert_complete_and_in_order(received: &[Delivery], webhook: &Value) {
    let mut delivered: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    for delivery in received.iter().filter(|d| d.is_accepted()) {
        let detail = &delivery.envelope["detail"];
        assert_eq!(delivery.envelope["id"], delivery.id());
        assert!(is_signed_by(delivery, secret(webhook)));
        let lock = detail["data"]["lockId"].as_u64().expect("a lock");
        let version = detail["version"].as_u64().expect("a version");
        let earlier = delivered.entry(lock).or_default();
        let has_all_before = (3..version).all(|before| earlier.contains(&before));
        assert!(has_all_before, "{}: {earlier:?}", delivery.id());
        earlier.insert(version);
    }
}

/// Each of two replicas is killed under load: the other one takes the webhook over, and each event arrives in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_replicas_lose_no_delivery() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let mut arguments = FAST.to_vec();
    arguments.extend(["--locks", "6"]);
    let (environment, mut replicas) =
        ReplicaEnvironment::start(BINARY, folder.path(), &arguments, 2);
    let receiver = WebhookReceiver::start().await;
    receiver.react(|_| match fastrand::u32(0..12) {
        0 => Reaction::Status(500),
        1 => Reaction::Reset,
        _ => Reaction::Status(200),
    });
    let webhook = register(&replicas[0], &json!({ "url": receiver.url() })).await;
    let key = replicas[0].api_key.clone();
    for (round, killed) in [0, 1, 0, 1].into_iter().enumerate() {
        for n in 0..30 {
            let body = json!({ "keyUuid": format!("k{round}-{n}"), "keyIndexNumber": round });
            let path = format!("/locks/{}/WriteKey", 1001 + n % 6);
            let writing = Request::new(environment.nginx.address, "POST", &path);
            // A request that meets the kill may fail. What counts is what is recorded.
            let _ = writing.header("X-API-Key", &key).json(&body).send().await;
            if n == 15 {
                replicas[killed].kill_only();
            }
        }
        let address = Some(replicas[killed].address);
        replicas[killed] = environment.replica(BINARY, folder.path(), &arguments, killed, address);
    }
    receiver.react(|_| Reaction::Status(200));
    // What a killed replica left open is recorded when it is taken over.
    eventually("all events are delivered", || async {
        let expected = recorded_events(&replicas[0], &webhook).await;
        let accepted = accepted_ids(&receiver.received());
        (expected.len() > 100 && expected.is_subset(&accepted)).then_some(())
    })
    .await;
    assert_complete_and_in_order(&receiver.received(), &webhook);
}

fn accepted_ids(received: &[Delivery]) -> BTreeSet<String> {
    let accepted = received.iter().filter(|delivery| delivery.is_accepted());
    accepted.map(|delivery| delivery.id().to_owned()).collect()
}

/// The ids of all events of the organization that were recorded after the registration of the webhook, from the feed.
async fn recorded_events(program: &Program, webhook: &Value) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    let mut after = webhook["cursor"].as_str().expect("a cursor").to_owned();
    loop {
        let page = request(program, "GET", &format!("/events?limit=500&after={after}"))
            .send()
            .await;
        assert_eq!(page.status, 200, "{page:?}");
        let events = page.body["events"].as_array().expect("events");
        ids.extend(
            events
                .iter()
                .map(|e| e["id"].as_str().expect("an id").to_owned()),
        );
        let next = page.body["next"].as_str().expect("a cursor");
        if next == after {
            return ids;
        }
        after = next.to_owned();
    }
}

/// Runs a command against the server, and returns its exit code, output and errors.
async fn command(harness: &Harness, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(BINARY);
    let url = format!("http://{}", harness.program.address);
    command.args(arguments).args(["--url", &url]);
    command.args(["--api-key", &harness.program.api_key]);
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    let output = output.expect("no panic").expect("the program is there");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[tokio::test]
async fn the_command_manages_webhooks() {
    let harness = Harness::new(&FAST);
    let receiver = WebhookReceiver::start().await;
    let run = async |arguments: &[&str]| {
        let mut all = vec!["webhook"];
        all.extend(arguments);
        command(&harness, &all).await
    };
    let url = receiver.url();
    let chosen = "KeyWriteRequested,KeyWriteFailed";
    let (code, printed, errors) = run(&["add", &url, "--events", chosen]).await;
    assert_eq!(code, Some(0), "{errors}");
    let (id, secret) = printed.trim().split_once('\n').expect("an id and a secret");
    assert!(
        secret.starts_with("whsec_") && errors.contains("only time"),
        "{printed}{errors}"
    );
    let (_, listed, _) = run(&["list"]).await;
    assert!(
        listed.contains(id) && listed.contains(&url) && listed.contains("enabled"),
        "{listed}"
    );
    let (code, tested, _) = run(&["test", id]).await;
    assert!(
        code == Some(0) && tested.contains("WebhookTest"),
        "{tested}"
    );
    receiver.react(|_| Reaction::Status(404));
    let (code, tested, errors) = run(&["test", id]).await;
    assert!(
        code == Some(1) && tested.contains("404"),
        "{tested}{errors}"
    );
    harness.write("k1", Some(1)).await;
    eventually("the delivery is recorded", || async {
        let (_, records, _) = run(&["deliveries", id, "--state", "rejected"]).await;
        records.contains("123-3").then_some(())
    })
    .await;
    receiver.react(|_| Reaction::Status(200));
    let (code, replayed, _) = run(&["replay", id, "--event", "123-3"]).await;
    assert!(
        code == Some(0) && replayed.contains("delivered"),
        "{replayed}"
    );
    let (code, _, _) = run(&["replay", id, "--since", "2026-01-01T00:00:00Z"]).await;
    assert_eq!(code, Some(0));
    let (_, rotated, _) = run(&["rotate", id, "--json"]).await;
    let rotated: Value = serde_json::from_str(&rotated).expect("JSON");
    assert_ne!(rotated["secret"], secret);
    for (action, status) in [
        ("disable", "disabled"),
        ("enable", "enabled"),
        ("show", "enabled"),
    ] {
        let (code, shown, _) = run(&[action, id]).await;
        assert!(
            code == Some(0) && shown.contains(status),
            "{action}: {shown}"
        );
    }
    assert_eq!(run(&["remove", id]).await.0, Some(0));
    let (code, _, errors) = run(&["show", id]).await;
    assert!(code == Some(1) && errors.contains("404"), "{errors}");
}

/// A process that is killed when this is dropped.
struct ChildGuard(std::process::Child);

impl Drop for ChildGuard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The lines that a process prints.
fn lines_of(child: &mut std::process::Child) -> std::sync::Arc<std::sync::Mutex<Vec<String>>> {
    let output = child.stdout.take().expect("its output");
    let lines = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let kept = lines.clone();
    std::thread::spawn(move || {
        let reader = std::io::BufReader::new(output);
        for line in std::io::BufRead::lines(reader).map_while(Result::ok) {
            kept.lock().expect("no panic").push(line);
        }
    });
    lines
}

#[tokio::test]
async fn listen_delivers_events_to_a_local_program() {
    let harness = Harness::new(&FAST);
    let receiver = WebhookReceiver::start().await;
    let mut listen = Command::new(BINARY);
    listen.args([
        "listen",
        "--forward",
        &receiver.url(),
        "--events",
        "KeyWriteRequested",
    ]);
    listen.args(["--url", &format!("http://{}", harness.program.address)]);
    listen.args([
        "--api-key",
        &harness.program.api_key,
        "--after",
        "0000000000000000",
    ]);
    let listen = listen.stdout(std::process::Stdio::piped()).spawn();
    let mut listen = ChildGuard(listen.expect("started"));
    let lines = lines_of(&mut listen.0);
    let webhook = register(&harness.program, &json!({ "url": receiver.url() })).await;
    harness.write("k1", Some(1)).await;
    let got = received(&receiver, "both deliveries", |got| got.len() == 2).await;
    let printed = eventually("it prints the answer", || async {
        let lines = lines.lock().expect("no panic").clone();
        lines
            .iter()
            .any(|line| line.contains("123-3  KeyWriteRequested  200"))
            .then_some(lines)
    })
    .await;
    let own = printed[0].strip_prefix("the secret is ").expect("a secret");
    let (local, remote): (Vec<&Delivery>, Vec<&Delivery>) =
        got.iter().partition(|delivery| is_signed_by(delivery, own));
    assert_eq!((local.len(), remote.len()), (1, 1));
    assert!(is_signed_by(remote[0], secret(&webhook)));
    assert_eq!(
        local[0].envelope, remote[0].envelope,
        "the same body as a webhook's"
    );
    let (code, _, errors) =
        command(&harness, &["listen", "--forward", "https://app.example/"]).await;
    assert!(
        code == Some(2) && errors.contains("this machine"),
        "{errors}"
    );
}

/// The example receivers in four languages.
fn example_receivers() -> [(&'static str, Command); 4] {
    let path = |name: &str| {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/webhooks");
        root.join(name)
    };
    let mut python = Command::new("python3");
    python.arg(path("receiver.py"));
    let mut node = Command::new("node");
    node.arg(path("receiver.mjs"));
    // Debian's Go 1.19 is not on the PATH.
    let debian_go = std::path::Path::new("/usr/lib/go-1.19/bin/go");
    let mut go = Command::new(if debian_go.exists() {
        debian_go
    } else {
        std::path::Path::new("go")
    });
    go.arg("run")
        .arg(path("receiver.go"))
        .env("GO111MODULE", "off");
    let mut ruby = Command::new("ruby");
    ruby.arg(path("receiver.rb"));
    [
        ("Python", python),
        ("JavaScript", node),
        ("Go", go),
        ("Ruby", ruby),
    ]
}

/// Posts a delivery to a receiver, and returns the status of the answer.
async fn post_to(port: u16, headers: &[(&str, &str)], body: &str) -> u16 {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let mut request = Request::new(address, "POST", "/hook").body(body);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request.send().await.status
}

#[tokio::test]
async fn example_receivers_verify_and_deduplicate() {
    let harness = Harness::new(&FAST);
    let program = &harness.program;
    // It signs what the receivers must accept and refuse, with a secret that they know before the webhook is registered.
    for (language, mut command) in example_receivers() {
        let recorder = WebhookReceiver::start().await;
        let webhook = register(program, &json!({ "url": recorder.url() })).await;
        let started = command.arg("0").env("WEBHOOK_SECRET", secret(&webhook));
        let started = started.stdout(std::process::Stdio::piped()).spawn();
        let mut receiver =
            ChildGuard(started.expect("the language is installed: scripts/test does that"));
        let lines = lines_of(&mut receiver.0);
        let printed = |start: &'static str| {
            let lines = lines.clone();
            move || {
                let lines = lines.lock().expect("no panic").clone();
                let line = lines.into_iter().find(|line| line.starts_with(start));
                async move { line }
            }
        };
        let ready = eventually(&format!("{language} is ready"), printed("ready ")).await;
        let port: u16 = ready["ready ".len()..].trim().parse().expect("a port");

        // A real delivery, as another receiver got it.
        harness.write(&format!("k-{language}"), Some(1)).await;
        let got = received(&recorder, "an event", |got| !got.is_empty()).await;
        let original = &got[0];
        let body = String::from_utf8(original.body.clone()).expect("text");
        let names = ["webhook-id", "webhook-timestamp", "webhook-signature"];
        let headers = names.map(|name| (name, original.header(name)));
        assert_eq!(post_to(port, &headers, &body).await, 204, "{language}");
        assert_eq!(
            post_to(port, &headers, &body).await,
            204,
            "{language}: again"
        );
        let changed = body.replacen("spk.api", "spk.apj", 1);
        assert_eq!(
            post_to(port, &headers, &changed).await,
            401,
            "{language}: a changed byte"
        );
        assert_eq!(
            post_to(port, &headers[..2], &body).await,
            401,
            "{language}: no signature"
        );
        let old = "1000000000";
        let key = read_secret(secret(&webhook)).expect("a secret");
        let signature = sign([&key], original.id(), 1_000_000_000, body.as_bytes());
        let old = [
            headers[0],
            ("webhook-timestamp", old),
            ("webhook-signature", &signature),
        ];
        assert_eq!(
            post_to(port, &old, &body).await,
            401,
            "{language}: an old timestamp"
        );
        let wrong = keywright_adapters::webhooks::generate_secret();
        let now = original
            .header("webhook-timestamp")
            .parse()
            .expect("seconds");
        let signature = sign([&wrong], original.id(), now, body.as_bytes());
        let wrong = [headers[0], headers[1], ("webhook-signature", &*signature)];
        assert_eq!(
            post_to(port, &wrong, &body).await,
            401,
            "{language}: a wrong secret"
        );

        // Real deliveries, while the secret is being replaced.
        let rotated = post(program, &webhook, "rotate-secret", None).await;
        assert_eq!(rotated.status, 200);
        let url = format!("http://127.0.0.1:{port}/hook");
        assert_eq!(
            patch(program, &webhook, &json!({ "url": url }))
                .await
                .status,
            200
        );
        let replay = json!({ "after": webhook["cursor"] });
        assert_eq!(
            post(program, &webhook, "replay", Some(replay)).await.status,
            200
        );
        harness.write(&format!("l-{language}"), Some(1)).await;
        eventually(&format!("{language} has everything"), || async {
            (read(program, &webhook).await["lag"] == 0).then_some(())
        })
        .await;
        let printed = lines.lock().expect("no panic").clone();
        let ids: Vec<&str> = printed
            .iter()
            .skip(1)
            .filter_map(|line| line.split(' ').next())
            .collect();
        let unique: BTreeSet<&str> = ids.iter().copied().collect();
        assert_eq!(ids.len(), unique.len(), "{language}: {printed:?}");
        assert!(unique.len() >= 2, "{language}: {printed:?}");
        let path = format!("/webhooks/{}", id(&webhook));
        assert_eq!(request(program, "DELETE", &path).send().await.status, 200);
    }
}

/// With the schedule of the contract and a wall clock that the test sets forward.
#[tokio::test]
async fn a_receiver_that_was_down_for_two_days_gets_everything_and_after_five_the_webhook_is_disabled()
 {
    const HOUR: i64 = 3600;
    let (folder, clock) = (
        tempfile::TempDir::new().expect("a folder"),
        FakeClock::ahead_by(0),
    );
    let variables = clock.variables();
    let variables: Vec<(&str, &str)> = variables
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let arguments = ["--virtual-locks", "off", "--locks", "12"];
    let here = std::path::Path::new(".");
    let program = Program::start_with(BINARY, here, folder.path(), &arguments, &variables);
    let receiver = WebhookReceiver::start().await;
    receiver.react(|_| Reaction::Status(503));
    let webhook = register(&program, &json!({ "url": receiver.url() })).await;
    let write_all = async |key: &str| {
        for lock in 1001..=1012 {
            let body = json!({ "keyUuid": key, "keyIndexNumber": 1 });
            let path = format!("/locks/{lock}/WriteKey");
            let written = request(&program, "POST", &path).json(&body).send().await;
            assert_eq!(written.status, 200, "{written:?}");
        }
    };
    let fail_until = async |hours: std::ops::RangeInclusive<i64>| {
        for hour in hours {
            let before = receiver.received().len();
            clock.set(hour * HOUR);
            received(&receiver, "another attempt", |got| got.len() > before).await;
        }
    };
    write_all("first").await;
    fail_until(1..=24).await;
    write_all("second").await;
    fail_until(25..=48).await;
    let shown = read(&program, &webhook).await;
    assert_eq!(shown["status"], "enabled", "{shown}");
    assert!(shown["failingSince"].is_string(), "{shown}");
    receiver.react(|_| Reaction::Status(200));
    clock.set(49 * HOUR);
    let delivered = async |what: &str| {
        eventually(what, || async {
            let expected = recorded_events(&program, &webhook).await;
            let accepted = accepted_ids(&receiver.received());
            expected.is_subset(&accepted).then_some(())
        })
        .await;
    };
    delivered("everything of two days").await;
    assert_complete_and_in_order(&receiver.received(), &webhook);
    assert_eq!(
        deliveries(&program, &webhook, "?state=given-up").await,
        [] as [Value; 0]
    );

    receiver.react(|_| Reaction::Status(503));
    write_all("third").await;
    fail_until(50..=53).await;
    clock.set((50 + 5 * 24) * HOUR);
    let disabled = eventually("it is disabled", || async {
        let webhook = read(&program, &webhook).await;
        (webhook["status"] == "disabled").then_some(webhook)
    })
    .await;
    assert_eq!(disabled["disabledReason"], "failing");
    receiver.react(|_| Reaction::Status(200));
    let enabled = patch(&program, &webhook, &json!({ "status": "enabled" })).await;
    assert_eq!(enabled.status, 200, "{enabled:?}");
    delivered("what it missed while it was disabled").await;
    assert_complete_and_in_order(&receiver.received(), &webhook);
}
