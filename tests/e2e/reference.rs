//! The OpenAPI document, the page that is made from it, and clients in five languages.

use std::path::{Path, PathBuf};
use std::process::Command;

use keywright_domain::model::{FailureReason, LockEvent, Retry, WriteState};
use serde_json::{Value, json};

use crate::harness::{LOCK, World};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

async fn document(world: &World) -> Value {
    let answer = world.program.request("GET", "/openapi.json").send().await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    answer.body
}

#[tokio::test]
async fn the_document_names_what_is_served_and_how_to_get_in() {
    let world = World::silent();
    let document = document(&world).await;
    assert_eq!(document["openapi"], "3.1.0");
    let server = &document["servers"][0]["variables"]["server"]["default"];
    assert_eq!(*server, format!("http://{}", world.program.address));
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
            let answer = world
                .program
                .request(&method.to_uppercase(), &path)
                .send()
                .await;
            let open = operation.get("security") == Some(&json!([]));
            assert_eq!(
                answer.status,
                if open { 200 } else { 401 },
                "{method} {path}"
            );
            operations += 1;
        }
    }
    assert_eq!(operations, 9);
}

/// What has no description, by its place in the document.
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
                // Examples hold what is answered.
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
async fn the_document_describes_and_types_what_is_answered() {
    let world = World::silent();
    let document = document(&world).await;
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

/// Where reports may be posted, the document says how, and with which credential.
#[tokio::test]
async fn the_document_describes_device_reports_where_they_are_taken() {
    assert!(
        document(&World::silent()).await["paths"]
            .get("/device-reports")
            .is_none()
    );
    let folder = tempfile::TempDir::new().expect("a folder");
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "a-secret-of-thirty-two-characters").expect("written");
    let secret = secret.to_str().expect("a path");
    let world = World::new(&["--reports", "memory,http", "--reports-secret", secret]);
    let document = document(&world).await;
    let post = &document["paths"]["/device-reports"]["post"];
    assert_eq!(post["security"], json!([{ "ReportsSecret": [] }]));
    assert!(document["components"]["securitySchemes"]["ReportsSecret"].is_object());
    lint(&world, &document);
}

