//! The links between the Markdown files of a folder.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// All Markdown files below `folder`, without hidden folders and build results.
///
/// # Panics
/// The folder cannot be read.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the folder is readable") {
        let path = entry.expect("the entry is readable").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') || matches!(&*name, "target" | "node_modules") {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path));
        } else if is_markdown(&path) {
            found.push(path);
        }
    }
    found
}

/// The links of a Markdown file that lead to no file or to no heading.
///
/// # Panics
/// The file cannot be read.
pub fn broken_links(file: &Path) -> Vec<String> {
    let folder = file.parent().expect("a file is in a folder");
    let mut broken = Vec::new();
    for link in links(&text(file)) {
        // Links to other sites are not followed.
        if link.contains("://") || link.starts_with("mailto:") {
            continue;
        }
        let (path, anchor) = match link.split_once('#') {
            Some((path, anchor)) => (path, Some(anchor)),
            None => (link.as_str(), None),
        };
        let target = match path {
            "" => file.to_owned(),
            path => folder.join(path),
        };
        let is_heading = |anchor| !is_markdown(&target) || anchors(&text(&target)).contains(anchor);
        if !target.exists() || !anchor.is_none_or(is_heading) {
            broken.push(format!("{}: {link}", file.display()));
        }
    }
    broken
}

fn is_markdown(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "md")
}

fn text(file: &Path) -> String {
    std::fs::read_to_string(file)
        .unwrap_or_else(|e| panic!("{} cannot be read: {e}", file.display()))
}

/// The lines outside of fenced code blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// The targets of inline links, and of link definitions.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in prose(text) {
        let line: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        let inline = line.split("](").skip(1);
        let targets = inline.filter_map(|rest| rest.split_once(')').map(|(target, _)| target));
        let definition = line.strip_prefix('[').and_then(|l| l.split_once("]: "));
        let definition = definition.map(|(_, target)| target);
        let target = |target: &str| target.split_whitespace().next().map(str::to_owned);
        found.extend(targets.chain(definition).filter_map(target));
    }
    found
}

/// The anchors of the headings, as GitHub makes them, and those of `<a id="…">`.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for line in prose(text) {
        let ids = line.split("<a id=\"").skip(1);
        anchors.extend(ids.filter_map(|rest| rest.split_once('"').map(|(id, _)| id.to_owned())));
        let heading = line.trim_start_matches('#');
        if heading.len() == line.len() || !heading.starts_with(' ') {
            continue;
        }
        let slug = slug(heading.trim());
        let twin = (1..).map(|n| format!("{slug}-{n}"));
        let mut candidates = std::iter::once(slug.clone()).chain(twin);
        let free = candidates.find(|anchor| !anchors.contains(anchor));
        anchors.extend(free);
    }
    anchors
}

fn slug(heading: &str) -> String {
    // Of a link, only the text counts.
    let mut words = String::new();
    let mut rest = heading;
    while let Some((before, after)) = rest.split_once("](") {
        words.push_str(before);
        rest = after.split_once(')').map_or("", |(_, after)| after);
    }
    words.push_str(rest);
    let kept = words
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c })
        .collect::<String>()
        .to_lowercase()
}
