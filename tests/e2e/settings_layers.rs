//! Settings from the file, the environment and the command line, and a server without the sandbox.

use std::path::Path;
use std::process::{Command, Output};

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use keywright_adapters::time::SystemClock;
use keywright_domain::ports::Clock;
use keywright_tests::Program;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::BINARY;

/// Runs a command in this folder with these environment variables. Returns the exit code, standard output and error.
fn run(
    folder: &Path,
    variables: &[(&str, &str)],
    arguments: &[&str],
) -> (Option<i32>, String, String) {
    let mut command = Command::new(BINARY);
    command.args(arguments).current_dir(folder);
    command.envs(variables.iter().copied());
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("the program is there");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (status.code(), text(stdout), text(stderr))
}

fn folder(settings: &str) -> TempDir {
    let folder = TempDir::new().expect("a folder");
    std::fs::write(folder.path().join("keywright.toml"), settings).expect("written");
    folder
}

/// The line of a setting in the output of `check-config`.
fn line<'a>(printed: &'a str, key: &str) -> &'a str {
    let line = printed
        .lines()
        .find(|line| line.split_whitespace().next() == Some(key));
    line.unwrap_or_else(|| panic!("no line for {key}: {printed}"))
}

#[test]
fn the_command_line_overrides_variables_and_these_override_the_file() {
    let folder = folder("lease = \"20s\"\nturn = \"2s\"\nrequest = \"9s\"\nmax-in-flight = 7\n");
    let variables = [("KEYWRIGHT_TURN", "1s"), ("KEYWRIGHT_REQUEST", "8s")];
    let (code, printed, error) = run(
        folder.path(),
        &variables,
        &["check-config", "--request", "7s"],
    );
    assert_eq!(code, Some(0), "{error}");
    for (key, value, source) in [
        ("lease", "20s", "(keywright.toml)"),
        ("turn", "1s", "(KEYWRIGHT_TURN)"),
        ("request", "7s", "(command line)"),
        ("max-in-flight", "7", "(keywright.toml)"),
    ] {
        let line = line(&printed, key);
        assert!(line.contains(value) && line.ends_with(source), "{line}");
    }
    assert!(
        line(&printed, "time-to-live").ends_with("48h"),
        "a default has no source"
    );
    let end = "\nShadows are in this process; reports come from the shadows of this process.\n\
               These settings are valid.\n";
    assert!(printed.ends_with(end), "{printed}");
}

#[test]
fn repeatable_settings_are_lists_in_the_file_and_separated_by_semicolons_in_variables() {
    let folder = folder("behaviour = [\"all:latency=1ms\", \"123:twice\"]\n");
    let (code, printed, error) = run(folder.path(), &[], &["check-config"]);
    assert_eq!(code, Some(0), "{error}");
    assert!(line(&printed, "behaviour").contains("all:latency=1ms; 123:twice"));
    let variables = [("KEYWRIGHT_BEHAVIOUR", "all:silent; 124:twice")];
    let (_, printed, _) = run(folder.path(), &variables, &["check-config"]);
    assert!(line(&printed, "behaviour").contains("all:silent; 124:twice"));
}

