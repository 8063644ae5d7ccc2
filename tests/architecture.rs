//! Dependencies between packages, crates and modules, and the documents: packages depend on each other only as allowed, the domain is pure,
//! no modules form a circle, compilers are stated, and documents name existing files and have what readers looked for. Dev-dependencies are not checked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use keywright_tests::{markdown, module_graph};
use serde_json::Value;

/// The packages of the workspace that each package may depend on. A package that is missing here is an error.
const ALLOWED_DEPENDENCIES: &[(&str, &[&str])] = &[
    ("keywright-domain", &[]),
    ("keywright-client", &[]),
    ("keywright-mqtt", &[]),
    ("keywright-sqlite", &[]),
    ("keywright-shadow", &["keywright-mqtt", "keywright-sqlite"]),
    ("keywright-testkit", &["keywright-domain"]),
    ("keywright-runner", &["keywright-domain"]),
    (
        "keywright-adapters",
        &[
            "keywright-domain",
            "keywright-mqtt",
            "keywright-shadow",
            "keywright-sqlite",
        ],
    ),
    (
        "keywright-sandbox",
        &["keywright-mqtt", "keywright-shadow", "keywright-sqlite"],
    ),
    (
        "keywright",
        &[
            "keywright-adapters",
            "keywright-client",
            "keywright-domain",
            "keywright-mqtt",
            "keywright-runner",
            "keywright-sandbox",
            "keywright-shadow",
        ],
    ),
    ("keywright-loadtest", &["keywright-client"]),
    ("keywright-examples", &[]),
    (
        "keywright-benches",
        &[
            "keywright-adapters",
            "keywright-client",
            "keywright-domain",
            "keywright-loadtest",
            "keywright-mqtt",
            "keywright-shadow",
            "keywright-testkit",
        ],
    ),
    (
        "keywright-tests",
        &[
            "keywright",
            "keywright-adapters",
            "keywright-client",
            "keywright-domain",
            "keywright-loadtest",
            "keywright-mqtt",
            "keywright-sandbox",
            "keywright-shadow",
            "keywright-testkit",
        ],
    ),
];

/// All crates that the domain may depend on, directly or indirectly: procedural macros.
const CRATES_OF_THE_DOMAIN: &[&str] = &[
    "async-trait",
    "proc-macro2",
    "quote",
    "syn",
    "thiserror",
    "thiserror-impl",
    "unicode-ident",
];

const MAX_DEPENDENCIES_OF_THE_DOMAIN: usize = 3;

/// Package name to the names of its normal dependencies.
type Graph = BTreeMap<String, BTreeSet<String>>;

fn workspace() -> Graph {
    graph(&metadata())
}

fn metadata() -> Value {
    // Dependencies of other platforms may not be downloaded.
    let rustc = stdout(Command::new("rustc").arg("-vV"));
    let host = rustc
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .expect("a host");
    let metadata = stdout(
        Command::new(env!("CARGO"))
            .args([
                "metadata",
                "--format-version",
                "1",
                "--locked",
                "--offline",
                "--all-features",
            ])
            .args(["--filter-platform", host])
            .current_dir(env!("CARGO_MANIFEST_DIR")),
    );
    serde_json::from_str(&metadata).expect("cargo prints JSON")
}

