//! Files that settings name and that cannot be used: both `serve` and `check-config` name them and end with code 2.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use keywright_mqtt::mosquitto::Certificates;
use tempfile::TempDir;

use crate::harness::BINARY;

const NOBODY: u32 = 65534;

/// The program in a folder, run by a user who may not read everything: as root nothing is forbidden.
struct Unprivileged {
    folder: TempDir,
    program: PathBuf,
}

impl Unprivileged {
    fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        set_mode(folder.path(), 0o755);
        // Another user may have no way to where the program was built.
        let program = folder.path().join("keywright");
        copy_program(&program);
        Self { folder, program }
    }

    /// A file of the folder, which its owner alone may read, or nobody where the owner runs the tests.
    fn closed(&self, name: &str) -> PathBuf {
        self.file(name, "whatever", 0o000)
    }

    fn file(&self, name: &str, content: &str, mode: u32) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).expect("written");
        set_mode(&path, mode);
        path
    }

    /// A folder in which the user may make files.
    fn data(&self) -> PathBuf {
        let path = self.folder.path().join("data");
        std::fs::create_dir_all(&path).expect("made");
        set_mode(&path, 0o777);
        path
    }

    /// The exit code and standard error of a command, which is given up after a while.
    fn run(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new("timeout");
        command.arg("60").arg(&self.program).args(arguments);
        command.env_clear().current_dir(self.folder.path());
        if std::fs::metadata("/proc/self").expect("Linux").uid() == 0 {
            command.uid(NOBODY).gid(NOBODY);
        }
        let output = command.output().expect("coreutils are there");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    }
}

/// By another process: a file that this one has open for writing when one of its tests starts a program cannot be run.
pub(crate) fn copy_program(to: &Path) {
    let copied = Command::new("cp").arg(BINARY).arg(to).status();
    assert!(copied.expect("coreutils are there").success());
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("its owner may");
}

fn text(path: &Path) -> &str {
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

/// Each with what it says, at the end of the arguments of a command.
fn assert_both_refuse(program: &Unprivileged, settings: &[&str], parts: &[&str]) {
    let data = program.data();
    for command in ["check-config", "serve"] {
        let mut arguments = vec![command, "--listen", "127.0.0.1:0"];
        if !settings.contains(&"--data") {
            arguments.extend(["--data", text(&data)]);
        }
        arguments.extend(settings);
        let (code, said) = program.run(&arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {said}");
        for part in parts {
            assert!(said.contains(part), "{arguments:?}: {said}");
        }
    }
}

#[test]
fn a_file_that_may_not_be_read_is_permission_denied_with_its_path() {
    let program = Unprivileged::new();
    let closed = program.closed("closed");
    let path = text(&closed);
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
            let (code, said) = program.run(&[&command[..], &more].concat());
            assert_eq!(code, Some(2), "{command:?}: {said}");
            assert!(
                said.contains(path) && said.contains("Permission denied"),
                "{said}"
            );
        }
    }
}

#[test]
fn a_folder_in_which_nothing_can_be_made_is_named() {
    let program = Unprivileged::new();
    let folder = program.folder.path().join("closed");
    std::fs::create_dir(&folder).expect("made");
    set_mode(&folder, 0o555);
    let missing = folder.join("a/b");
    let file = program.file("file", "", 0o644).join("data");
    for (data, why) in [
        (text(&folder), "Permission denied"),
        (text(&missing), "Permission denied"),
        (text(&file), "Not a directory"),
    ] {
        assert_both_refuse(&program, &["--data", data], &[data, why]);
    }
}

#[test]
fn what_check_config_finds_ends_the_server_with_the_same_code() {
    let program = Unprivileged::new();
    let certificates = Certificates::new();
    let copy = |name: &str| {
        let content = std::fs::read_to_string(certificates.path(name)).expect("it is there");
        program.file(name, &content, 0o644)
    };
    let (certificate, other_key) = (copy("client.pem"), copy("broker.key"));
    let (certificate, other_key) = (text(&certificate), text(&other_key));
    let (short, no_key) = (
        program.file("short", "secret", 0o644),
        program.file("no-key", "{}", 0o644),
    );
    let (short, no_key) = (text(&short), text(&no_key));
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
    assert!(left.is_empty(), "nothing was made: {left:?}");
}
