//! The operators' page.

use std::process::Command;

use keywright_tests::{Answer, Program};
use serde_json::{Value, json};

use crate::harness::{BINARY, FOREIGN, Harness, LOCK, root};

/// The key of the sandbox's operator.
fn operator_key(program: &Program) -> &str {
    let link = program.banner.split_once("/admin/sign-in?key=");
    let key = link.and_then(|(_, rest)| rest.split_whitespace().next());
    key.expect("the banner has a link")
}

/// Signs in, and returns the cookie.
async fn sign_in(harness: &Harness, key: &str) -> String {
    let answer = post(harness, "/admin/sign-in", &format!("key={key}"), &[]).await;
    assert_eq!(answer.status, 303, "{answer:?}");
    let cookie = answer.header("set-cookie").expect("a cookie");
    assert!(cookie.contains("; HttpOnly; SameSite=Strict"), "{cookie}");
    cookie.split(';').next().expect("a value").to_owned()
}

async fn get(harness: &Harness, path: &str, cookie: &str) -> Answer {
    let request = harness.program.request("GET", path);
    request.header("Cookie", cookie).send().await
}

async fn post(harness: &Harness, path: &str, form: &str, headers: &[(&str, &str)]) -> Answer {
    let request = harness.program.request("POST", path).body(form);
    let headers = headers.iter();
    let request = headers.fold(request, |request, (name, value)| {
        request.header(name, value)
    });
    let content_type = "application/x-www-form-urlencoded";
    request.header("Content-Type", content_type).send().await
}

/// The hidden field of the forms of a page.
fn form_token(page: &Answer) -> String {
    let field = page.text.split_once("name=\"form_token\" value=\"");
    let token = field.and_then(|(_, rest)| rest.split('"').next());
    token
        .unwrap_or_else(|| panic!("no form: {page:?}"))
        .to_owned()
}

/// Runs `keywright operator` on the data folder of the server.
fn operator(harness: &Harness, arguments: &[&str]) -> String {
    let mut command = Command::new(BINARY);
    let data = harness.folder.path().to_str().expect("a path");
    command
        .arg("operator")
        .args(arguments)
        .args(["--data", data]);
    let output = command.output().expect("the program is there");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout)
        .expect("text")
        .trim()
        .to_owned()
}

/// A person signs in, finds a stuck write, reads why it is stuck, withdraws it and signs out. No view has a violation of accessibility
/// rules, or is wider than a phone.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_finds_and_withdraws_a_stuck_write() {
    let harness = Harness::silent();
    let write = harness.write("<script>alert(1)</script>", Some(2)).await;
    let write = write.write_id();
    let expires = harness.status(&write).await["expiresAt"].clone();
    let pictures = harness.folder.path().join("pictures");
    std::fs::create_dir(&pictures).expect("a folder");
    let url = format!("http://{}", harness.program.address);
    let python = root().join(".venv/bin/python");
    let mut command = Command::new(&python);
    command.arg(root().join("tests/admin_page.py"));
    command.args([url.as_str(), operator_key(&harness.program), &write]);
    command.arg(root().join(".npm/node_modules/axe-core/axe.min.js"));
    let output = command.arg(&pictures).output();
    let output =
        output.unwrap_or_else(|e| panic!("{}: {e}; scripts/test makes it", python.display()));
    let seen: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
        let text = String::from_utf8_lossy(&output.stderr);
        panic!("{text}; scripts/test installs chromium and axe-core")
    });
    let page = |path: &str| json!(format!("{url}{path}"));
    assert_eq!(seen["first"], page("/admin/sign-in"), "nobody is signed in");
    let certainty = seen["certainty"].as_str().expect("a text");
    let end = expires.as_str().expect("a time")[..19].replace('T', " ");
    assert!(certainty.contains(&format!("Until {end}")), "{certainty}");
    assert!(
        certainty.contains("on the shadow of the lock"),
        "{certainty}"
    );
    let steps = |name: &str| -> Vec<String> {
        let steps = seen[name].as_array().expect("steps").iter();
        let name = |step: &Value| step.as_str()?.split(' ').next().map(str::to_owned);
        steps.filter_map(name).collect()
    };
    assert_eq!(steps("steps"), ["PREPARED", "SENT", "Expires"]);
    assert_eq!(steps("after_steps"), ["PREPARED", "SENT", "WITHDRAWN"]);
    assert_eq!(seen["cookies"], json!([[true, "Strict", "/admin"]]));
    assert_eq!(seen["stolen"], page("/admin/sign-in"));
    assert_eq!(harness.status(&write).await["state"], "WITHDRAWN");
    let requests = seen["requests"].as_array().expect("requests");
    let is_own = |request: &&Value| request.as_str().is_some_and(|r| r.starts_with(&url));
    let others: Vec<&Value> = requests.iter().filter(|request| !is_own(request)).collect();
    assert!(others.is_empty(), "{others:?}");
    assert_eq!(seen["errors"], json!([]));
    let views = seen["views"].as_array().expect("views");
    assert_eq!(views.len(), 20);
    for view in views {
        assert_eq!(view["violations"], json!([]), "{view}");
        assert!(view["page"].as_u64() <= view["window"].as_u64(), "{view}");
    }
}

