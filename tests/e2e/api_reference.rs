//! The OpenAPI document, the reference page, and the example clients in five languages.

use std::path::{Path, PathBuf};
use std::process::Command;

use keywright_domain::model::{FailureReason, LockEvent, Retry, WriteState};
use serde_json::{Value, json};

use crate::harness::{Harness, LOCK, root};

async fn document(harness: &Harness) -> Value {
    let answer = harness.program.request("GET", "/openapi.json").send().await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    answer.body
}

#[tokio::test]
async fn the_document_lists_all_operations_and_their_credentials() {
    let harness = Harness::silent();
    let document = document(&harness).await;
    assert_eq!(document["openapi"], "3.1.0");
    let server = &document["servers"][0]["variables"]["server"]["default"];
    assert_eq!(*server, format!("http://{}", harness.program.address));
    let schemes = document["components"]["securitySchemes"]
        .as_object()
        .expect("schemes");
    assert_eq!(
        schemes.keys().collect::<Vec<_>>(),
        ["ApiKeyAuth", "BearerAuth"]
    );
    assert_eq!(
        document["security"],
        json!([{ "BearerAuth": [] }, { "ApiKeyAuth": [] }])
    );
    let mut operations = 0;
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let path = path.replace("{id}", "123").replace("{writeId}", "none");
            let answer = harness
                .program
                .request(&method.to_uppercase(), &path)
                .send()
                .await;
            let is_public = operation.get("security") == Some(&json!([]));
            assert_eq!(
                answer.status,
                if is_public { 200 } else { 401 },
                "{method} {path}"
            );
            operations += 1;
        }
    }
    assert_eq!(operations, 21);
}

/// Collects the paths of all elements without a description.
fn undescribed(value: &Value, place: &str, found: &mut Vec<String>) {
    let named = |kind: &str| place.rsplit('/').nth(1) == Some(kind);
    let is_described = [
        "properties",
        "parameters",
        "headers",
        "responses",
        "schemas",
        "securitySchemes",
        "tags",
    ]
    .into_iter()
    .any(named);
    let is_described = is_described && !value.is_string();
    let is_operation = value.get("operationId").is_some();
    let text = value["description"].as_str().unwrap_or_default();
    if (is_described || is_operation) && text.is_empty() {
        found.push(place.to_owned());
    }
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                // Examples contain answers, which need no description.
                if name != "examples" && name != "value" {
                    undescribed(member, &format!("{place}/{name}"), found);
                }
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                undescribed(item, &format!("{place}/{at}"), found);
            }
        }
        _ => {}
    }
}

#[tokio::test]
async fn the_document_describes_and_types_the_answers() {
    let harness = Harness::silent();
    let document = document(&harness).await;
    let mut without_description = Vec::new();
    undescribed(&document, "", &mut without_description);
    assert_eq!(without_description, [""; 0]);
    let schemas = &document["components"]["schemas"];
    let status = &schemas["WriteStatus"]["properties"];
    for (member, schema, names) in [
        ("state", "WriteState", WriteState::NAMES.to_vec()),
        ("reason", "FailureReason", FailureReason::names().collect()),
        ("retry", "Retry", Retry::NAMES.to_vec()),
    ] {
        let reference = format!("#/components/schemas/{schema}");
        assert_eq!(status[member]["$ref"], reference, "{status}");
        assert_eq!(schemas[schema]["enum"], json!(names));
    }
    for member in ["requestedAt", "settledAt", "expiresAt"] {
        assert_eq!(status[member]["format"], "date-time", "{member}");
        assert_eq!(status[member]["type"], "string", "{member} is never null");
    }
    let types = schemas["LockEvent"]["discriminator"]["mapping"].as_object();
    let types: Vec<&String> = types.expect("types of events").keys().collect();
    let mut names = LockEvent::NAMES;
    names.sort_unstable();
    assert_eq!(types, names);
    assert_eq!(
        schemas["LockEvent"]["oneOf"].as_array().map(Vec::len),
        Some(names.len())
    );
    for operation in document["paths"].as_object().expect("paths").values() {
        for operation in operation.as_object().expect("operations").values() {
            let id = operation["operationId"].as_str().expect("an id");
            let is_camel_case = id.starts_with(|c: char| c.is_ascii_lowercase())
                && id.chars().all(char::is_alphanumeric);
            assert!(is_camel_case, "{id}");
        }
    }
}

