//! A build without the feature `sandbox`: it links nothing of the sandbox, and runs with production settings.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use keywright_mqtt::mosquitto::Mosquitto;
use keywright_tests::{Program, Shadows};
use serde_json::{Value, json};
use tempfile::TempDir;

const FEATURES: &str = "aws,jwks-url,mqtt,postgres";

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .args(["--package", "keywright", "--locked", "--offline"])
        .args(["--no-default-features", "--features", FEATURES])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).expect("text")
}

/// The path of the program, built once for all tests of this module.
fn binary() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let printed = cargo(&["build", "--bin", "keywright", "--message-format", "json"]);
        let messages = printed
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut executables = messages.filter_map(|message| {
            let executable = message["executable"].as_str()?;
            Some(PathBuf::from(executable))
        });
        let executable = executables.next_back().expect("a program");
        // Another build may overwrite the executable.
        let copy = executable.with_file_name("keywright-without-sandbox");
        std::fs::copy(&executable, &copy).expect("copied");
        copy
    })
}

#[test]
fn virtual_locks_demo_data_and_faults_are_not_linked() {
    let tree = cargo(&[
        "tree", "--edges", "normal", "--prefix", "none", "--format", "{p} {f}",
    ]);
    assert!(tree.contains("keywright-adapters v"), "{tree}");
    assert!(!tree.contains("keywright-sandbox v"), "{tree}");
    let adapters = tree
        .lines()
        .find(|line| line.starts_with("keywright-adapters v"));
    let features = adapters
        .and_then(|line| line.rsplit(' ').next())
        .expect("features");
    assert!(
        !features.split(',').any(|feature| feature == "faults"),
        "{features}"
    );
    let read = |path: &Path| {
        let bytes = std::fs::read(path).expect("the program is read");
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let (program, default_build) = (read(binary()), read(Path::new(crate::harness::BINARY)));
    for text in [
        "FaultyShadow",
        "FaultyLockRepo",
        "VirtualLocks",
        "demo-user",
        "token-key.pk8",
        "sandbox.keywright.invalid",
    ] {
        assert!(
            default_build.contains(text),
            "{text} is not even in the default build"
        );
        assert!(!program.contains(text), "{text}");
    }
}

#[test]
fn sandbox_settings_are_refused() {
    let folder = TempDir::new().expect("a folder");
    let binary = binary().to_str().expect("a path");
    for (arguments, message_part) in [
        (vec!["--sandbox", "on"], "feature sandbox"),
        (
            vec!["--sandbox", "off", "--faults", "put@1=refuse"],
            "--faults",
        ),
        (vec!["--locks", "5"], "--locks"),
    ] {
        let (code, text) = Program::fail(binary, folder.path(), &arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {text}");
        assert!(text.contains(message_part), "{arguments:?}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_production_settings_accepts_writes() {
    let binary = binary().to_str().expect("a path");
    let broker = Mosquitto::start();
    let url = broker.url().to_string();
    let folders = [(); 2].map(|()| TempDir::new().expect("a folder"));
    let _shadows = Shadows::start(binary, "shadow", folders[0].path(), &["--broker", &url]);
    let data = folders[1].path();
    std::fs::write(
        data.join("keywright.toml"),
        format!("sandbox = \"off\"\nshadow = \"mqtt\"\nmqtt-broker = \"{url}\"\n"),
    )
    .expect("written");
    let command = |arguments: &[&str]| {
        let output = Command::new(binary)
            .args(arguments)
            .args(["--json", "--data"])
            .arg(data)
            .current_dir(data)
            .output()
            .expect("the program runs");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{errors}");
        serde_json::from_slice::<Value>(&output.stdout).expect("JSON")
    };
    let lock = [
        "lock",
        "add",
        "7",
        "--uuid",
        "u-7",
        "--thing",
        "door-7",
        "--organization",
        "acme",
    ];
    command(&lock);
    let key = command(&["api-key", "issue", "acme"]);
    let program = Program::start_in(binary, data, data, &[]);
    crate::harness::eventually("the server is ready", || async {
        (program.request("GET", "/readyz").send().await.status == 200).then_some(())
    })
    .await;
    let request = program
        .request("POST", "/locks/7/WriteKey")
        .json(&json!({ "keyUuid": "k" }));
    let answer = request
        .header("X-API-Key", key["apiKey"].as_str().expect("a key"))
        .send()
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    // By default no origin is allowed.
    let preflight = program
        .request("OPTIONS", "/locks/7/WriteKey")
        .header("Origin", "https://app.example")
        .header("Access-Control-Request-Method", "POST");
    let preflight = preflight.send().await;
    assert_eq!(preflight.status, 204, "{preflight:?}");
    assert_eq!(preflight.header("access-control-allow-origin"), None);
}