#[tokio::test]
async fn a_viewer_sees_everything_and_changes_nothing() {
    let harness = Harness::silent();
    let write = harness.write("k", Some(2)).await.write_id();
    let viewer = operator(&harness, &["add", "vera"]);
    let cookie = sign_in(&harness, &viewer).await;
    let path = format!("/admin/locks/{LOCK}/writes/{write}");
    let page = get(&harness, &path, &cookie).await;
    assert!(page.text.contains("vera (viewer)"), "{page:?}");
    assert!(!page.text.contains("Withdraw"), "{page:?}");
    // A lock of somebody else, too.
    assert_eq!(
        get(&harness, &format!("/admin/locks/{FOREIGN}"), &cookie)
            .await
            .status,
        200
    );
    let form = format!("form_token={}&confirmed=yes", form_token(&page));
    let headers = [("Cookie", cookie.as_str())];
    let refused = post(&harness, &format!("{path}/withdraw"), &form, &headers).await;
    assert_eq!(refused.status, 403, "{refused:?}");
    let audit = format!("/admin/locks/{LOCK}/audit");
    assert_eq!(get(&harness, &audit, &cookie).await.status, 200);
    assert_eq!(post(&harness, &audit, &form, &headers).await.status, 403);
    let log = get(&harness, "/admin/log", &cookie).await;
    let refusals = log.text.matches("the principal may not access the lock");
    assert_eq!(refusals.count(), 1, "{log:?}");
    assert_eq!(harness.status(&write).await["state"], "SENT");
    // The key is no credential of the API.
    let request = harness.program.request("GET", "/writes");
    assert_eq!(
        request.header("X-API-Key", &viewer).send().await.status,
        401
    );
    operator(&harness, &["remove", "vera"]);
    let page = get(&harness, &path, &cookie).await;
    assert_eq!(
        (page.status, page.header("location")),
        (303, Some("/admin/sign-in"))
    );
}

#[tokio::test]
async fn forms_of_other_sites_and_sessions_are_refused() {
    let harness = Harness::silent();
    let write = harness.write("k", Some(2)).await.write_id();
    let key = operator_key(&harness.program).to_owned();
    let (cookie, other) = (sign_in(&harness, &key).await, sign_in(&harness, &key).await);
    let page = format!("/admin/locks/{LOCK}/writes/{write}");
    let path = format!("{page}/withdraw");
    let own = form_token(&get(&harness, &page, &cookie).await);
    let others = form_token(&get(&harness, &page, &other).await);
    let host = harness.program.address.to_string();
    let own_origin = format!("http://{host}");
    let headers = [("Cookie", cookie.as_str()), ("Origin", own_origin.as_str())];
    for form in [
        String::new(),
        "form_token=".into(),
        format!("form_token={others}"),
    ] {
        let refused = post(&harness, &path, &form, &headers).await;
        assert_eq!(refused.status, 403, "{form}: {refused:?}");
    }
    let form = format!("form_token={own}");
    for origin in ["https://evil.example", "null", "http://127.0.0.1:1"] {
        let headers = [("Cookie", cookie.as_str()), ("Origin", origin)];
        assert_eq!(
            post(&harness, &path, &form, &headers).await.status,
            403,
            "{origin}"
        );
    }
    let without_cookie = post(&harness, &path, &form, &[]).await;
    assert_eq!(without_cookie.header("location"), Some("/admin/sign-in"));
    assert_eq!(harness.status(&write).await["state"], "SENT");
    let withdrawn = post(&harness, &path, &form, &headers).await;
    assert_eq!(
        (withdrawn.status, withdrawn.header("location")),
        (303, Some(page.as_str()))
    );
    assert_eq!(harness.status(&write).await["state"], "WITHDRAWN");
    let event = harness
        .program
        .get("/events?type=KeyWriteWithdrawn")
        .send()
        .await;
    let by = &event.body["events"][0]["cause"];
    assert!(by.to_string().contains("operator:sandbox"), "{by}");
    let log = get(&harness, "/admin/log", &cookie).await;
    assert!(log.text.contains("<td>withdraw</td>"), "{log:?}");
    assert!(
        log.text.contains(&write) && log.text.contains("<td>done</td>"),
        "{log:?}"
    );
    let audit = format!("/admin/locks/{LOCK}/audit");
    let audited = post(&harness, &audit, &form, &headers).await;
    assert!(
        audited.text.contains("exactly what the writes"),
        "{audited:?}"
    );
    // It has ended already.
    assert_eq!(post(&harness, &path, &form, &headers).await.status, 303);
}