fn stdout(command: &mut Command) -> String {
    let output = command.output().expect("the command runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("text")
}

fn graph(metadata: &Value) -> Graph {
    let packages = metadata["packages"].as_array().expect("packages");
    let name_of: BTreeMap<&str, &str> = packages
        .iter()
        .map(|p| {
            (
                p["id"].as_str().expect("an id"),
                p["name"].as_str().expect("a name"),
            )
        })
        .collect();
    let nodes = metadata["resolve"]["nodes"].as_array().expect("nodes");
    let mut graph = Graph::new();
    for node in nodes {
        let normal = node["deps"].as_array().expect("deps").iter().filter(|dep| {
            dep["dep_kinds"]
                .as_array()
                .expect("kinds")
                .iter()
                .any(|kind| kind["kind"].is_null())
        });
        let names = normal.map(|dep| name_of[dep["pkg"].as_str().expect("an id")].to_owned());
        graph
            .entry(name_of[node["id"].as_str().expect("an id")].to_owned())
            .or_default()
            .extend(names);
    }
    graph
}

/// Descriptions of all dependencies that are not allowed.
fn violations(graph: &Graph) -> Vec<String> {
    let mut found = Vec::new();
    for (package, dependencies) in graph
        .iter()
        .filter(|(name, _)| name.starts_with("keywright"))
    {
        let Some((_, allowed)) = ALLOWED_DEPENDENCIES
            .iter()
            .find(|(name, _)| name == package)
        else {
            found.push(format!("{package} is missing in ALLOWED_DEPENDENCIES"));
            continue;
        };
        let ours = dependencies.iter().filter(|d| d.starts_with("keywright"));
        for dependency in ours.filter(|d| !allowed.contains(&d.as_str())) {
            found.push(format!("{package} must not depend on {dependency}"));
        }
    }
    for crate_name in reach(graph, "keywright-domain") {
        if !CRATES_OF_THE_DOMAIN.contains(&crate_name.as_str()) {
            found.push(format!("keywright-domain must not reach {crate_name}"));
        }
    }
    let direct = graph.get("keywright-domain").map_or(0, BTreeSet::len);
    if direct > MAX_DEPENDENCIES_OF_THE_DOMAIN {
        found.push(format!("keywright-domain has {direct} dependencies"));
    }
    found
}

fn reach(graph: &Graph, from: &str) -> BTreeSet<String> {
    let (mut seen, mut waiting) = (BTreeSet::new(), vec![from.to_owned()]);
    while let Some(package) = waiting.pop() {
        for dependency in graph.get(&package).into_iter().flatten() {
            if seen.insert(dependency.clone()) {
                waiting.push(dependency.clone());
            }
        }
    }
    seen
}

#[test]
fn packages_depend_only_on_allowed_packages() {
    let graph = workspace();
    assert!(
        graph.contains_key("keywright-domain"),
        "the workspace was read"
    );
    assert_eq!(violations(&graph), Vec::<String>::new());
}

/// What readers of the documents have looked for and not found, or found to be wrong.
const REQUIRED_PHRASES: &[(&str, &[&str])] = &[
    (
        "docs/deploying.md",
        &["`pool_mode=session`", "--keep-old-for 1h", "before SIGKILL"],
    ),
    (
        "docs/operating.md",
        &["`request` + 2 s (12 s)", "`max()` over replicas"],
    ),
    (
        "docs/firmware.md",
        &[
            "## A lock without a reliable clock",
            "`SlotOccupied`",
            "`DuplicateKey`",
            "must arrive as `null`",
            "## Loss of power",
            "Several answers can share one update",
        ],
    ),
];

#[test]
fn documents_have_what_readers_did_not_find() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (document, phrases) in REQUIRED_PHRASES {
        let text = std::fs::read_to_string(root.join(document)).expect("a document");
        for phrase in *phrases {
            assert!(text.contains(phrase), "{document}: {phrase}");
        }
    }
}

/// The version of the compiler that each package states, as numbers. Of several versions of a package, the highest.
fn compilers(metadata: &Value) -> BTreeMap<&str, [u64; 3]> {
    let mut compilers = BTreeMap::new();
    for package in metadata["packages"].as_array().expect("packages") {
        let Some(stated) = package["rust_version"].as_str() else {
            continue;
        };
        let mut numbers = [0; 3];
        for (number, text) in numbers.iter_mut().zip(stated.split('.')) {
            *number = text.parse().expect("a number");
        }
        let compiler = compilers.entry(package["name"].as_str().expect("a name"));
        let compiler = compiler.or_insert(numbers);
        *compiler = numbers.max(*compiler);
    }
    compilers
}

#[test]
fn no_dependency_needs_a_newer_compiler_than_its_package_states() {
    let metadata = metadata();
    let (graph, compilers) = (graph(&metadata), compilers(&metadata));
    for package in graph.keys().filter(|name| name.starts_with("keywright")) {
        let stated = compilers.get(package.as_str());
        assert!(stated.is_some(), "{package} states no rust-version");
        for dependency in reach(&graph, package) {
            let needed = compilers.get(dependency.as_str());
            assert!(
                needed <= stated,
                "{package} states {stated:?}, and its dependency {dependency} needs {needed:?}"
            );
        }
    }
}

#[test]
fn a_forbidden_dependency_is_detected() {
    let mut graph = workspace();
    graph
        .entry("keywright-domain".into())
        .or_default()
        .insert("keywright-adapters".into());
    assert!(
        violations(&graph)
            .iter()
            .any(|v| v.contains("must not depend on keywright-adapters"))
    );
}

#[test]
fn an_indirect_dependency_of_the_domain_is_detected() {
    let mut graph = workspace();
    graph
        .entry("thiserror".into())
        .or_default()
        .insert("tokio".into());
    let found = violations(&graph);
    let expected = "keywright-domain must not reach tokio".to_owned();
    assert!(found.contains(&expected), "{found:?}");
}

