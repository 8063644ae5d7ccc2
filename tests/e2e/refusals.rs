//! Refused requests: status, form and message of each error, and no effect on the store or the shadow.

use serde_json::json;

use crate::harness::{Harness, LOCK, log_with};
use keywright_tests::{Answer, Request};

/// Asserts that the answer is an error of the common form, without other members.
fn assert_error(answer: &Answer, error: &str, reason: Option<&str>) {
    let message = answer.body["message"].as_str().expect("a message");
    let mut expected = json!({
        "success": false, "error": error, "message": message, "code": answer.status
    });
    if let Some(reason) = reason {
        expected["reason"] = json!(reason);
    }
    assert_eq!(answer.body, expected);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert!(answer.header("x-request-id").is_some());
}

struct Case {
    what: &'static str,
    request: Request,
    status: u16,
    error: &'static str,
    /// The message, or a part of it.
    message_part: &'static str,
}

#[tokio::test]
async fn each_refusal_has_a_helpful_message_and_no_effect() {
    let harness = Harness::silent();
    // Creates a write and a shadow, which the refusals must not change.
    assert_eq!(harness.write("first", Some(0)).await.status, 200);
    let program = &harness.program;
    let write = |lock: &str, body: &str| {
        let request = program.request("POST", &format!("/locks/{lock}/WriteKey"));
        let request = request.bearer(&program.token);
        request
            .header("Content-Type", "application/json")
            .body(body)
    };
    let get = |path: &str| program.get(path);
    let key = r#"{"keyUuid":"k"}"#;
    let case = |what, request, status, error, message_part| Case {
        what,
        request,
        status,
        error,
        message_part,
    };
    let bad = |what, request, message_part| case(what, request, 400, "Bad Request", message_part);
    let long = "k".repeat(129);
    let cases = vec![
        bad(
            "a lock named by text",
            write("front-door", key),
            "numeric lock id",
        ),
        bad("lock 0", write("0", key), "numeric lock id"),
        bad("a negative lock", write("-1", key), "numeric lock id"),
        bad(
            "a huge lock",
            write("9007199254740992", key),
            "numeric lock id",
        ),
        bad(
            "a UUID",
            write("6f0c2a9e-0d5e-4e0b-9a55-0f6f3c0c7a11", key),
            "looks like a UUID",
        ),
        bad("no body", write("123", ""), "JSON object"),
        bad("a list", write("123", "[]"), "JSON object"),
        bad("no JSON", write("123", "{keyUuid:k}"), "not valid JSON"),
        bad(
            "more behind it",
            write("123", r#"{"keyUuid":"k"}{}"#),
            "not valid JSON",
        ),
        bad("no key", write("123", "{}"), "keyUuid is required"),
        bad(
            "a key that is a number",
            write("123", r#"{"keyUuid":1}"#),
            "keyUuid must be a string",
        ),
        bad(
            "an empty key",
            write("123", r#"{"keyUuid":""}"#),
            "1 to 128 bytes",
        ),
        bad(
            "a long key",
            write("123", &format!(r#"{{"keyUuid":"{long}"}}"#)),
            "1 to 128 bytes",
        ),
        bad(
            "a control character",
            write("123", r#"{"keyUuid":"a\n"}"#),
            "control characters",
        ),
        bad(
            "a member twice",
            write("123", r#"{"keyUuid":"k","keyUuid":"k"}"#),
            "twice",
        ),
        bad(
            "a deep nest",
            write(
                "123",
                &format!(r#"{{"keyUuid":{}1{}}}"#, "[".repeat(500), "]".repeat(500)),
            ),
            "not valid JSON",
        ),
        bad(
            "half a character",
            write("123", r#"{"keyUuid":"\ud800"}"#),
            "not valid JSON",
        ),
        bad(
            "a negative index",
            write("123", r#"{"keyUuid":"k","keyIndexNumber":-1}"#),
            "keyIndexNumber",
        ),
        bad(
            "half an index",
            write("123", r#"{"keyUuid":"k","keyIndexNumber":0.5}"#),
            "keyIndexNumber",
        ),
        bad(
            "a huge index",
            write(
                "123",
                r#"{"keyUuid":"k","keyIndexNumber":9007199254740992}"#,
            ),
            "keyIndexNumber",
        ),
        bad(
            "an index that is text",
            write("123", r#"{"keyUuid":"k","keyIndexNumber":"2"}"#),
            "keyIndexNumber",
        ),
        bad("page 0", get("/locks/123/events?page=0"), "page must be"),
        bad(
            "a page that is text",
            get("/locks/123/events?page=last"),
            "page must be",
        ),
        bad(
            "writes in an unknown state",
            get("/locks/123/writes?state=x"),
            "state must be one of open, PREPARED, ",
        ),
        case(
            "no credentials",
            write("123", key).without("Authorization"),
            401,
            "Unauthorized",
            "Authentication required. Please provide a valid API token",
        ),
        case(
            "a foreign lock",
            write("124", key),
            403,
            "Forbidden",
            "You don't have permission to access this resource",
        ),
        case(
            "an unknown lock",
            write("125", key),
            404,
            "Not Found",
            "The requested resource was not found",
        ),
        case(
            "an unknown route",
            get("/locks/123/keys"),
            404,
            "Not Found",
            "The requested resource was not found",
        ),
        case(
            "the root",
            get("/"),
            404,
            "Not Found",
            "The requested resource was not found",
        ),
        case(
            "a longer path",
            get("/locks/123/WriteKey/x"),
            404,
            "Not Found",
            "The requested resource was not found",
        ),
        case(
            "an unknown write",
            get("/locks/123/writes/01997c1e-6a2b-7c3d-8e4f-5a6b7c8d9e0f"),
            404,
            "Not Found",
            "The requested resource was not found",
        ),
        case(
            "no write id",
            get("/locks/123/writes/7"),
            404,
            "Not Found",
            "The requested resource was not found",
        ),
        case(
            "a wrong method",
            get("/locks/123/WriteKey"),
            405,
            "Method Not Allowed",
            "POST, OPTIONS",
        ),
        case(
            "a wrong method of a write",
            program.request("POST", "/locks/123/writes/7"),
            405,
            "Method Not Allowed",
            "GET, HEAD, DELETE, OPTIONS",
        ),
        case(
            "a large body",
            write(
                "123",
                &format!(r#"{{"keyUuid":"k","x":"{}"}}"#, "x".repeat(5000)),
            ),
            413,
            "Payload Too Large",
            "4096 bytes",
        ),
        case(
            "no content type",
            write("123", key).without("Content-Type"),
            415,
            "Unsupported Media Type",
            "Content-Type: application/json",
        ),
        case(
            "another content type",
            write("123", key)
                .without("Content-Type")
                .header("Content-Type", "text/plain"),
            415,
            "Unsupported Media Type",
            "Content-Type: application/json",
        ),
        case(
            "an index beyond the capacity",
            write("123", r#"{"keyUuid":"k","keyIndexNumber":100}"#),
            422,
            "Unprocessable Entity",
            "below 100",
        ),
    ];
    let before = harness.store().await.dump();
    for case in cases {
        let answer = case.request.send().await;
        assert_eq!(answer.status, case.status, "{}: {answer:?}", case.what);
        assert_error(&answer, case.error, None);
        let message = answer.body["message"].as_str().expect("a message");
        match case.status {
            // The contract fixes these messages.
            401 | 403 | 404 => assert_eq!(message, case.message_part, "{}", case.what),
            _ => assert!(
                message.contains(case.message_part),
                "{}: {message}",
                case.what
            ),
        }
        match case.status {
            401 => assert_eq!(answer.header("www-authenticate"), Some("Bearer")),
            405 => assert_eq!(answer.header("allow"), Some(case.message_part)),
            _ => {}
        }
        let details = program.get("/locks/123/details").send().await;
        assert_eq!(details.status, 200, "after {}", case.what);
        assert_eq!(
            harness.store().await.dump(),
            before,
            "{} had an effect",
            case.what
        );
    }
}

#[tokio::test]
async fn a_json_content_type_may_have_parameters() {
    let harness = Harness::silent();
    for content_type in ["application/json; charset=utf-8", "Application/JSON"] {
        let request = harness.program.write_key(LOCK, &json!({ "keyUuid": "k" }));
        let request = request
            .without("Content-Type")
            .header("Content-Type", content_type);
        assert_eq!(request.send().await.status, 200, "{content_type}");
    }
}

#[tokio::test]
async fn too_many_open_writes_are_refused_until_some_are_settled() {
    let harness = Harness::new(&["--virtual-locks", "off", "--max-open-writes", "2"]);
    let first = harness.write("k1", None).await.write_id();
    harness.write("k2", None).await;
    let before = harness.store().await.dump();
    let answer = harness.write("k3", None).await;
    assert_eq!(answer.status, 429);
    assert_error(&answer, "Too Many Requests", Some("TooManyOpenWrites"));
    assert!(answer.header("retry-after").is_some());
    assert_eq!(harness.store().await.dump(), before);
    let path = format!("/locks/{LOCK}/writes/{first}");
    let withdrawn = harness
        .program
        .request("DELETE", &path)
        .bearer(&harness.program.token);
    assert_eq!(withdrawn.send().await.status, 200);
    assert_eq!(harness.write("k3", None).await.status, 200);
}

#[tokio::test]
async fn a_lock_without_a_thing_is_not_provisioned() {
    // All demo locks have a thing.
    let created = json!({
        "lockId": 200, "uuid": "u-200", "timestamp": "2026-05-29T12:00:00.000Z", "ownerId": "demo-user"
    });
    let locks = [("LockCreated", created)];
    let harness = Harness::silent().with(&locks, &[]).await;
    let before = harness.store().await.dump();
    let request = harness.program.write_key(200, &json!({ "keyUuid": "k" }));
    let answer = request.send().await;
    assert_eq!(answer.status, 409, "{answer:?}");
    assert_error(&answer, "Conflict", Some("NotProvisioned"));
    assert_eq!(harness.store().await.dump(), before);
}

#[tokio::test]
async fn a_shadow_that_refuses_is_a_502_with_the_message_of_the_contract() {
    let harness = Harness::new(&["--virtual-locks", "off", "--faults", "put@2=refuse"]);
    harness.write("first", Some(0)).await;
    let before = harness.store().await;
    let answer = harness.write("k", Some(2)).await;
    assert_eq!(answer.status, 502);
    assert_error(&answer, "Error", Some("Throttled"));
    assert_eq!(answer.body["message"], "Failed to update device shadow");
    let after = harness.store().await;
    assert_eq!(after.shadow(LOCK), before.shadow(LOCK));
    assert_eq!(after.events(LOCK).await, before.events(LOCK).await);
    assert_eq!(after.lock(LOCK).await.lock, before.lock(LOCK).await.lock);
    // Only the record of the attempt is new.
    assert_eq!(after.write_ids().len(), before.write_ids().len() + 1);
}

#[tokio::test]
async fn stored_data_that_breaks_an_invariant_is_a_500_without_details() {
    let harness = Harness::silent();
    let path = harness.folder.path().join("locks.sqlite");
    let damage = rusqlite::Connection::open(path).expect("the store");
    damage
        .execute_batch("UPDATE locks SET state = '{\"secret\":1}'")
        .expect("damaged");
    let before = harness.store().await.dump();
    let answer = harness.write("k", Some(2)).await;
    assert_eq!(answer.status, 500, "{answer:?}");
    assert_error(&answer, "Internal Server Error", None);
    let id = answer.header("x-request-id").expect("an id");
    let cause = "table locks, column state, key 123";
    let log = log_with(&harness.program, &[id, cause]).await;
    let is_logged = log.lines().any(|l| l.contains(id) && l.contains(cause));
    assert!(is_logged, "{log}");
    assert_eq!(harness.store().await.dump(), before);
}