#[test]
fn invalid_settings_are_refused_with_their_source_and_allowed_values() {
    for (settings, parts) in [
        (
            "lise = \"15s\"",
            ["keywright.toml: `lise`", "lease, lease-margin, listen"],
        ),
        ("lease = \"soon\"", ["keywright.toml: `lease`", "500ms"]),
        (
            "lease = 15.5",
            ["keywright.toml: `lease`", "a text, a number"],
        ),
        (
            "log = \"yaml\"",
            ["keywright.toml: `log`", "possible values: text, json"],
        ),
        (
            "max-in-flight = 0",
            ["keywright.toml: `max-in-flight`", "1 to 1000000"],
        ),
        ("lease = \"1s\"", ["lease (1s)", "14.5s"]),
        ("lease = ", ["keywright.toml", "line 1"]),
        (
            "[server]\nlisten = \"x\"",
            ["keywright.toml: `server`", "a text, a number"],
        ),
        (
            "config = \"other.toml\"\nlise = 1",
            ["keywright.toml", "lise"],
        ),
        (
            "sandbox = false\nlocks = 3",
            ["--locks", "--sandbox is off"],
        ),
        (
            "sandbox = \"off\"\nfaults = \"put@1=refuse\"",
            ["--faults", "--sandbox is off"],
        ),
        (
            "sandbox = \"off\"\nbehaviour = [\"all:twice\"]",
            ["--behaviour", "--sandbox is off"],
        ),
        (
            "sandbox = \"off\"\nvirtual-locks = \"off\"",
            ["--virtual-locks", "--sandbox is off"],
        ),
        (
            "sandbox = \"off\"\nvirtual-locks = \"on\"",
            ["--virtual-locks", "--sandbox is off"],
        ),
        (
            "cors-origins = \"app.example\"",
            ["keywright.toml: `cors-origins`", "https://app.example"],
        ),
        ("keep-alive = \"0s\"", ["--keep-alive", "more than zero"]),
        (
            "token-key = \"key.pem\"\nsandbox = \"off\"",
            ["--token-issuer", "--token-audience"],
        ),
        ("token-issuer = \"i\"", ["--jwks", "--token-key"]),
        (
            "sandbox = \"off\"\njwks = \"http://id.example/\"\ntoken-issuer = \"i\"\ntoken-audience = \"a\"",
            ["http://id.example/", "https://"],
        ),
        ("jwks-ca = \"ca.pem\"", ["--jwks-ca", "URL"]),
        (
            "store = \"memory\"",
            ["--store memory", "--shadow volatile"],
        ),
        (
            "store = \"memory\"\nshadow = \"volatile\"\nsandbox = \"off\"",
            ["--store memory", "--sandbox is off"],
        ),
        (
            "jwks-every = \"0s\"\njwks = \"https://x/\"",
            ["--jwks-every", "zero"],
        ),
        (
            "jwks = \"k\"\ntoken-issuer = \"i\"\ntoken-audience = \"a\"",
            ["the sandbox has tokens of its own", "--sandbox off"],
        ),
        (
            "shadow = \"aws\"\nreports = [\"mqtt\"]",
            ["--reports mqtt", "need --mqtt-broker"],
        ),
        ("shadow = \"mqtt\"", ["--shadow mqtt", "need --mqtt-broker"]),
        ("mqtt-shards = 2", ["--mqtt-shards", "need --shadow mqtt"]),
        (
            "shadow = \"aws\"\nreports = [\"mqtt\"]\nmqtt-broker = \"mqtt://localhost\"\nmqtt-shards = 2",
            ["--mqtt-shards", "need --shadow mqtt"],
        ),
        (
            "mqtt-password-file = \"f\"",
            ["mqtt-…", "need --mqtt-broker"],
        ),
        (
            "reports = [\"mqtt\"]\nmqtt-broker = \"mqtt://localhost\"",
            ["--reports mqtt", "--shadow mqtt or aws"],
        ),
        (
            "shadow = \"mqtt\"\nmqtt-broker = \"mqtt://localhost\"\nmqtt-client-id = \"keywright-shadow\"",
            ["keywright.toml: `mqtt-client-id`", "shadow service"],
        ),
        (
            "mqtt-broker = \"mqtt://localhost\"",
            ["--shadow mqtt", "--reports mqtt"],
        ),
        (
            "mqtt-broker = \"localhost:1883\"",
            ["keywright.toml: `mqtt-broker`", "mqtts://HOST:PORT"],
        ),
        (
            "shadow = \"mqtt\"\nmqtt-broker = \"mqtt://localhost\"\nmqtt-shards = 0",
            ["keywright.toml: `mqtt-shards`", "1 to 64"],
        ),
        (
            "shadow = \"mqtt\"\nmqtt-broker = \"mqtt://localhost\"\nmqtt-user = \"me\"",
            ["--mqtt-password-file", "go together"],
        ),
        (
            "shadow = \"mqtt\"\nmqtt-broker = \"mqtt://localhost\"\naws-region = \"eu-west-1\"",
            ["--aws-region", "need --shadow aws"],
        ),
        (
            "shadow = \"aws\"\nreports = [\"memory\"]",
            ["--reports memory", "--shadow memory"],
        ),
        (
            "aws-endpoint = \"http://x\"",
            ["--aws-endpoint", "--shadow aws"],
        ),
        (
            "shadow = \"aws\"\naws-endpoint = \"x\"",
            ["keywright.toml: `aws-endpoint`", "https://HOST"],
        ),
        (
            "reports = [\"http\"]",
            ["--reports http", "--reports-secret"],
        ),
        (
            "reports-secret = \"f\"",
            ["--reports-secret", "--reports http"],
        ),
        ("json = true", ["`json` is not a setting", "jwks"]),
        ("poll-every = \"1s\"", ["--poll-every", "--reports poll"]),
        (
            "reports = [\"poll\"]\npoll-every = \"0s\"",
            ["--poll-every", "more than zero"],
        ),
        (
            "reports = [\"http\"]\nreports-secret = \"missing\"",
            ["missing", "--reports-secret"],
        ),
        (
            "shadow-name = \"a/b\"",
            ["keywright.toml: `shadow-name`", "1 to 64"],
        ),
        (
            "shadow = \"aws\"\nbehaviour = [\"all:twice\"]",
            ["--behaviour", "keywright sandbox"],
        ),
        (
            "jwks = \"missing.json\"\ntoken-issuer = \"i\"\ntoken-audience = \"a\"\nsandbox = \"off\"",
            ["missing.json", "No such file"],
        ),
    ] {
        let folder = folder(settings);
        let (code, _, error) = run(folder.path(), &[], &["check-config"]);
        assert_eq!(code, Some(2), "{settings}: {error}");
        for part in parts {
            assert!(error.contains(part), "{settings}: {error}");
        }
        let left = std::fs::read_dir(folder.path())
            .expect("the folder")
            .count();
        assert_eq!(left, 1, "no file was created");
    }
    let folder = folder("");
    for (variable, value, part) in [
        ("KEYWRIGHT_LISE", "15s", "KEYWRIGHT_LISE is not a setting"),
        ("KEYWRIGHT_LEASE", "soon", "KEYWRIGHT_LEASE: invalid value"),
        ("KEYWRIGHT_CONFIG", "missing.toml", "missing.toml"),
    ] {
        let (code, _, error) = run(folder.path(), &[(variable, value)], &["serve"]);
        assert_eq!(code, Some(2), "{variable}: {error}");
        assert!(error.contains(part), "{variable}: {error}");
    }
}