/// With `--reports http`, the document has the route for reports and its credential.
#[tokio::test]
async fn the_document_describes_device_reports_when_they_are_enabled() {
    assert!(
        document(&Harness::silent()).await["paths"]
            .get("/device-reports")
            .is_none()
    );
    let folder = tempfile::TempDir::new().expect("a folder");
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "a-secret-of-thirty-two-characters").expect("written");
    let secret = secret.to_str().expect("a path");
    let harness = Harness::new(&["--reports", "memory,http", "--reports-secret", secret]);
    let document = document(&harness).await;
    let post = &document["paths"]["/device-reports"]["post"];
    assert_eq!(post["security"], json!([{ "ReportsSecret": [] }]));
    assert!(document["components"]["securitySchemes"]["ReportsSecret"].is_object());
    lint(&harness, &document);
}

/// Asserts that Spectral's OpenAPI rules give no error, warning or hint.
fn lint(harness: &Harness, document: &Value) {
    let program = root().join(".npm/node_modules/.bin/spectral");
    let file = harness.folder.path().join("openapi.json");
    std::fs::write(&file, document.to_string()).expect("written");
    let ruleset = harness.folder.path().join("spectral.yaml");
    std::fs::write(&ruleset, "extends: spectral:oas\n").expect("written");
    let output = Command::new(&program)
        .args(["lint", "--fail-severity", "hint", "--ruleset"])
        .args([&ruleset, &file])
        .output();
    let output =
        output.unwrap_or_else(|e| panic!("{}: {e}; scripts/test installs it", program.display()));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
}