/// The dependency tree of the program with these features.
fn dependency_tree(features: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--package",
            "keywright",
            "--edges",
            "normal",
            "--prefix",
            "none",
        ])
        .args(["--offline", "--locked", "--no-default-features"])
        .args(features)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn libraries_of_disabled_features_are_not_linked() {
    let has = |tree: &str, name: &str| tree.lines().any(|line| line.starts_with(name));
    let bare = dependency_tree(&[]);
    assert!(has(&bare, "hyper v") && has(&bare, "keywright-adapters v"));
    for name in [
        "aws-config",
        "aws-sdk",
        "aws-smithy",
        "rumqttc",
        "keywright-mqtt",
        "tokio-postgres",
        "rustls",
    ] {
        assert!(!has(&bare, name), "{name} is linked without its feature");
    }
    let both = dependency_tree(&["--features", "default"]);
    for name in ["aws-sdk-iotdataplane v", "rumqttc v"] {
        assert!(has(&both, name), "{name} is linked by default");
    }
}

/// Crates with known advisories, the first fixed version if there is one, and the advisories.
const ADVISORIES: &[(&str, Option<[u64; 3]>, &str)] = &[
    (
        "rustls-webpki",
        Some([0, 103, 13]),
        "RUSTSEC-2026-0049, RUSTSEC-2026-0098, RUSTSEC-2026-0099, RUSTSEC-2026-0104",
    ),
    ("rustls-pemfile", None, "RUSTSEC-2025-0134: unmaintained"),
];

/// The advisory for this version of a crate.
fn advisory(name: &str, version: &str) -> Option<&'static str> {
    // Ignores pre-release and build numbers.
    let numbers: Vec<u64> = version
        .split(['.', '-', '+'])
        .map_while(|number| number.parse().ok())
        .collect();
    let (_, patched, text) = ADVISORIES.iter().find(|(known, ..)| *known == name)?;
    let fixed = patched.is_some_and(|patched| numbers.as_slice() >= patched.as_slice());
    (!fixed).then_some(*text)
}

/// Names and versions of the packages in `Cargo.lock`.
fn locked(lock: &str) -> Vec<(String, String)> {
    let value = |package: &str, key: &str| {
        let line = package.lines().find_map(|line| line.strip_prefix(key));
        let value = line.and_then(|value| value.strip_prefix(" = "));
        value.map(|value| value.trim_matches('"').to_owned())
    };
    lock.split("[[package]]")
        .skip(1)
        .map(|package| {
            let name = value(package, "name").expect("a package has a name");
            (name, value(package, "version").expect("and a version"))
        })
        .collect()
}

#[test]
fn no_locked_crate_has_a_known_advisory() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock");
    let packages = locked(&std::fs::read_to_string(path).expect("the lock file"));
    assert!(packages.iter().any(|(name, _)| name == "rustls-webpki"));
    for (name, version) in &packages {
        let advisory = advisory(name, version);
        assert_eq!(advisory, None, "{name} {version} is in Cargo.lock");
    }
    assert!(advisory("rustls-webpki", "0.102.8").is_some());
    assert!(advisory("rustls-webpki", "0.103.12").is_some());
    assert!(advisory("rustls-webpki", "0.103.13").is_none());
    assert!(advisory("rustls-pemfile", "2.2.0").is_some());
}

/// The roots of the crates whose modules are checked.
const CRATES: &[&str] = &[
    "adapters/src/lib.rs",
    "app/src/lib.rs",
    "benches/src/bin/ratios/main.rs",
    "domain/src/lib.rs",
    "testkit/src/lib.rs",
    "tests/e2e/main.rs",
    "tests/src/lib.rs",
    "loadtest/src/lib.rs",
    "mqtt/src/lib.rs",
    "sandbox/src/lib.rs",
    "shadow/src/lib.rs",
    "sqlite/src/lib.rs",
];

/// Modules of the adapters that the HTTP layer may name: codecs, and the receiver of reports over HTTP.
const ADAPTERS_OF_HTTP: &[&str] = &["json", "reports"];

/// The modules of `keywright-adapters` that a source names.
fn named_adapters(source: &str) -> Vec<&str> {
    let after = source.split("keywright_adapters::").skip(1);
    let end = |text: &str| text.find(|c: char| !c.is_alphanumeric() && c != '_');
    after
        .map(|text| &text[..end(text).unwrap_or(text.len())])
        .collect()
}

