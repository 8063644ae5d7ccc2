//! Lists of locks and of writes, in pages.

use std::collections::BTreeSet;

use keywright_tests::{Answer, Request};
use serde_json::{Value, json};

use crate::harness::{FOREIGN, Harness, LOCK, eventually};

fn as_user(harness: &Harness, path: &str) -> Request {
    let program = &harness.program;
    program.request("GET", path).bearer(&program.token)
}

/// The elements of all pages. `path` has a query.
async fn read_all(harness: &Harness, path: &str, member: &str) -> Vec<Value> {
    let (mut all, mut next) = (Vec::new(), path.to_owned());
    loop {
        let page = as_user(harness, &next).send().await;
        assert_eq!(page.status, 200, "{next}: {page:?}");
        all.extend_from_slice(page.body[member].as_array().expect("a list"));
        let Some(link) = page.header("link") else {
            assert_eq!(page.body.get("next"), None);
            return all;
        };
        assert!(page.body["next"].is_string());
        let path = link.strip_prefix('<').and_then(|link| link.split_once('>'));
        next = path.expect("a link").0.to_owned();
    }
}

fn texts<'a>(items: &'a [Value], member: &str) -> Vec<&'a str> {
    let texts = items.iter().map(|item| item[member].as_str());
    texts.map(|text| text.expect("a text")).collect()
}

#[tokio::test]
async fn locks_are_those_that_the_caller_may_access() {
    let harness = Harness::new(&["--locks", "7"]);
    let locks = read_all(&harness, "/locks?limit=2", "locks").await;
    let ids = texts(&locks, "id");
    assert!(ids.contains(&"123"), "{ids:?}");
    assert!(!ids.contains(&&*FOREIGN.to_string()), "{ids:?}");
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
    for lock in &locks {
        let path = format!("/locks/{}/details", lock["id"].as_str().expect("an id"));
        let details = as_user(&harness, &path).send().await.body;
        for (member, value) in lock.as_object().expect("an object") {
            assert_eq!(details[member], *value, "{member}");
        }
    }
    let all = harness.program.request("GET", "/locks").send().await;
    assert_eq!(all.status, 401);
}

#[tokio::test]
async fn writes_are_listed_by_state_reason_time_and_lock() {
    let harness = Harness::silent();
    let mut written = Vec::new();
    for n in 0..5 {
        // Two of them supersede the two before.
        let answer = harness.write(&format!("k{n}"), Some(n % 3)).await;
        written.push(answer.write_id());
    }
    let withdraw = format!("/locks/{LOCK}/writes/{}", written[2]);
    let withdrawing = harness.program.request("DELETE", &withdraw);
    let withdrawn = withdrawing.bearer(&harness.program.token).send().await;
    assert_eq!(withdrawn.status, 200, "{withdrawn:?}");
    let newest_first: Vec<&str> = written.iter().rev().map(String::as_str).collect();
    for path in [
        "/writes?limit=2",
        "/locks/123/writes?limit=2",
        "/writes?lock=123",
    ] {
        let all = read_all(&harness, path, "writes").await;
        assert_eq!(texts(&all, "id"), newest_first, "{path}");
        let states = ["SENT", "SENT", "WITHDRAWN", "SUPERSEDED", "SUPERSEDED"];
        assert_eq!(texts(&all, "state"), states, "{path}");
    }
    let superseded = read_all(&harness, "/writes?state=SUPERSEDED&limit=1", "writes").await;
    assert_eq!(texts(&superseded, "id"), newest_first[3..]);
    let open = read_all(&harness, "/locks/123/writes?state=open", "writes").await;
    assert_eq!(
        texts(&open, "id"),
        [&*written[3], &*written[4]],
        "the oldest first"
    );
    let since = superseded[0]["requestedAt"].as_str().expect("a time");
    let recent = format!("/writes?since={}", since.replace(':', "%3A"));
    let recent = read_all(&harness, &recent, "writes").await;
    assert!((4..=5).contains(&recent.len()), "{recent:?}");
    for (query, expected) in [("reason=NoSpace", 0), ("since=2099-01-01T00:00:00Z", 0)] {
        let found = read_all(&harness, &format!("/writes?{query}"), "writes").await;
        assert_eq!(found.len(), expected, "{query}");
    }
    let refused = async |path: &str| -> Answer { as_user(&harness, path).send().await };
    for (path, message) in [
        ("/writes?state=open", "state must be one of PREPARED, "),
        ("/writes?reason=x", "reason must be one of "),
        ("/writes?since=yesterday", "since must be a time in UTC"),
        ("/writes?after=1", "after must be a cursor"),
        ("/writes?lock=x", "lock must be the numeric id"),
        ("/locks?after=x", "after must be a cursor"),
        ("/locks?organization=", "organization: organization id must"),
        ("/writes?key=%00", "key: keyUuid must be"),
        ("/writes?unconfirmed=1", "unconfirmed must be one of true, "),
        ("/locks?limit=501", "limit must be an integer from 1 to 500"),
    ] {
        let answer = refused(path).await;
        let text = answer.body["message"].as_str().unwrap_or_default();
        assert_eq!(answer.status, 400, "{path}");
        assert!(text.starts_with(message), "{path}: {text}");
    }
    assert_eq!(
        refused(&format!("/writes?lock={FOREIGN}")).await.status,
        403
    );
    assert_eq!(
        refused(&format!("/locks/{FOREIGN}/writes")).await.status,
        403
    );
    for other in ["limit=1", "key=k1", "unconfirmed=true"] {
        let path = format!("/locks/123/writes?state=open&{other}");
        let answer = refused(&path).await;
        assert_eq!(answer.status, 400, "{answer:?}");
    }
}

