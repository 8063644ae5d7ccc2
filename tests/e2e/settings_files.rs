//! Unusable files in settings: `serve` and `check-config` name them and end with exit code 2.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use keywright_mqtt::mosquitto::Certificates;
use tempfile::TempDir;

use crate::harness::BINARY;

const UNPRIVILEGED_USER: u32 = 65534;

/// A copy of the program that runs as an unprivileged user, because root may read every file.
struct Unprivileged {
    folder: TempDir,
    program: PathBuf,
}

impl Unprivileged {
    fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        set_mode(folder.path(), 0o755);
        // The user may not have access to the build folder.
        let program = folder.path().join("keywright");
        copy_program(&program);
        Self { folder, program }
    }

    /// Creates a file that the unprivileged user cannot read.
    fn unreadable_file(&self, name: &str) -> PathBuf {
        self.file(name, "content", 0o000)
    }

    fn file(&self, name: &str, content: &str, mode: u32) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).expect("written");
        set_mode(&path, mode);
        path
    }

    /// Creates a data folder that every user can write.
    fn data(&self) -> PathBuf {
        let path = self.folder.path().join("data");
        std::fs::create_dir_all(&path).expect("made");
        set_mode(&path, 0o777);
        path
    }

    /// Runs a command for at most a minute. Returns its exit code and standard error.
    fn run(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new("timeout");
        command.arg("60").arg(&self.program).args(arguments);
        command.env_clear().current_dir(self.folder.path());
        if std::fs::metadata("/proc/self").expect("Linux").uid() == 0 {
            command.uid(UNPRIVILEGED_USER).gid(UNPRIVILEGED_USER);
        }
        let output = command.output().expect("coreutils are there");
        let printed = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), printed)
    }
}

/// Copies the program in another process. If this process had the file open for writing while another thread forks, the
/// copy could not be executed.
pub(crate) fn copy_program(to: &Path) {
    let copied = Command::new("cp").arg(BINARY).arg(to).status();
    assert!(copied.expect("coreutils are there").success());
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("its owner may");
}

fn as_str(path: &Path) -> &str {
    path.to_str().expect("text")
}

const OWN_TOKENS: [&str; 6] = [
    "--sandbox",
    "off",
    "--token-issuer",
    "issuer",
    "--token-audience",
    "keywright",
];

/// Asserts that both commands refuse these settings with exit code 2 and a text that contains all `parts`.
fn assert_both_refuse(program: &Unprivileged, settings: &[&str], parts: &[&str]) {
    let data = program.data();
    for command in ["check-config", "serve"] {
        let mut arguments = vec![command, "--listen", "127.0.0.1:0"];
        if !settings.contains(&"--data") {
            arguments.extend(["--data", as_str(&data)]);
        }
        arguments.extend(settings);
        let (code, printed) = program.run(&arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {printed}");
        for part in parts {
            assert!(printed.contains(part), "{arguments:?}: {printed}");
        }
    }
}

#[test]
fn an_unreadable_file_is_refused_with_its_path() {
    let program = Unprivileged::new();
    let closed = program.unreadable_file("closed");
    let path = as_str(&closed);
    let url = "https://issuer.example/jwks.json";
    let database = "postgres://me@db.example/keywright";
    for settings in [
        [&OWN_TOKENS[..], &["--jwks", path]].concat(),
        [&OWN_TOKENS[..], &["--jwks", url, "--jwks-ca", path]].concat(),
        [&OWN_TOKENS[..], &["--token-key", path]].concat(),
        [
            &OWN_TOKENS[..],
            &["--token-key", path, "--token-algorithm", "HS256"],
        ]
        .concat(),
        vec!["--reports", "memory,http", "--reports-secret", path],
        vec!["--store", database, "--store-password-file", path],
        vec!["--store", database, "--store-ca", path],
        vec!["--config", path],
    ] {
        assert_both_refuse(&program, &settings, &[path, "Permission denied"]);
    }
    for option in ["--store-password-file", "--store-ca"] {
        for command in [["lock", "list"], ["api-key", "list"]] {
            let more = ["--store", database, option, path];
            let (code, printed) = program.run(&[&command[..], &more].concat());
            assert_eq!(code, Some(2), "{command:?}: {printed}");
            assert!(
                printed.contains(path) && printed.contains("Permission denied"),
                "{printed}"
            );
        }
    }
}

#[test]
fn an_unwritable_folder_is_refused_with_its_path() {
    let program = Unprivileged::new();
    let folder = program.folder.path().join("closed");
    std::fs::create_dir(&folder).expect("made");
    set_mode(&folder, 0o555);
    let missing = folder.join("a/b");
    let file = program.file("file", "", 0o644).join("data");
    for (data, why) in [
        (as_str(&folder), "Permission denied"),
        (as_str(&missing), "Permission denied"),
        (as_str(&file), "Not a directory"),
    ] {
        assert_both_refuse(&program, &["--data", data], &[data, why]);
    }
}

#[test]
fn the_server_refuses_what_check_config_refuses() {
    let program = Unprivileged::new();
    let certificates = Certificates::new();
    let copy = |name: &str| {
        let content = std::fs::read_to_string(certificates.path(name)).expect("it is there");
        program.file(name, &content, 0o644)
    };
    let (certificate, other_key) = (copy("client.pem"), copy("broker.key"));
    let (certificate, other_key) = (as_str(&certificate), as_str(&other_key));
    let (short, no_key) = (
        program.file("short", "secret", 0o644),
        program.file("no-key", "{}", 0o644),
    );
    let (short, no_key) = (as_str(&short), as_str(&no_key));
    let broker = [
        "--shadow",
        "mqtt",
        "--mqtt-broker",
        "mqtts://localhost:1",
        "--mqtt-certificate",
    ];
    let database = "postgres://me@db.example/keywright";
    for (settings, parts) in [
        (
            [&broker[..], &["missing.pem", "--mqtt-key", other_key]].concat(),
            ["missing.pem", "No such file"],
        ),
        (
            [&broker[..], &[certificate, "--mqtt-key", other_key]].concat(),
            [other_key, "not the key of"],
        ),
        (
            [&OWN_TOKENS[..], &["--jwks", "http://issuer.example/jwks"]].concat(),
            ["http://issuer.example/jwks", "https://"],
        ),
        (
            [&OWN_TOKENS[..], &["--jwks", "https:///jwks"]].concat(),
            ["https:///jwks", "an example is"],
        ),
        (
            [&OWN_TOKENS[..], &["--jwks", no_key]].concat(),
            [no_key, "not a JWKS"],
        ),
        (
            [&OWN_TOKENS[..], &["--jwks", "missing.json"]].concat(),
            ["missing.json", "No such file"],
        ),
        (
            [&OWN_TOKENS[..], &["--token-key", no_key]].concat(),
            [no_key, "no"],
        ),
        (
            vec!["--reports", "memory,http", "--reports-secret", short],
            [short, "characters at least"],
        ),
        (
            vec!["--store", database, "--store-ca", "missing.pem"],
            ["missing.pem", "No such file"],
        ),
        (
            vec!["--store", database, "--store-ca", no_key],
            [no_key, "no certificate"],
        ),
        (
            vec!["--store", database, "--store-password-file", "missing"],
            ["missing", "No such file"],
        ),
    ] {
        assert_both_refuse(&program, &settings, &parts);
    }
    let left: Vec<_> = std::fs::read_dir(program.data())
        .expect("a folder")
        .collect();
    assert!(left.is_empty(), "no file was created: {left:?}");
}
