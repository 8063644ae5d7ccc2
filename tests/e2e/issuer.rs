//! An issuer that publishes its keys at a URL, changes them, and is down at times.

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

/// What a token of this key is answered: 404 where it is good, because there is no such lock.
async fn ask(program: &Program, issuer: &Issuer, key: &str) -> Answer {
    let claims = json!({
        "iss": "https://id.example", "aud": "locks", "sub": "alice",
        "exp": SystemClock.now().as_secs() + 60,
    });
    let request = program.request("GET", "/locks/123/details");
    request.bearer(&issuer.token(key, &claims)).send().await
}

async fn becomes(status: u16, program: &Program, issuer: &Issuer, key: &str) {
    eventually("the keys are followed", || async {
        let answer = ask(program, issuer, key).await;
        (answer.status == status).then_some(())
    })
    .await;
}

#[tokio::test]
async fn keys_are_replaced_without_a_restart_and_serve_while_the_issuer_is_down() {
    let (issuer, data) = (Issuer::start(None).await, tempfile::tempdir());
    let data = data.expect("a folder");
    issuer.publish(&["one"]);
    issuer.respond_with(IssuerResponse::Disconnect);
    // It starts all the same, and API keys would be good; of tokens it can say nothing.
    let program = start(data.path(), &issuer.url());
    let unready = program.request("GET", "/readyz").send().await;
    assert_eq!(unready.status, 503, "{unready:?}");
    assert!(unready.text.contains("keys of tokens"), "{unready:?}");
    let unsaid = ask(&program, &issuer, "one").await;
    assert_eq!(
        (unsaid.status, unsaid.header("retry-after")),
        (503, Some("1"))
    );
    assert!(
        program
            .log()
            .contains("the keys of tokens cannot be fetched"),
        "{}",
        program.log()
    );

    issuer.respond_with(IssuerResponse::Keys);
    becomes(404, &program, &issuer, "one").await;
    let ready = program.request("GET", "/readyz").send().await;
    assert_eq!(ready.status, 200, "{ready:?}");
    issuer.publish(&["one", "two"]);
    becomes(404, &program, &issuer, "two").await;
    assert_eq!(ask(&program, &issuer, "one").await.status, 404);
    issuer.publish(&["two"]);
    becomes(401, &program, &issuer, "one").await;

    // Also over a restart.
    issuer.respond_with(IssuerResponse::Disconnect);
    assert!(program.stop().0.success());
    let program = start(data.path(), &issuer.url());
    assert_eq!(ask(&program, &issuer, "two").await.status, 404);
    assert_eq!(ask(&program, &issuer, "one").await.status, 401);
    assert!(program.stop().0.success());

    // Another issuer's keys are other ones, wherever they are kept.
    let other = Issuer::start(None).await;
    other.respond_with(IssuerResponse::Disconnect);
    let program = start(data.path(), &other.url());
    assert_eq!(ask(&program, &issuer, "two").await.status, 503);
}