#[tokio::test]
async fn writes_are_listed_by_key_organization_and_requester() {
    let harness = Harness::silent();
    let by_user = harness.write("k 1", Some(1)).await.write_id();
    let program = &harness.program;
    let by_service = program.request("POST", "/locks/123/WriteKey");
    let by_service = by_service.header("X-API-Key", &program.api_key);
    let by_service = by_service.json(&json!({ "keyUuid": "k 2", "keyIndexNumber": 2 }));
    let by_service = by_service.send().await.write_id();
    let both: &[&str] = &[&by_service, &by_user];
    let all = read_all(&harness, "/writes?limit=1", "writes").await;
    assert_eq!(texts(&all, "id"), both);
    let requesters = texts(&all, "requestedBy");
    assert_eq!(requesters[1], "user:demo-user");
    assert!(requesters[0].starts_with("org:demo-org,key:kwk_"));
    let whole = format!("requestedBy={}", requesters[0].replace('…', "%E2%80%A6"));
    for (query, expected) in [
        ("key=k%201", &both[1..]),
        ("key=k", &[]),
        ("requestedBy=user:demo-user", &both[1..]),
        ("requestedBy=user%3Ademo", &[]),
        ("requestedBy=org:demo-org", &both[..1]),
        (&*whole, &both[..1]),
        ("organization=demo-org", both),
        ("organization=demo-org&key=k%202", &both[..1]),
        ("organization=demo", &[]),
    ] {
        let paths = match query.contains("organization") {
            true => vec!["/writes", "/writes?lock=123"],
            false => vec!["/writes", "/writes?lock=123", "/locks/123/writes"],
        };
        for path in paths {
            let separator = if path.contains('?') { '&' } else { '?' };
            let path = format!("{path}{separator}{query}&limit=1");
            let found = read_all(&harness, &path, "writes").await;
            assert_eq!(texts(&found, "id"), expected, "{path}");
        }
    }
}

#[tokio::test]
async fn writes_are_listed_by_whether_they_are_unconfirmed() {
    let harness = Harness::new(&["--virtual-locks", "off", "--confirm-within", "1s"]);
    let superseded = harness.write("k1", Some(1)).await.write_id();
    let open = harness.write("k2", Some(1)).await.write_id();
    eventually("the open write is unconfirmed", || async {
        let found = read_all(&harness, "/writes?unconfirmed=true", "writes").await;
        (texts(&found, "id") == [&*open]).then_some(())
    })
    .await;
    let others = read_all(&harness, "/writes?unconfirmed=false", "writes").await;
    assert_eq!(texts(&others, "id"), [&*superseded]);
}

#[tokio::test]
async fn locks_are_listed_by_organization_and_key() {
    let harness = Harness::new(&["--locks", "3"]);
    let id = harness.write("k", Some(1)).await.write_id();
    harness.wait_for_state(&id, "SUCCEEDED").await;
    let all = read_all(&harness, "/locks", "locks").await;
    let of_organization: Vec<Value> = { all.iter().cloned() }
        .filter(|lock| lock["orgId"] == "demo-org")
        .collect();
    let found = read_all(&harness, "/locks?organization=demo-org&limit=1", "locks").await;
    assert_eq!(found, of_organization);
    let found = read_all(&harness, "/locks?key=k", "locks").await;
    assert_eq!(texts(&found, "id"), ["123"]);
    for query in ["organization=another-org", "key=another-key"] {
        let found = read_all(&harness, &format!("/locks?{query}"), "locks").await;
        assert_eq!(found, [Value::Null; 0], "{query}");
    }
}
