//! The contract's table of credentials.

use serde_json::json;

use crate::world::{FOREIGN, LOCK, World};

#[tokio::test]
async fn who_is_let_in() {
    let world = World::silent();
    let (token, api_key) = (world.program.token.clone(), world.program.api_key.clone());
    let forged = format!("{}x", &token[..token.len() - 1]);
    let unknown = format!("{}0", &api_key[..api_key.len() - 1]);
    let bearer = |token: &str| format!("Bearer {token}");
    let cases: Vec<(Vec<(&str, String)>, u16)> = vec![
        (vec![], 401),
        (vec![("Authorization", bearer(&token))], 200),
        (vec![("authorization", format!("bearer {token}"))], 200),
        (vec![("X-API-Key", api_key.clone())], 200),
        (
            vec![
                ("Authorization", bearer(&token)),
                ("X-API-Key", api_key.clone()),
            ],
            200,
        ),
        (vec![("Authorization", bearer(&forged))], 401),
        (
            vec![
                ("Authorization", bearer(&forged)),
                ("X-API-Key", api_key.clone()),
            ],
            401,
        ),
        (vec![("X-API-Key", unknown.clone())], 401),
        (
            vec![("Authorization", bearer(&token)), ("X-API-Key", unknown)],
            401,
        ),
        (vec![("Authorization", token.clone())], 401),
        (vec![("Authorization", format!("Basic {token}"))], 401),
        (vec![("Authorization", "Bearer".into())], 401),
        (vec![("Authorization", "Bearer ".into())], 401),
        (vec![("X-API-Key", String::new())], 401),
        (
            vec![
                ("Authorization", bearer(&token)),
                ("X-API-Key", String::new()),
            ],
            401,
        ),
        (
            vec![
                ("Authorization", bearer(&token)),
                ("Authorization", bearer(&token)),
            ],
            401,
        ),
        (
            vec![
                ("X-API-Key", api_key.clone()),
                ("X-API-Key", api_key.clone()),
            ],
            401,
        ),
        (vec![("Authorization", bearer(&api_key))], 401),
        (vec![("X-API-Key", token.clone())], 401),
    ];
    for (headers, expected) in cases {
        for (method, path) in [("POST", "WriteKey"), ("GET", "details"), ("GET", "events")] {
            let mut request = world
                .program
                .request(method, &format!("/locks/{LOCK}/{path}"));
            for (name, value) in &headers {
                request = request.header(name, value);
            }
            let answer = request.json(&json!({ "keyUuid": "k" })).send().await;
            let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
            assert_eq!(
                answer.status, expected,
                "{method} {path} with {names:?}: {answer:?}"
            );
            if expected == 401 {
                assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
            }
        }
    }
}

#[tokio::test]
async fn nobody_touches_somebody_elses_lock() {
    let world = World::silent();
    let (token, api_key) = (&world.program.token, &world.program.api_key);
    for (method, path) in [
        ("POST", "WriteKey"),
        ("GET", "details"),
        ("GET", "events"),
        ("GET", "writes?state=open"),
        ("GET", "writes/01997c1e-6a2b-7c3d-8e4f-5a6b7c8d9e0f"),
        ("DELETE", "writes/01997c1e-6a2b-7c3d-8e4f-5a6b7c8d9e0f"),
    ] {
        let request = world
            .program
            .request(method, &format!("/locks/{FOREIGN}/{path}"));
        let request = request.json(&json!({ "keyUuid": "k" }));
        for request in [
            request.clone().bearer(token),
            request.clone().header("X-API-Key", api_key),
            request.clone().bearer(token).header("X-API-Key", api_key),
        ] {
            assert_eq!(request.send().await.status, 403, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn internal_headers_are_refused_by_name() {
    let world = World::silent();
    for name in ["X-Org-Id", "x-user-id"] {
        let answer = world.program.write_key(LOCK, &json!({ "keyUuid": "k" }));
        let answer = answer.header(name, "demo-org").send().await;
        let message = answer.body["message"]
            .as_str()
            .expect("a message")
            .to_lowercase();
        assert_eq!(answer.status, 400);
        assert!(message.contains(&name.to_lowercase()), "{message}");
    }
}
