//! Every promise of a port in `domain/src/ports/` has a number, and the name of its test case in the testkit.

use std::path::Path;

/// The files of the ports, and the files of the testkit with the lists of their cases.
const CONTRACTS: &[(&[&str], &[&str])] = &[
    (&["lock_repo.rs", "lock_history.rs"], &["lock_repo/mod.rs"]),
    (&["shadow.rs"], &["shadow_port.rs", "faulty_transport.rs"]),
    (&["auth.rs"], &["auth_port.rs"]),
    (&["reports.rs"], &["device_reports.rs"]),
    (&["time.rs"], &["time_and_ids.rs"]),
    (&["webhooks.rs"], &["webhook_store.rs"]),
];

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The text of the documentation in a source file, a line for each paragraph and each item of a list.
fn paragraphs(source: &str) -> Vec<String> {
    let mut paragraphs = vec![String::new()];
    for line in source.lines() {
        let text = line.trim_start().strip_prefix("///").map(str::trim);
        let starts_anew = text.is_none_or(|text| text.is_empty() || is_item(text));
        if starts_anew {
            paragraphs.push(String::new());
        }
        if let (Some(last), Some(text)) = (paragraphs.last_mut(), text) {
            last.push_str(text);
            last.push(' ');
        }
    }
    paragraphs
}

fn is_item(text: &str) -> bool {
    text.split_once(". ")
        .is_some_and(|(number, _)| number.parse::<u32>().is_ok())
}

/// The number and the name of the case of a promise.
fn promise(paragraph: &str) -> Option<(u32, &str)> {
    let (number, rest) = paragraph.split_once(". `")?;
    let (case, _) = rest.split_once("`: ")?;
    Some((number.parse().ok()?, case))
}

/// The promises of a source file. Panics if a sentence with MUST is not a promise, or a promise has not one MUST.
fn promises(file: &str, source: &str) -> Vec<(u32, String)> {
    let mut promises = Vec::new();
    for paragraph in paragraphs(source) {
        match (promise(&paragraph), paragraph.matches("MUST").count()) {
            (Some((number, case)), 1) => promises.push((number, case.to_owned())),
            (None, 0) => {}
            _ => panic!("{file}: this must be a promise with one MUST: {paragraph}"),
        }
    }
    promises
}

/// The names in the list of cases of a macro of the testkit.
fn cases(source: &str) -> Vec<String> {
    let (_, list) = source.split_once("$fixture:\n").expect("a list of cases");
    let (list, _) = list.split_once('}').expect("the end of the list");
    let name = |case: &str| {
        let case = case.trim();
        case.strip_prefix("durable ").unwrap_or(case).to_owned()
    };
    list.split(',').map(name).collect()
}

#[test]
fn each_promise_of_a_port_has_a_number_and_a_case() {
    let mut files: Vec<String> = ["mod.rs".to_owned()].into();
    for (ports, kits) in CONTRACTS {
        let mut promised = Vec::new();
        for file in *ports {
            files.push((*file).to_owned());
            promised.extend(promises(file, &read(&format!("domain/src/ports/{file}"))));
        }
        // The numbers of each trait begin at 1.
        let mut last = 0;
        for (number, case) in &promised {
            assert!(
                [1, last + 1].contains(number),
                "the number of {case} in {ports:?}"
            );
            last = *number;
        }
        let promised: Vec<String> = promised.into_iter().map(|(_, case)| case).collect();
        let cases: Vec<String> = kits
            .iter()
            .flat_map(|kit| cases(&read(&format!("testkit/src/{kit}"))))
            .collect();
        assert_eq!(promised, cases, "{ports:?} and {kits:?}");
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../domain/src/ports");
    let found = std::fs::read_dir(folder).expect("the folder of the ports");
    let found = found.map(|file| {
        file.expect("a file")
            .file_name()
            .to_string_lossy()
            .into_owned()
    });
    let mut found: Vec<String> = found.collect();
    found.sort_unstable();
    files.sort_unstable();
    assert_eq!(found, files, "each file of a port is listed in CONTRACTS");
}

#[test]
fn malformed_promises_are_detected() {
    let source = "/// 1. `a_case`: it MUST hold.\n/// 2. `another`: it\n///    MUST hold, too.\n";
    let expected = [(1, "a_case".to_owned()), (2, "another".to_owned())];
    assert_eq!(promises("a.rs", source), expected);
    for wrong in [
        "/// It MUST hold.",
        "/// 1. `a_case`: it MUST hold, and MUST last.",
        "/// 1. `a_case`: it holds.",
    ] {
        let found = std::panic::catch_unwind(|| promises("a.rs", wrong));
        assert!(found.is_err(), "{wrong}");
    }
}
