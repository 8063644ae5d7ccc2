//! A token issuer that publishes its keys at a URL, rotates them, and has outages.

use std::path::Path;

use keywright_adapters::time::SystemClock;
use keywright_domain::ports::Clock;
use keywright_testkit::issuer::{Issuer, IssuerResponse};
use keywright_tests::{Answer, Program};
use serde_json::json;

use crate::harness::{BINARY, eventually};

fn start(data: &Path, url: &str) -> Program {
    let mut arguments = vec!["--sandbox", "off", "--jwks", url, "--jwks-every", "300ms"];
    arguments.extend(["--token-issuer", "https://id.example"]);
    arguments.extend(["--token-audience", "locks"]);
    Program::start(BINARY, data, &arguments)
}

/// Sends a request with a token signed by this key. A valid token gets 404, because the lock does not exist.
async fn send(program: &Program, issuer: &Issuer, key: &str) -> Answer {
    let claims = json!({
        "iss": "https://id.example", "aud": "locks", "sub": "alice",
        "exp": SystemClock.now().as_secs() + 60,
    });
    let request = program.request("GET", "/locks/123/details");
    request.bearer(&issuer.token(key, &claims)).send().await
}

async fn wait_for_status(status: u16, program: &Program, issuer: &Issuer, key: &str) {
    eventually("the keys are reloaded", || async {
        let answer = send(program, issuer, key).await;
        (answer.status == status).then_some(())
    })
    .await;
}

#[tokio::test]
async fn issuer_keys_rotate_without_a_restart_and_stay_valid_during_an_outage() {
    let (issuer, data) = (Issuer::start(None).await, tempfile::tempdir());
    let data = data.expect("a folder");
    issuer.publish(&["one"]);
    issuer.respond_with(IssuerResponse::Disconnect);
    // The server starts without the keys: it cannot verify tokens, only API keys.
    let program = start(data.path(), &issuer.url());
    let unready = program.request("GET", "/readyz").send().await;
    assert_eq!(unready.status, 503, "{unready:?}");
    assert!(
        unready.text.contains("keys that verify tokens"),
        "{unready:?}"
    );
    let unverified = send(&program, &issuer, "one").await;
    assert_eq!(
        (unverified.status, unverified.header("retry-after")),
        (503, Some("1"))
    );
    assert!(
        program.log().contains("no usable token keys from"),
        "{}",
        program.log()
    );

    issuer.respond_with(IssuerResponse::Keys);
    wait_for_status(404, &program, &issuer, "one").await;
    let ready = program.request("GET", "/readyz").send().await;
    assert_eq!(ready.status, 200, "{ready:?}");
    issuer.publish(&["one", "two"]);
    wait_for_status(404, &program, &issuer, "two").await;
    assert_eq!(send(&program, &issuer, "one").await.status, 404);
    issuer.publish(&["two"]);
    wait_for_status(401, &program, &issuer, "one").await;

    // Also after a restart.
    issuer.respond_with(IssuerResponse::Disconnect);
    assert!(program.stop().0.success());
    let program = start(data.path(), &issuer.url());
    assert_eq!(send(&program, &issuer, "two").await.status, 404);
    assert_eq!(send(&program, &issuer, "one").await.status, 401);
    assert!(program.stop().0.success());

    // The stored keys of one issuer are not used for another.
    let other = Issuer::start(None).await;
    other.respond_with(IssuerResponse::Disconnect);
    let program = start(data.path(), &other.url());
    assert_eq!(send(&program, &issuer, "two").await.status, 503);
}