/// Runs Spectral's rules for OpenAPI over the document: no error, no warning, no hint.
fn lint(world: &World, document: &Value) {
    let program = root().join(".npm/node_modules/.bin/spectral");
    let file = world.folder.path().join("openapi.json");
    std::fs::write(&file, document.to_string()).expect("written");
    let ruleset = world.folder.path().join("spectral.yaml");
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
async fn a_linter_finds_nothing_in_the_document() {
    let world = World::silent();
    let document = document(&world).await;
    lint(&world, &document);
    let validator = root().join(".venv/bin/openapi-spec-validator");
    let output = Command::new(&validator)
        .arg(world.folder.path().join("openapi.json"))
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
async fn what_the_document_says_of_errors_is_what_is_answered() {
    let world = World::silent();
    let document = document(&world).await;
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
        world.program.request("POST", "/locks/123/WriteKey"),
        world.program.write_key(124, &json!({ "keyUuid": "k" })),
        world.program.write_key(999, &json!({ "keyUuid": "k" })),
        world
            .program
            .write_key(LOCK, &json!({ "keyUuid": "k", "keyIndexNumber": 100 })),
        world
            .program
            .write_key(LOCK, &json!({ "keyUuid": "k", "x": "x".repeat(5000) })),
        world
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
        // Other causes of the same status may bring others along.
        for header in ["x-request-id", "www-authenticate"] {
            let said = response["headers"].get(header).is_some();
            assert_eq!(
                answer.header(header).is_some(),
                said,
                "{header}: {answer:?}"
            );
        }
    }
}

#[tokio::test]
async fn the_page_comes_with_all_it_needs() {
    let world = World::silent();
    let page = world.program.request("GET", "/docs").send().await;
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
    let plain = world.program.request("GET", "/docs/scalar.js").send().await;
    let packed = world
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

/// What runs each client, and Debian's package that has it.
const CLIENTS: [(&str, &[&str], &str, &str); 5] = [
    ("sh", &[], "curl.sh", "curl"),
    ("python3", &[], "write_key.py", "python3"),
    ("node", &[], "write_key.mjs", "nodejs"),
    ("go", &["run"], "write_key.go", "golang-1.19-go"),
    ("ruby", &[], "write_key.rb", "ruby"),
];

/// The program, where the system has it. Debian's Go 1.19 is not on the path by itself.
fn found(program: &str) -> PathBuf {
    let debians = Path::new("/usr/lib/go-1.19/bin").join(program);
    if debians.exists() {
        debians
    } else {
        program.into()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clients_in_five_languages_write_keys() {
    let world = World::new(&[]);
    for (at, (program, arguments, file, package)) in CLIENTS.into_iter().enumerate() {
        let run = |lock: &str| {
            let mut command = Command::new(found(program));
            command
                .args(arguments)
                .arg(root().join("examples/clients").join(file));
            command.args([lock, file, &at.to_string()]);
            command.env("KEYWRIGHT_URL", format!("http://{}", world.program.address));
            command.env("KEYWRIGHT_TOKEN", &world.program.token);
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
            world.memory().keys.get(&slot).map(String::as_str),
            Some(file)
        );
        let refused = run("124");
        assert!(!refused.status.success(), "{file}: {refused:?}");
        let said = [refused.stdout, refused.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(
            said.contains("403") && said.contains("permission"),
            "{file}: {said}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn schemathesis_finds_nothing() {
    let world = World::new(&["--max-failures", "1000000"]);
    let program = root().join(".venv/bin/schemathesis");
    let url = format!("http://{}", world.program.address);
    for credential in [
        format!("Authorization: Bearer {}", world.program.token),
        format!("X-API-Key: {}", world.program.api_key),
    ] {
        let mut command = Command::new(&program);
        command.current_dir(world.folder.path());
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
            output.status.success() && text.contains("Tested: 9"),
            "{text}"
        );
    }
    assert_eq!(world.write("after-all-that", None).await.status, 200);
}

/// A person types a key into the page and sends it, in Chromium.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_typed_into_the_page_is_written_and_nothing_else_is_asked() {
    let world = World::new(&[]);
    let python = root().join(".venv/bin/python");
    let key = format!("typed-{:016x}", fastrand::u64(..));
    let url = format!("http://{}", world.program.address);
    let picture = world.folder.path().join("page.png");
    let mut command = Command::new(&python);
    command.arg(root().join("tests/docs_page.py"));
    command
        .args([url.as_str(), &world.program.token, &key])
        .arg(&picture);
    let output = command.output();
    let output =
        output.unwrap_or_else(|e| panic!("{}: {e}; scripts/test makes it", python.display()));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let used: Value = serde_json::from_str(&text).unwrap_or_else(|_| {
        panic!(
            "{}; scripts/test installs chromium",
            String::from_utf8_lossy(&output.stderr)
        )
    });
    assert_eq!(
        (&used["statuses"], &used["errors"]),
        (&json!([200, 200]), &json!([])),
        "{used}"
    );
    // A header that nobody has filled in is not sent: a fixed Idempotency-Key would refuse the second request.
    for headers in used["headers"].as_array().expect("two requests") {
        let headers = headers.as_array().expect("names");
        assert!(headers.contains(&json!("authorization")), "{headers:?}");
        for optional in ["idempotency-key", "prefer", "x-api-key"] {
            assert!(!headers.contains(&json!(optional)), "{headers:?}");
        }
    }
    assert!(
        used["shown"]
            .as_str()
            .is_some_and(|s| s.contains("KeyWriteRequested") && s.contains(&key))
    );
    assert_eq!(used["credentials"], json!(["BearerAuth", "ApiKeyAuth"]));
    assert_eq!(
        used["server"],
        url.as_str(),
        "where requests go stands in a field"
    );
    let languages = used["languages"].as_array().expect("languages");
    for language in ["Curl", "Requests", "Fetch", "NewRequest", "net::http"] {
        assert!(
            languages.contains(&json!(language)),
            "{language}: {languages:?}"
        );
    }
    assert!(
        !languages.contains(&json!("HTTP.jl")),
        "and no others: {languages:?}"
    );
    let asked = used["asked"].as_array().expect("requests");
    let elsewhere: Vec<&Value> = asked
        .iter()
        .filter(|asked| {
            !asked
                .as_str()
                .is_some_and(|asked| asked.starts_with(&format!("{url}/")))
        })
        .collect();
    assert!(asked.len() >= 4 && elsewhere.is_empty(), "{asked:?}");
    assert!(
        picture.metadata().is_ok_and(|m| m.len() > 10_000),
        "a picture was taken"
    );
    let events = world.program.get("/locks/123/events").send().await.body;
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
async fn the_reference_page_fits_a_phone() {
    let world = World::silent();
    let url = format!("http://{}/docs", world.program.address);
    let views = look_at(&url, world.folder.path());
    assert_eq!(views.len(), 4);
    for view in views {
        let (page, window) = (view["page"].as_u64(), view["window"].as_u64());
        assert!(page.is_some() && page <= window, "{view}");
        assert_eq!(view["errors"], json!([]));
    }
}

/// A page in Chromium at 360 and at 1280 pixels, light and dark.
pub(crate) fn look_at(url: &str, pictures: &Path) -> Vec<Value> {
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