#[tokio::test]
async fn wrong_keys_are_refused_and_limited() {
    let harness = Harness::new(&["--virtual-locks", "off", "--max-failures", "3"]);
    let mut statuses = Vec::new();
    for _ in 0..10 {
        let answer = post(&harness, "/admin/sign-in", "key=kwk_wrong", &[]).await;
        assert_eq!(answer.header("set-cookie"), None);
        statuses.push(answer.status);
    }
    assert_eq!(
        (&statuses[..3], statuses[9]),
        (&[401; 3][..], 429),
        "{statuses:?}"
    );
    let page = get(&harness, "/admin/writes", "keywright-operator=guessed").await;
    assert_eq!(page.header("location"), Some("/admin/sign-in"));
}

#[tokio::test]
async fn the_page_is_off_or_has_an_address_of_its_own() {
    let status =
        async |harness: &Harness, path| harness.program.request("GET", path).send().await.status;
    let off = Harness::new(&["--virtual-locks", "off", "--admin-listen", "off"]);
    assert_eq!(status(&off, "/admin").await, 404);
    assert_eq!(status(&off, "/admin/admin.css").await, 404);
    let own = Harness::new(&["--virtual-locks", "off", "--admin-listen", "127.0.0.1:0"]);
    assert_eq!(status(&own, "/admin").await, 404);
    let (_, rest) = own
        .program
        .banner
        .split_once("operators    http://")
        .expect("a link");
    let address = rest
        .split('/')
        .next()
        .expect("an address")
        .parse()
        .expect("an address");
    let get = async |path: &str| {
        keywright_tests::Request::new(address, "GET", path)
            .send()
            .await
            .status
    };
    assert_eq!(get("/admin/sign-in").await, 200);
    assert_eq!(get("/healthz").await, 200);
    for path in ["/locks", "/metrics", "/openapi.json", "/events"] {
        assert_eq!(get(path).await, 404, "{path}");
    }
}

#[tokio::test]
async fn failing_webhooks_are_shown_with_their_deliveries() {
    let harness = Harness::new(&[
        "--virtual-locks",
        "off",
        "--webhook-retries",
        "100ms,100ms,100ms",
    ]);
    let receiver = keywright_tests::WebhookReceiver::start().await;
    receiver.react(|_| keywright_tests::Reaction::Status(500));
    let body = json!({ "url": receiver.url(), "description": "<b>door</b>" });
    let request = harness.program.request("POST", "/webhooks").json(&body);
    let request = request.header("X-API-Key", &harness.program.api_key);
    let webhook = request.send().await;
    assert_eq!(webhook.status, 201, "{webhook:?}");
    harness.write("k", Some(1)).await;
    let viewer = operator(&harness, &["add", "vera"]);
    let cookie = sign_in(&harness, &viewer).await;
    let mut list = get(&harness, "/admin/webhooks", &cookie).await;
    for _ in 0..300 {
        if list.text.contains(">failing<") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        list = get(&harness, "/admin/webhooks", &cookie).await;
    }
    assert!(list.text.contains(">failing<"), "{list:?}");
    let id = webhook.body["id"].as_str().expect("an id");
    let page = get(&harness, &format!("/admin/webhooks/{id}"), &cookie).await;
    for shown in [
        "<td>500</td>",
        "<td>failed</td>",
        "KeyWriteRequested",
        "&lt;b&gt;door&lt;/b&gt;",
        "tried again later</dt><dd>1</dd>",
    ] {
        assert!(page.text.contains(shown), "{shown}: {page:?}");
    }
}