#[test]
fn the_http_layer_names_no_adapter_of_a_port() {
    let http = concat!(env!("CARGO_MANIFEST_DIR"), "/../app/src/http");
    let mut read = 0;
    for file in std::fs::read_dir(http).expect("a folder") {
        let path = file.expect("a file").path();
        let Ok(source) = std::fs::read_to_string(&path) else {
            continue;
        };
        let mut named = named_adapters(&source).into_iter();
        let other = named.find(|module| !ADAPTERS_OF_HTTP.contains(module));
        assert_eq!(other, None, "{}", path.display());
        read += 1;
    }
    assert!(read > 5, "the folder was read");
    let source = "use keywright_adapters::lock_repo::SqliteLockRepo;";
    assert_eq!(named_adapters(source), ["lock_repo"]);
}

#[test]
fn no_modules_depend_on_each_other_in_a_circle() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    for name in CRATES {
        let dependencies = module_graph::dependencies(&root.join(name));
        assert!(!dependencies.is_empty(), "{name} was read");
        let circles = module_graph::circles(&dependencies);
        assert!(circles.is_empty(), "circles in {name}: {circles:#?}");
    }
}

fn source_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let found = paths.flat_map(|path| match path.is_dir() {
        // Each file there is a crate of its own.
        true if path.ends_with("bin") => Vec::new(),
        true => source_files(&path),
        false => vec![path],
    });
    let is_source = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "rs");
    found.filter(is_source).collect()
}

/// A file that a rename leaves behind belongs to no module.
#[test]
fn every_source_file_belongs_to_a_module() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    for name in CRATES {
        let crate_root = root.join(name);
        let files = module_graph::files(&crate_root);
        let folder = crate_root.parent().expect("a folder");
        let has_other_root =
            |path: &PathBuf| path == &folder.join("main.rs") && path != &crate_root;
        for path in source_files(folder) {
            assert!(
                files.contains(&path) || has_other_root(&path),
                "no module of {name} is {}",
                path.display()
            );
        }
    }
}

/// Subjects that must have a row in the tables of ARCHITECTURE.md.
const SUBJECTS: &[&str] = &[
    "who may write to a lock",
    "when a write supersedes another",
    "what a 502 promises",
    "how a report is settled: early",
    "rule 1",
    "rule 2",
    "rule 3",
    "rule 4",
    "rule 5",
    "rule 6",
    "step 0",
    "step 1",
    "step 2",
    "step 3",
    "step 4",
    "step 5",
    "step 6",
    "step 7",
    "step 8",
    "I1",
    "I2",
    "I3",
    "I4",
    "I5",
    "I6",
];

/// All files and items in the tables of ARCHITECTURE.md exist.
#[test]
fn places_in_architecture_md_exist() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let page = std::fs::read_to_string(format!("{root}/ARCHITECTURE.md")).expect("the page");
    let rows: Vec<&str> = page
        .lines()
        .filter(|l| l.starts_with("| ") && l.contains(".rs`"))
        .collect();
    for subject in SUBJECTS {
        let has_row = |row: &&&str| row.split('|').nth(1).is_some_and(|s| s.contains(subject));
        let row = rows.iter().find(has_row);
        assert!(row.is_some(), "the table has no row for `{subject}`");
    }
    for row in rows {
        let quoted: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
        let file = quoted.iter().find(|q| q.ends_with(".rs")).expect("a file");
        let source = std::fs::read_to_string(format!("{root}/{file}"))
            .unwrap_or_else(|e| panic!("{file}, named in `{row}`: {e}"));
        let items = quoted.iter().skip_while(|q| *q != file).skip(1);
        for item in items {
            assert!(
                source.contains(item),
                "{file} has no `{item}`, named in `{row}`"
            );
        }
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let files = markdown::files(root);
    assert!(files.iter().any(|file| file.ends_with("README.md")));
    let broken: Vec<String> = files
        .iter()
        .flat_map(|f| markdown::broken_links(f))
        .collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn finds_broken_links() {
    let folder = tempfile::tempdir().expect("a folder");
    let page = folder.path().join("page.md");
    let other = folder.path().join("other.md");
    std::fs::write(&other, "# One `two`, three\n## Twin\n## Twin\n").expect("written");
    let good = "[a](other.md), [b](other.md#one-two-three), [c](other.md#twin-1), [d](#here), [e](https://x.example/y)";
    let text = format!("# Here\n{good}\n`[code](no.md)`\n```\n[block](no.md)\n```\n");
    std::fs::write(&page, &text).expect("written");
    assert_eq!(markdown::broken_links(&page), Vec::<String>::new());
    let bad = "[a](no.md), [b](other.md#four), [c](#there)\n[d]: gone.md\n";
    std::fs::write(&page, text + bad).expect("written");
    assert_eq!(markdown::broken_links(&page).len(), 4);
}