/// Kubernetes sets these variables for services named keywright and keywright-shadow.
#[test]
fn variables_of_kubernetes_services_are_ignored() {
    let folder = folder("");
    let service_links = [
        ("KEYWRIGHT_SERVICE_HOST", "10.0.0.1"),
        ("KEYWRIGHT_SERVICE_PORT", "80"),
        ("KEYWRIGHT_SERVICE_PORT_HTTP", "80"),
        ("KEYWRIGHT_PORT", "tcp://10.0.0.1:80"),
        ("KEYWRIGHT_PORT_80_TCP", "tcp://10.0.0.1:80"),
        ("KEYWRIGHT_PORT_80_TCP_PROTO", "tcp"),
        ("KEYWRIGHT_PORT_80_TCP_PORT", "80"),
        ("KEYWRIGHT_PORT_80_TCP_ADDR", "10.0.0.1"),
        ("KEYWRIGHT_SHADOW_SERVICE_HOST", "10.0.0.2"),
        ("KEYWRIGHT_SHADOW_PORT", "tcp://10.0.0.2:8080"),
        ("KEYWRIGHT_SHADOW_PORT_8080_TCP_ADDR", "10.0.0.2"),
    ];
    let (code, _, error) = run(folder.path(), &service_links, &["check-config"]);
    assert_eq!(code, Some(0), "{error}");
    for (variable, value) in [
        ("KEYWRIGHT_PORT", "8787"),
        ("KEYWRIGHT_SERVICE", "x"),
        ("KEYWRIGHT_PORTS", "tcp://10.0.0.1:80"),
    ] {
        let (code, _, error) = run(folder.path(), &[(variable, value)], &["check-config"]);
        assert_eq!(code, Some(2), "{variable}: {error}");
        assert!(error.contains(variable), "{error}");
    }
}