#[tokio::test]
async fn linters_accept_the_document() {
    let harness = Harness::silent();
    let document = document(&harness).await;
    lint(&harness, &document);
    let validator = root().join(".venv/bin/openapi-spec-validator");
    let output = Command::new(&validator)
        .arg(harness.folder.path().join("openapi.json"))
        .output();
    let output =
        output.unwrap_or_else(|e| panic!("{}: {e}; scripts/test installs it", validator.display()));
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[tokio::test]
async fn errors_match_their_examples_in_the_document() {
    let harness = Harness::silent();
    let document = document(&harness).await;
    let responses = &document["paths"]["/locks/{id}/WriteKey"]["post"]["responses"];
    let responses = responses.as_object().expect("responses");
    let statuses: Vec<&str> = responses.keys().map(String::as_str).collect();
    assert_eq!(
        statuses,
        [
            "200", "400", "401", "403", "404", "408", "409", "413", "415", "422", "429", "431",
            "500", "502", "503", "504"
        ]
    );
    for request in [
        harness.program.request("POST", "/locks/123/WriteKey"),
        harness.program.write_key(124, &json!({ "keyUuid": "k" })),
        harness.program.write_key(999, &json!({ "keyUuid": "k" })),
        harness
            .program
            .write_key(LOCK, &json!({ "keyUuid": "k", "keyIndexNumber": 100 })),
        harness
            .program
            .write_key(LOCK, &json!({ "keyUuid": "k", "x": "x".repeat(5000) })),
        harness
            .program
            .write_key(LOCK, &json!({ "keyUuid": "k" }))
            .without("Content-Type"),
    ] {
        let answer = request.send().await;
        let response = &responses[&answer.status.to_string()];
        let examples = response["content"]["application/json"]["examples"]
            .as_object()
            .expect("examples");
        assert!(
            examples
                .values()
                .any(|example| example["value"] == answer.body),
            "{answer:?}"
        );
        // Other headers depend on the cause of the status.
        for header in ["x-request-id", "www-authenticate"] {
            let documented = response["headers"].get(header).is_some();
            assert_eq!(
                answer.header(header).is_some(),
                documented,
                "{header}: {answer:?}"
            );
        }
    }
}

#[tokio::test]
async fn the_page_loads_nothing_from_elsewhere() {
    let harness = Harness::silent();
    let page = harness.program.request("GET", "/docs").send().await;
    assert_eq!(
        (page.status, page.header("content-type")),
        (200, Some("text/html; charset=utf-8"))
    );
    assert!(
        !page.text.contains("://"),
        "nothing is loaded from elsewhere: {}",
        page.text
    );
    assert!(
        page.header("content-security-policy")
            .is_some_and(|p| p.starts_with("default-src 'self'"))
    );
    let plain = harness
        .program
        .request("GET", "/docs/scalar.js")
        .send()
        .await;
    let packed = harness
        .program
        .request("GET", "/docs/scalar.js")
        .header("Accept-Encoding", "br, gzip");
    let packed = packed.send().await;
    assert_eq!(
        (
            plain.header("content-encoding"),
            packed.header("content-encoding")
        ),
        (None, Some("gzip"))
    );
    let length = |answer: &keywright_tests::Answer| {
        answer
            .header("content-length")
            .and_then(|l| l.parse::<usize>().ok())
            .expect("a length")
    };
    assert!(
        length(&plain) > 3 * length(&packed),
        "{} and {}",
        length(&plain),
        length(&packed)
    );
}

/// The interpreter of each client with its arguments, the client's file, and the Debian package of the interpreter.
const CLIENTS: [(&str, &[&str], &str, &str); 5] = [
    ("sh", &[], "curl.sh", "curl"),
    ("python3", &[], "write_key.py", "python3"),
    ("node", &[], "write_key.mjs", "nodejs"),
    ("go", &["run"], "write_key.go", "golang-1.19-go"),
    ("ruby", &[], "write_key.rb", "ruby"),
];

/// The path of a program. Debian's Go 1.19 is not on the PATH.
fn program_path(program: &str) -> PathBuf {
    let debian_go = Path::new("/usr/lib/go-1.19/bin").join(program);
    if debian_go.exists() {
        debian_go
    } else {
        program.into()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clients_in_five_languages_write_keys() {
    let harness = Harness::new(&[]);
    for (at, (program, arguments, file, package)) in CLIENTS.into_iter().enumerate() {
        let run = |lock: &str| {
            let mut command = Command::new(program_path(program));
            command
                .args(arguments)
                .arg(root().join("examples/clients").join(file));
            command.args([lock, file, &at.to_string()]);
            command.env(
                "KEYWRIGHT_URL",
                format!("http://{}", harness.program.address),
            );
            command.env("KEYWRIGHT_TOKEN", &harness.program.token);
            let output = command.output();
            output.unwrap_or_else(|e| panic!("{program}: {e}; scripts/test installs {package}"))
        };
        let output = run("123");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let answer: Value =
            serde_json::from_str(&text).unwrap_or_else(|_| panic!("{file}: {output:?}"));
        assert_eq!(answer["write"]["state"], "SUCCEEDED", "{file}: {answer}");
        let slot = u64::try_from(at).expect("a slot");
        assert_eq!(
            harness.memory().keys.get(&slot).map(String::as_str),
            Some(file)
        );
        let refused = run("124");
        assert!(!refused.status.success(), "{file}: {refused:?}");
        let printed = [refused.stdout, refused.stderr].concat();
        let printed = String::from_utf8_lossy(&printed).into_owned();
        assert!(
            printed.contains("403") && printed.contains("permission"),
            "{file}: {printed}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn schemathesis_finds_no_failure() {
    let harness = Harness::new(&["--max-failures", "1000000"]);
    let program = root().join(".venv/bin/schemathesis");
    let url = format!("http://{}", harness.program.address);
    for credential in [
        format!("Authorization: Bearer {}", harness.program.token),
        format!("X-API-Key: {}", harness.program.api_key),
    ] {
        let mut command = Command::new(&program);
        command.current_dir(harness.folder.path());
        command
            .arg("--config-file")
            .arg(root().join("tests/schemathesis.toml"));
        command.args(["run", &format!("{url}/openapi.json"), "--url", &url]);
        command.args([
            "--checks",
            "all",
            "--max-examples",
            "30",
            "--seed",
            "1",
            "--no-color",
        ]);
        command.args(["--request-timeout", "20", "--header", &credential]);
        let output = command.output();
        let output =
            output.unwrap_or_else(|e| panic!("{}: {e}; scripts/test makes it", program.display()));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success() && text.contains("Tested: 21"),
            "{text}"
        );
    }
    assert_eq!(harness.write("after-schemathesis", None).await.status, 200);
}

/// A user types a key into the page in Chromium and sends it.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_writes_a_typed_key_and_loads_nothing_else() {
    let harness = Harness::new(&[]);
    let python = root().join(".venv/bin/python");
    let key = format!("typed-{:016x}", fastrand::u64(..));
    let url = format!("http://{}", harness.program.address);
    let picture = harness.folder.path().join("page.png");
    let mut command = Command::new(&python);
    command.arg(root().join("tests/docs_page.py"));
    command
        .args([url.as_str(), &harness.program.token, &key])
        .arg(&picture);
    let output = command.output();
    let output =
        output.unwrap_or_else(|e| panic!("{}: {e}; scripts/test makes it", python.display()));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let page: Value = serde_json::from_str(&text).unwrap_or_else(|_| {
        panic!(
            "{}; scripts/test installs chromium",
            String::from_utf8_lossy(&output.stderr)
        )
    });
    assert_eq!(
        (&page["statuses"], &page["errors"]),
        (&json!([200, 200]), &json!([])),
        "{page}"
    );
    // Empty headers are not sent; a fixed Idempotency-Key would make the second request fail.
    for headers in page["headers"].as_array().expect("two requests") {
        let headers = headers.as_array().expect("names");
        assert!(headers.contains(&json!("authorization")), "{headers:?}");
        for optional in ["idempotency-key", "prefer", "x-api-key"] {
            assert!(!headers.contains(&json!(optional)), "{headers:?}");
        }
    }
    assert!(
        page["shown"]
            .as_str()
            .is_some_and(|s| s.contains("KeyWriteRequested") && s.contains(&key))
    );
    assert_eq!(page["credentials"], json!(["BearerAuth", "ApiKeyAuth"]));
    assert_eq!(
        page["server"],
        url.as_str(),
        "the page shows the server's URL"
    );
    let languages = page["languages"].as_array().expect("languages");
    for language in ["Curl", "Requests", "Fetch", "NewRequest", "net::http"] {
        assert!(
            languages.contains(&json!(language)),
            "{language}: {languages:?}"
        );
    }
    assert!(
        !languages.contains(&json!("HTTP.jl")),
        "there are no other languages: {languages:?}"
    );
    let requests = page["asked"].as_array().expect("requests");
    let elsewhere: Vec<&Value> = requests
        .iter()
        .filter(|url_of_request| {
            !url_of_request
                .as_str()
                .is_some_and(|text| text.starts_with(&format!("{url}/")))
        })
        .collect();
    assert!(requests.len() >= 4 && elsewhere.is_empty(), "{requests:?}");
    assert!(
        picture.metadata().is_ok_and(|m| m.len() > 10_000),
        "a picture was taken"
    );
    let events = harness.program.get("/locks/123/events").send().await.body;
    let written = events["events"]
        .as_array()
        .expect("events")
        .iter()
        .any(|event| {
            event["type"] == "KeyWriteRequested"
                && event["event"]["data"]["keyUuid"] == key.as_str()
        });
    assert!(written, "{events}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reference_page_fits_small_screens() {
    let harness = Harness::silent();
    let url = format!("http://{}/docs", harness.program.address);
    let views = screenshots(&url, harness.folder.path());
    assert_eq!(views.len(), 4);
    for view in views {
        let (page, window) = (view["page"].as_u64(), view["window"].as_u64());
        assert!(page.is_some() && page <= window, "{view}");
        assert_eq!(view["errors"], json!([]));
    }
}

/// Renders a page in Chromium at widths of 360 and 1280 pixels, light and dark. Returns measurements of each view.
pub(crate) fn screenshots(url: &str, pictures: &Path) -> Vec<Value> {
    let python = root().join(".venv/bin/python");
    let output = Command::new(&python)
        .arg(root().join("tests/page_width.py"))
        .arg(url)
        .arg(pictures)
        .output();
    let output =
        output.unwrap_or_else(|e| panic!("{}: {e}; scripts/test makes it", python.display()));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
        panic!(
            "{}; scripts/test installs chromium",
            String::from_utf8_lossy(&output.stderr)
        )
    })
}
