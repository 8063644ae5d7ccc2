//! The example `generated_client.ts` with a client that hey-api generates from the served OpenAPI document.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Harness, LOCK};

/// The `auth` option of the example.
const AUTH_BY_SCHEME: &str =
    "auth: (scheme) => (scheme.type === \"http\" ? KEYWRIGHT_TOKEN : KEYWRIGHT_API_KEY)";

/// The mistake that the documents warn of: one value for both schemes.
const ONE_AUTH_FOR_BOTH: &str = "auth: () => KEYWRIGHT_TOKEN";

/// A folder with the generated client and the compiled example.
struct GeneratedClient {
    folder: TempDir,
}

impl GeneratedClient {
    /// Generates the client from the server's document, and compiles the example and a copy with the mistake in strict mode.
    fn new(harness: &Harness) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let packages = root.join(".npm/node_modules");
        let packages = packages.canonicalize();
        let packages = packages.expect("scripts/test installs the npm packages");
        let folder = TempDir::new().expect("a folder");
        std::os::unix::fs::symlink(&packages, folder.path().join("node_modules")).expect("a link");
        let example = root.join("examples/clients/generated_client.ts");
        let example = std::fs::read_to_string(example).expect("the example");
        assert!(
            example.contains(AUTH_BY_SCHEME),
            "the example chooses the credential by scheme"
        );
        let mistake = example.replace(AUTH_BY_SCHEME, ONE_AUTH_FOR_BOTH);
        for (name, text) in [("by_scheme.ts", &example), ("one_for_both.ts", &mistake)] {
            std::fs::write(folder.path().join(name), text).expect("written");
        }
        let generated = Self { folder };
        let url = format!("http://{}/openapi.json", harness.program.address);
        generated.tool("openapi-ts", &packages, &["-i", &url, "-o", "client"]);
        let options = [
            "--strict",
            "--module",
            "commonjs",
            "--target",
            "es2022",
            "--skipLibCheck",
            "--outDir",
            "out",
        ];
        let files = ["by_scheme.ts", "one_for_both.ts"];
        generated.tool("tsc", &packages, &[&options[..], &files].concat());
        generated
    }

    fn tool(&self, name: &str, packages: &Path, arguments: &[&str]) {
        let program: PathBuf = packages.join(".bin").join(name);
        let output = Command::new(&program)
            .args(arguments)
            .current_dir(self.folder.path())
            .output();
        let output = output.unwrap_or_else(|e| panic!("{name}: {e}; scripts/test installs it"));
        assert!(output.status.success(), "{name}: {output:?}");
    }

    /// Writes a key with these credentials.
    fn write(
        &self,
        harness: &Harness,
        program: &str,
        key: &str,
        credentials: &[(&str, &str)],
    ) -> Output {
        Command::new("node")
            .arg(self.folder.path().join("out").join(program))
            .args([&LOCK.to_string(), key, "2"])
            .env_remove("KEYWRIGHT_TOKEN")
            .env_remove("KEYWRIGHT_API_KEY")
            .env(
                "KEYWRIGHT_URL",
                format!("http://{}", harness.program.address),
            )
            .envs(credentials.iter().copied())
            .output()
            .expect("scripts/test installs Node.js")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generated_client_sends_each_credential_in_its_own_header() {
    let harness = Harness::new(&[]);
    let generated = GeneratedClient::new(&harness);
    let token = ("KEYWRIGHT_TOKEN", &*harness.program.token);
    let api_key = ("KEYWRIGHT_API_KEY", &*harness.program.api_key);
    for (key, credentials) in [
        ("by-token", &[token][..]),
        ("by-api-key", &[api_key]),
        ("by-both", &[token, api_key]),
    ] {
        let output = generated.write(&harness, "by_scheme.js", key, credentials);
        let answer: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        assert_eq!(answer["event"]["data"]["keyUuid"], key, "{answer}");
        assert_eq!(answer["write"]["state"], "SUCCEEDED", "{answer}");
    }
    // One value for both schemes is also sent as an API key.
    let both = [token, api_key];
    let refused = generated.write(&harness, "one_for_both.js", "twice", &both);
    let printed = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success(), "{refused:?}");
    assert!(printed.starts_with("401: "), "{printed}");
    assert!(
        harness.program.log().contains("API key: malformed"),
        "{}",
        harness.program.log()
    );
    let store = harness.store().await;
    assert!(!store.dump().contains("twice"));
}