/// The variables of sandbox.env are for clients.
#[test]
fn client_variables_of_sandbox_env_are_ignored() {
    let folder = folder("");
    let (code, ..) = run(
        folder.path(),
        &[("KEYWRIGHT_TOKEN", "x"), ("KEYWRIGHT_URL", "y")],
        &["check-config"],
    );
    assert_eq!(code, Some(0));
}

/// The server refuses settings of the sandbox itself, too, and names both settings.
#[test]
fn the_server_refuses_settings_of_the_sandbox_without_it() {
    let folder = TempDir::new().expect("a folder");
    for setting in [
        ["--faults", "put@1=refuse"],
        ["--behaviour", "all:twice"],
        ["--locks", "20"],
        ["--virtual-locks", "off"],
    ] {
        let arguments = [&["--sandbox", "off"], &setting[..]].concat();
        let (code, text) = Program::fail(BINARY, folder.path(), &arguments);
        assert_eq!(code, Some(2), "{setting:?}: {text}");
        let names_both = text.contains(setting[0]) && text.contains("--sandbox is off");
        assert!(names_both, "{setting:?}: {text}");
    }
}

/// The printed value of a setting that is not set anywhere.
fn default_of(printed: &Value, key: &str) -> String {
    assert_eq!(printed[key]["from"], "default", "{key}");
    let value = printed[key]["values"][0].as_str();
    value
        .unwrap_or_else(|| panic!("{key} has a default"))
        .to_owned()
}

#[test]
fn defaults_that_depend_on_other_settings_are_described() {
    let folder = TempDir::new().expect("a folder");
    let (code, printed, error) = run(folder.path(), &[], &["check-config"]);
    assert_eq!(code, Some(0), "{error}");
    for (key, value) in [
        ("max-in-flight-each", "half of --max-in-flight"),
        ("audit-every", "no audits"),
        ("jwks", "-"),
    ] {
        let line = line(&printed, key);
        assert_eq!(
            line.split_once(' ').map(|(_, rest)| rest.trim()),
            Some(value),
            "{line}"
        );
    }
}

#[test]
fn defaults_of_the_protocol_are_those_of_the_domain() {
    let folder = TempDir::new().expect("a folder");
    let (code, printed, error) = run(folder.path(), &[], &["check-config", "--json"]);
    assert_eq!(code, Some(0), "{error}");
    let printed: Value = serde_json::from_str(&printed).expect("JSON");
    let settings = keywright_domain::Settings::default();
    let limits = settings.limits;
    for (key, expected) in [
        ("request", settings.request_timeout),
        ("turn", settings.queue_timeout),
        ("shadow-call", settings.shadow_timeout),
        ("lease", settings.lease),
        ("lease-margin", settings.lease_margin),
        ("time-to-live", limits.time_to_live),
        ("confirm-within", limits.confirm_within),
        ("clear-within", limits.clear_within),
        ("keep-answers", limits.idempotency_retention),
        ("keep-writes", limits.write_retention),
    ] {
        let default = humantime::parse_duration(&default_of(&printed, key));
        assert_eq!(default, Ok(expected), "{key}");
    }
    let open_writes = default_of(&printed, "max-open-writes");
    assert_eq!(open_writes, limits.max_open_writes.to_string());
}

#[test]
fn the_page_of_settings_is_up_to_date() {
    let folder = TempDir::new().expect("a folder");
    let (code, page, error) = run(folder.path(), &[], &["settings"]);
    assert_eq!(code, Some(0), "{error}");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/settings.md");
    let document = std::fs::read_to_string(path).expect("docs/settings.md");
    let is_same = page == document;
    assert!(is_same, "run `cargo run -- settings > docs/settings.md`");
}

#[test]
fn help_names_commands_and_settings() {
    let folder = folder("");
    let (code, printed, _) = run(folder.path(), &[], &["--help"]);
    assert_eq!(code, Some(0));
    for part in [
        "serve",
        "check-config",
        "lock",
        "api-key",
        "token",
        "write",
        "completions",
        "--listen",
        "--jwks",
        "--lease",
        "KEYWRIGHT_",
        "keywright.toml",
    ] {
        assert!(printed.contains(part), "{part}");
    }
    let (code, printed, _) = run(folder.path(), &[], &["completions", "bash"]);
    assert!(code == Some(0) && printed.contains("check-config"));
}

#[tokio::test]
async fn a_server_without_the_sandbox_accepts_tokens_of_the_configured_issuer() {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key pair");
    let public = pair.public_key().as_der().expect("DER");
    let base64 = base64::engine::general_purpose::STANDARD.encode(public.as_ref());
    let folder = folder(
        "sandbox = \"off\"\ntoken-key = \"issuer.pem\"\ntoken-issuer = \"https://id.example\"\n\
         token-audience = \"locks\"\ntoken-organization-claim = \"tenant\"\n",
    );
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{base64}\n-----END PUBLIC KEY-----\n");
    std::fs::write(folder.path().join("issuer.pem"), pem).expect("written");
    let data = folder.path().join("data");
    let data = data.to_str().expect("a path");
    let command = |arguments: &[&str]| {
        let mut all = arguments.to_vec();
        all.extend(["--data", data]);
        run(folder.path(), &[], &all)
    };
    let added = command(&[
        "lock",
        "add",
        "7",
        "--uuid",
        "u-7",
        "--thing",
        "door-7",
        "--organization",
        "acme",
    ]);
    assert_eq!(added.0, Some(0), "{added:?}");

    let program = Program::start_in(BINARY, folder.path(), Path::new(data), &[]);
    assert!(!Path::new(data).join("sandbox.env").exists());
    let private = pair.to_pkcs8v1().expect("DER");
    let token = |claim: &str, organization: &str| {
        let claims = json!({
            "iss": "https://id.example", "aud": "locks", "sub": "svc", claim: organization,
            "exp": SystemClock.now().as_secs() + 60,
        });
        let key = EncodingKey::from_ec_der(private.as_ref());
        encode(&Header::new(Algorithm::ES256), &claims, &key).expect("a token")
    };
    let write = |token: &str| {
        let request = program.request("POST", "/locks/7/WriteKey").bearer(token);
        request.json(&json!({ "keyUuid": "k" })).send()
    };
    assert_eq!(write(&token("tenant", "acme")).await.status, 200);
    assert_eq!(write(&token("tenant", "other")).await.status, 403);
    assert_eq!(
        write(&token("org", "acme")).await.status,
        403,
        "only the configured claim names the organization"
    );
    // The server reloads the issuer's key after a change.
    let next = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key pair");
    let public = next.public_key().as_der().expect("DER");
    let base64 = base64::engine::general_purpose::STANDARD.encode(public.as_ref());
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{base64}\n-----END PUBLIC KEY-----\n");
    let old = token("tenant", "acme");
    assert_eq!(write(&old).await.status, 200);
    std::fs::write(folder.path().join("issuer.pem"), pem).expect("written");
    crate::harness::eventually("the old key's tokens are refused", || async {
        (write(&old).await.status == 401).then_some(())
    })
    .await;
    std::fs::write(folder.path().join("issuer.pem"), "broken").expect("written");
    crate::harness::eventually("it is logged", || async {
        let log = program.log();
        log.contains("the keys of tokens stay as they were")
            .then_some(())
    })
    .await;
    let private = next.to_pkcs8v1().expect("DER");
    let claims = json!({
        "iss": "https://id.example", "aud": "locks", "sub": "svc", "tenant": "acme",
        "exp": SystemClock.now().as_secs() + 60,
    });
    let key = EncodingKey::from_ec_der(private.as_ref());
    let token = encode(&Header::new(Algorithm::ES256), &claims, &key).expect("a token");
    assert_eq!(
        write(&token).await.status,
        200,
        "tokens of the new key are accepted"
    );
    let details = program.request("GET", "/locks/123/details").bearer(&token);
    assert_eq!(details.send().await.status, 404, "there are no demo locks");
}
